"""Webhooks are signed, so that a receiver knows who called: Ed25519 (RFC 8032), published as a JWK
set (RFC 8037).

The signature is over `<seconds since 1970>.<body>`, as Durable Streams 7.1 has it. The package
`cryptography` is needed, and imported when the first key is made.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import msgspec

from penstock.core.errors import WebhooksOff

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED_BYTES = 32


class SigningKey:
    """A key made of its 32 secret bytes. Raises WebhooksOff without the package it needs."""

    __slots__ = ("_key", "_x", "kid")

    def __init__(self, seed: bytes) -> None:
        key = _private_key(seed)
        self._key = key
        self._x = _base64url(key.public_key().public_bytes_raw())
        # The thumbprint of RFC 7638: the required members in the order of their names.
        thumbprint = msgspec.json.encode({"crv": "Ed25519", "kty": "OKP", "x": self._x})
        self.kid = "ds_" + _base64url(hashlib.sha256(thumbprint).digest())

    @property
    def jwk(self) -> dict[str, str]:
        """The public half."""
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": self._x,
            "kid": self.kid,
            "use": "sig",
            "alg": "EdDSA",
        }

    def sign(self, body: bytes, at_s: int) -> str:
        """Write the header `Webhook-Signature` of a body sent at that second."""
        signature = self._key.sign(b"%d." % at_s + body)
        return f"t={at_s},kid={self.kid},ed25519={_base64url(signature)}"


def _private_key(seed: bytes) -> Ed25519PrivateKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise WebhooksOff("it has not the package 'cryptography' to sign them") from None
    return Ed25519PrivateKey.from_private_bytes(seed)


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

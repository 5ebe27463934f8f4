"""The tokens that answer a wake: whoever has one was given that wake by this server.

A token names its generation and wake in the clear and carries a MAC over both and the
subscription's id. It has no time of its own: it is worth as much as its wake's lease.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from penstock.core.errors import WakeTokenInvalid

KEY_BYTES = 32


def make_token(key: bytes, id: str, generation: int, wake_id: str) -> str:
    """Write the token of one wake."""
    return f"{generation}.{wake_id}.{_mac(key, id, generation, wake_id)}"


def read_token(key: bytes, id: str, token: str) -> tuple[int, str]:
    """Give the generation and wake of a token made for this subscription.

    Raises WakeTokenInvalid.
    """
    generation, _, rest = token.partition(".")
    wake_id, _, mac = rest.partition(".")
    # int() takes signs, spaces and underscores, and refuses thousands of digits.
    if not (token.isascii() and generation.isdecimal() and len(generation) <= 20):
        raise WakeTokenInvalid
    if not hmac.compare_digest(mac, _mac(key, id, int(generation), wake_id)):
        raise WakeTokenInvalid
    return int(generation), wake_id


def _mac(key: bytes, id: str, generation: int, wake_id: str) -> str:
    # Lengths first, so that no two triples are the same bytes.
    text = f"{len(id)}:{id}:{generation}:{wake_id}".encode("utf-8", "surrogatepass")
    digest = hmac.new(key, text, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

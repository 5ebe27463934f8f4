"""AWS Signature Version 4: the headers that prove who asks.

A pure function over what goes over the wire; time arrives as an argument. The rules are AWS's ("AWS
Signature Version 4 for API requests", IAM user guide). The path is encoded once more before it is
signed, as every service but S3 wants it: `anthropic.claude%3A0` in the request is signed as
`anthropic.claude%253A0`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, unquote

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_UNRESERVED: Final = "-._~"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKey:
    """Who signs, and for what. `session_token` comes with a temporary key."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str
    service: str
    session_token: str = field(default="", repr=False)


def sign(
    key: AwsKey,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
) -> dict[str, str]:
    """The headers to send beside `headers`, all of which are signed; `Host` must be among them.

    `path` and `query` are as they go over the wire, `now` is the time with its zone.
    """
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"X-Amz-Date": stamp}
    if key.session_token:
        added["X-Amz-Security-Token"] = key.session_token
    signed = {name.lower(): " ".join(value.split()) for name, value in {**headers, **added}.items()}
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        (
            method,
            quote(path or "/", safe=f"/{_UNRESERVED}"),
            _canonical_query(query),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{stamp[:8]}/{key.region}/{key.service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join((_ALGORITHM, stamp, scope, digest))
    signature = hmac.new(_signing_key(key, stamp[:8]), text.encode(), "sha256").hexdigest()
    credential = f"{key.access_key_id}/{scope}"
    added["Authorization"] = (
        f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    )
    return added


def _canonical_query(query: str) -> str:
    pairs: list[tuple[str, str]] = []
    for item in query.split("&") if query else ():
        name, _, value = item.partition("=")
        pairs.append((_encoded(name), _encoded(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encoded(text: str) -> str:
    return quote(unquote(text), safe=_UNRESERVED)


def _signing_key(key: AwsKey, day: str) -> bytes:
    made = b"AWS4" + key.secret_access_key.encode()
    for part in (day, key.region, key.service, "aws4_request"):
        made = hmac.new(made, part.encode(), "sha256").digest()
    return made

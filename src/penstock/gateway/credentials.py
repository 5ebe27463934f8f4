"""Where a request goes, and the headers that prove who asks.

The base address is what the vendors' own SDKs take, and the dialect's path is put behind it:

| dialect | base address |
|---|---|
| openai-chat, openai-responses, and their accents | `https://api.openai.com/v1`, with the version |
| azure | `https://NAME.openai.azure.com/openai/v1` |
| anthropic-messages | `https://api.anthropic.com`, without it |
| gemini | `https://generativelanguage.googleapis.com`, with or without `/v1beta` |
| bedrock | `https://bedrock-runtime.REGION.amazonaws.com` |
| cohere | `https://api.cohere.com` |
| ollama | `http://127.0.0.1:11434` |

The key goes where the dialect wants it; `headers` of the settings win
over all of it. Bedrock takes a key of its own as a bearer, or signs with an access key.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from yarl import URL

from penstock.gateway.config import UpstreamSettings
from penstock.gateway.sigv4 import AwsKey, sign
from penstock.llm.ask.written import Written

# What stands in the place of an Authorization, by dialect or accent.
_KEY_HEADERS: Final = {
    "azure": "api-key",
    "anthropic-messages": "x-api-key",
    "gemini": "x-goog-api-key",
}

# The version, where the SDK keeps it beside the base address and not in it.
_VERSIONS: Final = {"gemini": "/v1beta"}

# How long a body is, and what becomes of the connection, is not the settings' to say.
_FRAMING: Final = frozenset({"connection", "content-length", "transfer-encoding"})

_AWS_HOST: Final = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com")


def url_of(settings: UpstreamSettings, written: Written) -> URL:
    """The address of a request: the base, and the dialect's path behind it, encoded as written."""
    base = URL(settings.base_url)
    front = base.raw_path.rstrip("/") or _VERSIONS.get(settings.dialect, "")
    path, _, query = written.path.partition("?")
    queries = "&".join(part for part in (base.raw_query_string, query) if part)
    address = f"{base.scheme}://{base.host_port_subcomponent}{front}{path}"
    return URL(f"{address}?{queries}" if queries else address, encoded=True)


def headers_of(
    settings: UpstreamSettings, written: Written, url: URL, body: bytes, now: datetime
) -> dict[str, str]:
    """All headers of a request but its length. `now` is the time, for what is signed."""
    host = url.host_port_subcomponent or ""
    headers = {"Host": host, "User-Agent": "penstock", **dict(written.headers)}
    if settings.dialect == "bedrock" and settings.access_key_id and not settings.api_key:
        headers |= _signed(settings, written, url, headers, body, now)
    else:
        headers |= _key(settings)
    return _replaced(headers, settings.headers)


def _key(settings: UpstreamSettings) -> dict[str, str]:
    key, name = settings.api_key, _KEY_HEADERS.get(settings.dialect)
    if key:
        return {name: key} if name else {"Authorization": f"Bearer {key}"}
    base = URL(settings.base_url)
    if base.user is None:
        return {}
    # A proxy's own password, in the address.
    pair = f"{base.user}:{base.password or ''}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _signed(
    settings: UpstreamSettings,
    written: Written,
    url: URL,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
) -> dict[str, str]:
    found = _AWS_HOST.fullmatch(url.host or "")
    key = AwsKey(
        access_key_id=settings.access_key_id,
        secret_access_key=settings.secret_access_key,
        region=settings.region or (found[1] if found else "us-east-1"),
        service="bedrock",
        session_token=settings.session_token,
    )
    # Only what no proxy on the way changes.
    signed = {name: headers[name] for name in ("Host", "Content-Type") if name in headers}
    return sign(key, written.method, url.raw_path, url.raw_query_string, signed, body, now)


def _replaced(headers: dict[str, str], winning: Mapping[str, str]) -> dict[str, str]:
    """`headers` with those of `winning` in the place of their namesakes, in any case."""
    winning = {n: v for n, v in winning.items() if n.lower() not in _FRAMING}
    names = {name.lower() for name in winning}
    return {n: v for n, v in headers.items() if n.lower() not in names} | winning

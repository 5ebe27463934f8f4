"""What a server's answers say beside events: a refusal's code, when to come back, how it ended.

Read leniently: the server may be anybody's, and a field that is not what it should be counts as
absent. Reading and publishing share it; when to try again is not decided here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from penstock.core.errors import Refused, SettingInvalid

ERROR_BYTES: Final = 64 * 1024
"""What is read of an error's body: more is a page for people."""

MAX_RETRY_AFTER_S: Final = 86_400.0
"""A day. A server that says more is obeyed so far: nobody waits for a typing mistake of it."""

_UNSENDABLE: Final = re.compile("[\\x00-\\x08\\x0a-\\x1f\\x7f\\ud800-\\udfff]")

_decode_fields = msgspec.json.Decoder(dict[str, Any]).decode


def refused(url: str, status: int, body: bytes) -> Refused:
    """Make the error of an answer that says no, with the server's own code and sentence."""
    try:
        problem = _decode_fields(body)
    except msgspec.DecodeError:
        problem = {}
    code, detail = problem.get("code"), problem.get("detail")
    return Refused(
        url,
        status,
        code if isinstance(code, str) else "",
        detail if isinstance(detail, str) else "",
    )


def end_reason(data: str) -> str | None:
    """The reason in an `end` event, None where there is none."""
    try:
        reason = _decode_fields(data).get("reason")
    except msgspec.DecodeError:
        return None
    return reason if isinstance(reason, str) else None


def retry_after_s(text: str, wall_now_s: float) -> float | None:
    """`Retry-After` (RFC 9110 10.2.3) in seconds from now: a number or a date; None for neither.

    A fraction is no valid number there, and some servers send one.
    """
    text = text.strip()
    if text.isascii() and text.replace(".", "", 1).isdecimal():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    # "GMT" is the only zone HTTP knows; a date without one comes back without one.
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    left_s = (moment - datetime.fromtimestamp(wall_now_s, UTC)).total_seconds()
    return min(max(0.0, left_s), MAX_RETRY_AFTER_S)


async def error_body(response: aiohttp.ClientResponse, limit: asyncio.Timeout) -> bytes:
    """Read as much of an error's body as comes in time: its status says enough without."""
    body = b""
    with suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with limit:
            while len(body) < ERROR_BYTES and (data := await response.content.readany()):
                body += data
    return body


def can_be_sent(text: str) -> bool:
    """Whether a header can carry this: no control characters (RFC 9110 5.5) and no half ones."""
    return _UNSENDABLE.search(text) is None


def check_headers(headers: Mapping[str, str], last_event_id: str) -> None:
    """Raise SettingInvalid for what no header can carry, before a line end becomes a header."""
    if not can_be_sent(last_event_id):
        raise SettingInvalid("last_event_id", "has control characters; use one the server gave")
    for name, value in headers.items():
        if not (can_be_sent(name) and can_be_sent(value)):
            raise SettingInvalid("headers", f"has control characters in {name[:64]!r}; remove them")


def check_address(url: str) -> None:
    """Raise SettingInvalid for what no number of tries makes an address."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # raises where it is none
    except ValueError:
        is_address = False
    if not is_address:
        raise SettingInvalid("url", f"is {url[:200]!r}; write http://host/path")

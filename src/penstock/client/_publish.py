"""Publishing from a program: one append over HTTP, once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import aiohttp

from penstock.client._answers import check_address, check_headers, error_body, refused
from penstock.core.errors import Unreachable
from penstock.core.record import checked

CONNECT_S: Final = 10.0
"""Time for a connection, TLS included."""
ANSWER_S: Final = 30.0
"""Time for all of it: a body of the largest size on a slow line, and its commit."""


async def publish(
    url: str,
    body: bytes,
    *,
    content_type: str = "application/json",
    type: str = "",
    key: str = "",
    create: bool = False,
    close: bool = False,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Append to a stream over HTTP; returns the offset after what was appended.

    A JSON array is a batch. `create` makes the stream first where it is not there; `close` ends it
    with this. Not repeated when the answer is lost: the append may have been taken. Raises
    Refused, Unreachable, SettingInvalid, RecordTypeReserved, RecordFieldMalformed.
    """
    check_address(url)
    common = {"Content-Type": content_type, **(headers or {})}
    check_headers(common, "")
    checked(b"", type, key, 0)  # before a line end in them could become a header of its own
    said = {"Record-Type": type, "Record-Key": key, "Stream-Closed": "true" if close else ""}
    sent = {**common, **{name: value for name, value in said.items() if value}}
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, connect=CONNECT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            if create:
                await _send(session, "PUT", url, common, b"")
            return await _send(session, "POST", url, sent, body)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unreachable(url, str(error) or error.__class__.__name__) from error


async def _send(
    session: aiohttp.ClientSession, method: str, url: str, headers: Mapping[str, str], body: bytes
) -> str:
    # A redirect is a refusal: followed, most of them turn a POST into a GET, which appends nothing.
    async with session.request(
        method, url, data=body, headers=headers, allow_redirects=False
    ) as response:
        if response.status not in (200, 201, 204):
            problem = await error_body(response, asyncio.timeout(ANSWER_S))
            raise refused(url, response.status, problem)
        return response.headers.get("Stream-Next-Offset", "")

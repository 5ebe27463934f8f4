"""Reading lines over HTTP: what a server exports, once, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import aiohttp

from penstock.client._answers import check_address, error_body, refused
from penstock.core.errors import EventTooLarge, Unreachable

CONNECT_S: Final = 10.0
"""Time for a connection, TLS included."""
SILENCE_S: Final = 30.0
"""Time between two pieces: a store that has to look for them."""
MAX_LINE_BYTES: Final = 1024 * 1024


async def read_lines(url: str) -> AsyncGenerator[bytes]:
    """Give the lines of what a server answers, each without its end.

    Raises Refused, Unreachable, SettingInvalid, and EventTooLarge for a line above a megabyte. What
    breaks off is Unreachable too.
    """
    check_address(url)
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENCE_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                problem = await error_body(response, asyncio.timeout(SILENCE_S))
                raise refused(url, response.status, problem)
            async for line in _split(response.content):
                yield line
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unreachable(url, str(error) or error.__class__.__name__) from error


async def _split(content: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise EventTooLarge(MAX_LINE_BYTES)
    if rest:
        yield rest

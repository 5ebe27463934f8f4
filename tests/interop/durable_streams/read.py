"""Reads a stream with the published Python client, and prints it as read.mjs does.

This client does not know that streams end: with long-poll it asks for ever, and is to be killed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any, Literal

from durable_streams import AsyncDurableStream

MODES: dict[str, Literal["json", "text"]] = {"application/json": "json", "text/plain": "text"}
KINDS = {"json": "items", "text": "text", "bytes": "base64"}


async def main(url: str, live: Any, offset: str) -> None:
    async with await AsyncDurableStream.connect(url) as stream:
        kind = (stream.content_type or "").partition(";")[0]
        mode = MODES.get(kind, "bytes")
        async with stream.stream(offset=offset, live=False if live == "none" else live) as response:
            async for event in response.iter_events(mode=mode):
                payload = base64.b64encode(event.data).decode() if mode == "bytes" else event.data
                print(json.dumps({KINDS[mode]: payload, "offset": event.next_offset}), flush=True)


asyncio.run(main(*sys.argv[1:]))

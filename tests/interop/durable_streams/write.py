"""Writes a stream with the published Python client, as its standard input says: see write.mjs.

This client knows neither producers nor closing.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

from durable_streams import AsyncDurableStream


async def main(url: str, content_type: str) -> None:
    def body(value: Any) -> Any:
        return value if is_plain else base64.b64decode(value)

    is_plain = content_type == "application/json" or content_type.startswith("text/")
    async with await AsyncDurableStream.create(url, content_type=content_type) as stream:
        print(json.dumps({"offset": (await stream.head()).offset}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            values = json.loads(line)["append"]
            await asyncio.gather(*(stream.append(body(value)) for value in values))
            print(json.dumps({"offset": (await stream.head()).offset}), flush=True)


asyncio.run(main(*sys.argv[1:]))

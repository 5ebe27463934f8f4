"""Publishes lines of standard input to a stream, one record a line, and ends the stream with them.

`python publish.py http://127.0.0.1:4437/v1/stream/lines < some.txt`, against `penstock serve`.
"""

from __future__ import annotations

import asyncio
import json
import sys

from penstock.client import publish


async def main(url: str) -> None:
    """Append each line as a JSON string; the last request closes the stream."""
    for line in sys.stdin:
        offset = await publish(url, json.dumps(line.rstrip("\n")).encode(), create=True)
        print(offset, flush=True)
    await publish(url, b'"that was all"', type="note", create=True, close=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

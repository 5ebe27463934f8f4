"""Reads a stream until it ends, across reconnects, and says how it ended.

`python tail.py http://127.0.0.1:4437/v1/stream/lines [last event id]`, against `penstock serve`.
"""

from __future__ import annotations

import asyncio
import sys

from penstock import connect


async def main(url: str, last_event_id: str = "") -> int:
    """Print each event with its id; 0 when the stream is complete."""
    async with connect(url, last_event_id=last_event_id) as events:
        async for event in events:
            print(event.id, event.type, event.json(), flush=True)
    print("ended:", events.end_reason)
    return 0 if events.end_reason == "complete" else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))

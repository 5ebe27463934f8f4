"""The application that real servers load in tests: what `penstock serve` answers, and a bit more.

`/small/v1` is a second hub that takes two readers, `/quick/v1` a third with short heartbeats; they
are separate so that one process can show all three. `POST /test/…` does what only code inside the
process can do: end a stream for a given reason, make one with a retention, start a producer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qsl

from penstock import EndReason, Hub, Retention
from penstock.server.app import App, ServerApp
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.config import load_settings

settings = load_settings({})
hub = Hub(settings=settings)
small = Hub(max_readers=2)
quick = Hub(heartbeat_s=0.2)

Query = dict[str, str]


async def end(query: Query) -> None:
    """End a stream for a reason."""
    await (await hub.get(query["name"])).close(EndReason(query["reason"]))


async def create(query: Query) -> None:
    """Make a text stream that keeps so many records."""
    retention = Retention(max_records=int(query["keep"]))
    await hub.create(query["name"], content_type="text/plain", retention=retention)


async def start(query: Query) -> None:
    """Start a producer that yields one record a `gap_s`, and notes its end in the witness file."""
    await hub.start(query["name"], _count(query["name"], float(query.get("gap_s", "0.05"))))


async def _count(name: str, gap_s: float) -> AsyncIterator[dict[str, int]]:
    number = 0
    try:
        while True:
            number += 1
            yield {"n": number}
            await asyncio.sleep(gap_s)
    finally:
        if witness := os.environ.get("TEST_WITNESS"):
            with Path(witness).open("a", encoding="utf-8") as file:
                file.write(f"closed {name}\n")


VERBS: dict[str, Callable[[Query], Awaitable[None]]] = {
    "end": end,
    "create": create,
    "start": start,
}
MOUNTED = {"/small/v1": App(small), "/quick/v1": App(quick)}
served = ServerApp(hub)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Route what is the tests' own; the rest is the server's."""
    if scope["type"] == "lifespan":
        async with small, quick:
            await served(scope, receive, send)
        return
    path: str = scope.get("path", "")
    for prefix, mounted in MOUNTED.items():
        if path.startswith(prefix + "/"):
            root = scope.get("root_path", "") + prefix
            await mounted({**scope, "root_path": root}, receive, send)
            return
    verb = VERBS.get(path.removeprefix("/test/"))
    if scope["type"] != "http" or verb is None or scope["method"] != "POST":
        await served(scope, receive, send)
        return
    await verb(dict(parse_qsl(scope["query_string"].decode())))
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})

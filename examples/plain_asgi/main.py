"""One clock for everybody, without a framework: any ASGI server can run it.

`GET /` streams the ticks from where the reader left off; everything else is the hub's. Run it with
`uvicorn main:app`, and add `--http penstock.server.fastpath:Protocol` for the fast path.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

from penstock import Hub
from penstock.server.app import ServerApp

TICK_S = 0.5

hub = Hub(retain_records=100)  # whoever was away for longer is told of a gap
server = ServerApp(hub)  # /v1, /healthz, /readyz, /metrics, and the lifespan that runs the hub


async def ticks() -> AsyncGenerator[dict[str, float]]:
    """Give the time, for ever."""
    while True:
        yield {"time_s": time.time()}
        await asyncio.sleep(TICK_S)


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Stream the clock at `/`; the first reader starts it, the others join."""
    if scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET":
        stream = await hub.start("clock", ticks(), join=True, cancel_unread_after_s=60)
        await stream.response()(scope, receive, send)
    else:
        await server(scope, receive, send)

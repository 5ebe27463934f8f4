"""The application of the tests as somebody would run it under stock uvicorn: signals chained.

`hub.lifespan` is what a framework's application is given; a plain ASGI one calls it itself.
"""

from __future__ import annotations

from app_for_tests import app as served
from app_for_tests import hub

from penstock.server.asgi import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Run the hub with its signals under `lifespan`; the rest is the same application."""
    if scope["type"] != "lifespan":
        await served(scope, receive, send)
        return
    await receive()
    async with hub.lifespan():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})

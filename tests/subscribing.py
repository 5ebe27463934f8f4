"""A hub with subscriptions, in the test's own process: who follows, who is called, who claims.

`subscribing` gives a hub and its application, `Receiver` is a webhook that answers as told. Time is
real unless a test moves `clock` by hand and ticks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from inprocess import Called, call
from penstock.backends.interface import Backend, StreamConfig
from penstock.core.record import NewRecord
from penstock.server.app import ServerApp
from penstock.server.hub import Hub
from penstock.server.subscriptions.addresses import WebhookRules
from penstock.server.subscriptions.service import Subscriptions

LOOPBACK = WebhookRules(reach="loopback")
BASE = "http://127.0.0.1:4437/v1/stream"


@dataclass(slots=True)
class Subscribing:
    """A hub and what can be asked of it."""

    hub: Hub
    app: Any

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str = "", raw: bytes | None = None
    ) -> Called:
        """Ask for an address below `__ds/subscriptions/`."""
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        target = f"/v1/stream/__ds/subscriptions/{path}"
        return await call(self.app, method, target, headers, data)

    async def put(self, name: str, *values: Any) -> None:
        """Create a stream with its first records."""
        records = [NewRecord(json.dumps(value).encode()) for value in values]
        await self.hub.create_or_get(name, StreamConfig(), records)

    async def append(self, name: str, value: Any) -> None:
        await (await self.hub.get(name)).append(value)

    async def tail(self, name: str) -> str:
        return str((await self.hub.get(name)).offset)

    async def records(self, name: str) -> list[Any]:
        found = await self.hub.backend.read(name, 0, 1000, 1 << 20)
        return [json.loads(record.payload) for record in found]


@asynccontextmanager
async def subscribing(
    backend: Backend | None = None,
    *,
    rules: WebhookRules = LOOPBACK,
    clock: Callable[[], float] | None = None,
    wall_clock: Callable[[], float] | None = None,
    public_url: str = "",
) -> AsyncGenerator[Subscribing]:
    """Run a hub with subscriptions."""
    hub = Hub(backend, **({} if clock is None else {"clock": clock}))
    walls = {} if wall_clock is None else {"wall_clock": wall_clock}
    hub.subscriptions = Subscriptions(hub, rules=rules, public_url=public_url, **walls)
    async with hub:
        yield Subscribing(hub, ServerApp(hub))


@dataclass(slots=True)
class Arrived:
    """A call that a receiver got."""

    body: dict[str, Any]
    raw: bytes
    headers: dict[str, str]


@dataclass(slots=True)
class Receiver:
    """A webhook on loopback. It answers what `answers` says in turn, then `answer` for ever."""

    url: str = ""
    calls: list[Arrived] = field(default_factory=list)
    answer: Any = field(default_factory=dict)
    answers: list[web.StreamResponse] = field(default_factory=list)
    is_held: bool = False
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.calls.append(Arrived(json.loads(raw), raw, headers))
        if self.is_held:
            await self.go_on.wait()
        return self.answers.pop(0) if self.answers else web.json_response(self.answer)


@asynccontextmanager
async def receiver(answer: Any = None) -> AsyncGenerator[Receiver]:
    """Listen as a webhook."""
    found = Receiver(answer=answer or {})
    app = web.Application()
    app.router.add_post("/hook", found.receive)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        found.url = f"http://{host}:{port}/hook"
        yield found
    finally:
        found.go_on.set()
        await runner.cleanup()

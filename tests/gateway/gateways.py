"""A gateway in the test's own process: uvicorn in its loop, and a recorded provider behind it.

What an answer is like is asked for in the model's name: `chat("tokens_per_s=50")` is our own text
at that pace (`penstock.testing.knobs`).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llm.plain_clients import CLIENTS, Shown, events
from penstock import Hub
from penstock.gateway.answers import Answers
from penstock.gateway.app import GatewayApp
from penstock.gateway.config import GatewayConfig, read_config
from penstock.server.stream import Stream
from penstock.testing.recordings import built_in
from penstock.testing.upstream import RecordedUpstream
from raw_http import PATIENCE_S, Answer, ask
from running_servers import in_process

VOICE = "granite"
TEXT = built_in(VOICE).turns[0]
ASKED = "Why is the sky blue?"

PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic-messages": "/v1/messages",
    "native": "/v1/answers",
    "vercel": "/api/chat",
    "agui": "/api/agui",
}
"""By dialect: where it is asked."""

WHOLE = ("openai-chat", "openai-responses", "anthropic-messages", "native")
"""Dialects that know an answer that is no stream."""


def model(knobs: str = "tokens_per_s=0") -> str:
    """The name of a model that answers so."""
    return f"built-in:{VOICE}:0?{knobs}"


def body(dialect: str, model: str, *, stream: bool = True, **more: Any) -> dict[str, Any]:
    """A request in a dialect."""
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    match dialect:
        case "openai-responses":
            return {"model": model, "input": ASKED, "stream": stream, **more}
        case "anthropic-messages":
            return {
                "model": model, "messages": messages, "max_tokens": 4096, "stream": stream, **more
            }  # fmt: skip
        case "vercel":
            parts = [{"type": "text", "text": ASKED}]
            said = {"id": "m1", "role": "user", "parts": parts}
            chat = {"id": "chat-1", "messages": [said], "trigger": "submit-message"}
            return {**chat, "model": model, **more}
        case "agui":
            said = {"id": "m1", "role": "user", "content": ASKED}
            run = {"threadId": "t1", "runId": "r1", "state": {}, "tools": [], "context": []}
            return {**run, "messages": [said], "forwardedProps": {"model": model}, **more}
        case _:
            return {"model": model, "messages": messages, "stream": stream, **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A gateway that answers."""

    port: int
    app: GatewayApp
    provider: RecordedUpstream

    @property
    def hub(self) -> Hub:
        return self.app.hub

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def post(
        self, path: str, value: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Post a value as JSON and read all of the answer."""
        data = b"" if value is None else json.dumps(value).encode()
        all_headers = {"Content-Type": "application/json", **(headers or {})}
        return await ask(self.port, "POST", path, all_headers, data)

    async def create(
        self,
        dialect: str,
        model: str,
        *,
        stream: bool = True,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Answer:
        """Ask a model in a dialect and read all of the answer."""
        asked = body(dialect, model, stream=stream, **more)
        return await self.post(PATHS[dialect], asked, headers)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return await ask(self.port, "GET", path, headers)

    def answers(self) -> list[Stream]:
        """The streams of answers that are here, oldest first."""
        return [stream for stream in self.hub.streams() if stream.name.startswith("answers/")]

    async def answer(self, number: int = 0) -> Stream:
        """The answer that was begun as such, once it is."""
        await until(lambda: len(self.answers()) > number)
        return self.answers()[number]

    async def calls(self) -> int:
        """How often the provider was called."""
        return len({entry["request"] for entry in self.provider.log})


def plain(body: bytes) -> bytes:
    """A body of events without its heartbeats and ids."""
    return re.sub(rb"(?m)^(:|id: .*)\n", b"", body)


def shown(dialect: str, body: bytes) -> Shown:
    """A streamed answer as the plainest client of its dialect shows it."""
    return CLIENTS[dialect](plain(body))


def parts(body: bytes) -> list[tuple[str, Any]]:
    """Name and JSON of every event of a streamed answer."""
    return events(plain(body))


async def until(holds: Any) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.001)


def config(provider: RecordedUpstream, **tables: Any) -> GatewayConfig:
    """One upstream, the provider by OpenAI's dialect; `tables` are those of `penstock.toml`, in
    which an upstream without an address is the provider too."""
    upstream = {
        "dialect": "openai-chat",
        "base_url": f"{provider.url}/v1",
        "models": ["built-in:*", "sky-1"],
        "rename": {"sky-1": model()},
        "retries": 0,
    }
    upstreams = {
        name: {"base_url": f"{provider.url}/v1", **values}
        for name, values in tables.pop("upstreams", {"main": upstream}).items()
    }
    found = read_config({"upstreams": upstreams, **tables}, environment={})
    assert found is not None
    return found


@asynccontextmanager
async def gateway(
    *, is_fast: bool = True, hub: Mapping[str, Any] | None = None, **tables: Any
) -> AsyncGenerator[Running]:
    """Run a gateway until the block ends. `hub` are settings of its hub."""
    async with RecordedUpstream() as provider:
        kept = Hub(**(hub or {}))
        app = GatewayApp(kept, Answers(kept, config(provider, **tables)))
        async with in_process(app, is_fast=is_fast) as port:
            yield Running(port=port, app=app, provider=provider)

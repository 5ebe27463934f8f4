"""`penstock serve` as a gateway in front of the recorded upstream, and the SDKs that call it.

The gateway is a process with a `penstock.toml` that names an upstream for each dialect of a
provider: model `cohere/built-in:tool` asks in Cohere's. The clients are programs, `call.mjs` and
`call.py`, which answer a line with what their package showed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from interop.llm_sdks.clients import HERE, PYTHON, WORDS, previous
from penstock.llm.ask.dialects import WRITERS
from penstock.testing.upstream import RecordedUpstream
from running_commands import running
from running_programs import Program, program

# What an upstream's base address ends with, beside the provider's own.
BASES = {"openai-chat": "/v1", "openai-responses": "/v1", "gemini": "/v1beta"}
PROVIDERS = tuple(WRITERS)

PATIENT = "patient"
"""An upstream that is asked again where it fails; the others are not."""

NODE = (*PYTHON, "ai 5", "ai 6", "ai 7", "ag-ui")
CLIENTS = {"newest": PYTHON, "previous": PYTHON, "node": NODE}
"""By program: the clients in it."""

AT_ONCE = "tokens_per_s=0"


class Gateway(NamedTuple):
    """A gateway that serves, and the upstream behind it."""

    base: str
    upstream: RecordedUpstream

    def logged(self, model: str, event: str = "start") -> list[dict[str, Any]]:
        """What the upstream wrote down of the requests for a model, which has an upstream first."""
        name, _, voice = model.partition("/")
        dialect = "openai-chat" if name == PATIENT else name
        entries = (entry for entry in self.upstream.log if entry["dialect"] == dialect)
        return [e for e in entries if e["event"] == event and str(e["model"]).endswith(voice)]

    async def until_logged(self, model: str, event: str) -> dict[str, Any]:
        """The same, once there is one."""
        async with asyncio.timeout(10):
            while not (found := self.logged(model, event)):
                await asyncio.sleep(0.01)
        return found[0]


class Said(NamedTuple):
    """What a client showed of an answer, in the words of all."""

    text: str
    reasoning: str
    calls: list[Any]
    usage: tuple[int, int] | None
    end: str
    failed: str


def configuration(url: str, more: str = "") -> str:
    """A `penstock.toml`: `more` are lines before its tables."""
    names = {name: name for name in PROVIDERS} | {PATIENT: "openai-chat"}
    tables = (
        f"""
[upstreams.{name}]
dialect = "{dialect}"
models = ["{name}/*"]
base_url = "{url}{BASES.get(dialect, "")}"
api_key = "sk-upstream"
retries = {2 if name == PATIENT else 0}
"""
        for name, dialect in names.items()
    )
    return more + "".join(tables)


@asynccontextmanager
async def serving(folder: Path, more: str = "") -> AsyncGenerator[Gateway]:
    """Serve until the block ends."""
    folder.mkdir(exist_ok=True)
    async with RecordedUpstream() as upstream:
        file = folder / "penstock.toml"
        file.write_text(configuration(upstream.url, more), "utf-8")
        with running("serve", "--port", "0", "--config", str(file), folder=folder) as process:
            yield Gateway(process.address, upstream)


@asynccontextmanager
async def calling(name: str) -> AsyncGenerator[Program]:
    """One of the programs, ready to be asked."""
    if name == "node":
        async with program(HERE / "call.mjs") as started:
            yield started
        return
    folder = [str(previous())] if name == "previous" else []
    async with program(HERE / "call.py", *folder) as started:
        versions = await started.line()
        majors = {package: int(version.split(".")[0]) for package, version in versions.items()}
        assert (majors == {"openai": 1, "anthropic": 0}) == (name == "previous"), versions
        yield started


Asked = tuple[str, dict[str, Any]]
"""A client, and the line that it answered with."""


class Caller(NamedTuple):
    """A program of clients, and the gateway they call."""

    name: str
    program: Program
    gateway: Gateway

    @property
    def clients(self) -> tuple[str, ...]:
        """The clients of the program."""
        return CLIENTS[self.name]

    @property
    def sdks(self) -> tuple[str, ...]:
        """Those of them that are no page's: they know errors by their class."""
        return tuple(client for client in self.clients if client in PYTHON)

    async def ask(self, clients: Iterable[str], model: str, **more: Any) -> list[Asked]:
        """What clients said that asked at once: what each showed, or what it raised."""
        base = self.gateway.base
        waiting = dict(enumerate(clients))
        for id, client in waiting.items():
            asked = {"id": id, "base": base, "client": client, "model": model}
            await self.program.say({**asked, **more})
        lines = [await self.program.line() for _ in waiting]
        return [(waiting[line["id"]], line) for line in lines]

    async def show(self, clients: Iterable[str], model: str, **more: Any) -> list[tuple[str, Said]]:
        """What clients showed of an answer. Raises where one of them did."""
        return [(client, shown(line)) for client, line in await self.ask(clients, model, **more)]


def shown(said: Mapping[str, Any]) -> Said:
    """What a client showed, in the words of all."""
    assert "raised" not in said, said
    calls = [[name, json.loads(text)] for name, text in said["calls"] if _is_json(text)]
    end = said["end"]
    if end == "completed":  # a response says what it stopped for by what is in it
        end = "tool_use" if calls else "stop"
    usage = None if said["usage"] is None else tuple(said["usage"])
    end = WORDS.get(end, end)
    return Said(said["text"], said["reasoning"], calls, usage, end, said["failed"] or "")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True

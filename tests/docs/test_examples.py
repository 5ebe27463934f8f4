"""Each example does what its README says, run as a user runs it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from docs.documents import (
    BIN,
    ROOT,
    environment,
    gateway,
    recorded_upstream,
    serving,
    uvicorn,
)
from penstock import connect
from penstock.client import Event
from penstock.testing.recordings import built_in

EXAMPLES = ROOT / "examples"
PATIENCE_S = 60
UNREAD_S = 2.0
TESTED = {"agent_to_agent", "fastapi_chat", "plain_asgi", "publish_and_tail"}


def copied(name: str, folder: Path) -> Path:
    """An example's files in a folder where a server may write its log."""
    for file in (EXAMPLES / name).glob("*.py"):
        (folder / file.name).write_text(file.read_text("utf-8"), "utf-8")
    return folder


def post(url: str, body: object = None, more: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    data = b"" if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(more or {})}
    request = urllib.request.Request(url, data=data, headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return response.status, response.read()


async def read(url: str, *, last_event_id: str = "", at_most: int | None = None) -> list[Event]:
    """The events of a stream, or the first of them; the end as a last event of the type `end`."""
    found: list[Event] = []
    async with asyncio.timeout(PATIENCE_S), connect(url, last_event_id=last_event_id) as events:
        async for event in events:
            found.append(event)
            if len(found) == at_most:
                return found
        found.append(Event(type="end", data=events.end_reason or "", id=events.last_event_id))
    return found


def test_every_example_has_a_test_and_a_readme_of_at_most_five_lines() -> None:
    folders = [path for path in EXAMPLES.iterdir() if any(path.glob("*.py"))]
    assert {folder.name for folder in folders} == TESTED
    for folder in folders:
        assert len((folder / "README.md").read_text("utf-8").splitlines()) <= 5


def test_every_program_of_an_example_is_under_a_hundred_lines() -> None:
    for program in EXAMPLES.rglob("*.py"):
        assert len(program.read_text("utf-8").splitlines()) < 100, program


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "portable"])
async def test_the_chats_answer_survives_a_reload_and_stops_on_request(
    fast: bool, tmp_path: Path
) -> None:
    with serving(uvicorn("main", fast=fast), copied("fastapi_chat", tmp_path)) as address:
        with urllib.request.urlopen(f"{address}/", timeout=PATIENCE_S) as page:
            assert b"EventSource" in page.read()
        status, body = await asyncio.to_thread(post, f"{address}/chat", {"id": "1", "text": "Why?"})
        assert (status, json.loads(body)) == (202, {"url": "/v1/stream/chat/1"})
        url = f"{address}/v1/stream/chat/1"
        seen = await read(url, at_most=3)
        rest = await read(url, last_event_id=seen[-1].id)
        whole = await read(url)
        assert seen + rest == whole
        assert [event.type for event in whole[-2:]] == ["stop", "end"]
        assert whole[-1].data == "complete"
        text = "".join(event.json()["text"] for event in whole if event.type == "text")
        assert text.startswith("You asked: Why? ")

        await asyncio.to_thread(post, f"{address}/chat", {"id": "2", "text": "Why?"})
        await read(f"{address}/v1/stream/chat/2", at_most=1)
        status, _ = await asyncio.to_thread(post, f"{address}/v1/cancel/chat/2")
        assert status == 204
        assert (await read(f"{address}/v1/stream/chat/2"))[-1].data == "cancelled"


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "portable"])
async def test_readers_of_the_clock_share_one_stream(fast: bool, tmp_path: Path) -> None:
    with serving(uvicorn("main", fast=fast), copied("plain_asgi", tmp_path)) as address:
        first = await read(f"{address}/", at_most=2)
        second = await read(f"{address}/v1/stream/clock", at_most=2)
        assert first == second
        assert first[0].json()["time_s"] < first[1].json()["time_s"]


def test_what_is_published_is_read_to_its_end_and_from_the_middle(tmp_path: Path) -> None:
    folder = copied("publish_and_tail", tmp_path)
    with serving([str(BIN / "penstock"), "serve", "--port", "0"], folder) as address:
        url = f"{address}/v1/stream/lines"
        offsets = run(folder, "publish.py", url, given="one\ntwo\nthree\n").split()
        assert len(offsets) == 3
        lines = run(folder, "tail.py", url).splitlines()
        assert [re.sub(r"^\S+ ", "", line) for line in lines] == [
            "message one",
            "message two",
            "message three",
            "note that was all",
            "complete",  # `ended:` is its first word
        ]
        assert run(folder, "tail.py", url, offsets[1]).splitlines() == lines[2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agents:
    """A gateway whose provider is recorded, and the translator that reads its answers."""

    gateway: str
    translator: str
    log: Path

    async def asked(self, model: str) -> tuple[str, int]:
        """Have an answer begun; gives its id, and which of the provider's requests it is."""
        number = 1 + max([entry["request"] for entry in self.entries()], default=0)
        wish = {"Prefer": "respond-async"}
        question = {"model": model, "messages": [{"role": "user", "content": "Why?"}]}
        _, body = await asyncio.to_thread(post, f"{self.gateway}/v1/answers", question, wish)
        return json.loads(body)["id"], number

    async def translating(self, id: str) -> str:
        """Have an answer translated; gives the address of that."""
        status, body = await asyncio.to_thread(post, f"{self.translator}/translate/{id}")
        assert status == 202
        return self.translator + json.loads(body)["url"]

    def entries(self) -> list[dict[str, Any]]:
        """What the provider wrote down."""
        lines = self.log.read_text("utf-8").split("\n")
        return [json.loads(line) for line in lines[1:-1]]  # its port is first, a line begun last

    async def logged(self, event: str, request: int) -> float:
        """When the provider saw this of a request, once it has."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for entry in self.entries():
                    if (entry["event"], entry["request"]) == (event, request):
                        return entry["monotonic_s"]
                await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Generator[Agents]:
    folders = [tmp_path_factory.mktemp(name) for name in ("provider", "gateway", "translator")]
    with ExitStack() as stack:
        provider = stack.enter_context(recorded_upstream(folders[0]))
        (folders[1] / "penstock.toml").write_text(gateway(provider, unread_s=UNREAD_S), "utf-8")
        serve = [str(BIN / "penstock"), "serve", "--port", "0"]
        environ = stack.enter_context(pytest.MonkeyPatch.context())
        address = stack.enter_context(serving(serve, folders[1]))
        environ.setenv("GATEWAY", address)
        environ.setenv("MODEL", "built-in:thought?tokens_per_s=40")
        example = copied("agent_to_agent", folders[2])
        translator = stack.enter_context(serving(uvicorn("main"), example))
        yield Agents(gateway=address, translator=translator, log=folders[0] / "upstream.log")


async def test_an_agent_reads_anothers_answer_while_it_is_written(agents: Agents) -> None:
    id, first = await agents.asked("built-in:unicode?tokens_per_s=40")
    whole = await read(await agents.translating(id))
    said = built_in("thought").turns[0]
    assert "".join(event.json()["text"] for event in whole[:-1]) == 3 * said
    assert whole[-1].data == "complete"
    assert await agents.logged("start", first + 1) < await agents.logged("finished", first)


async def test_an_agent_asks_for_one_sentence_after_the_other(agents: Agents) -> None:
    """However far the answer that it reads has come."""
    id, first = await agents.asked("built-in:unicode?tokens_per_s=0")
    await read(await agents.translating(id))
    assert await agents.logged("finished", first) < await agents.logged("finished", first + 1)
    for request in (first + 1, first + 2):
        finished = await agents.logged("finished", request)
        assert finished < await agents.logged("start", request + 1)


@pytest.mark.parametrize("has_other", [False, True], ids=["alone", "with another reader"])
async def test_a_cancelled_agent_stops_what_it_asked_and_what_only_it_read(
    agents: Agents, has_other: bool
) -> None:
    id, first = await agents.asked("built-in:defender:3?tokens_per_s=25")
    answer = f"{agents.gateway}/v1/stream/answers/{id}"
    url = await agents.translating(id)
    other = asyncio.create_task(read(answer)) if has_other else None
    await agents.logged("first-byte", first + 1)
    cancelled_at = time.monotonic()
    await asyncio.to_thread(post, url.replace("/stream/", "/cancel/", 1))
    assert await agents.logged("gone", first + 1) - cancelled_at < 1
    assert (await read(url))[-1].data == "cancelled"
    if other is None:
        assert UNREAD_S < await agents.logged("gone", first) - cancelled_at < UNREAD_S + 2
        assert (await read(answer))[-1].data == "cancelled"
    else:
        assert (await other)[-1].data == "complete"


async def test_an_agent_whose_source_fails_fails_too(agents: Agents) -> None:
    id, _ = await agents.asked("built-in:unicode?tokens_per_s=0&cut_after=60")
    assert (await read(await agents.translating(id)))[-1].data == "failed"


def run(folder: Path, program: str, *arguments: str, given: str = "") -> str:
    """Run a program of an example to its end; gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", program, *arguments],
        cwd=folder,
        env=environment(),
        input=given.encode(),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()

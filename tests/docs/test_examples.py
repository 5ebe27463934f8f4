"""Each example does what its README says, run as a user runs it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from docs.documents import BIN, ROOT, environment, serving, uvicorn
from penstock import connect
from penstock.client import Event

EXAMPLES = ROOT / "examples"
PATIENCE_S = 60
TESTED = {"fastapi_chat", "plain_asgi", "publish_and_tail"}


def copied(name: str, folder: Path) -> Path:
    """An example's files in a folder where a server may write its log."""
    for file in (EXAMPLES / name).glob("*.py"):
        (folder / file.name).write_text(file.read_text("utf-8"), "utf-8")
    return folder


def post(url: str, body: object = None) -> tuple[int, bytes]:
    data = b"" if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
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

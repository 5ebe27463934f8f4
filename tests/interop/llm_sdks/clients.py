"""The vendors' own SDKs as clients of what is written: what each is, and what it shows of a body.

A program reads many bodies, one after another: `read.mjs` with the npm packages of this folder,
`read.py` with the Python packages of .venv, or with the major versions before them, which are
pinned in `previous.txt` and installed beside it once.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llm.plain_clients import Shown
from running_programs import INSTALL_PATIENCE_S, ROOT, Program, program

HERE = Path(__file__).parent
PREVIOUS = ROOT / ".venv" / "previous-sdks"

# The words of every dialect for an end, as `Shown` has them.
WORDS = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence", "pause_turn"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens"), "length"),
    **dict.fromkeys(("tool_calls", "tool-calls", "tool_use"), "tool_use"),
    **dict.fromkeys(("content_filter", "content-filter", "refusal"), "filtered"),
    **dict.fromkeys(("failed", "APIError", "APIStatusError"), "failed"),
    **dict.fromkeys(("cancelled", "abort"), "cancelled"),
    "other": "other",
}


class Client(NamedTuple):
    """A client: the name it has in a table, what it reads, and the program that holds it."""

    name: str
    dialect: str
    program: str
    # What the program calls it.
    key: str

    @property
    def gives_values(self) -> bool:
        """Whether it shows a tool's input as a value and not as the text of one."""
        return self.dialect in ("anthropic-messages", "vercel")


PYTHON = ("openai-chat", "openai-responses", "anthropic-messages")

CLIENTS = (
    *(Client(f"python {dialect}", dialect, "newest", dialect) for dialect in PYTHON),
    *(Client(f"previous {dialect}", dialect, "previous", dialect) for dialect in PYTHON),
    Client("npm openai-chat", "openai-chat", "node", "openai"),
    Client("npm openai-responses", "openai-responses", "node", "openai responses"),
    Client("npm anthropic", "anthropic-messages", "node", "@anthropic-ai/sdk"),
    Client("ai 5", "vercel", "node", "ai 5"),
    Client("ai 6", "vercel", "node", "ai 6"),
    Client("ai 7", "vercel", "node", "ai 7"),
    Client("ag-ui", "agui", "node", "@ag-ui/client"),
)


PROGRAMS = ("newest", "previous", "node")


@functools.cache
def previous() -> Path:
    """The folder of the Python packages' major versions before, installed if it is not."""
    wanted = f"{sys.version}\n{(HERE / 'previous.txt').read_text()}"
    stamp = PREVIOUS / ".installed"
    # Two test runs may come here at once; the second waits for the first, and finds all done.
    with (ROOT / ".venv" / ".previous-sdks.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            target = ["--require-hashes", "--upgrade", "--target", str(PREVIOUS)]
            done = subprocess.run(
                [*pip, *target, "-r", str(HERE / "previous.txt")],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=INSTALL_PATIENCE_S,
                check=False,
            )
            if done.returncode:
                _unavailable(f"needs the packages of {HERE / 'previous.txt'}: {done.stderr}")
            stamp.write_text(wanted)
    return PREVIOUS


def _unavailable(message: str) -> None:
    if os.environ.get("PENSTOCK_STRICT") == "1":
        pytest.fail(message)
    pytest.skip(message)


@asynccontextmanager
async def running(name: str) -> AsyncGenerator[Program]:
    """One of the programs, ready to read bodies."""
    if name == "node":
        async with program(HERE / "read.mjs") as started:
            yield started
        return
    folder = [str(previous())] if name == "previous" else []
    async with program(HERE / "read.py", *folder) as started:
        versions = await started.line()
        majors = {package: int(version.split(".")[0]) for package, version in versions.items()}
        is_newest = majors["openai"] > 1 and majors["anthropic"] > 0
        assert is_newest == (name == "newest"), versions
        yield started


async def ask(started: Program, client: Client, body: bytes, **more: object) -> Any:
    """What the program said of a body: an answer as its client shows it, or what it raised."""
    asked = {"client": client.key, "dialect": client.key, "kind": "stream", **more}
    await started.say({**asked, "body": body.decode()})
    return await started.line()


async def show(started: Program, client: Client, body: bytes, **more: object) -> Shown:
    """An answer as a client shows it. Raises where the client does."""
    said = await ask(started, client, body, **more)
    assert "raised" not in said, said
    calls = tuple(
        (id, name, _canonical(arguments) if client.gives_values else arguments)
        for id, name, arguments in said["calls"]
    )
    usage = None if said["usage"] is None else tuple(said["usage"])
    # A completed response says what it stopped for by what is in it.
    end = said["end"]
    if end == "completed":
        end = "tool_use" if calls else "stop"
    return Shown(said["text"], said["reasoning"], calls, usage, WORDS.get(end, end))


def as_shown(answer: Shown, client: Client) -> Shown:
    """What a client must show, its tools' inputs as it gives them."""
    if not client.gives_values:
        return answer
    calls = ((id, name, _canonical(json.loads(text))) for id, name, text in answer.calls)
    return answer._replace(calls=tuple(calls))


def _canonical(value: object) -> str:
    """A value as text, the same whether JavaScript or Python has it: 2.0 is 2."""
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: object) -> object:
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case _:
            return value

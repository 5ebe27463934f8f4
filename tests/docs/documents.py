"""What people read, as data: pages, fenced blocks, tables, and servers to try them against.

Nothing here knows what a page says; the tests beside it compare that with the code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "spec", "examples")
FLAT_FOLDERS = ("bench", "bench/results")  # what lies deeper is built, and comes and goes
BIN = Path(sys.executable).parent
START_PATIENCE_S = 30.0
STOP_PATIENCE_S = 10.0

MODELS = ("gpt-4o-mini", "claude-haiku-4-5")
"""Models that pages ask for."""

PAGES = sorted(
    page
    for found in (
        ROOT.glob("*.md"),
        *((ROOT / folder).rglob("*.md") for folder in FOLDERS),
        *((ROOT / folder).glob("*.md") for folder in FLAT_FOLDERS),
    )
    for page in found
)
"""Every page in Markdown."""

_ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+)")
_PORT = re.compile(r'"port": (\d+)\}')
_OWN_VARIABLES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OLLAMA_HOST")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block. `line` is that of its opening fence, from 1."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """Page and line, as an editor opens them."""
        return f"{named(self.page)}:{self.line}"


def named(page: Path) -> str:
    """A page's path below the root."""
    return page.relative_to(ROOT).as_posix()


def read(name: str) -> str:
    """A file's text, by its path below the root."""
    return (ROOT / name).read_text("utf-8")


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page, of one language or of all."""
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif opened is None:
            opened, lines = (number, line[3:].strip()), []
        else:
            text = "\n".join(lines) + "\n"
            found.append(Block(page=page, line=opened[0], language=opened[1], text=text))
            opened = None
    assert opened is None, f"{named(page)}:{opened[0]}: a fence is not closed"
    return [block for block in found if language in (None, block.language)]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def table(name: str, *header: str) -> list[list[str]]:
    """The rows of all tables with this header on a page; cells without backticks."""
    rows: list[list[str]] = []
    is_inside = False
    for line in read(name).splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|"):
            is_inside = False
        elif cells == list(header):
            is_inside = True
        elif is_inside and not set(line) <= set("|- "):
            rows.append(cells)
    assert rows, f"{name} has no table with the header {header}"
    return rows


def require(program: str) -> None:
    """Skip, loudly, without a program; under PENSTOCK_STRICT=1, fail."""
    if shutil.which(program) is not None:
        return
    message = f"needs {program!r}: install it to check what the documentation shows"
    if os.environ.get("PENSTOCK_STRICT") == "1":
        pytest.fail(message)
    pytest.skip(message)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with our commands first, and without what changes answers."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _OWN_VARIABLES and not name.startswith("PENSTOCK_")
    }
    return {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}", **(extra or {})}


def uvicorn(module: str, *, fast: bool = True) -> list[str]:
    """The command that the documentation gives for an application."""
    protocol = ["--http", "penstock.server.fastpath:Protocol"] if fast else []
    return [sys.executable, "-m", "uvicorn", f"{module}:app", "--port", "0", *protocol]


@contextmanager
def serving(
    command: Sequence[str], folder: Path, *, says: re.Pattern[str] = _ADDRESS, log: str = "server"
) -> Generator[str]:
    """Run a server in `folder` until the block ends; gives the address that it printed.

    `says` finds that in what it prints, which is kept in the file `log`.
    """
    file = folder / f"{log}.log"
    with file.open("wb") as output:
        process = subprocess.Popen(
            [*command],
            cwd=folder,
            env=environment({"PYTHONUNBUFFERED": "1"}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _address(process, file, says)
    finally:
        process.terminate()
        try:
            process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def recorded_upstream(folder: Path) -> Generator[str]:
    """Run a recorded provider in `folder` until the block ends; gives its address. What it was
    asked is in the folder's `upstream.log`."""
    command = [sys.executable, "-m", "penstock.testing.upstream", "--port", "0"]
    with serving(command, folder, says=_PORT, log="upstream") as found:
        yield f"http://127.0.0.1:{found}"


def gateway(upstream: str, *, unread_s: float = 60) -> str:
    """A `penstock.toml` by which a recorded provider serves every model. The pages' own models
    answer with one of the provider's texts."""
    names = ", ".join(f'"{name}" = "built-in:granite?tokens_per_s=400"' for name in MODELS)
    return (
        f'[gateway]\nunread_s = {unread_s}\n[upstreams.recorded]\ndialect = "openai-chat"\n'
        f'base_url = "{upstream}/v1"\nrename = {{ {names} }}\n'
    )


def _address(process: subprocess.Popen[bytes], log: Path, says: re.Pattern[str]) -> str:
    give_up = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < give_up and process.poll() is None:
        if found := says.search(log.read_text("utf-8", "replace")):
            return found[1]
        time.sleep(0.05)  # a process has no other way to say that it is up
    raise AssertionError(f"{process.args} does not start:\n{log.read_text('utf-8', 'replace')}")

"""The command `penstock` as a user runs it: a process, its output, its exit status.

Output goes to files, so that a test can look at any moment and no pipe fills up. Every wait has a
deadline, and what was printed is in the failure.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PENSTOCK = str(Path(sys.executable).with_name("penstock"))
PATIENCE_S = 30.0
STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    def refuses(self, status: int, *words: str) -> None:
        """It failed with one line that holds these words, and no traceback."""
        assert self.status == status, self
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("penstock: "), self.err
        for word in words:
            assert word in lines[0], self.err


@dataclass(slots=True)
class Running:
    """A command that runs."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text("utf-8")

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text("utf-8")

    def until(self, claim: Callable[[], object], within_s: float = PATIENCE_S) -> None:
        """Waits for a claim about the process; fails when it ends first, or takes too long."""
        give_up = time.monotonic() + within_s
        while not claim():
            has_ended = self.process.poll() is not None
            if (has_ended and not claim()) or time.monotonic() > give_up:
                raise AssertionError(f"status {self.process.poll()}\n{self.out}\n{self.err}")
            time.sleep(STEP_S)

    def match(self, pattern: str) -> re.Match[str]:
        """Waits until it has printed this."""
        self.until(lambda: re.search(pattern, self.out))
        found = re.search(pattern, self.out)
        assert found is not None
        return found

    @property
    def address(self) -> str:
        """Waits for the address that it says it listens on."""
        return self.match(r"http://127\.0\.0\.1:\d+")[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """Waits for the end; gives the status."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs:\n{self.out}\n{self.err}") from None

    def interrupt(self, within_s: float = PATIENCE_S) -> int:
        """Ctrl-C, and the status."""
        self.send(signal.SIGINT)
        return self.wait(within_s)


def environment(**more: str) -> dict[str, str]:
    """The tests' environment without what would configure the command."""
    foreign = ("PENSTOCK_", "OPENAI_", "ANTHROPIC_", "OLLAMA_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", **more}


def run(
    *arguments: str,
    folder: Path,
    stdin: bytes = b"",
    variables: Mapping[str, str] | None = None,
) -> Done:
    """Runs a command to its end, in `folder`."""
    done = subprocess.run(
        [PENSTOCK, *arguments],
        cwd=folder,
        env=environment(**(variables or {})),
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def running(
    *arguments: str, folder: Path, variables: Mapping[str, str] | None = None
) -> Generator[Running]:
    """Runs a command until the block ends."""
    own = folder / f"process-{time.monotonic_ns()}"
    own.mkdir()
    with (own / "out").open("wb") as out, (own / "err").open("wb") as err:
        process = subprocess.Popen(
            [PENSTOCK, *arguments],
            cwd=folder,
            env=environment(**(variables or {})),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    try:
        yield Running(process, own)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

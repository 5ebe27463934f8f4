"""Every command in the documentation exists with its options, and prints what the page shows.

In a `console` block a line that begins with `$` is a command, and what follows it is its output; a
backslash at its end continues it. What speaks to this machine alone is run, page by page and in
order, in an empty folder; what belongs to a checkout, and what never ends, is not. `penstock serve`
is run too: it answers the page's next commands until the page starts another one, or the page shows
how it refuses to start. A page without one speaks to a server that all pages share.

Epochs, times, reconnection times and the ids of answers differ from run to run; they are taken out
before outputs are compared.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.documents import PAGES, blocks, environment, named, prose, require, serving
from penstock.cli.main import app

PATIENCE_S = 30
EPOCH = "1tUvL"
"""The epoch in the pages' offsets."""

_FOUND_EPOCH = re.compile(r"^(?:id: |[a-z-]+: )?([0-9A-Za-z]{5})1[0-9A-Za-z]$", re.MULTILINE)
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(4437|8000)")
_VARYING = (
    (re.compile(r"^retry: \d+$", re.MULTILINE), "retry: 1"),
    (re.compile(r'"(streamCursor|ts)":"?\d+"?'), r'"\1":1'),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "http://127.0.0.1:1"),
    (re.compile(r"\b[0-9a-f]{24,32}\b"), "00"),  # ids and fingerprints of answers
    (re.compile(r'"(created|created_at)":\d+'), r'"\1":1'),
    (re.compile(r'"model":"[^"]*"'), '"model":"m"'),  # the recorded provider's own names
)
RUN_PROGRAMS = ("curl", "sqlite3", "ls")
RUN_COMMANDS = ("publish", "tail", "backup", "serve", "--version")


def commands(page: Path) -> list[tuple[str, str]]:
    """A page's commands, each with the output shown below it."""
    found: list[tuple[str, str]] = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.replace("\\\n", "").partition("\n")
            found.append((command, output))
    return found


def can_run(command: str) -> bool:
    """Whether a command can be tried: against this machine, and it ends by itself."""
    program, _, rest = command.partition(" ")
    if program == "curl":
        return "http://127.0.0.1:" in command
    if program == "penstock":
        return rest.split(" ")[0] in RUN_COMMANDS
    return program in RUN_PROGRAMS


def mentioned() -> list[tuple[str, str]]:
    """Every `penstock …` in a console block or between backticks, with its page."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        inline = re.findall(r"`(penstock [^`]*)`", prose(page).replace("\n", " "))
        shown = [command for command, _ in commands(page) if command.startswith("penstock ")]
        found += [(named(page), command) for command in [*inline, *shown]]
    return found


@pytest.mark.parametrize(("page", "command"), mentioned())
def test_a_penstock_command_exists_with_its_options(page: str, command: str) -> None:
    root: Any = typer.main.get_command(app)
    words = shlex.split(command)[1:]
    options = {word.split("=")[0] for word in words if word.startswith("--")}
    if words[0].startswith("-"):
        known = {name for parameter in root.params for name in parameter.opts}
    else:
        assert words[0] in root.commands, f"{page}: there is no 'penstock {words[0]}'"
        parameters = root.commands[words[0]].params
        known = {name for p in parameters for name in (*p.opts, *p.secondary_opts)}
    assert options <= known | {"--help"}, page


RUN = [page for page in PAGES if any(can_run(command) for command, _ in commands(page))]


class Shell:
    """Where a page's commands are run: a folder, and the server they speak to."""

    def __init__(self, folder: Path, server: str) -> None:
        self._folder, self._server = folder, server
        self._own = ExitStack()

    def run(self, command: str, shown: str) -> str:
        """Run a command; gives what it printed."""
        program = command.partition(" ")[0]
        if program in RUN_PROGRAMS:
            require(program)
        if command.startswith("penstock serve"):
            if not shown.startswith("penstock: "):
                return self._serve(command)
            command = f"{command} --port 0"  # refused before it listens
        process = subprocess.Popen(
            ["sh", "-c", _ADDRESS.sub(self._server, command)],
            cwd=self._folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            # curl shows its progress there when its output is no terminal.
            stderr=subprocess.DEVNULL if program == "curl" else subprocess.STDOUT,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            return process.communicate(timeout=PATIENCE_S)[0].decode()
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the shell, and what it runs
            process.communicate()
            raise AssertionError(f"{command!r} does not end") from None

    def _serve(self, command: str) -> str:
        """Start the page's next server, in place of the one before."""
        self.close()
        words = [*shlex.split(command), "--port", "0"]
        self._server = self._own.enter_context(serving(words, self._folder))
        return f"penstock serves at {self._server}\n"

    def close(self) -> None:
        """Stop the page's server, if it runs one."""
        self._own.close()


@pytest.fixture
def shell(server: str, tmp_path: Path) -> Generator[Shell]:
    found = Shell(tmp_path, server)
    yield found
    found.close()


@pytest.mark.parametrize("page", RUN, ids=named)
def test_a_pages_commands_print_what_it_shows(page: Path, shell: Shell) -> None:
    epoch = EPOCH
    for command, shown in commands(page):
        if not can_run(command):
            continue
        printed = shell.run(command.replace(EPOCH, epoch), shown).replace("\r\n", "\n")
        if found := _FOUND_EPOCH.search(printed):
            epoch = found[1]
        if command.startswith("penstock serve") and not shown:
            continue  # a page need not repeat where it serves
        assert plain(printed, epoch) == plain(shown, EPOCH), f"{named(page)}: {command}"


def plain(output: str, epoch: str) -> str:
    """Output without what differs from run to run."""
    for pattern, constant in _VARYING:
        output = pattern.sub(constant, output)
    return output.replace(epoch, "epoch").strip()

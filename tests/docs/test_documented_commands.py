"""Every command in the documentation exists with its options, and prints what the page shows.

In a `console` block a line that begins with `$` is a command, and what follows it is its output.
`curl` and `penstock` against this machine are run, page by page and in their order; servers and
what belongs to a checkout are not. Epochs and reconnection times differ from run to run; they are
taken out before outputs are compared.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.documents import PAGES, blocks, environment, named, prose, require
from penstock.cli.main import app

PATIENCE_S = 60
EPOCH = "1tUvL"
"""The epoch in the pages' offsets."""

_FOUND_EPOCH = re.compile(r"^(?:id: )?([0-9A-Za-z]{5})1[0-9A-Za-z]$", re.MULTILINE)
_RETRY = re.compile(r"^retry: \d+$", re.MULTILINE)


def commands(page: Path) -> list[tuple[str, str]]:
    """A page's commands, each with the output shown below it."""
    found: list[tuple[str, str]] = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def can_run(command: str) -> bool:
    """Whether a command can be tried: against this machine, and it ends by itself."""
    if command.startswith("curl "):
        return "http://127.0.0.1:" in command
    return command.startswith(("penstock publish", "penstock tail", "penstock --version"))


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


@pytest.mark.parametrize("page", RUN, ids=named)
def test_a_pages_commands_print_what_it_shows(page: Path, server: str, tmp_path: Path) -> None:
    require("curl")
    epoch = EPOCH
    for command, shown in commands(page):
        if not can_run(command):
            continue
        words = shlex.split(re.sub(r"http://127\.0\.0\.1:(4437|8000)", server, command))
        done = subprocess.run(
            [word.replace(EPOCH, epoch) for word in words],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            # curl shows its progress there when its output is no terminal.
            stderr=subprocess.DEVNULL if words[0] == "curl" else subprocess.STDOUT,
            stdout=subprocess.PIPE,
            timeout=PATIENCE_S,
            check=False,
        )
        printed = done.stdout.decode()
        if found := _FOUND_EPOCH.search(printed):
            epoch = found[1]
        assert plain(printed, epoch) == plain(shown, EPOCH), f"{named(page)}: {command}"


def plain(output: str, epoch: str) -> str:
    """Output without what differs from run to run."""
    return _RETRY.sub("retry: 1", output).replace(epoch, "epoch").strip()

"""The published Durable Streams suite finds nothing, on any backend and either path to a reader.

Its reference server fails six of these tests at the same version. `scripts/conformance ADDRESS -t
NAME` runs one of them against a server that runs already.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import running_programs
from running_commands import running

SERVERS = {
    "memory": ("--backend", "memory://"),
    "memory, portable": ("--backend", "memory://", "--portable"),
    "sqlite": ("--backend", "sqlite:///{folder}/streams.db"),
}
TESTS = 338
"""How many the pinned version has, with the subscriptions; fewer means that some were left out."""
SUITE_PATIENCE_S = 240.0


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_the_published_suite_passes_whole(server: str, tmp_path: Path) -> None:
    node = running_programs.node()
    options = [option.format(folder=tmp_path) for option in SERVERS[server]]
    serve = ("serve", "--port", "0", "--allowed-origin", "*", *options)
    # The suite waits half a second for a long-poll, and listens on loopback for webhooks.
    settings = {"PENSTOCK_LONG_POLL_S": "0.5", "PENSTOCK_WEBHOOKS": "loopback"}
    with running(*serve, folder=tmp_path, variables=settings) as serving:
        results = run_suite(node, serving.address, tmp_path / "report.json")
        assert serving.process.poll() is None, serving.err
    passed = [result for result in results if result["status"] == "passed"]
    others = [describe(result) for result in results if result["status"] != "passed"]
    assert not others, f"{len(passed)} of {len(results)} passed:\n" + "\n".join(others)
    assert len(passed) == TESTS


def run_suite(node: str, address: str, report: Path) -> list[dict[str, Any]]:
    """What the suite says of a server, a test an entry."""
    done = subprocess.run(
        [
            *(node, "node_modules/vitest/vitest.mjs", "run"),
            *("--reporter=json", f"--outputFile={report}"),
        ],
        cwd=Path(__file__).parent,
        env={**os.environ, "DURABLE_STREAMS_SERVER": address},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SUITE_PATIENCE_S,
        check=False,
    )
    assert report.exists(), done.stdout
    files: list[dict[str, Any]] = json.loads(report.read_text("utf-8"))["testResults"]
    return [result for file in files for result in file["assertionResults"]]


def describe(result: dict[str, Any]) -> str:
    """A name, and what was said; the properties' messages hold the seed."""
    said = "\n".join(result["failureMessages"])
    first = [line for line in said.splitlines() if not line.lstrip().startswith("at ")][:6]
    return "\n    ".join([f"{result['status']}: {result['fullName']}", *first])

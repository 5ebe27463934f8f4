"""`curl -N` reads a stream, live and from any place, as the README shows it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from running_commands import Running, run, running

ROOT = Path(__file__).parents[2]
PATIENCE_S = "20"
ASKING = {"accept": ["-H", "Accept: text/event-stream"], "query": []}


@pytest.fixture(scope="module", autouse=True)
def _curl() -> None:
    if shutil.which("curl") is None:
        message = "needs curl: install it with the system's package manager"
        if os.environ.get("PENSTOCK_STRICT") == "1":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module", params=[(), ("--portable",)], ids=["fast", "portable"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Running]:
    folder = tmp_path_factory.mktemp("curl")
    with running("serve", "--port", "0", *request.param, folder=folder) as serving:
        assert serving.address
        yield serving


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs curl to its end; a stream that does not end is a failure."""
    return subprocess.run(
        ["curl", "-sS", "-N", "--max-time", PATIENCE_S, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def post(address: str, body: str, *arguments: str) -> str:
    """Appends with curl; gives the offset after it."""
    kind = ["-H", "Content-Type: application/json"]
    done = curl("-D", "-", "--fail", *kind, "-d", body, *arguments, address)
    assert done.returncode == 0, done.stderr
    found = re.search(r"(?im)^stream-next-offset: (\S+)", done.stdout)
    assert found is not None
    return found[1]


def reading(way: str, address: str, *arguments: str) -> list[str]:
    target = address if way == "accept" else f"{address}?live=events"
    return [*ASKING[way], *arguments, target]


@contextmanager
def hello(server: Running, name: str) -> Generator[str]:
    """A stream with the README's two records, still open."""
    address = f"{server.address}/v1/stream/{name}"
    done = curl("-X", "PUT", "-H", "Content-Type: application/json", address)
    assert done.returncode == 0
    post(address, '["hello","again"]')
    yield address


def test_the_readmes_line_is_the_one_tested_here() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    shown = [line for line in lines if line.startswith("$ curl")]
    assert shown == ['$ curl -N "http://127.0.0.1:8000/v1/stream/chat/42?live=events"']


@pytest.mark.parametrize("way", ASKING)
def test_curl_reads_a_stream_to_its_end(server: Running, way: str) -> None:
    """Byte for byte what the README shows, but for the ids and the reconnection time."""
    with hello(server, f"whole/{way}") as address:
        post(address, "", "-H", "Stream-Closed: true")
        done = curl(*reading(way, address))
    assert (done.returncode, done.stderr) == (0, "")
    readme = (ROOT / "README.md").read_text("utf-8")
    shown = readme.split('?live=events"\n', 1)[1].split("```", 1)[0]
    masks = [(r"(?m)^retry: \d+$", "retry: R"), (r"(?m)^id: \w{5}(\w+~?)$", r"id: E\1")]
    for pattern, mask in masks:
        shown, done.stdout = re.sub(pattern, mask, shown), re.sub(pattern, mask, done.stdout)
    assert done.stdout == shown


@pytest.mark.parametrize("way", ASKING)
def test_curl_shows_an_event_when_it_comes(server: Running, way: str) -> None:
    """Nothing waits for the end: the process is still reading when its first event is there."""
    with hello(server, f"live/{way}") as address:
        command = ["curl", "-sS", "-N", "--max-time", PATIENCE_S, *reading(way, address)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = ""
            while line != 'data: "again"\n':
                line = process.stdout.readline()
                assert line, "the body ended"
            assert process.poll() is None
            post(address, '"third"', "-H", "Stream-Closed: true")
            rest = process.stdout.read()
            assert process.wait() == 0
    assert 'data: "third"' in rest
    assert rest.rstrip().endswith('data: {"reason":"complete"}')


@pytest.mark.parametrize("way", ASKING)
def test_curl_resumes_with_the_header(server: Running, way: str) -> None:
    with hello(server, f"resume/{way}") as address:
        place = post(address, '"third"')
        last = post(address, '"fourth"', "-H", "Stream-Closed: true")
        done = curl(*reading(way, address, "-H", f"Last-Event-ID: {place}"))
        again = curl("-w", "%{http_code}", *reading(way, address, "-H", f"Last-Event-ID: {last}~"))
    assert re.findall(r"(?m)^data: (.*)$", done.stdout) == ['"fourth"', '{"reason":"complete"}']
    assert re.findall(r"(?m)^id: (.*)$", done.stdout) == [last, f"{last}~"]
    assert again.stdout == "204"


def test_curl_without_either_gets_what_is_there_now(server: Running) -> None:
    with hello(server, "now") as address:
        done = curl(address)
    assert done.stdout == '["hello","again"]'


def test_penstock_tail_shows_what_curl_appended(server: Running, tmp_path: Path) -> None:
    with hello(server, "both") as address:
        post(address, "", "-H", "Stream-Closed: true")
        assert run("tail", address, folder=tmp_path).out == '"hello"\n"again"\n'

"""`penstock demo` shows the whole chain, stops when told to, and leaves nothing behind."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock.wire.sse import Decoder, Event
from running_commands import Running, run, running

CANCELLED_WITHIN_S = 1.0
STOPS_WITHIN_S = 5.0
AT_ONCE = ("--pace", "0", "--first-token-s", "0")


@dataclass(slots=True)
class Demo:
    """A demo that answers, and what its recorded upstream wrote down."""

    command: Running
    log: Path

    def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.command.port, timeout=15)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def start(self, what: str = "chat") -> str:
        """Starts an answer; gives the path to read it at."""
        status, _, body = self.ask("POST", f"/demo/{what}", {"prompt": "Why a log?"})
        assert status == 201, body
        started = json.loads(body)
        assert started["url"] == f"/v1/stream/{started['stream']}"
        return str(started["url"])

    def read(self, path: str) -> list[Event]:
        """The events of a stream to the end of its body."""
        status, headers, body = self.ask("GET", path, Accept="text/event-stream")
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        decoder = Decoder()
        decoder.receive_data(body)
        return decoder.events()

    def logged(self, event: str) -> dict[str, Any]:
        """Waits for an entry of the upstream's log."""
        self.command.until(lambda: self._entries(event))
        return self._entries(event)[0]

    def _entries(self, event: str) -> list[dict[str, Any]]:
        lines = self.log.read_text("utf-8").splitlines(keepends=True) if self.log.exists() else []
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return [entry for entry in entries if entry["event"] == event]


@contextmanager
def demo(folder: Path, *arguments: str) -> Generator[Demo]:
    log = folder / "upstream.jsonl"
    options = ("--port", "0", "--recorded", "--upstream-log", str(log), *arguments)
    with running("demo", *options, folder=folder) as command:
        assert command.address
        yield Demo(command, log)


@pytest.fixture(scope="module")
def fast_demo(tmp_path_factory: pytest.TempPathFactory) -> Generator[Demo]:
    """One demo, as fast as it can, for all tests that change nothing in it."""
    with demo(tmp_path_factory.mktemp("demo"), *AT_ONCE) as one:
        yield one


def test_it_serves_its_page_and_every_file_of_it(fast_demo: Demo) -> None:
    status, headers, body = fast_demo.ask("GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<html" in body
    assets = list((files("penstock") / "web" / "assets").iterdir())
    assert assets
    for asset in assets:
        status, headers, body = fast_demo.ask("GET", f"/assets/{asset.name}")
        assert status == 200
        assert body == asset.read_bytes()
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/assets/",
        "/assets/../index.html",
        "/assets/%2e%2e/index.html",
        "/assets/..%2findex.html",
        "/assets/..%2f..%2f__init__.py",
        "/assets/..%5cindex.html",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/assets/../../../../../../etc/passwd",
        "/assets/./style.css",
        "/assets/style.css/",
        "/assets/style.css%00",
        "/assets/STYLE.CSS",
    ],
)
def test_nothing_but_its_files_is_under_assets(fast_demo: Demo, path: str) -> None:
    status, _, body = fast_demo.ask("GET", path)
    assert status in (400, 404)
    assert json.loads(body)["status"] == status


def test_it_says_what_it_is(fast_demo: Demo) -> None:
    status, _, body = fast_demo.ask("GET", "/demo/about")
    about = json.loads(body)
    assert status == 200
    assert (about["version"], about["fast_path"]) == (version("penstock"), True)
    assert about["upstream"]["kind"] == "recorded"


def test_a_chat_streams_to_its_end(fast_demo: Demo) -> None:
    """The prompt, then the model's token events, then the end with its reason."""
    events = fast_demo.read(fast_demo.start())
    kinds = [event.type for event in events]
    assert kinds[:2] == ["prompt", "start"]
    assert kinds.count("text") > 100
    assert kinds[-1] == "end"
    assert json.loads(events[0].data) == {"text": "Why a log?"}
    assert json.loads(events[-1].data) == {"reason": "complete"}


def test_a_board_streams_all_its_models_to_the_end(fast_demo: Demo) -> None:
    events = fast_demo.read(fast_demo.start("board"))
    models = {json.loads(event.data).get("model") for event in events if event.type == "text"}
    assert len(models) == 3
    assert json.loads(events[-1].data) == {"reason": "complete"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/demo/chat", {}, 405),
        ("POST", "/", {}, 405),
        ("POST", "/demo/chat", {"Origin": "http://evil.example"}, 403),
        ("GET", "/", {"Host": "evil.example"}, 403),
        ("GET", "/demo/none", {}, 404),
    ],
)
def test_it_is_as_strict_as_the_server(
    fast_demo: Demo, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert fast_demo.ask(method, path, {"prompt": "x"}, **headers)[0] == status


@pytest.mark.parametrize("body", [[], "x", {"prompt": 7}, {"prompt": "x" * 5000}])
def test_a_prompt_that_is_none_is_refused(fast_demo: Demo, body: object) -> None:
    status, _, answer = fast_demo.ask("POST", "/demo/chat", body)
    assert (status, json.loads(answer)["code"]) == (400, "body-malformed")


@pytest.mark.parametrize(
    ("knobs", "seen"),
    [(("--first-token-s", "60"), "start"), (("--pace", "2"), "first-byte")],
    ids=["before-the-first-token", "in-the-middle"],
)
def test_cancel_stops_the_upstream(tmp_path: Path, knobs: tuple[str, ...], seen: str) -> None:
    """The provider sees its client go within a second, wherever the answer is."""
    with demo(tmp_path, *knobs) as one:
        path = one.start()
        one.logged(seen)
        began = time.time()
        assert one.ask("POST", path.replace("/v1/stream/", "/v1/cancel/"))[0] == 204
        gone = one.logged("gone")
        assert gone["wall_s"] - began < CANCELLED_WITHIN_S
        assert gone["events_sent"] < gone["events"]
        last = one.read(path)[-1]
        assert (last.type, json.loads(last.data)) == ("end", {"reason": "cancelled"})


def test_an_upstream_that_refuses_makes_a_failed_answer(tmp_path: Path) -> None:
    """And `tail` says so with its status, after the failure that says why."""
    with demo(tmp_path, *AT_ONCE, "--model", "recorded:999999") as one:
        address = one.command.address + one.start()
        done = run("tail", address, folder=tmp_path)
    assert (done.status, done.err) == (1, "-- end: failed\n")
    prompt, failure = done.out.splitlines()
    assert prompt == '{"text":"Why a log?"}'
    assert json.loads(failure)["status"] == 400


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_with_0_and_its_upstream_with_it(tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of an answer that somebody reads."""
    with demo(tmp_path, "--pace", "5") as one:
        children = psutil.Process(one.command.process.pid).children(recursive=True)
        assert children
        address = one.command.address + one.start()
        with running("tail", address, folder=tmp_path) as reading:
            reading.match("text")
            one.command.send(number)
            assert one.command.wait(STOPS_WITHIN_S) == 0
            assert not any(child.is_running() for child in children)
            assert "Traceback" not in one.command.err
            assert reading.process.poll() is None

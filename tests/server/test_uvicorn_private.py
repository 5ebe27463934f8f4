"""Every private attribute of uvicorn that the fast path leans on is there and means what we think.

When one of these fails after a new release of uvicorn: read what replaced the attribute, change
`server/fastpath.py` to it, and only then move the range in `pyproject.toml`. Until then the pinned
range keeps the release out.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from inprocess import served, turns
from penstock.server.asgi import Receive, Scope, Send
from raw_http import connect

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
WHAT_TO_DO = "uvicorn changed it: adapt server/fastpath.py before the range in pyproject.toml moves"


@pytest.fixture(autouse=True)
def _needs_the_checkout() -> None:
    assert PYPROJECT.is_file(), "run this from a checkout: it compares with pyproject.toml"


class Seen:
    """What stood where while a request was answered by stock uvicorn."""

    def __init__(self) -> None:
        self.cycle: Any = None
        self.protocol: Any = None
        self.facts: dict[str, Any] = {}


async def look(
    observe: Callable[[Any, Any], dict[str, Any]],
    *,
    request: bytes = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n",
    headers: list[tuple[bytes, bytes]] | None = None,
    body: bytes = b"",
    wait: bool = True,
) -> Seen:
    """Have stock uvicorn answer a request, and look at its objects between head and body."""
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.cycle = receive.__self__  # type: ignore[attr-defined]
        head = {"type": "http.response.start", "status": 200, "headers": headers or []}
        await send(head)
        seen.facts = observe(seen.protocol, seen.cycle)
        await send({"type": "http.response.body", "body": body, "more_body": False})

    class Stock(HttpToolsProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            seen.protocol = self

    async with served(app, http=Stock) as server, connect(server.port) as connection:
        await connection.send_raw(request)
        await connection.head("HEAD" if request.startswith(b"HEAD") else "GET")
        if wait:
            await connection.body()
        await turns()
    return seen


def test_the_pinned_range_includes_the_installed_release() -> None:
    table = tomllib.loads(PYPROJECT.read_text("utf-8"))
    (pinned,) = [d for d in table["project"]["dependencies"] if d.startswith("uvicorn")]
    low, high = pinned.removeprefix("uvicorn>=").split(",<")
    installed = tuple(int(part) for part in version("uvicorn").split(".")[:2])
    assert _numbers(low) <= installed < _numbers(high), (
        f"uvicorn {version('uvicorn')} is installed and {pinned!r} is pinned: "
        "run `make install`, or check every test of this file and move the range"
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))[:2]


def test_the_constructor_takes_what_we_pass_on() -> None:
    names = list(inspect.signature(HttpToolsProtocol.__init__).parameters)
    assert names == ["self", "config", "server_state", "app_state", "_loop"], WHAT_TO_DO


@pytest.mark.parametrize(
    "name",
    [
        "connection_made",
        "connection_lost",
        "data_received",
        "on_message_begin",
        "on_url",
        "on_header",
        "on_headers_complete",
        "send_400_response",
        "_unset_keepalive_if_required",
    ],
)
def test_the_protocol_has_the_method_we_extend_or_call(name: str) -> None:
    assert inspect.isfunction(getattr(HttpToolsProtocol, name, None)), WHAT_TO_DO


def test_parser_errors_go_through_send_400_response() -> None:
    """A callback that raises stops httptools, and our override then says why."""
    source = inspect.getsource(HttpToolsProtocol.data_received)
    assert "except httptools.HttpParserError" in source, WHAT_TO_DO
    assert "self.send_400_response(" in source, WHAT_TO_DO


def test_status_lines_are_whole_lines_by_status() -> None:
    assert STATUS_LINE[431] == b"HTTP/1.1 431 Request Header Fields Too Large\r\n", WHAT_TO_DO
    assert STATUS_LINE[408] == b"HTTP/1.1 408 Request Timeout\r\n", WHAT_TO_DO


async def test_the_protocol_holds_the_cycle_of_the_newest_request() -> None:
    seen = await look(lambda protocol, cycle: {"is": protocol.cycle is cycle})
    assert seen.facts["is"], WHAT_TO_DO
    assert isinstance(seen.cycle, RequestResponseCycle), WHAT_TO_DO


async def test_the_protocol_holds_its_transport() -> None:
    seen = await look(
        lambda protocol, cycle: {
            "same": protocol.transport is cycle.transport,
            "is": isinstance(protocol.transport, asyncio.Transport),
        }
    )
    assert seen.facts == {"same": True, "is": True}, WHAT_TO_DO


async def test_connections_is_the_servers_own_set_of_protocols() -> None:
    seen = await look(
        lambda protocol, _: {
            "in": protocol in protocol.connections,
            "same": protocol.connections is protocol.server_state.connections,
        }
    )
    assert seen.facts == {"in": True, "same": True}, WHAT_TO_DO
    assert isinstance(ServerState().connections, set), WHAT_TO_DO


async def test_the_pipeline_is_empty_without_a_request_behind_and_full_with_one() -> None:
    alone = await look(lambda protocol, _: {"waiting": len(protocol.pipeline)})
    assert alone.facts["waiting"] == 0, WHAT_TO_DO
    two = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n" * 2
    facts: list[int] = []

    def note(protocol: Any, _: Any) -> dict[str, Any]:
        facts.append(len(protocol.pipeline))
        return {}

    await look(note, request=two)
    assert facts[0] == 1, WHAT_TO_DO


async def test_a_response_is_started_by_its_head_and_complete_at_its_end() -> None:
    seen = await look(
        lambda _, cycle: {"started": cycle.response_started, "complete": cycle.response_complete}
    )
    assert seen.facts == {"started": True, "complete": False}, WHAT_TO_DO
    assert seen.cycle.response_complete is True, WHAT_TO_DO


async def test_more_body_says_whether_the_request_is_still_coming() -> None:
    whole = await look(lambda _, cycle: {"more": cycle.more_body})
    assert whole.facts["more"] is False, WHAT_TO_DO
    half = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf"
    part = await look(lambda _, cycle: {"more": cycle.more_body}, request=half)
    assert part.facts["more"] is True, WHAT_TO_DO


async def test_keep_alive_is_off_once_the_head_said_close() -> None:
    kept = await look(lambda _, cycle: {"keep": cycle.keep_alive})
    assert kept.facts["keep"] is True, WHAT_TO_DO
    closed = await look(
        lambda _, cycle: {"keep": cycle.keep_alive}, headers=[(b"connection", b"close")]
    )
    assert closed.facts["keep"] is False, WHAT_TO_DO


async def test_chunked_encoding_is_true_only_for_a_body_in_chunks() -> None:
    def of(_: Any, cycle: Any) -> dict[str, Any]:
        return {"chunked": cycle.chunked_encoding}

    assert (await look(of)).facts["chunked"] is True, WHAT_TO_DO
    sized = await look(of, headers=[(b"content-length", b"0")])
    assert sized.facts["chunked"] is False, WHAT_TO_DO
    head = await look(of, request=b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n", wait=False)
    assert head.facts["chunked"] is None, WHAT_TO_DO


async def test_a_body_of_known_length_goes_out_unframed_and_is_counted_down() -> None:
    """What `Offer.identity` makes of HTTP/1.0: a length without end, at last the true one."""

    def pretend(_: Any, cycle: Any) -> dict[str, Any]:
        cycle.chunked_encoding, cycle.expected_content_length = False, sys.maxsize
        cycle.expected_content_length = 3
        return {}

    seen = await look(pretend, headers=[(b"connection", b"close")], body=b"abc", wait=False)
    assert seen.cycle.expected_content_length == 0, WHAT_TO_DO
    assert seen.cycle.response_complete, WHAT_TO_DO


async def test_a_disconnected_cycle_sends_nothing_and_complains_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A cycle whose transport was given away is complete and disconnected, and then let go."""

    def leave(_: Any, cycle: Any) -> dict[str, Any]:
        cycle.response_complete = cycle.disconnected = True
        cycle.message_event.set()
        cycle.transport.close()
        return {}

    await look(leave, wait=False)
    assert not [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")], WHAT_TO_DO


async def test_the_scope_is_the_cycles_own_and_takes_an_extension() -> None:
    seen = await look(
        lambda protocol, cycle: {
            "same": protocol.scope is cycle.scope,
            "method": cycle.scope["method"],
            "version": cycle.scope["http_version"],
            "extensions": cycle.scope.get("extensions", {}),
        }
    )
    assert seen.facts == {"same": True, "method": "GET", "version": "1.1", "extensions": {}}, (
        WHAT_TO_DO
    )


async def test_the_keep_alive_timer_is_armed_after_a_response_and_can_be_unset() -> None:

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with served(app, http="httptools") as server, connect(server.port) as connection:
        await connection.ask("GET", "/")
        (protocol,) = server.connections
        timer = protocol.timeout_keep_alive_task
        assert isinstance(timer, asyncio.TimerHandle), WHAT_TO_DO
        protocol._unset_keepalive_if_required()
        assert timer.cancelled(), WHAT_TO_DO
        assert protocol.timeout_keep_alive_task is None, WHAT_TO_DO


async def test_the_flow_says_whether_writing_is_paused_and_resumes_reading() -> None:
    seen = await look(
        lambda protocol, _: {
            "is": isinstance(protocol.flow, FlowControl),
            "paused": protocol.flow.write_paused,
        }
    )
    assert seen.facts == {"is": True, "paused": False}, WHAT_TO_DO
    assert inspect.isfunction(FlowControl.resume_reading), WHAT_TO_DO
    flow = seen.protocol.flow
    flow.pause_writing()
    assert flow.write_paused is True, WHAT_TO_DO
    flow.resume_writing()
    assert flow.write_paused is False, WHAT_TO_DO


async def test_parser_scope_and_headers_may_be_none_once_a_connection_is_lost() -> None:
    """uvicorn sets its parser to None itself; nothing of it looks at the others after that."""
    seen = await look(lambda *_: {})
    assert seen.protocol.parser is None, WHAT_TO_DO
    assert {"cycle", "scope", "headers"} <= vars(seen.protocol).keys(), WHAT_TO_DO


@pytest.mark.parametrize("name", ["capture_signals", "startup", "serve"])
def test_the_server_has_the_method_that_serve_replaces(name: str) -> None:
    assert callable(getattr(uvicorn.Server, name, None)), WHAT_TO_DO


def test_the_server_has_the_flags_that_stop_it() -> None:
    server = uvicorn.Server(uvicorn.Config(lambda: None, log_config=None))
    assert (server.should_exit, server.force_exit, server.started) == (False, False, False)


async def test_a_server_that_runs_has_its_listeners_and_its_tasks() -> None:
    async with served(lambda: None, http="httptools") as server:
        (listener,) = server.server.servers
        assert isinstance(listener, asyncio.Server), WHAT_TO_DO
        assert server.server.server_state.tasks == set(), WHAT_TO_DO


def test_the_configuration_makes_a_loop_factory() -> None:
    factory = uvicorn.Config(lambda: None, loop="asyncio", log_config=None).get_loop_factory()
    assert factory is not None, WHAT_TO_DO
    loop = factory()
    loop.close()

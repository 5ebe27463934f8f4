"""What a client may get wrong: each mistake has its status and code, and changes nothing.

One table of requests, run against the application without a server; then what only shows with one,
what a browser could be made to do, failures of our own, and random requests.
"""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inprocess import Called, call, scope_of, serving
from penstock.backends.interface import StreamConfig
from penstock.backends.memory import MemoryBackend
from penstock.core.limits import MAX_BODY_BYTES, MAX_NAME_BYTES
from penstock.core.log import Head
from penstock.core.record import NewRecord
from penstock.server.app import ServerApp
from penstock.server.hub import Hub
from raw_http import connect

SPEC = Path(__file__).parents[2] / "spec" / "errors.toml"
JSON = (b"content-type", b"application/json")
TEXT = (b"content-type", b"text/plain")
SSE = (b"accept", b"text/event-stream")

Pair = tuple[bytes, bytes]


@pytest.fixture
async def hub() -> Hub:
    """A hub with a JSON stream `a` of one record, a text stream `t`, and `ended`."""
    hub = Hub(max_record_bytes=1000, max_body_bytes=4000)
    stream = await hub.create("a")
    await stream.append("first")
    await hub.create("t", content_type="text/plain")
    await (await hub.create("ended")).close()
    return hub


def state(hub: Hub) -> list[tuple[str, Head]]:
    return [(stream.name, stream.head) for stream in hub.streams()]


@dataclass(frozen=True)
class Case:
    """A request that is a mistake, and what it is answered."""

    claim: str
    method: str
    target: bytes
    status: int
    code: str
    headers: Sequence[Pair] = ()
    body: Sequence[bytes] = (b"",)
    answer: dict[bytes, bytes] = field(default_factory=dict)


def name_cases() -> list[Case]:
    names = {
        "encoded slash": b"x%2Fy",
        "encoded slash in lower case": b"x%2fy",
        "encoded backslash": b"x%5cy",
        "encoded backslash in upper case": b"x%5Cy",
        "backslash": b"x\\y",
        "parent": b"x/../y",
        "parent at the end": b"x/..",
        "encoded parent": b"x/%2e%2e/y",
        "half encoded parent": b"x/.%2E/y",
        "this": b"./x",
        "encoded this": b"x/%2e",
        "empty segment": b"x//y",
        "empty first segment": b"/x",
        "empty last segment": b"x/",
        "nothing": b"",
        "NUL": b"x%00y",
        "LF": b"x%0ay",
        "CR": b"x%0Dy",
        "DEL": b"x%7f",
        "line separator": b"x%e2%80%a8",
        "direction override": b"x%e2%80%aey",
        "no UTF-8": b"x%ff",
        "overlong slash": b"x%c0%afy",
        "surrogate": b"x%ed%a0%80",
        "too long": b"x" * (MAX_NAME_BYTES + 1),
        "too long in UTF-8": b"%c3%a9" * (MAX_NAME_BYTES // 2 + 1),
        "the protocol's own": b"__ds",
        "the protocol's own, encoded": b"%5f_ds/x",
    }
    return [
        Case(f"{method} {prefix} {what}", method, prefix + name, 400, "name-malformed")
        for what, name in names.items()
        for method, prefix in (
            ("GET", b"/v1/stream/"),
            ("PUT", b"/v1/stream/"),
            ("POST", b"/v1/stream/"),
            ("DELETE", b"/v1/stream/"),
            ("POST", b"/v1/cancel/"),
        )
    ]


def unknown_cases() -> list[Case]:
    requests = [
        ("GET", b"/v1/stream/no"),
        ("HEAD", b"/v1/stream/no"),
        ("POST", b"/v1/stream/no"),
        ("DELETE", b"/v1/stream/no"),
        ("POST", b"/v1/cancel/no"),
        ("GET", b"/v1/streams/no"),
        ("GET", b"/v1/stream/A"),
        ("GET", b"/v1/stream/a%2520"),
        ("GET", b"/v1/stream/a?live=events"),
    ]
    cases = [
        Case(f"{method} {target.decode()}", method, target, 404, "stream-not-found")
        for method, target in requests[:-1]
    ]
    paths = [b"/", b"/v1", b"/v1/", b"/v1/nothing", b"/V1/stream/a", b"/v1/stream", b"/v2/stream/a"]
    paths += [b"/v1/stream/__ds/x", b"/v1/stream/__ds/subscriptions"]
    paths += [b"/v1/streams%2f", b"//v1/stream/a", b"/v1//stream/a", b"/metrics/", b"/healthz/x"]
    return cases + [
        Case(f"no address {path.decode()}", "GET", path, 404, "route-not-found") for path in paths
    ]


def reading_cases() -> list[Case]:
    bad_offsets = [
        b"x",
        b"0",
        b"-2",
        b"-1x",
        b"1e9",
        b"zzzzz1!",
        b"000001",
        b"~",
        b"%00",
        b"9" * 400,
    ]
    cases = [
        Case(
            f"{parameter.decode()}={offset.decode()} {'events' if live else 'bytes'}",
            "GET",
            b"/v1/stream/a?" + parameter + b"=" + offset + live,
            400,
            "offset-malformed",
        )
        for offset in bad_offsets
        for parameter in (b"offset", b"last_event_id")
        for live in (b"", b"&live=events")
    ]
    queries = [
        b"live=sse",
        b"live=long-poll",
        b"live=",
        b"live=EVENTS",
        b"live=events&gap=411",
        b"gap=",
        b"heartbeat=loud",
        b"live=%ff",
        b"%ff=1",
        b"\xff",
        b"live=sse&live=events",  # of two the first stands
    ]
    return cases + [
        Case(f"?{query!r}", "GET", b"/v1/stream/a?" + query, 400, "query-malformed")
        for query in queries
    ]


def publishing_cases() -> list[Case]:
    def post(
        claim: str, status: int, code: str, body: bytes = b"1", *headers: Pair, name: bytes = b"a"
    ) -> Case:
        return Case(claim, "POST", b"/v1/stream/" + name, status, code, (JSON, *headers), (body,))

    reserved = (b"end", b"gap", b"cursor", b"status", b"drain", b"error", b"open")
    controls = (
        b"x\ny",
        b"x\r\ny",
        b"x\ry",
        b"x\0y",
        b"x\ty",
        b"x\x1b",
        b"x\x7f",
        b"x\x85",
        b"x\xa0y",
    )
    bodies = [
        b"{",
        b"nul",
        b"1 2",
        b"[1,",
        b"[1,]",
        b'"\xff"',
        b"\xff",
        b"'x'",
        b"NaN",
        b" ",
        b"[]",
    ]
    return [
        *(
            post(f"type {r.decode()}", 400, "record-type-reserved", b"1", (b"record-type", r))
            for r in reserved
        ),
        *(
            post(f"{h.decode()} {c!r}", 400, "record-field-malformed", b"1", (h, c))
            for h in (b"record-type", b"record-key")
            for c in controls
        ),
        post("long type", 400, "record-field-malformed", b"1", (b"record-type", b"x" * 65)),
        post("long key", 400, "record-field-malformed", b"1", (b"record-key", b"x" * 257)),
        *(post(f"body {b!r}", 400, "body-malformed", b) for b in bodies),
        post("empty body", 400, "body-malformed", b""),
        post("deep nesting", 400, "body-malformed", b"[" * 1900 + b"]" * 1900),
        post("large record", 413, "record-too-large", b'"' + b"x" * 1000 + b'"'),
        post("one large of a batch", 413, "record-too-large", b'[1,"' + b"x" * 1000 + b'"]'),
        post("announced", 413, "record-too-large", b"1", (b"content-length", b"4001")),
        post("announced hugely", 413, "record-too-large", b"1", (b"content-length", b"9" * 5000)),
        Case(
            "large body in parts",
            "POST",
            b"/v1/stream/a",
            413,
            "record-too-large",
            (JSON,),
            (b'"', *[b"x" * 500] * 9, b'"'),
        ),
        Case(
            "other type",
            "POST",
            b"/v1/stream/a",
            409,
            "content-type-conflict",
            (TEXT,),
            (b"text",),
        ),
        Case(
            "no media type",
            "POST",
            b"/v1/stream/a",
            400,
            "query-malformed",
            [(JSON[0], b"json")],
            (b"1",),
        ),
        Case(
            "text that is none", "POST", b"/v1/stream/t", 400, "body-malformed", (TEXT,), (b"\xff",)
        ),
        post("bad close", 400, "query-malformed", b"1", (b"stream-closed", b"yes")),
        post("bad close alone", 400, "query-malformed", b"", (b"stream-closed", b"1")),
        post("ended", 409, "stream-ended", b"1", name=b"ended"),
        post(
            "ended and closing",
            409,
            "stream-ended",
            b"1",
            (b"stream-closed", b"true"),
            name=b"ended",
        ),
        Case("other create", "PUT", b"/v1/stream/a", 409, "stream-conflict", (TEXT,)),
        Case(
            "create with a bad record",
            "PUT",
            b"/v1/stream/new",
            400,
            "body-malformed",
            (JSON,),
            (b"{",),
        ),
        Case(
            "create with a reserved type",
            "PUT",
            b"/v1/stream/new",
            400,
            "record-type-reserved",
            (JSON, (b"record-type", b"end")),
            (b"1",),
        ),
        Case(
            "create of no type",
            "PUT",
            b"/v1/stream/new",
            400,
            "query-malformed",
            [(JSON[0], b"a b")],
        ),
    ]


def method_cases() -> list[Case]:
    allowed = {
        b"/v1/stream/a": b"GET, HEAD, PUT, POST, DELETE",
        b"/v1/cancel/a": b"POST",
        b"/v1/streams": b"GET, HEAD",
        b"/v1/streams/a": b"GET, HEAD",
        b"/healthz": b"GET, HEAD",
        b"/readyz": b"GET, HEAD",
        b"/metrics": b"GET, HEAD",
    }
    return [
        Case(
            f"{method} {target.decode()}",
            method,
            target,
            405,
            "method-not-allowed",
            answer={b"allow": allow},
        )
        for target, allow in allowed.items()
        for method in ("PATCH", "TRACE", "BREW", *([] if b"POST" in allow else ["POST", "DELETE"]))
    ]


def stranger_cases() -> list[Case]:
    foreign = [b"http://evil.example", b"null", b"https://127.0.0.1:9999", b"http://127.0.0.1", b""]
    hosts = [b"evil.example", b"evil.example:80", b"127.0.0.1.evil.example", b"", b"localhost@evil"]
    hosts += [b"[::1", b"[::2]:4437", b"::1", b"127.0.0.2", b"localhost.evil:4437", b"\xff"]
    unsafe = [
        ("PUT", b"/v1/stream/new"),
        ("POST", b"/v1/stream/a"),
        ("DELETE", b"/v1/stream/a"),
        ("POST", b"/v1/cancel/a"),
    ]
    everything = [*unsafe, ("GET", b"/v1/stream/a"), ("GET", b"/v1/streams"), ("GET", b"/metrics")]
    return [
        *(
            Case(
                f"{m} {t!r} from {o!r}",
                m,
                t,
                403,
                "origin-refused",
                (JSON, (b"origin", o)),
                (b"1",),
            )
            for m, t in unsafe
            for o in foreign
        ),
        *(
            Case(f"{m} {t!r} at {h!r}", m, t, 403, "host-refused", (JSON, (b"host", h)), (b"1",))
            for m, t in everything
            for h in hosts
        ),
        *(
            Case(f"{t!r} by {h.decode()}", "GET", t, 403, "operator-only", ((h, b"203.0.113.9"),))
            for t in (b"/v1/streams", b"/v1/streams/a")
            for h in (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")
        ),
    ]


CASES = [
    *name_cases(),
    *unknown_cases(),
    *reading_cases(),
    *publishing_cases(),
    *method_cases(),
    *stranger_cases(),
    *(
        Case(f"limit={limit!r}", "GET", b"/v1/streams?limit=" + limit, 400, "query-malformed")
        for limit in (b"0", b"-1", b"1001", b"x", b"", b"%d9%a3", b"1" * 5000)
    ),
]


async def ask(hub: Hub, case: Case, **options: Any) -> Called:
    return await call(ServerApp(hub), case.method, case.target, case.headers, case.body, **options)


@pytest.mark.parametrize("case", CASES, ids=[case.claim[:60] for case in CASES])
async def test_a_mistake_has_its_code_and_changes_nothing(hub: Hub, case: Case) -> None:
    before = state(hub)
    answer = await ask(hub, case)
    assert (answer.status, answer.code) == (case.status, case.code), answer.body
    assert answer.heads == 1
    for name, value in case.answer.items():
        assert answer.header(name) == value
    assert state(hub) == before


def test_every_code_of_the_table_is_in_the_specification() -> None:
    rows = tomllib.loads(SPEC.read_text("utf-8"))["error"]
    known = {(row["code"], row["status"]) for row in rows}
    assert {(case.code, case.status) for case in CASES} <= known


# --- what is no mistake although it looks like one ----------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [(b"origin", b"http://127.0.0.1:4437")],
        [(b"origin", b"https://127.0.0.1:4437")],
        [(b"host", b"LOCALHOST"), (b"origin", b"http://localhost")],
        [(b"host", b"[::1]:4437")],
        [(b"host", b"localhost:1")],
        [(b"record-type", b"token"), (b"record-type", b"end")],
        [(b"content-type", b"Application/JSON; charset=utf-8")],
        [(b"stream-closed", b"FALSE")],
        [(b"content-length", b"4000")],
        [],
    ],
)
async def test_it_is_taken(hub: Hub, headers: list[Pair]) -> None:
    """Of a header given twice the first stands."""
    answer = await call(ServerApp(hub), "POST", "/v1/stream/a", [*headers, JSON], b"1")
    assert answer.status == 204, answer.body


async def test_a_foreign_page_may_read_what_anybody_may(hub: Hub) -> None:
    """A read changes nothing, and without CORS headers the page does not see the answer."""
    origin = (b"origin", b"http://evil.example")
    answer = await call(ServerApp(hub), "GET", "/v1/stream/a", [origin])
    assert answer.status == 200
    assert answer.header(b"access-control-allow-origin") is None


async def test_an_origin_on_the_list_may_write_and_sees_the_answer() -> None:
    hub = Hub(allowed_origins=("https://app.example",))
    await hub.create("a")
    origin = (b"origin", b"https://app.example")
    answer = await call(ServerApp(hub), "POST", "/v1/stream/a", [JSON, origin], b"1")
    assert answer.status == 204
    assert answer.header(b"access-control-allow-origin") == b"https://app.example"


@pytest.mark.parametrize("client", [("203.0.113.9", 1), ("10.0.0.1", 1), ("::2", 1), None])
@pytest.mark.parametrize("target", ["/v1/streams", "/v1/streams/a"])
async def test_listing_is_for_this_machine(
    hub: Hub, target: str, client: tuple[str, int] | None
) -> None:
    answer = await call(ServerApp(hub), "GET", target, client=client)
    assert (answer.status, answer.code) == (403, "operator-only")
    for loopback in (("127.0.0.1", 1), ("127.8.8.8", 1), ("::1", 1)):
        assert (await call(ServerApp(hub), "GET", target, client=loopback)).status == 200


async def test_the_bytes_of_a_refused_body_are_not_all_read(hub: Hub) -> None:
    taken: list[int] = []

    def parts() -> Any:
        for number in range(1000):
            taken.append(number)
            yield b"x" * 500

    coming, sent = parts(), list[Any]()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(coming), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    await ServerApp(hub)(scope_of("POST", b"/v1/stream/a", [JSON]), receive, send)
    assert sent[0]["status"] == 413
    assert len(taken) == 9


async def test_a_client_that_leaves_in_the_middle_of_its_body_changes_nothing(hub: Hub) -> None:
    before, sent = state(hub), list[Any]()
    messages: list[Any] = [
        {"type": "http.request", "body": b"1", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await ServerApp(hub)(scope_of("POST", b"/v1/stream/a", [JSON]), receive, send)
    assert sent[0]["status"] == 400
    assert state(hub) == before


async def test_a_malformed_header_is_a_gap_and_not_a_mistake(hub: Hub) -> None:
    """A browser sends what it remembers: refusing it would silence it for ever."""
    await (await hub.get("a")).close()
    for value in (b"nonsense", b"\xff\xfe", b"x" * 5000, b"00000", b"~"):
        headers = [SSE, (b"last-event-id", value)]
        answer = await call(ServerApp(hub), "GET", "/v1/stream/a", headers, stays=True)
        assert answer.status == 200
        assert b"event: gap" in answer.body
        assert b'data: "first"' in answer.body


# --- what only shows on the wire ----------------------------------------------------------------

POST = b"POST /v1/stream/a HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /v1/stream/../stream/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v1/stream/a%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v1/stream/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://localhost/v1/stream/no HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /v1/stream/no HTTP/1.1\r\n\r\n", 403),
        (b"GET /v1/stream/no HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET /v1/stream/no HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET /v1/stream/no HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", 400),
        (b"GET\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v1/stream/no HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n11", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ],
)
async def test_on_the_wire_it_is_refused_and_the_server_lives(
    hub: Hub, request_head: bytes, status: int
) -> None:
    before = state(hub)
    async with serving(hub) as server:
        async with connect(server.port) as connection:
            await connection.send_raw(request_head)
            assert (await connection.head()).status == status
        async with connect(server.port) as connection:
            assert (await connection.ask("GET", "/healthz")).status == 200
        assert state(hub) == before


async def test_a_body_above_the_limit_is_refused_before_it_was_sent(hub: Hub) -> None:
    async with serving(hub) as server, connect(server.port) as connection:
        headers = {"Content-Type": "application/json", "Content-Length": str(MAX_BODY_BYTES * 9)}
        await connection.send("POST", "/v1/stream/a", headers)
        answer = await connection.head()
        assert answer.status == 413
        assert json.loads(await connection.body())["code"] == "record-too-large"


# --- our own failures ---------------------------------------------------------------------------


class FailingBackend(MemoryBackend):
    """A store whose disk is gone: a backend outside this package may raise anything."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: 0.0, wall_clock=lambda: 0.0)
        self.is_broken = False

    async def append(self, name: str, batch: Sequence[NewRecord], **more: Any) -> Any:
        if self.is_broken:
            raise OSError("the disk of customer Meier is gone")
        return await super().append(name, batch, **more)

    async def create(self, name: str, config: StreamConfig, *opening: Any, **more: Any) -> Any:
        if self.is_broken:
            raise ZeroDivisionError("secret")
        return await super().create(name, config, *opening, **more)


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "/v1/stream/a"), ("PUT", "/v1/stream/b"), ("POST", "/v1/cancel/a")],
)
async def test_a_failure_of_ours_is_logged_and_told_without_its_insides(
    method: str, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FailingBackend()
    hub = Hub(backend)
    await hub.create("a")
    backend.is_broken = True
    with caplog.at_level(logging.ERROR, "penstock"):
        answer = await call(ServerApp(hub), method, target, [JSON], b"1")
    assert (answer.status, answer.code) == (500, "internal")
    for inside in (b"Traceback", b"Meier", b"secret", b"OSError", b"Division", b".py"):
        assert inside not in answer.body
    (record,) = caplog.records
    assert record.exc_info is not None
    assert target in record.getMessage()


# --- anything -----------------------------------------------------------------------------------


ATOMS = [
    b"/",
    b"/v1",
    b"/v1/",
    b"stream/",
    b"streams",
    b"cancel/",
    b"a",
    b"t",
    b"ended",
    b"..",
    b"%",
]
ATOMS += [
    b"%2F",
    b"%00",
    b"%ff",
    b"%e2%80%ae",
    b"\xff",
    b";",
    b"=",
    b"&",
    b"?",
    b"\\",
    b"//",
    b"-1",
]
QUERIES = [
    b"live=events",
    b"live=",
    b"offset=",
    b"-1",
    b"now",
    b"gap=410",
    b"heartbeat=event",
    b"&",
]
QUERIES += [
    b"last_event_id=",
    b"limit=",
    b"prefix=",
    b"after=",
    b"%00",
    b"%ff",
    b"\xff",
    b"+",
    b"=",
]
NAMES = [b"host", b"origin", b"accept", b"content-type", b"content-length", b"record-type"]
NAMES += [b"record-key", b"stream-closed", b"last-event-id", b"x-forwarded-for", b"connection"]
VALUES = [b"127.0.0.1", b"application/json", b"text/plain", b"text/event-stream", b"true", b"\r\n"]
VALUES += [b"9" * 5000, b"-1", b"~", b"\0", b"\xff", b"q=0", b"[::1]", b"http://127.0.0.1", b"*/*"]
paths = st.lists(st.sampled_from(ATOMS) | st.binary(max_size=3), max_size=6).map(b"".join)
queries = st.lists(st.sampled_from(QUERIES) | st.binary(max_size=3), max_size=5).map(b"".join)
values = st.sampled_from(VALUES) | st.binary(max_size=20)
header_lists = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=4)
methods = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "", "\0"])
bodies = st.lists(
    st.sampled_from([b"1", b'"x"', b"[1,2]", b"{", b""]) | st.binary(max_size=8), max_size=3
)


@settings(deadline=None, print_blob=True, max_examples=400)
@example("GET", b"/v1/streams", b"limit=" + b"9" * 5000, [], [])
@example("POST", b"/v1/stream/a", b"", [(b"content-length", b"9" * 5000)], [b"1"])
@given(methods, paths, queries, header_lists, bodies)
async def test_no_request_brings_a_failure_of_ours(
    method: str, path: bytes, query: bytes, headers: list[Pair], body: list[bytes]
) -> None:
    hub = Hub(max_record_bytes=1000)
    for name in ("a", "t"):
        await hub.create(name, content_type="application/json" if name == "a" else "text/plain")
    await (await hub.create("ended")).close()
    target = (b"/" + path if not path.startswith(b"/") else path) + b"?" + query
    answer = await call(ServerApp(hub), method, target, headers, body)
    assert answer.status < 500, (answer.status, answer.body)
    assert answer.heads == 1
    assert b"Traceback" not in answer.body
    if answer.status >= 400:
        assert answer.code
    for name, value in answer.headers:
        assert not set(b"\r\n\0") & {*name, *value}, (name, value)

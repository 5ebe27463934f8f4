"""The rules of spec/PROTOCOL.md that a request can show, asked of `penstock serve`.

Each case is named by the rules it shows. What needs time, load or a hand inside the process is
shown by the tests of the server.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import tomllib
from collections.abc import Generator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from docs.documents import BIN, read, serving
from penstock import Hub, Retention
from penstock.core.cursor import parse_offset
from penstock.server.app import ServerApp
from penstock.server.asgi import Message

PATIENCE_S = 30
EVENTS = {"Accept": "text/event-stream"}
JSON = {"Content-Type": "application/json"}
RULES = set(re.findall(r"\*\*(P-\d+\.\d+)\*\*", read("spec/PROTOCOL.md")))
CODES = {row["code"]: row["status"] for row in tomllib.loads(read("spec/errors.toml"))["error"]}
_numbers = count()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The problem's code, its other fields checked."""
        problem = json.loads(self.body)
        assert self.headers["content-type"] == "application/problem+json"
        assert set(problem) == {"type", "title", "status", "code", "detail"}
        assert problem["status"] == self.status == CODES[problem["code"]]
        return problem["code"]

    @property
    def blocks(self) -> list[dict[str, str]]:
        """The events of the body, each as its fields; comments and `retry:` left out."""
        found = [
            dict(line.split(": ", 1) for line in block.splitlines())
            for block in self.body.decode().split("\n\n")
            if block and not block.startswith((":", "retry:"))
        ]
        assert b"\r" not in self.body
        return found


class Server:
    """One `penstock serve`, asked with paths as they are written."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._netloc = urlsplit(address).netloc

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(self._netloc, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body=body or None, headers=headers or {})
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, fields, response.read())
        finally:
            connection.close()

    def ask_1_0(self, path: str) -> bytes:
        """Everything that a GET over HTTP/1.0 gets, until the connection closes."""
        host, port = self._netloc.split(":")
        with socket.create_connection((host, int(port)), PATIENCE_S) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            with connection.makefile("rb") as reader:
                return reader.read()

    def ended(self, *, content_type: str = "application/json", body: bytes = b"[1,2,3]") -> str:
        """A new stream that has ended as complete; gives its path."""
        path = f"/v1/stream/rules/{next(_numbers)}"
        headers = {"Content-Type": content_type, "Stream-Closed": "true"}
        assert self.ask("PUT", path, body, headers).status == 201
        return path

    def events(self, path: str, last_event_id: str | None = None) -> Answer:
        seen = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        return self.ask("GET", path, headers=EVENTS | seen)


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    folder: Path = tmp_path_factory.mktemp("rules")
    with serving([str(BIN / "penstock"), "serve", "--port", "0"], folder) as address:
        yield Server(address)


@pytest.mark.parametrize(
    ("rule", "method", "path", "headers", "code"),
    [
        ("P-1.3", "GET", "/v1/stream/a%2Fb", {}, "name-malformed"),
        ("P-1.3", "GET", "/v1/stream/a%5cb", {}, "name-malformed"),
        ("P-1.3", "GET", "/v1/stream/a//b", {}, "name-malformed"),
        ("P-1.3", "GET", "/v1/stream/a/../b", {}, "name-malformed"),
        ("P-1.3", "GET", "/v1/stream/a%0Ab", {}, "name-malformed"),
        ("P-1.3", "GET", "/v1/stream/%FF", {}, "name-malformed"),
        ("P-1.4", "GET", "/v1/stream/" + "a" * 513, {}, "name-malformed"),
        ("P-1.5", "PUT", "/v1/stream/__ds", {}, "name-malformed"),
        ("P-1.10", "GET", "/v1/stream/__own", {}, "name-malformed"),
        ("P-1.10", "PUT", "/v1/stream/%5F_own/a", {}, "name-malformed"),
        ("P-1.10", "POST", "/v1/stream/__own", JSON, "name-malformed"),
        ("P-1.10", "DELETE", "/v1/stream/__own", {}, "name-malformed"),
        ("P-1.10", "POST", "/v1/cancel/__own", {}, "name-malformed"),
        ("P-1.10", "GET", "/v1/streams/__own", {}, "name-malformed"),
        ("P-1.10", "PUT", "/v1/stream/a", {"Stream-Forked-From": "__own"}, "name-malformed"),
        ("P-1.8", "GET", "/v1/nothing", {}, "route-not-found"),
        ("P-1.8", "PATCH", "/v1/stream/a", {}, "method-not-allowed"),
        ("P-4.2", "GET", "/v1/stream/a?live=nothing", {}, "query-malformed"),
        ("P-7.9", "GET", "/v1/stream/nobody", EVENTS, "stream-not-found"),
        ("P-7.9", "GET", "/v1/stream/nobody", {}, "stream-not-found"),
        ("P-10.11", "GET", "/v1/stream/a?offset=", {}, "query-malformed"),
        ("P-10.11", "GET", "/v1/stream/a?offset=-1&offset=-1", {}, "query-malformed"),
        ("P-11.16", "DELETE", "/v1/stream/nobody", {}, "stream-not-found"),
        ("P-11.16", "POST", "/v1/cancel/nobody", {}, "stream-not-found"),
        ("P-12.5", "GET", "/v1/streams", {"X-Forwarded-For": "192.0.2.1"}, "operator-only"),
        ("P-12.5", "GET", "/v1/streams/a", {"Via": "1.1 proxy"}, "operator-only"),
        ("P-16.1", "POST", "/v1/stream/a", {"Producer-Id": "p"}, "query-malformed"),
        ("P-17.1", "GET", "/v1/stream/a?live=sse", {}, "query-malformed"),
        ("P-17.1", "GET", "/v1/stream/a?live=long-poll", {}, "query-malformed"),
        ("P-18.1", "PUT", "/v1/stream/a", {"Stream-TTL": "01"}, "query-malformed"),
        ("P-18.2", "PUT", "/v1/stream/a", {"Stream-Expires-At": "soon"}, "query-malformed"),
        ("P-18.4", "PUT", "/v1/stream/a", {"Stream-Forked-From": "nobody"}, "stream-not-found"),
        ("P-18.5", "PUT", "/v1/stream/a", {"Stream-Fork-Sub-Offset": "1"}, "query-malformed"),
        ("P-21.1", "GET", "/v1/stream/a?dialect=morse", {}, "query-malformed"),
        ("P-21.2", "GET", "/v1/stream/a?dialect=agui&live=sse", {}, "query-malformed"),
        ("P-21.2", "GET", "/v1/stream/a?dialect=agui&compact=1", {}, "query-malformed"),
        ("P-21.2", "GET", "/v1/stream/a?dialect=agui&heartbeat=event", {}, "query-malformed"),
        ("P-21.9", "GET", "/v1/stream/nobody?dialect=agui", {}, "stream-not-found"),
        ("P-14.1", "GET", "/v1/stream/a", {"Host": "evil.example"}, "host-refused"),
        ("P-14.2", "PUT", "/v1/stream/a", {"Origin": "http://evil.example"}, "origin-refused"),
    ],
)
def test_what_is_refused(
    v1: Server, rule: str, method: str, path: str, headers: dict[str, str], code: str
) -> None:
    assert rule in RULES
    assert v1.ask(method, path, headers=headers).code == code


@pytest.mark.parametrize(
    ("rule", "body", "headers", "code"),
    [
        *(
            ("P-3.2", b"1", JSON | {"Record-Type": reserved}, "record-type-reserved")
            for reserved in ("end", "gap", "cursor", "status", "drain", "error", "open")
        ),
        ("P-3.3", b"1", JSON | {"Record-Type": "t" * 65}, "record-field-malformed"),
        ("P-3.3", b"1", JSON | {"Record-Key": "k" * 257}, "record-field-malformed"),
        ("P-3.4", b'"' + b"a" * 1_048_575 + b'"', JSON, "record-too-large"),
        ("P-11.7", b"1", {"Content-Type": "text/plain"}, "content-type-conflict"),
        ("P-11.7", b"1", {}, "body-malformed"),
        ("P-11.8", b"", JSON, "body-malformed"),
        ("P-11.8", b"[]", JSON, "body-malformed"),
        ("P-11.8", b"{", JSON, "body-malformed"),
        ("P-3.6", b'"\xff"', JSON, "body-malformed"),
        ("P-11.10", b"1", JSON | {"Stream-Closed": "yes"}, "query-malformed"),
        ("P-11.9", b"1", JSON | {"Content-Length": "8388609"}, "record-too-large"),
    ],
)
def test_what_is_refused_as_a_record(
    v1: Server, rule: str, body: bytes, headers: dict[str, str], code: str
) -> None:
    assert rule in RULES
    v1.ask("PUT", "/v1/stream/refused", headers=JSON)
    assert v1.ask("POST", "/v1/stream/refused", body, headers).code == code
    assert v1.ask("GET", "/v1/stream/refused").body == b"[]"


def test_p_2_1_to_p_2_5_offsets_sort_and_read_back(v1: Server) -> None:
    body = json.dumps(list(range(200))).encode()
    ids = [event["id"] for event in v1.events(v1.ended(body=body)).blocks[:-1]]
    assert ids == sorted(ids)
    assert [str(parse_offset(id_)) for id_ in ids] == ids


def test_p_2_8_a_stream_made_again_has_a_higher_epoch(v1: Server) -> None:
    path = v1.ended()
    before = v1.ask("HEAD", path).headers["stream-next-offset"]
    assert v1.ask("DELETE", path).status == 204
    v1.ask("PUT", path, b"[1,2,3]", JSON | {"Stream-Closed": "true"})
    after = v1.ask("HEAD", path).headers["stream-next-offset"]
    assert after > before
    gap = v1.events(path, before).blocks[0]
    assert json.loads(gap["data"])["reason"] == "epoch"


def test_p_3_5_a_json_value_is_kept_as_it_was_written(v1: Server) -> None:
    long = b"1234567890123456789012345678901234567890"
    path = v1.ended(body=b'[ %b, {"a" :\r\n 1.50} ]' % long)
    events = v1.events(path).blocks
    assert events[0]["data"].encode() == long
    assert json.loads(events[1]["data"]) == {"a": 1.5}
    assert "1.50" in events[1]["data"]


def test_p_4_3_to_p_4_5_the_head_and_the_first_bytes(v1: Server) -> None:
    answer = v1.events(v1.ended())
    expected = {
        "content-type": "text/event-stream",
        "cache-control": "no-cache, no-store, no-transform",
        "x-accel-buffering": "no",
        "incremental": "?1",
        "vary": "accept",
    }
    assert answer.headers.items() >= expected.items()
    assert "stream-next-offset" in answer.headers
    assert answer.headers["connection"] == "close"  # P-15.2
    first = re.match(rb": penstock\n\nretry: (\d+)\n\n", answer.body)
    assert first is not None
    assert 1500 <= int(first[1]) <= 4500  # P-8.4


def test_p_4_7_to_p_4_9_an_events_fields_and_their_order(v1: Server) -> None:
    headers = JSON | {"Record-Type": "note", "Record-Key": "k", "Stream-Closed": "true"}
    v1.ask("PUT", "/v1/stream/fields", b'{"a":1}', headers)
    (note, end) = v1.events("/v1/stream/fields").blocks
    assert list(note.items())[1:] == [("event", "note"), ("key", "k"), ("data", '{"a":1}')]
    assert next(iter(note)) == "id"
    assert end == {"id": note["id"] + "~", "event": "end", "data": '{"reason":"complete"}'}


def test_p_4_11_and_p_4_12_line_ends_and_bytes(v1: Server) -> None:
    text = v1.events(v1.ended(content_type="text/plain", body=b"a\r\nb\rc\nd"))
    assert b"data: a\ndata: b\ndata: c\ndata: d\n\n" in text.body
    binary = v1.events(v1.ended(content_type="image/png", body=b"\x00\xff"))
    assert binary.headers["stream-sse-data-encoding"] == "base64"
    assert binary.blocks[0]["data"] == "AP8="


@pytest.mark.parametrize("accept", ["text/event-stream;q=0", "*/*", "text/html"])
def test_p_4_1_and_p_10_1_who_does_not_ask_for_events_gets_the_payloads(
    v1: Server, accept: str
) -> None:
    answer = v1.ask("GET", v1.ended(), headers={"Accept": accept})
    assert answer.body == b"[1,2,3]"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["stream-up-to-date"] == "true"  # P-10.4
    assert answer.headers["stream-end-reason"] == "complete"


def test_p_5_1_the_header_beats_last_event_id_beats_offset(v1: Server) -> None:
    path = v1.ended()
    first, second, third, _ = (event["id"] for event in v1.events(path).blocks)
    query = f"{path}?last_event_id={second}&offset={first}"
    assert [e["id"] for e in v1.events(query, third).blocks] == [third + "~"]
    assert [e["id"] for e in v1.events(query).blocks] == [third, third + "~"]
    assert len(v1.events(f"{path}?offset={first}").blocks) == 3
    assert len(v1.events(f"{path}?offset=", "").blocks) == 4  # P-5.2, P-5.3
    assert len(v1.events(path, "-1").blocks) == 4  # P-2.10
    assert len(v1.events(path, "now").blocks) == 1


def test_p_5_5_and_p_6_2_to_p_6_4_what_is_no_offset_here(v1: Server) -> None:
    path = v1.ended()
    tail = v1.ask("HEAD", path).headers["stream-next-offset"]
    assert v1.events(f"{path}?offset=what").code == "offset-malformed"
    for place, reason in (
        ("what", "malformed"),
        ("0000010", "epoch"),
        (tail[:5] + "1z", "ahead"),
    ):
        gap, first, *_ = v1.events(path, place).blocks
        said = json.loads(gap["data"])
        assert said == {"from": place, "to": gap["id"], "reason": reason}
        assert gap["event"] == "gap"
        assert first["data"] == "1"
        assert v1.events(f"{path}?gap=410", place).code == "offset-gone"  # P-6.6
    gone = v1.ask("GET", f"{path}?offset=0000010")
    assert gone.code == "offset-gone"  # P-10.6
    assert gone.headers["stream-earliest-offset"] == tail[:5] + "10"


def test_p_7_4_to_p_7_8_the_end_and_the_lost(v1: Server) -> None:
    path = v1.ended()
    tail = v1.ask("HEAD", path).headers["stream-next-offset"]
    again = v1.events(path, tail)
    assert again.status == 200
    assert [event["event"] for event in again.blocks] == ["end"]
    assert v1.events(path, tail + "~").status == 204
    lost = v1.events("/v1/stream/nobody", tail)
    assert lost.blocks == [{"id": tail + "~", "event": "end", "data": '{"reason":"lost"}'}]
    assert v1.events("/v1/stream/nobody", tail + "~").status == 204


def test_p_14_3_a_page_of_another_origin_is_told_nothing(v1: Server) -> None:
    answer = v1.ask("GET", v1.ended(), headers={"Origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_p_15_3_http_1_0_has_no_chunks(v1: Server) -> None:
    head, _, body = v1.ask_1_0(f"{v1.ended()}?live=events").partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body.startswith(b": penstock\n\n")
    assert body.endswith(b'data: {"reason":"complete"}\n\n')


def test_p_11_writing(v1: Server) -> None:
    path = "/v1/stream/written"
    made = v1.ask("PUT", path, b"[1]", JSON)
    assert (made.status, made.headers["location"]) == (201, v1.address + path)
    assert v1.ask("PUT", path, b"[2]", JSON).status == 200
    assert v1.ask("PUT", path, b"2", {"Content-Type": "text/plain"}).code == "stream-conflict"
    added = v1.ask("POST", path, b"[2,3]", JSON)
    assert added.status == 204
    assert v1.ask("GET", path).body == b"[1,2,3]"
    stopped = v1.ask("POST", "/v1/cancel/written")
    assert (stopped.status, stopped.headers["stream-end-reason"]) == (204, "cancelled")
    closed = v1.ask("POST", path, headers={"Stream-Closed": "true"})
    assert (closed.status, closed.headers["stream-end-reason"]) == (204, "cancelled")
    refused = v1.ask("POST", path, b"4", JSON)
    assert refused.code == "stream-ended"
    assert refused.headers["stream-closed"] == "true"
    assert refused.headers["stream-next-offset"] == added.headers["stream-next-offset"]  # P-11.11
    again = v1.ask("PUT", path, headers=JSON)
    assert (again.status, again.headers["stream-closed"]) == (200, "true")  # P-11.18
    assert v1.ask("DELETE", path).status == 204


def test_p_12_listing_and_inspecting(v1: Server) -> None:
    for name in ("list/b", "list/a", "list/c"):
        v1.ask("PUT", f"/v1/stream/{name}", b'"secret"', JSON)
    page = json.loads(v1.ask("GET", "/v1/streams?prefix=list/&limit=2").body)
    assert [stream["name"] for stream in page["streams"]] == ["list/a", "list/b"]
    rest = json.loads(v1.ask("GET", f"/v1/streams?prefix=list/&after={page['next']}").body)
    assert [stream["name"] for stream in rest["streams"]] == ["list/c"]
    assert rest["next"] is None
    one = v1.ask("GET", "/v1/streams/list/a")
    rule = re.search(r"\*\*P-12\.3\*\* .*", read("spec/PROTOCOL.md"))
    assert rule is not None
    assert list(json.loads(one.body)) == re.findall(r"`(\w+)`", rule[0])
    assert b"secret" not in one.body  # P-12.4


def test_p_10_8_to_p_10_10_now_tags_and_caches(v1: Server) -> None:
    path = "/v1/stream/cached"
    v1.ask("PUT", path, b"[1]", JSON)
    now = v1.ask("GET", f"{path}?offset=now")
    assert (now.body, now.headers["cache-control"]) == (b"[]", "no-store")
    first = v1.ask("GET", path)
    assert first.headers["cache-control"] == "private, no-cache"
    tag = {"If-None-Match": first.headers["etag"]}
    assert v1.ask("GET", path, headers=tag).status == 304
    v1.ask("POST", path, headers={"Stream-Closed": "true"})
    assert v1.ask("GET", path, headers=tag).status == 200


def test_p_11_19_stream_seq_rises_as_text(v1: Server) -> None:
    v1.ask("PUT", "/v1/stream/seq", headers=JSON)
    for seq, code in (
        ("10", ""),
        ("10", "sequence-conflict"),
        ("09", "sequence-conflict"),
        ("2", ""),
    ):
        answer = v1.ask("POST", "/v1/stream/seq", b"1", JSON | {"Stream-Seq": seq})
        assert (answer.code if code else answer.status) == (code or 204)


def test_p_16_producers(v1: Server) -> None:
    path = "/v1/stream/producers"
    v1.ask("PUT", path, headers=JSON)

    def send(epoch: int, seq: int, **more: str) -> Answer:
        stamp = {"Producer-Id": "p", "Producer-Epoch": str(epoch), "Producer-Seq": str(seq)}
        return v1.ask("POST", path, b"1", JSON | stamp | more)

    assert (send(1, 0).status, send(1, 1).status) == (200, 200)  # P-16.2
    again = send(1, 0)
    assert (again.status, again.headers["producer-seq"]) == (204, "1")  # P-16.3
    gap = send(1, 5)
    assert (gap.code, gap.headers["producer-expected-seq"]) == ("producer-gap", "2")  # P-16.4
    fenced = send(0, 9)
    assert (fenced.code, fenced.headers["producer-epoch"]) == ("producer-fenced", "1")  # P-16.5
    assert send(2, 1).code == "producer-epoch-invalid"
    v1.ask("POST", path, headers={"Stream-Closed": "true"})
    assert (send(1, 1).status, send(1, 2).code) == (204, "stream-ended")


def test_p_17_reading_what_comes(v1: Server) -> None:
    path = "/v1/stream/live"
    v1.ask("PUT", path, b'["a","b"]', JSON | {"Stream-Closed": "true"})
    poll = v1.ask("GET", f"{path}?offset=-1&live=long-poll&cursor=999999999")
    assert poll.body == b'["a","b"]'
    assert int(poll.headers["stream-cursor"]) > 999999999  # P-17.4
    tail = poll.headers["stream-next-offset"]
    last = v1.ask("GET", f"{path}?offset={tail}&live=long-poll")
    assert (last.status, last.headers["stream-closed"]) == (204, "true")  # P-17.3
    body = v1.ask("GET", f"{path}?offset=-1&live=sse").body.decode()
    data, control, end, rest = body.split("\n\n")
    assert data == f'id: {tail}\nevent: data\ndata:["a","b"]'  # P-17.5, P-17.11
    assert control.startswith('event: control\ndata:{"streamNextOffset":"')
    assert end.startswith(f"id: {tail}~\nevent: control\ndata:")  # P-17.7
    assert json.loads(end.partition("data:")[2]) == {
        "streamNextOffset": tail,
        "streamClosed": True,
        "streamEndReason": "complete",
    }
    assert rest == ""
    assert v1.ask("GET", f"{path}?offset={tail}~&live=sse").status == 204


def test_p_18_time_and_forks(v1: Server) -> None:
    source, fork = "/v1/stream/source", "/v1/stream/fork"
    v1.ask("PUT", source, b"[1,2,3]", JSON | {"Stream-TTL": "3600"})
    made = v1.ask("PUT", fork, headers={"Stream-Forked-From": source})
    assert made.status == 201
    head = v1.ask("HEAD", fork)
    assert (head.headers["stream-ttl"], head.headers["content-type"]) == (
        "3600",
        "application/json",
    )  # P-18.6
    other = JSON | {"Stream-Forked-From": source, "Stream-Fork-Offset": "-1"}
    v1.ask("PUT", "/v1/stream/branch", headers=other | {"Stream-Fork-Sub-Offset": "2"})
    assert v1.ask("GET", "/v1/stream/branch").body == b"[1,2]"  # P-18.5
    beyond = other | {"Stream-Fork-Sub-Offset": "4"}
    assert v1.ask("PUT", "/v1/stream/beyond", headers=beyond).code == "fork-invalid"
    text = {"Content-Type": "text/plain", "Stream-Forked-From": source}
    assert v1.ask("PUT", "/v1/stream/text", headers=text).code == "stream-conflict"
    assert v1.ask("DELETE", source).status == 204
    assert v1.ask("GET", source).code == "stream-gone"  # P-18.7
    assert v1.ask("PUT", source, headers=JSON).code == "stream-conflict"
    assert v1.ask("GET", fork).body == b"[1,2,3]"  # P-18.8
    for name in ("fork", "branch"):
        v1.ask("DELETE", f"/v1/stream/{name}")
    assert v1.ask("GET", source).code == "stream-not-found"


def test_p_20_10_an_error_of_the_reserved_addresses_has_the_protocols_code_too(v1: Server) -> None:
    answer = v1.ask("GET", "/v1/stream/__ds/subscriptions/nobody")
    assert json.loads(answer.body)["error"]["code"] == "SUBSCRIPTION_NOT_FOUND"
    assert v1.ask("GET", "/v1/stream/__ds/nothing").status == 404  # P-20.1


def test_p_21_dialects(v1: Server) -> None:
    path = "/v1/stream/answer"
    v1.ask("PUT", path, headers=JSON)
    answer: list[tuple[str, object]] = [
        ("start", {"id": "up-1", "model": "m", "role": "assistant"}),
        ("text", {"text": "Hi"}),
        ("note", "passed over"),
        ("stop", {"reason": "stop", "raw": "stop"}),
    ]
    for type_, payload in answer:
        v1.ask("POST", path, json.dumps(payload).encode(), JSON | {"Record-Type": type_})
    v1.ask("POST", path, headers={"Stream-Closed": "true"})
    tail = v1.ask("HEAD", path).headers["stream-next-offset"]
    for dialect in ("openai-chat", "openai-responses", "anthropic-messages", "vercel", "agui"):
        read = v1.ask("GET", f"{path}?dialect={dialect}")
        assert read.headers["content-type"] == "text/event-stream"  # P-21.3
        assert ("x-vercel-ai-ui-message-stream" in read.headers) is (dialect == "vercel")
        assert read.body.startswith(b":\n")  # P-21.4
        assert b"Hi" in read.body
        again = v1.ask("GET", f"{path}?dialect={dialect}", headers=EVENTS)
        assert again.body == read.body  # P-21.6, P-21.17
        ids = re.findall(rb"^id: (.*)$", read.body, re.MULTILINE)
        if dialect.startswith("openai-"):
            assert ids == []  # P-21.8
            assert v1.events(f"{path}?dialect={dialect}", f"{tail}~").body == read.body
        else:
            assert ids[-1].decode() == f"{tail}~"  # P-21.7
            assert ids == sorted(set(ids))
            rest = v1.events(f"{path}?dialect={dialect}", ids[-2].decode())
            assert read.body.endswith(rest.body.removeprefix(b":\n"))  # P-21.9
            assert v1.events(f"{path}?dialect={dialect}", f"{tail}~").status == 204  # P-21.10
    numbered = f"{path}?dialect=openai-responses&starting_after=2"
    assert b'"sequence_number":3' in v1.ask("GET", numbered).body  # P-21.11
    assert b'"sequence_number":2}' not in v1.ask("GET", numbered).body
    assert v1.ask("GET", f"{v1.ended(content_type='text/plain')}?dialect=vercel").code == (
        "query-malformed"
    )


async def test_p_6_5_and_p_10_5_the_beginning_of_a_trimmed_stream() -> None:
    async with Hub() as hub:
        stream = await hub.create("trimmed", retention=Retention(max_records=2))
        for number in range(5):
            await stream.append(number)
        await stream.close()
        gap, *kept = Answer(200, {}, await body_of(hub, b"text/event-stream")).blocks
        assert json.loads(gap["data"])["reason"] == "trimmed"
        assert [event["data"] for event in kept] == ["3", "4", '{"reason":"complete"}']
        assert await body_of(hub, b"*/*") == b"[3,4]"


async def body_of(hub: Hub, accept: bytes) -> bytes:
    """The body that the application sends for the stream `trimmed`."""
    sent: list[bytes] = []

    async def receive() -> Message:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/stream/trimmed",
        "raw_path": b"/v1/stream/trimmed",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"accept", accept)],
        "client": ("127.0.0.1", 1),
    }
    await asyncio.wait_for(ServerApp(hub)(scope, receive, send), PATIENCE_S)
    return b"".join(sent)

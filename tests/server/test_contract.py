"""Every server shows a reader the same streams: one suite, run on each way to serve.

`serve` and `uvicorn-fast` take the fast path, the others the portable one. What they may differ
in is in this table and nowhere else:

    servers        differ in                             because
    the fast path  a stream says `Connection: close`     its connection is given away
    the fast path  metrics count readers as `fast`       that is what they say

What servers do when they are told to stop differs more; that is in `test_lifecycle.py`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Generator
from urllib.parse import quote
from uuid import uuid4

import pytest

from penstock.core.limits import RETRY_JITTER, RETRY_MS
from raw_http import PATIENCE_S, Answer, ask, connect, events
from running_servers import Running, running

TEXT = {"Content-Type": "text/plain"}
JSON = {"Content-Type": "application/json"}
KINDS = ("serve", "uvicorn", "uvicorn-fast", "granian", "hypercorn")
GONE_WITHIN_S = 1.0
"""How soon a reader that hung up is gone from the server's books."""

STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-store, no-transform",
    "x-accel-buffering": "no",
    "incremental": "?1",
    "vary": "accept",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Generator[Running]:
    with running(request.param) as server:
        yield server


class Publisher:
    """Writes to one stream of its own, over the same HTTP as everybody."""

    def __init__(self, port: int, mount: str = "/v1") -> None:
        self.port = port
        self.name = f"contract/{uuid4().hex}"
        self.mount = mount
        self.path = f"{mount}/stream/{self.name}"
        self.content_type = "text/plain"

    async def create(self, content_type: str = "text/plain", body: bytes = b"") -> str:
        self.content_type = content_type
        answer = await ask(self.port, "PUT", self.path, {"Content-Type": content_type}, body)
        assert answer.status == 201, answer
        return answer["stream-next-offset"]

    async def create_keeping(self, records: int) -> None:
        await self.tell("create", keep=records)

    async def post(self, *payloads: str | bytes, **headers: str) -> list[str]:
        """Append each; returns the offsets after them."""
        offsets: list[str] = []
        async with connect(self.port) as connection:
            for payload in payloads:
                body = payload.encode() if isinstance(payload, str) else payload
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                named = {"Content-Type": self.content_type, **named}
                answer = await connection.ask("POST", self.path, named, body)
                assert answer.status == 204, answer
                offsets.append(answer["stream-next-offset"])
        return offsets

    async def end(self, reason: str = "complete") -> None:
        await self.tell("end", reason=reason)

    async def tell(self, verb: str, **query: object) -> None:
        pairs = "&".join(f"{key}={value}" for key, value in query.items())
        answer = await ask(self.port, "POST", f"/test/{verb}?name={quote(self.name)}&{pairs}")
        assert answer.status == 204, answer

    async def readers(self) -> int:
        answer = await ask(self.port, "GET", f"{self.mount}/streams/{self.name}")
        assert answer.status == 200, answer
        return int(answer.json["readers"])

    async def wait_for_readers(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.readers() != count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def stream(server: Running) -> Publisher:
    """An open text stream."""
    publisher = Publisher(server.port)
    await publisher.create()
    return publisher


# the head, and what comes with it


async def test_a_stream_has_exactly_the_headers_that_keep_it_flowing(
    server: Running, stream: Publisher
) -> None:
    async with events(server.port, stream.path) as reader:
        answer = reader.answer
    assert answer.status == 200
    for name, value in STREAM_HEADERS.items():
        assert answer[name] == value
    assert len(answer["stream-next-offset"]) >= 7
    assert "content-length" not in answer
    assert answer["transfer-encoding"] == "chunked"
    if server.kind.is_fast:
        assert answer["connection"] == "close"


async def test_a_comment_and_retry_come_with_the_head_before_any_record(
    server: Running, stream: Publisher
) -> None:
    async with events(server.port, stream.path) as reader:
        await reader.until(b"retry: ")
        assert reader.raw.startswith(b": penstock\n\nretry: ")
        assert reader.decoder.comments == 1


async def test_retry_is_drawn_anew_for_each_reader_within_its_bounds(
    server: Running, stream: Publisher
) -> None:
    await stream.end()
    drawn: set[int] = set()
    for _ in range(8):
        async with events(server.port, stream.path) as reader:
            await reader.rest()
            assert reader.retry_ms is not None
            drawn.add(reader.retry_ms)
    lowest, highest = RETRY_MS * (1 - RETRY_JITTER), RETRY_MS * (1 + RETRY_JITTER)
    assert all(lowest - 1 <= retry_ms <= highest for retry_ms in drawn)
    assert len(drawn) > 1


async def test_head_says_what_get_would_and_nothing_more(
    server: Running, stream: Publisher
) -> None:
    async with connect(server.port) as connection:
        answer = await connection.ask("HEAD", stream.path, {"Accept": "text/event-stream"})
        assert answer.status == 200
        assert {name: answer[name] for name in STREAM_HEADERS} == STREAM_HEADERS
        # The connection goes on: nothing of a body was sent.
        plain = await connection.ask("HEAD", stream.path)
    assert plain.status == 200
    assert plain["content-type"] == "text/plain"
    assert await stream.readers() == 0


# records


async def test_a_record_reaches_a_live_reader_while_the_stream_is_open(
    server: Running, stream: Publisher
) -> None:
    async with events(server.port, stream.path) as reader:
        await stream.wait_for_readers(1)
        for word in ("one", "two", "three"):
            (offset,) = await stream.post(word)
            event = await reader.next()
            assert (event.data, event.last_event_id, event.type) == (word, offset, "message")


async def test_a_late_reader_gets_everything_from_the_beginning(
    server: Running, stream: Publisher
) -> None:
    offsets = await stream.post(*"abcdefgh")
    for target in (stream.path, f"{stream.path}?offset=-1"):
        async with events(server.port, target) as reader:
            found = await reader.take(8)
            assert [event.data for event in found] == list("abcdefgh")
            assert [event.last_event_id for event in found] == offsets


async def test_a_reader_goes_on_after_the_id_it_brings(server: Running, stream: Publisher) -> None:
    offsets = await stream.post(*"abcde")
    header = {"Last-Event-ID": offsets[1]}
    async with events(server.port, stream.path, header) as reader:
        assert [event.data for event in await reader.take(3)] == list("cde")
    async with events(server.port, f"{stream.path}?last_event_id={offsets[2]}") as reader:
        assert [event.data for event in await reader.take(2)] == list("de")
    async with events(server.port, f"{stream.path}?offset={offsets[3]}") as reader:
        assert (await reader.next()).data == "e"


async def test_the_header_beats_the_querys_id_which_beats_the_offset(
    server: Running, stream: Publisher
) -> None:
    offsets = await stream.post(*"abcd")
    query = f"{stream.path}?offset={offsets[0]}&last_event_id={offsets[1]}"
    async with events(server.port, query) as reader:
        assert (await reader.next()).data == "c"
    async with events(server.port, query, {"Last-Event-ID": offsets[2]}) as reader:
        assert (await reader.next()).data == "d"


async def test_offset_now_gives_only_what_comes_later(server: Running, stream: Publisher) -> None:
    await stream.post("before")
    async with events(server.port, f"{stream.path}?offset=now") as reader:
        await stream.wait_for_readers(1)
        await stream.post("after")
        assert (await reader.next()).data == "after"


async def test_types_keys_and_any_text_arrive_as_they_were_sent(
    server: Running, stream: Publisher
) -> None:
    text = "line one\nline two\r\nзбігається ✓ : data: x"
    await stream.post(text, Record_Type="token", Record_Key="k1")
    await stream.end()
    async with events(server.port, stream.path) as reader:
        event, _ = await reader.rest()
    assert (event.type, event.data) == ("token", text.replace("\r\n", "\n"))
    assert b"\nkey: k1\n" in reader.raw


async def test_a_json_array_is_a_batch_of_records(server: Running) -> None:
    stream = Publisher(server.port)
    await stream.create("application/json", b'[{"n": 1}, "two"]')
    await stream.post(b"[3, [4],\n 12345678901234567890123456789012345678901]")
    await stream.end()
    async with events(server.port, stream.path) as reader:
        *records, _ = await reader.rest()
    big = "12345678901234567890123456789012345678901"
    assert [event.data for event in records] == ['{"n": 1}', '"two"', "3", "[4]", big]


async def test_binary_records_travel_as_base64_and_say_so(server: Running) -> None:
    stream = Publisher(server.port)
    await stream.create("application/octet-stream", b"\x00\xff\n")
    async with events(server.port, stream.path) as reader:
        assert reader.answer["stream-sse-data-encoding"] == "base64"
        assert (await reader.next()).data == "AP8K"


async def test_a_record_of_a_mebibyte_passes_and_a_larger_one_is_refused(
    server: Running, stream: Publisher
) -> None:
    big = "0123456789abcdef" * 65536
    async with events(server.port, stream.path) as reader:
        await stream.wait_for_readers(1)
        await stream.post(big)
        assert (await reader.next()).data == big
    refused = await ask(server.port, "POST", stream.path, TEXT, (big + "!").encode())
    assert (refused.status, refused.code) == (413, "record-too-large")


async def test_where_a_request_body_is_cut_does_not_matter(
    server: Running, stream: Publisher
) -> None:
    body = "дві частини одного запису".encode()
    head = f"POST {stream.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    async with connect(server.port) as connection:
        await connection.send_raw(head.encode())
        for index in range(0, len(body), 3):
            part = body[index : index + 3]
            await connection.send_raw(b"%x\r\n%b\r\n" % (len(part), part))
        await connection.send_raw(b"0\r\n\r\n")
        assert (await connection.head()).status == 204
    async with events(server.port, stream.path) as reader:
        assert (await reader.next()).data == body.decode()


async def test_two_readers_get_identical_bytes_live_or_later(
    server: Running, stream: Publisher
) -> None:
    async with (
        events(server.port, stream.path) as one,
        events(server.port, stream.path) as two,
    ):
        await stream.wait_for_readers(2)
        await stream.post(*(f"record {number}" for number in range(50)))
        await stream.end()
        await asyncio.gather(one.rest(), two.rest())
    async with events(server.port, stream.path) as late:
        await late.rest()
    assert one.without_preamble == two.without_preamble == late.without_preamble
    assert one.without_preamble.count(b"data: record ") == 50


# places that cannot be honoured


async def test_a_malformed_header_is_a_gap_and_then_the_earliest(
    server: Running, stream: Publisher
) -> None:
    await stream.post("kept")
    header = {"Last-Event-ID": "what is this"}
    async with events(server.port, stream.path, header) as reader:
        gap, record = await reader.take(2)
    assert gap.type == "gap"
    assert json.loads(gap.data)["from"] == "what is this"
    assert json.loads(gap.data)["reason"] == "malformed"
    assert record.data == "kept"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("offset=nonsense", "offset-malformed"),
        ("last_event_id=nonsense", "offset-malformed"),
        ("live=never", "query-malformed"),
        ("gap=maybe", "query-malformed"),
        ("heartbeat=1", "query-malformed"),
        ("offset=%FF", "query-malformed"),
    ],
)
async def test_a_malformed_query_is_the_callers_mistake(
    server: Running, stream: Publisher, query: str, code: str
) -> None:
    accept = {"Accept": "text/event-stream"}
    answer = await ask(server.port, "GET", f"{stream.path}?{query}", accept)
    assert (answer.status, answer.code) == (400, code)


async def test_an_id_of_a_log_that_is_no_more_is_a_gap_or_410(
    server: Running, stream: Publisher
) -> None:
    (old,) = await stream.post("of the first log")
    assert (await ask(server.port, "DELETE", stream.path)).status == 204
    await stream.create()
    await stream.post("of the second log")
    header = {"Last-Event-ID": old}
    async with events(server.port, stream.path, header) as reader:
        gap, record = await reader.take(2)
    told = json.loads(gap.data)
    assert (gap.type, told["reason"], told["from"]) == ("gap", "epoch", old)
    assert gap.last_event_id == told["to"]
    assert told["to"] > old
    assert record.data == "of the second log"

    accept = {"Accept": "text/event-stream", **header}
    gone = await ask(server.port, "GET", f"{stream.path}?gap=410", accept)
    assert (gone.status, gone.code) == (410, "offset-gone")
    assert gone["stream-earliest-offset"] == told["to"]


async def test_history_that_was_dropped_is_an_explicit_gap(server: Running) -> None:
    stream = Publisher(server.port)
    await stream.create_keeping(3)
    offsets = await stream.post(*"abcdefgh")
    async with events(server.port, stream.path, {"Last-Event-ID": offsets[1]}) as reader:
        gap, *records = await reader.take(4)
    told = json.loads(gap.data)
    assert (gap.type, told) == (
        "gap",
        {"from": offsets[1], "to": offsets[4], "reason": "trimmed"},
    )
    assert gap.last_event_id == offsets[4]
    assert [event.data for event in records] == list("fgh")
    # Whoever begins at the beginning is told as well; whoever stands within what is kept is not.
    async with events(server.port, stream.path) as reader:
        assert (await reader.next()).type == "gap"
    async with events(server.port, stream.path, {"Last-Event-ID": offsets[4]}) as reader:
        assert (await reader.next()).data == "f"


# the end


@pytest.mark.parametrize("reason", ["complete", "cancelled", "failed", "limit", "lost"])
async def test_the_end_is_an_event_with_its_reason_and_an_id_of_its_own(
    server: Running, stream: Publisher, reason: str
) -> None:
    async with events(server.port, stream.path) as reader:
        await stream.wait_for_readers(1)
        (tail,) = await stream.post("last")
        await stream.end(reason)
        record, end = await reader.rest()
        assert record.data == "last"
        assert (end.type, json.loads(end.data)) == ("end", {"reason": reason})
        assert end.last_event_id == f"{tail}~"
    plain = await ask(server.port, "GET", stream.path)
    assert (plain["stream-closed"], plain["stream-end-reason"]) == ("true", reason)


async def test_who_has_seen_the_end_gets_204_and_who_has_not_gets_it_again(
    server: Running, stream: Publisher
) -> None:
    (tail,) = await stream.post("only")
    await stream.end()
    accept = {"Accept": "text/event-stream"}
    done = await ask(server.port, "GET", stream.path, {**accept, "Last-Event-ID": f"{tail}~"})
    assert (done.status, done.body) == (204, b"")
    query = f"{stream.path}?last_event_id={tail}~"
    assert (await ask(server.port, "GET", query, accept)).status == 204
    async with events(server.port, stream.path, {"Last-Event-ID": tail}) as reader:
        assert reader.answer.status == 200
        (end,) = await reader.rest()
        assert (end.type, end.last_event_id) == ("end", f"{tail}~")


async def test_an_unknown_stream_is_404_and_lost_to_who_has_read_some_of_it(
    server: Running,
) -> None:
    path = f"/v1/stream/nobody/knows/{uuid4().hex}"
    accept = {"Accept": "text/event-stream"}
    answer = await ask(server.port, "GET", path, accept)
    assert (answer.status, answer.code) == (404, "stream-not-found")
    async with events(server.port, path, {"Last-Event-ID": "000001A"}) as reader:
        assert reader.answer.status == 200
        (end,) = await reader.rest()
    assert (end.type, json.loads(end.data)) == ("end", {"reason": "lost"})
    assert end.last_event_id == "000001A~"
    told = {**accept, "Last-Event-ID": end.last_event_id}
    assert (await ask(server.port, "GET", path, told)).status == 204
    async with events(server.port, f"{path}?last_event_id=000001A") as reader:
        assert [event.data for event in await reader.rest()] == ['{"reason":"lost"}']
    answer = await ask(server.port, "GET", f"{path}?last_event_id=nonsense", accept)
    assert (answer.status, answer.code) == (400, "offset-malformed")
    assert (await ask(server.port, "GET", f"{path}?offset=000001A", accept)).status == 404


# time


async def test_a_silent_stream_shows_heartbeats_as_comments(server: Running) -> None:
    stream = Publisher(server.port, "/quick/v1")
    offset = await stream.create()
    async with events(server.port, stream.path) as reader:
        while reader.decoder.comments < 3:
            await reader.more()
        assert reader.decoder.events() == []
        assert reader.decoder.last_event_id == ""
        await stream.post("still here")
        record = await reader.next()
        assert record.data == "still here"
    assert offset < record.last_event_id


async def test_a_page_can_ask_to_see_heartbeats(server: Running) -> None:
    stream = Publisher(server.port, "/quick/v1")
    await stream.create()
    (tail,) = await stream.post("one")
    async with events(server.port, f"{stream.path}?heartbeat=event") as reader:
        record, first, second = await reader.take(3)
    assert (first.type, second.type) == ("status", "status")
    assert json.loads(first.data) == {"tail": tail}
    # It moves no place: what to resume from is still the record's.
    assert first.last_event_id == record.last_event_id == tail


# readers that leave, or do not read


@pytest.mark.parametrize("state", ["idle", "busy"])
async def test_a_reader_that_hangs_up_is_gone_within_a_second_and_costs_nothing_more(
    server: Running, stream: Publisher, state: str
) -> None:
    """The best of three tries counts: another process may have the machine for a while."""
    waits: list[float] = []
    for _ in range(3):
        readers = [events(server.port, stream.path) for _ in range(5)]
        opened = [await reader.__aenter__() for reader in readers]
        await stream.wait_for_readers(5)
        if state == "busy":
            await stream.post(*"abcdef")
        for reader in opened:
            reader.connection.hang_up()
        hung_up_at = time.monotonic()
        if state == "busy":
            await stream.post("into the void")
        await stream.wait_for_readers(0)
        waits.append(time.monotonic() - hung_up_at)
        for reader in readers:
            await reader.__aexit__(None, None, None)
        if waits[-1] <= GONE_WITHIN_S:
            break
    assert min(waits) <= GONE_WITHIN_S, waits
    before = await metric(server, "penstock_delivered_records_total")
    await stream.post(*"ghij")
    assert await metric(server, "penstock_delivered_records_total") == before


async def metric(server: Running, name: str) -> float:
    text = (await ask(server.port, "GET", "/metrics")).body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split(" ")[1])


BIG_COUNT, BIG_BYTES = 120, 100_000


async def test_a_slow_reader_holds_up_nobody_and_loses_nothing(
    server: Running, stream: Publisher
) -> None:
    async with (
        events(server.port, stream.path, receive_buffer=4096) as slow,
        events(server.port, stream.path) as quick,
    ):
        await stream.wait_for_readers(2)
        # The slow one reads nothing while all of this is written and read by the other.
        expected = [f"{number:06}" for number in range(BIG_COUNT)]
        payloads = [number.ljust(BIG_BYTES, ".") for number in expected]
        _, found = await asyncio.gather(stream.post(*payloads), quick.take(BIG_COUNT))
        assert [event.data[:6] for event in found] == expected
        await stream.end()
        slow.connection.widen()
        *records, end = await slow.rest()
    assert [event.data[:6] for event in records] == expected
    assert end.type == "end"


async def test_a_slow_reader_is_told_of_every_record_it_can_no_longer_get(
    server: Running,
) -> None:
    stream = Publisher(server.port)
    await stream.create_keeping(5)
    async with events(server.port, stream.path, receive_buffer=4096) as slow:
        await stream.wait_for_readers(1)
        payloads = [f"{number:06}".ljust(BIG_BYTES, ".") for number in range(BIG_COUNT)]
        offsets = await stream.post(*payloads)
        await stream.end()
        slow.connection.widen()
        found = await slow.rest()
    assert found[-1].type == "end"
    gaps = 0
    place = 0  # records accounted for
    for event in found[:-1]:
        if event.type == "gap":
            gaps += 1
            told = json.loads(event.data)
            assert told["reason"] == "trimmed"
            assert told["from"] == offsets[place - 1]
            place = offsets.index(told["to"]) + 1
        else:
            assert event.data.startswith(f"{place:06}")
            assert event.last_event_id == offsets[place]
            place += 1
    assert place == BIG_COUNT
    assert gaps


async def test_a_full_server_sends_an_event_source_away_alive_and_others_with_503(
    server: Running,
) -> None:
    stream = Publisher(server.port, "/small/v1")
    await stream.create()
    async with events(server.port, stream.path), events(server.port, stream.path):
        await stream.wait_for_readers(2)
        async with events(server.port, stream.path) as third:
            assert third.answer.status == 200
            assert third.answer["content-type"] == "text/event-stream"
            assert await third.rest() == []
            assert third.retry_ms is not None
        refused = await ask(server.port, "GET", f"{stream.path}?live=events")
        assert (refused.status, refused.code) == (503, "overloaded")
        assert int(refused["retry-after"]) > 0
    await stream.wait_for_readers(0)
    async with events(server.port, stream.path) as reader:
        await stream.post("room again")
        assert (await reader.next()).data == "room again"


async def test_live_events_streams_to_who_cannot_say_accept(
    server: Running, stream: Publisher
) -> None:
    target = f"{stream.path}?live=events"
    async with events(server.port, target, {"Accept": "*/*"}) as reader:
        assert reader.answer["content-type"] == "text/event-stream"
        await stream.post("hello")
        assert (await reader.next()).data == "hello"


# publishing


async def test_put_creates_once_and_says_so(server: Running) -> None:
    stream = Publisher(server.port)
    first = await ask(server.port, "PUT", stream.path, TEXT)
    assert first.status == 201
    assert first["location"].startswith("http://")
    assert first["location"].endswith(stream.path)
    assert first["content-type"] == "text/plain"
    assert first["stream-next-offset"].endswith("10")
    again = await ask(server.port, "PUT", stream.path, TEXT)
    assert again.status == 200
    other = await ask(server.port, "PUT", stream.path, JSON)
    assert (other.status, other.code) == (409, "stream-conflict")


async def test_a_stream_can_be_closed_by_what_writes_its_last_record(
    server: Running, stream: Publisher
) -> None:
    closing = await ask(
        server.port, "POST", stream.path, {**TEXT, "Stream-Closed": "true"}, b"last"
    )
    assert closing.status == 204
    assert (closing["stream-closed"], closing["stream-end-reason"]) == ("true", "complete")
    late = await ask(server.port, "POST", stream.path, TEXT, b"too late")
    assert (late.status, late.code) == (409, "stream-ended")
    assert (late["stream-closed"], late["stream-end-reason"]) == ("true", "complete")
    async with events(server.port, stream.path) as reader:
        record, end = await reader.rest()
    assert (record.data, end.type) == ("last", "end")


async def test_a_plain_get_gives_the_logs_bytes_and_where_they_end(server: Running) -> None:
    text, values = Publisher(server.port), Publisher(server.port)
    await text.create()
    offsets = await text.post("ab", "cd")
    answer = await ask(server.port, "GET", text.path)
    assert (answer.status, answer.body) == (200, b"abcd")
    assert answer["content-type"] == "text/plain"
    assert (answer["stream-next-offset"], answer["stream-up-to-date"]) == (offsets[1], "true")
    after = await ask(server.port, "GET", f"{text.path}?offset={offsets[0]}")
    assert after.body == b"cd"
    await values.create("application/json", b"[1, 2]")
    assert (await ask(server.port, "GET", values.path)).json == [1, 2]


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        (TEXT, b"", 400, "body-malformed"),
        (TEXT, b"\xff\xfe", 400, "body-malformed"),
        (JSON, b"{}", 409, "content-type-conflict"),
        ({**TEXT, "Record-Type": "end"}, b"x", 400, "record-type-reserved"),
        ({**TEXT, "Record-Type": "t" * 65}, b"x", 400, "record-field-malformed"),
        ({**TEXT, "Stream-Closed": "perhaps"}, b"x", 400, "query-malformed"),
    ],
)
async def test_an_append_that_cannot_be_stored_changes_nothing(
    server: Running,
    stream: Publisher,
    headers: dict[str, str],
    body: bytes,
    status: int,
    code: str,
) -> None:
    answer = await ask(server.port, "POST", stream.path, headers, body)
    assert (answer.status, answer.code) == (status, code)
    assert (await ask(server.port, "GET", stream.path)).body == b""


async def test_cancel_ends_readers_first_and_a_second_one_changes_nothing(
    server: Running,
) -> None:
    stream = Publisher(server.port)
    await stream.tell("start", gap_s=0.01)
    cancel = f"/v1/cancel/{stream.name}"
    async with events(server.port, stream.path) as reader:
        await reader.take(3)
        answer = await ask(server.port, "POST", cancel)
        assert (answer.status, answer["stream-end-reason"]) == (204, "cancelled")
        end = (await reader.rest())[-1]
        assert json.loads(end.data) == {"reason": "cancelled"}
    again = await ask(server.port, "POST", cancel)
    assert (again.status, again["stream-end-reason"]) == (204, "cancelled")
    unknown = await ask(server.port, "POST", f"{cancel}/unknown")
    assert (unknown.status, unknown.code) == (404, "stream-not-found")


async def test_delete_cancels_and_forgets(server: Running, stream: Publisher) -> None:
    async with events(server.port, stream.path) as reader:
        await stream.wait_for_readers(1)
        assert (await ask(server.port, "DELETE", stream.path)).status == 204
        (end,) = await reader.rest()
    assert json.loads(end.data) == {"reason": "cancelled"}
    for method in ("GET", "POST", "DELETE"):
        answer = await ask(server.port, method, stream.path, TEXT, b"x")
        assert (answer.status, answer.code) == (404, "stream-not-found")


async def test_this_machine_can_list_and_inspect(server: Running) -> None:
    stream = Publisher(server.port)
    names = [f"{stream.name}/{letter}" for letter in "abc"]
    for name in names:
        assert (await ask(server.port, "PUT", f"/v1/stream/{name}", TEXT)).status == 201
    listing = f"/v1/streams?prefix={stream.name}/"
    first = (await ask(server.port, "GET", f"{listing}&limit=2")).json
    assert [found["name"] for found in first["streams"]] == names[:2]
    rest = (await ask(server.port, "GET", f"{listing}&after={first['next']}")).json
    assert [found["name"] for found in rest["streams"]] == names[2:]
    assert rest["next"] is None
    posted = await ask(server.port, "POST", f"/v1/stream/{names[0]}", TEXT, b"four")
    found = (await ask(server.port, "GET", f"/v1/streams/{names[0]}")).json
    assert (found["state"], found["records"], found["bytes"]) == ("running", 1, 4)
    assert found["tail"] == posted["stream-next-offset"]
    forwarded = {"X-Forwarded-For": "203.0.113.9"}
    refused = await ask(server.port, "GET", "/v1/streams", forwarded)
    assert (refused.status, refused.code) == (403, "operator-only")


# HTTP as such


async def test_ordinary_requests_share_a_connection(server: Running, stream: Publisher) -> None:
    async with connect(server.port) as connection:
        for word in ("one", "two"):
            assert (await connection.ask("POST", stream.path, TEXT, word.encode())).status == 204
        assert (await connection.ask("GET", stream.path)).body == b"onetwo"
        assert (await connection.ask("GET", "/healthz")).body == b"ok\n"
        # A stream can follow on it, too.
        await connection.send("GET", stream.path, {"Accept": "text/event-stream"})
        assert (await connection.head()).status == 200


@pytest.mark.parametrize(
    ("method", "address", "allow"),
    [
        ("PATCH", "/v1/stream/x", "GET, HEAD, PUT, POST, DELETE"),
        ("GET", "/v1/cancel/x", "POST"),
        ("POST", "/v1/streams", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_method_that_an_address_has_not_is_405_and_names_those_it_has(
    server: Running, method: str, address: str, allow: str
) -> None:
    answer = await ask(server.port, method, address, {}, b"")
    assert (answer.status, answer.code, answer["allow"]) == (405, "method-not-allowed", allow)


async def test_a_name_is_the_raw_path_decoded_once(server: Running) -> None:
    name = f"{Publisher(server.port).name}/é 100%25"
    path = f"/v1/stream/{quote(name)}"
    created = await ask(server.port, "PUT", path, TEXT, "ї".encode())
    assert created.status == 201
    # A space and what is no ASCII are encoded; both spellings of a name are the same stream.
    assert created["location"].endswith(path)
    found = (await ask(server.port, "GET", f"/v1/streams/{quote(name)}")).json
    assert found["name"] == name
    assert (await ask(server.port, "GET", path.replace("%C3%A9", "%c3%a9"))).body == "ї".encode()


@pytest.mark.parametrize("name", ["a%2Fb", "a//b", "a/../b", "a/./b", "a%00b", "%FF", "a%5Cb", ""])
async def test_a_name_that_two_hops_could_read_differently_is_refused(
    server: Running, name: str
) -> None:
    answer = await ask(server.port, "PUT", f"/v1/stream/{name}", TEXT)
    assert (answer.status, answer.code) == (400, "name-malformed")


async def test_pages_of_others_cannot_act_here(server: Running, stream: Publisher) -> None:
    foreign = {**TEXT, "Origin": "https://example.com"}
    refused = await ask(server.port, "POST", stream.path, foreign, b"x")
    assert (refused.status, refused.code) == (403, "origin-refused")
    rebound = await ask(server.port, "GET", stream.path, {"Host": "example.com"})
    assert (rebound.status, rebound.code) == (403, "host-refused")
    own = {**TEXT, "Origin": f"http://127.0.0.1:{server.port}", "Host": f"127.0.0.1:{server.port}"}
    assert (await ask(server.port, "POST", stream.path, own, b"x")).status == 204


async def test_an_address_that_nothing_is_at_is_a_problem(server: Running) -> None:
    for address in ("/", "/v1", "/v1/nothing", "/v2/stream/x"):
        answer: Answer = await ask(server.port, "GET", address)
        assert (answer.status, answer.code) == (404, "route-not-found")


async def test_metrics_count_readers_by_the_path_they_take(
    server: Running, stream: Publisher
) -> None:
    async with events(server.port, stream.path):
        await stream.wait_for_readers(1)
        text = (await ask(server.port, "GET", "/metrics")).body.decode()
    fast, portable = ("1.0", "0.0") if server.kind.is_fast else ("0.0", "1.0")
    assert f'penstock_readers{{transport="fast"}} {fast}\n' in text
    assert f'penstock_readers{{transport="portable"}} {portable}\n' in text

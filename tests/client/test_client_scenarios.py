"""The client against a server that misbehaves on purpose: what it does on the wire, byte by byte.

`Scripted` is a bare TCP server: each connection gets the next line of its script, and what the
client sent is kept. Nothing here waits for time to pass but where a waiting time is the claim.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest

from inprocess import until
from penstock.client import Event, Events, connect, publish
from penstock.core.errors import EventTooLarge, Refused, SettingInvalid, Unreachable
from penstock.core.record import EndReason
from penstock.core.resume import Backoff

PATIENCE_S = 20.0
AT_ONCE = Backoff(base_ms=1, cap_ms=5)
GONE_WITHIN_S = 1.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED_HEAD = HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
END = b'id: 9~\nevent: end\ndata: {"reason":"complete"}\n\n'


def block(id: str, data: str = "x", type: str = "") -> bytes:
    named = f"event: {type}\n" if type else ""
    return f"id: {id}\n{named}data: {data}\n\n".encode()


def plain(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(slots=True)
class Visit:
    """One connection, as the script has it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    path: str
    headers: dict[str, str]
    at_s: float

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def wait_gone(self) -> None:
        """Returns when the client has closed the connection."""
        try:
            while await self.reader.read(4096):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Act = bytes | Callable[[Visit], Awaitable[None]]


@dataclass(slots=True)
class Scripted:
    """Plays one act a connection, the last one again and again. Bytes are sent, then FIN."""

    acts: tuple[Act, ...]
    port: int = 0
    visits: list[Visit] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    @property
    def asked(self) -> list[str]:
        """The `Last-Event-ID` of each connection, "-" where there was none."""
        return [visit.headers.get("last-event-id", "-") for visit in self.visits]

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.create_task(self.play(reader, writer)))

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = raw[:-4].split("\r\n")
            pairs = [line.split(":", 1) for line in lines]
            headers = {name.lower(): value.strip() for name, value in pairs}
            now = asyncio.get_running_loop().time()
            visit = Visit(reader, writer, first.split(" ")[1], headers, now)
            act = self.acts[min(len(self.visits), len(self.acts) - 1)]
            self.visits.append(visit)
            if isinstance(act, bytes):
                await visit.send(act)
            else:
                await act(visit)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def scripted(*acts: Act) -> AsyncGenerator[Scripted]:
    script = Scripted(acts)
    server = await asyncio.start_server(script.accept, "127.0.0.1", 0)
    script.port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield script
    finally:
        server.close()
        for task in script.tasks:
            task.cancel()
        await asyncio.gather(*script.tasks, return_exceptions=True)


async def stay(visit: Visit) -> None:
    """A half-open peer: it took the request and says nothing."""
    await visit.wait_gone()


def sent_then(data: bytes, then: Callable[[Visit], Awaitable[None]] = stay) -> Act:
    async def act(visit: Visit) -> None:
        await visit.send(data)
        await then(visit)

    return act


def reader_of(script: Scripted, **options: Any) -> Events:
    return connect(script.url, **{"backoff": AT_ONCE, **options})


async def collect(reader: Events, into: list[Event] | None = None) -> list[Event]:
    """Every event to the end; `into` has those before an error."""
    seen = [] if into is None else into
    async with reader as events:
        async for event in events:
            seen.append(event)
    return seen


async def read(script: Scripted, **options: Any) -> tuple[list[Event], Events]:
    reader = reader_of(script, **options)
    return await collect(reader), reader


# --- cuts ---------------------------------------------------------------------------------------

BLOCKS = (
    b": penstock\n\nretry: 1\n\n",
    block("1", "one"),
    block("2", "zwei und mehr", "text"),
    b"id: 3\ndata: a\ndata: b\n\n",
    block("4", "vier \u00fc"),
    END,
)
WHOLE = [("1", "one"), ("2", "zwei und mehr"), ("3", "a\nb"), ("4", "vier \u00fc")]


def after(last_event_id: str) -> bytes:
    """The body for who has seen this much."""
    seen = int(last_event_id) if last_event_id.isdigit() else 0
    return BLOCKS[0] + b"".join(BLOCKS[seen + 1 :])


async def rest(visit: Visit) -> None:
    await visit.send(HEAD + after(visit.headers.get("last-event-id", "")))


def cut_at(place: int, how: str) -> Act:
    """The first `place` bytes of the whole body, and then a cut."""
    body = after("")[:place]

    async def act(visit: Visit) -> None:
        if how == "chunked":
            await visit.send(CHUNKED_HEAD + b"%x\r\n%b" % (len(body) + 1, body))
        else:
            await visit.send(HEAD + body)
        if how == "reset":
            visit.reset()

    return act


@pytest.mark.parametrize("how", ["fin", "chunked", "reset"])
async def test_a_cut_at_any_byte_loses_and_repeats_nothing(how: str) -> None:
    """In each byte of the body, between events and inside them; the end event included."""
    for place in range(len(after(""))):
        async with scripted(cut_at(place, how), rest) as script:
            seen, events = await read(script)
        assert [(event.id, event.data) for event in seen] == WHOLE, place
        assert (events.end_reason, events.last_event_id) == ("complete", "9~"), place
        assert events.connections == 2, place


async def test_cuts_after_every_single_event_are_survived() -> None:
    async def one_more(visit: Visit) -> None:
        seen = visit.headers.get("last-event-id", "0")
        await visit.send(HEAD + BLOCKS[int(seen) + 1])

    async with scripted(one_more) as script:
        seen, events = await read(script)
    assert [event.id for event in seen] == ["1", "2", "3", "4"]
    assert script.asked == ["-", "1", "2", "3", "4"]
    assert events.end_reason == "complete"


async def test_a_head_that_is_cut_is_tried_again() -> None:
    async with scripted(HEAD[:20], b"", b"garbage\r\n\r\n", rest) as script:
        seen, _ = await read(script)
    assert len(seen) == 4


# --- answers that are no stream -----------------------------------------------------------------


async def test_204_is_nothing_more() -> None:
    async with scripted(plain("204 No Content")) as script:
        seen, events = await read(script)
    assert (seen, events.end_reason, events.connections) == ([], None, 1)


async def test_204_after_a_cut_ends_what_was_read() -> None:
    async with scripted(HEAD + block("7"), plain("204 No Content")) as script:
        seen, events = await read(script)
    assert [event.id for event in seen] == ["7"]
    assert script.asked == ["-", "7"]
    assert events.end_reason is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
async def test_a_refusal_carries_the_servers_code_and_sentence(status: int) -> None:
    """In whatever pieces its body comes, and it is asked once."""
    body = json.dumps({"code": "some-code", "detail": "do otherwise"}).encode()
    answer = plain(f"{status} No", body, "Content-Type: application/problem+json")

    async def in_pieces(visit: Visit) -> None:
        for start in range(0, len(answer), 7):
            await visit.send(answer[start : start + 7])
            await asyncio.sleep(0)

    async with scripted(in_pieces) as script:
        with pytest.raises(Refused) as caught:
            await read(script)
    error = caught.value
    assert (error.answer, error.answer_code, error.detail) == (status, "some-code", "do otherwise")
    assert len(script.visits) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"code":7,"detail":null}', b"\xff"])
async def test_a_refusal_with_any_body_is_one(body: bytes) -> None:
    async with scripted(plain("404 Not Found", body)) as script:
        with pytest.raises(Refused) as caught:
            await read(script)
    assert (caught.value.answer, caught.value.answer_code) == (404, "")


async def test_a_refusal_whose_body_never_comes_is_one() -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n{"
    async with scripted(sent_then(head)) as script:
        with pytest.raises(Refused):
            await read(script, patience_s=0.2)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(status: int) -> None:
    async with scripted(plain(f"{status} Later"), HEAD + block("1") + END) as script:
        seen, events = await read(script)
    assert [event.id for event in seen] == ["1"]
    assert events.connections == 2


@pytest.mark.parametrize(("kind", "least_s"), [("1", 1.0), ("0.3", 0.3), ("date", 1.0)])
async def test_retry_after_is_obeyed(kind: str, least_s: float) -> None:
    """As a number, as a fraction and as a date (of whole seconds)."""

    async def later(visit: Visit) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        value = date if kind == "date" else kind
        await visit.send(plain("503 Later", b"", f"Retry-After: {value}"))

    async with scripted(later, HEAD + END) as script:
        await read(script)
    first, second = script.visits
    assert second.at_s - first.at_s >= least_s * 0.99


@pytest.mark.parametrize(
    "value", ["soon", "-5", "1e9", "", "nan", "1.2.3", "Mon, 99 Foo 2020 99:99:99 GMT", "²"]
)
async def test_a_retry_after_that_is_none_is_left_to_the_back_off(value: str) -> None:
    async with scripted(plain("503 Later", b"", f"Retry-After: {value}"), HEAD + END) as script:
        _, events = await read(script)
    assert events.connections == 2


async def test_a_retry_after_in_the_past_means_now() -> None:
    past = "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"
    async with scripted(plain("503 Later", b"", past), HEAD + END) as script:
        _, events = await read(script)
    assert events.connections == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_with_the_place(status: int) -> None:
    moved = plain(f"{status} Moved", b"", "Location: /elsewhere")
    async with scripted(moved, HEAD + block("6") + END) as script:
        seen, _ = await read(script, last_event_id="5")
    assert [event.id for event in seen] == ["6"]
    assert [visit.path for visit in script.visits] == ["/stream", "/elsewhere"]
    assert script.asked == ["5", "5"]


async def test_a_redirect_in_a_circle_is_an_attempt() -> None:
    async with scripted(plain("302 Moved", b"", "Location: /stream")) as script:
        with pytest.raises(Unreachable):
            await read(script, max_attempts=1)


@pytest.mark.parametrize("kind", ["text/html", "application/json", "text/event-streams", ""])
async def test_what_is_no_event_stream_is_refused(kind: str) -> None:
    header = f"Content-Type: {kind}" if kind else "X-None: 1"
    async with scripted(plain("200 OK", b"data: x\n\n", header)) as script:
        with pytest.raises(Refused) as caught:
            await read(script)
    assert caught.value.answer == 200
    assert len(script.visits) == 1


@pytest.mark.parametrize("kind", ["Text/Event-Stream", "text/event-stream; charset=UTF-8"])
async def test_the_content_type_is_compared_as_http_does(kind: str) -> None:
    head = HEAD.replace(b"text/event-stream", kind.encode())
    async with scripted(head + block("1") + END) as script:
        seen, _ = await read(script)
    assert len(seen) == 1


# --- what events say ----------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(EndReason))
async def test_each_typed_end_is_told(reason: EndReason) -> None:
    end = END.replace(b"complete", reason.encode())
    async with scripted(HEAD + block("1") + end + block("2")) as script:
        seen, events = await read(script)
    assert [event.id for event in seen] == ["1"]
    assert (events.end_reason, events.connections) == (reason, 1)


@pytest.mark.parametrize("data", ["", "done", "[1]", '{"reason":7}', "{}"])
async def test_an_end_without_a_reason_is_an_end(data: str) -> None:
    async with scripted(HEAD + block("1~", data, "end")) as script:
        seen, events = await read(script)
    assert (seen, events.end_reason, events.connections) == ([], None, 1)


async def test_a_gap_is_told_and_moves_the_place() -> None:
    gap = '{"from":"3","to":"50","reason":"trimmed"}'
    async with scripted(HEAD + block("50", gap, "gap"), HEAD + block("51") + END) as script:
        seen, _ = await read(script, last_event_id="3")
    assert [(event.type, event.id) for event in seen] == [("gap", "50"), ("message", "51")]
    assert seen[0].json()["reason"] == "trimmed"
    assert script.asked == ["3", "50"]


async def test_the_transports_own_events_are_not_shown() -> None:
    own = b"".join(b"event: %b\ndata: {}\n\n" % name for name in (b"drain", b"status", b"cursor"))
    async with scripted(HEAD + block("1") + own + block("2") + END) as script:
        seen, _ = await read(script)
    assert [event.id for event in seen] == ["1", "2"]


async def test_the_last_id_stays_until_another_comes() -> None:
    body = block("4") + b"data: none\n\n" + b"id\ndata: forgotten\n\n" + b"id: 5\n\n"
    async with scripted(HEAD + body, HEAD + END) as script:
        seen, _ = await read(script)
    assert [(event.id, event.data) for event in seen] == [
        ("4", "x"),
        ("4", "none"),
        ("", "forgotten"),
    ]
    # A block without data changes the place too: HTML 9.2.6, "set the last event ID string".
    assert script.asked == ["-", "5"]


async def test_now_is_said_once() -> None:
    """A second "now" would pass over what came while the connection was gone."""
    head = HEAD[:-2] + b"Stream-Next-Offset: 40\r\n\r\n"
    async with scripted(head, HEAD + block("41") + END) as script:
        seen, _ = await read(script, last_event_id="now")
    assert script.asked == ["now", "40"]
    assert [event.id for event in seen] == ["41"]


async def test_the_servers_retry_is_obeyed() -> None:
    """The wait lies between half of it and all of it."""
    async with scripted(HEAD + b"retry: 600\n\n" + block("1"), HEAD + END) as script:
        await read(script)
    first, second = script.visits
    assert second.at_s - first.at_s >= 0.3 * 0.99


async def test_a_drain_says_when_to_come_back() -> None:
    drain = b'retry: 600\n\nevent: drain\ndata: {"retry_ms":600}\n\n'
    async with scripted(HEAD + block("1") + drain, HEAD + block("2") + END) as script:
        seen, events = await read(script)
    assert [event.id for event in seen] == ["1", "2"]
    assert script.asked == ["-", "1"]
    assert script.visits[1].at_s - script.visits[0].at_s >= 0.3 * 0.99
    assert events.end_reason == "complete"


@pytest.mark.parametrize("line_ended", [True, False])
async def test_a_giant_event_is_an_error_after_those_before_it(line_ended: bool) -> None:
    giant = b"data: " + b"x" * 5000 + (b"\n" if line_ended else b"")
    gone = asyncio.Event()

    async def act(visit: Visit) -> None:
        await visit.send(HEAD + block("1") + block("2") + giant)
        await visit.wait_gone()
        gone.set()

    async with scripted(act) as script:
        seen: list[Event] = []
        with pytest.raises(EventTooLarge):
            await collect(reader_of(script, max_event_bytes=1000), seen)
        async with asyncio.timeout(GONE_WITHIN_S):
            await gone.wait()
    assert [event.id for event in seen] == ["1", "2"]


# --- silence ------------------------------------------------------------------------------------


async def test_a_slow_first_byte_is_waited_for() -> None:
    async def slow(visit: Visit) -> None:
        await asyncio.sleep(0.3)
        await visit.send(HEAD)
        await asyncio.sleep(0.3)
        await visit.send(block("1") + END)

    async with scripted(slow) as script:
        seen, events = await read(script, patience_s=PATIENCE_S)
    assert len(seen) == 1
    assert events.connections == 1


async def test_a_peer_that_never_answers_is_given_up() -> None:
    async with scripted(stay, HEAD + block("1") + END) as script:
        seen, events = await read(script, patience_s=0.2)
    assert (len(seen), events.connections) == (1, 2)


async def test_a_peer_that_falls_silent_is_given_up() -> None:
    async with scripted(sent_then(HEAD + block("1")), HEAD + block("2") + END) as script:
        seen, _ = await read(script, patience_s=0.2)
    assert [event.id for event in seen] == ["1", "2"]
    assert script.asked == ["-", "1"]


async def test_heartbeats_keep_a_connection() -> None:
    """Comments are a sign of life: together they last longer than the patience, none alone."""

    async def beats(visit: Visit) -> None:
        await visit.send(HEAD)
        for _ in range(40):
            await asyncio.sleep(0.05)
            await visit.send(b": \n\n")
        await visit.send(END)

    async with scripted(beats) as script:
        _, events = await read(script, patience_s=1.5)
    assert events.connections == 1


# --- giving up ----------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [plain("503 Later"), b"", HEAD], ids=["503", "cut", "empty"])
async def test_attempts_run_out(act: bytes) -> None:
    async with scripted(act) as script:
        reader = reader_of(script, max_attempts=3)
        with pytest.raises(Unreachable) as caught:
            await collect(reader)
    # Not the visits: aiohttp itself repeats, once, a request that got no answer at all.
    assert reader.connections == 4
    assert script.url in str(caught.value)


async def test_a_closed_port_is_unreachable() -> None:
    async with scripted(b"") as script:
        pass
    with pytest.raises(Unreachable):
        await read(script, max_attempts=2)


async def test_an_event_sets_the_attempts_back() -> None:
    acts: list[Act] = []
    for number in range(1, 5):
        acts += [plain("503 Later"), HEAD, HEAD + block(str(number))]
    async with scripted(*acts, HEAD + END) as script:
        seen, _ = await read(script, max_attempts=3)
    assert [event.id for event in seen] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    "url", ["", "nothing", "ftp://127.0.0.1/x", "http://", "http://[::1", "http://h:99999/"]
)
async def test_what_is_no_address_is_said_at_once(url: str) -> None:
    with pytest.raises(SettingInvalid):
        connect(url)
    with pytest.raises(SettingInvalid):
        await publish(url, b"1")


@pytest.mark.parametrize(
    "options",
    [{"headers": {"X": "a\r\nY: b"}}, {"headers": {"X\n": "a"}}, {"headers": {"X": "\ud800"}}],
)
async def test_what_no_header_can_carry_is_said_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(SettingInvalid):
        connect("http://127.0.0.1/", **options)
    with pytest.raises(SettingInvalid):
        await publish("http://127.0.0.1/", b"1", **options)
    with pytest.raises(SettingInvalid):
        connect("http://127.0.0.1/", last_event_id="1\n")


async def test_an_id_that_cannot_be_sent_back_is_the_servers_fault() -> None:
    """Going on without it would show everything again."""
    async with scripted(HEAD + block("\u0001")) as script:
        with pytest.raises(Refused):
            await read(script)
    assert len(script.visits) == 1


@pytest.mark.parametrize("id", ["größe", "a\u00a0b\tc", "日本", "1,2;3", '"~'])
async def test_any_other_id_comes_back_as_it_went(id: str) -> None:
    async with scripted(HEAD + block(id), HEAD + END) as script:
        await read(script)
    assert script.asked[1].encode("latin-1").decode() == id


# --- pressure and leaving -----------------------------------------------------------------------


async def test_a_loop_that_stands_still_makes_the_server_wait() -> None:
    """Of 100 MB, what kernel and client take while nobody iterates stays below 10 MB."""
    piece = block("1", "x" * 65_000)
    taken = 0
    has_stopped = asyncio.Event()

    async def push(visit: Visit) -> None:
        nonlocal taken
        await visit.send(HEAD)
        while taken < 100_000_000:
            visit.writer.write(piece)
            try:
                async with asyncio.timeout(1.0):
                    await visit.writer.drain()
            except TimeoutError:
                has_stopped.set()
                return
            taken += len(piece)
        has_stopped.set()

    async with scripted(push) as script, reader_of(script) as events:
        await anext(events)
        await has_stopped.wait()
        script.visits[0].writer.transport.abort()
    assert taken < 10_000_000, taken


@asynccontextmanager
async def held(**options: Any) -> AsyncGenerator[tuple[Events, asyncio.Event]]:
    """A reader of a stream with one event, and whether its connection is gone."""
    gone = asyncio.Event()

    async def act(visit: Visit) -> None:
        await visit.send(HEAD + block("1"))
        await visit.wait_gone()
        gone.set()

    async with scripted(act) as script:
        yield reader_of(script, **options), gone


async def test_leaving_early_closes_the_connection() -> None:
    async with held() as (reader, gone):
        async with reader as events:
            async for _ in events:
                break
        async with asyncio.timeout(GONE_WITHIN_S):
            await gone.wait()


async def test_cancelling_the_loop_closes_the_connection() -> None:
    first = asyncio.Event()

    async def loop(reader: Events) -> None:
        async with reader as events:
            async for _ in events:
                first.set()

    async with held() as (reader, gone):
        task = asyncio.create_task(loop(reader))
        await first.wait()
        task.cancel()
        async with asyncio.timeout(GONE_WITHIN_S):
            await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_error_in_the_loop_closes_the_connection() -> None:
    async def fall_over(reader: Events) -> None:
        async with reader as events:
            async for _ in events:
                raise ZeroDivisionError

    async with held() as (reader, gone):
        with pytest.raises(ZeroDivisionError):
            await fall_over(reader)
        async with asyncio.timeout(GONE_WITHIN_S):
            await gone.wait()


@pytest.mark.parametrize("lent", [False, True], ids=["own", "lent"])
async def test_another_task_may_close_while_the_loop_waits(lent: bool) -> None:
    """For the next event: the loop ends as if the stream had nothing more."""
    async with (
        aiohttp.ClientSession() as session,
        held(session=session if lent else None) as (reader, gone),
        reader as events,
    ):
        await anext(events)
        task = asyncio.create_task(anext(events, None))
        await asyncio.sleep(0)
        async with asyncio.timeout(GONE_WITHIN_S):
            await events.aclose()
            assert await task is None
            await gone.wait()
        assert not session.closed


@pytest.mark.parametrize("act", [stay, plain("503 Later", b"", "Retry-After: 60")])
async def test_another_task_may_close_before_there_is_an_event(act: Act) -> None:
    """While the answer is waited for, and while the client waits to try again."""
    async with scripted(act) as script, reader_of(script) as events:
        task = asyncio.create_task(anext(events, None))
        await until(lambda: script.visits)
        async with asyncio.timeout(GONE_WITHIN_S):
            await events.aclose()
            assert await task is None


async def test_a_lent_session_stays_open() -> None:
    async with aiohttp.ClientSession() as session, scripted(HEAD + block("1") + END) as script:
        await read(script, session=session)
        assert not session.closed


async def test_entered_again_it_goes_on_where_it_was() -> None:
    async with scripted(sent_then(HEAD + block("1") + block("2")), HEAD + END) as script:
        reader = reader_of(script)
        async with reader as events:
            assert (await anext(events)).id == "1"
        async with reader as events:
            assert [event async for event in events] == []
        assert reader.end_reason == "complete"
    assert script.asked == ["-", "1"]


async def test_it_is_not_entered_twice_at_once_nor_read_outside() -> None:
    async with scripted(HEAD + END) as script:
        reader = reader_of(script)
        with pytest.raises(RuntimeError):
            await anext(reader)
        async with reader:
            with pytest.raises(RuntimeError):
                await reader.__aenter__()
        assert [event async for event in reader] == []
    assert script.visits == []


async def test_an_ended_reader_stays_ended() -> None:
    async with scripted(HEAD + block("1") + END) as script, reader_of(script) as events:
        assert len([event async for event in events]) == 1
        assert [event async for event in events] == []
    assert len(script.visits) == 1


# --- requests -----------------------------------------------------------------------------------


async def test_a_request_asks_for_events_uncompressed() -> None:
    """A compressor would hold events back; what the caller says about it wins."""
    async with scripted(HEAD + END) as script:
        await read(script, headers={"Authorization": "Bearer x"})
        await read(script, headers={"Accept-Encoding": "gzip"})
    first, second = (visit.headers for visit in script.visits)
    assert first["accept"] == "text/event-stream"
    assert (first["accept-encoding"], second["accept-encoding"]) == ("identity", "gzip")
    assert first["authorization"] == "Bearer x"
    assert "last-event-id" not in first


async def test_publish_sends_its_headers_with_both_requests() -> None:
    """Creating needs the caller's credential as much as appending does."""
    accepted = plain("201 Created", b"", "Stream-Next-Offset: 12")
    async with scripted(accepted) as script:
        offset = await publish(
            script.url, b'"x"', type="text", key="k", create=True, headers={"Authorization": "me"}
        )
    assert offset == "12"
    assert [visit.headers["authorization"] for visit in script.visits] == ["me", "me"]
    assert "record-type" not in script.visits[0].headers
    assert script.visits[1].headers["record-type"] == "text"
    assert script.visits[1].headers["record-key"] == "k"


@pytest.mark.parametrize("status", [301, 302, 303, 307])
async def test_publish_takes_a_redirect_for_a_refusal(status: int) -> None:
    """Followed, a POST becomes a GET: it would seem to have worked, and nothing was appended."""
    moved = plain(f"{status} Moved", b"", "Location: /elsewhere")
    async with scripted(moved, plain("200 OK", b"[]")) as script:
        with pytest.raises(Refused) as caught:
            await publish(script.url, b"1")
    assert caught.value.answer == status
    assert len(script.visits) == 1


async def test_publish_never_repeats_an_append() -> None:
    async with scripted(b"") as script:
        with pytest.raises(Unreachable):
            await publish(script.url, b"1")
    assert len(script.visits) == 1

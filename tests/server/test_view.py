"""A view: level readers share the same bytes, laggards hold a place, nobody loses or repeats.

The sinks here have transports whose peers read when told to (`HeldTransport`), so that every
interleaving of appends, flushes, joins, pauses and ends can be had; the log is the oracle.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from inprocess import HeldTransport, call, turns
from penstock.core.cursor import Offset, parse_offset
from penstock.core.limits import WRITE_BYTES
from penstock.core.log import Log, Retention
from penstock.core.record import EndReason, NewRecord, Record
from penstock.core.subscription import Subscription
from penstock.server.fastpath import Writer
from penstock.server.form import NativeForm
from penstock.server.hub import Hub
from penstock.server.view import View
from penstock.telemetry.hooks import Hooks
from penstock.wire import native
from penstock.wire.http import chunk
from penstock.wire.sse import Decoder, encode_event

EPOCH = 7


class Sink:
    """A level reader that keeps what it was given, the objects themselves."""

    def __init__(self, opened_at: float = 0.0) -> None:
        self.written: list[bytes] = []
        self.is_paused = False
        self.pauses_at_next = False
        self.opened_at = opened_at
        self.place: int | None = None
        self.woken = self.beats = 0

    def write(self, data: bytes) -> None:
        assert not self.is_paused, "written to while paused"
        self.written.append(data)
        if self.pauses_at_next:
            self.is_paused = True

    def fall_behind(self, position: int) -> None:
        self.place = position

    def wake(self) -> None:
        self.woken += 1

    def heartbeat(self) -> None:
        self.beats += 1


class Counting(Hooks):
    def __init__(self) -> None:
        self.records = self.bytes = 0
        self.first_events: list[float] = []

    def delivered(self, records: int, size: int) -> None:
        self.records += records
        self.bytes += size

    def first_event(self, seconds: float) -> None:
        self.first_events.append(seconds)


class Watched:
    """A view over a log of its own, told of commits as the backend would."""

    def __init__(self, *, tail_bytes: int = 1 << 20, retention: Retention | None = None) -> None:
        self.log = Log("s", EPOCH, retention)
        self.hooks = Counting()
        self.reads = 0
        self.view = View(
            self.log.head(),
            NativeForm(EPOCH, is_binary=False),
            self._read,
            tail_bytes=tail_bytes,
            hooks=self.hooks,
            now=0.0,
        )

    def _read(self, after: int, max_records: int, max_bytes: int) -> Sequence[Record]:
        self.reads += 1
        return self.log.read(after, max_records, max_bytes)

    def append(self, *payloads: bytes) -> bool:
        records = self.log.append([NewRecord(payload) for payload in payloads], 0.0)
        return self.view.committed(records, self.log.head())


def event(position: int, payload: bytes) -> bytes:
    return b"id: %b\ndata: %b\n\n" % (str(Offset(EPOCH, position)).encode(), payload)


def test_level_readers_are_given_the_very_same_bytes() -> None:
    watched, sinks = Watched(), [Sink() for _ in range(3)]
    watched.view.live.update(dict.fromkeys(sinks))
    assert watched.append(b"one", b"two")
    watched.view.flush(1.0)
    (first,) = {id(sink.written[0]) for sink in sinks}
    assert first
    assert sinks[0].written == [chunk(event(1, b"one") + event(2, b"two"))]
    body = len(event(1, b"one") + event(2, b"two"))
    assert (watched.hooks.records, watched.hooks.bytes) == (6, body * 3)


def test_commits_of_one_turn_are_one_write() -> None:
    watched, sink = Watched(), Sink()
    watched.view.live[sink] = None
    for number in range(50):
        watched.append(b"%d" % number)
    watched.view.flush(1.0)
    watched.view.flush(1.0)
    assert len(sink.written) == 1


def test_a_paused_reader_leaves_with_its_place_and_is_not_written_to() -> None:
    watched, slow, quick = Watched(), Sink(), Sink()
    watched.view.live.update({slow: None, quick: None})
    slow.pauses_at_next = True
    for number in range(3):
        watched.append(b"%d" % number)
        watched.view.flush(1.0)
    assert slow.place == 1
    assert len(slow.written) == 1
    assert len(quick.written) == 3
    assert list(watched.view.live) == [quick]
    body, position, count = watched.view.slice(slow.place, watched.view.flushed)
    assert (body, position, count) == (event(2, b"1") + event(3, b"2"), 3, 2)


def test_a_reader_that_pauses_between_two_writes_of_a_flush_gets_the_first_only() -> None:
    watched, slow = Watched(), Sink()
    watched.view.live[slow] = None
    slow.pauses_at_next = True
    watched.append(*[b"x" * 100_000] * 4)
    watched.view.flush(1.0)
    assert len(slow.written) == 1
    assert slow.place == 2
    assert watched.view.flushed == 4


@pytest.mark.parametrize("size", [10, 1000, 100_000, 200_000, WRITE_BYTES, WRITE_BYTES + 1, 10**6])
@pytest.mark.parametrize("tail_bytes", [1 << 20, 0], ids=["tail", "log"])
def test_a_write_is_at_most_256_kib_or_one_event(size: int, tail_bytes: int) -> None:
    """Whether it comes from the view's tail or is encoded from the log again."""
    watched, sink = Watched(tail_bytes=tail_bytes), Sink()
    watched.view.live[sink] = None
    payloads = [b"x" * size] * max(3, 2 * WRITE_BYTES // size)
    watched.append(*payloads)
    watched.view.flush(1.0)
    for data in sink.written:
        line, _, rest = data.partition(b"\r\n")
        assert int(line, 16) <= WRITE_BYTES or rest.count(b"id: ") == 1
    sizes = [int(data.split(b"\r\n")[0], 16) for data in sink.written]
    assert len(sizes) <= sum(sizes) // WRITE_BYTES * 2 + 2
    place, pieces = 0, list[bytes]()
    while place < watched.view.flushed:
        body, place, _ = watched.view.slice(place, watched.view.flushed)
        assert len(body) <= WRITE_BYTES or body.count(b"id: ") == 1
        pieces.append(body)
    assert b"".join(pieces) == b"".join(event(i + 1, p) for i, p in enumerate(payloads))


@pytest.mark.parametrize("tail_bytes", [0, 1, 500, 10_000])
def test_the_tail_is_bounded_and_serves_whoever_is_within_it(tail_bytes: int) -> None:
    watched, sink = Watched(tail_bytes=tail_bytes), Sink()
    watched.view.live[sink] = None
    for number in range(2000):
        watched.append(b"%04d" % number)
        watched.view.flush(1.0)
        kept = sum(map(len, watched.view._events))
        assert kept == watched.view._tail_size <= tail_bytes
        assert len(watched.view._events) - watched.view._first <= tail_bytes // 20 + 1
    assert len(watched.view._events) <= tail_bytes // 20 + 130
    expected = b"".join(event(n + 1, b"%04d" % n) for n in range(1990, 2000))
    assert watched.view.slice(1990, 2000) == (expected, 2000, 10)
    assert watched.reads == (0 if tail_bytes >= 500 else 1)


def test_nothing_is_encoded_or_kept_while_nobody_reads() -> None:
    watched = Watched()
    sink = Sink()
    watched.view.live[sink] = None
    watched.append(b"1")
    watched.view.flush(1.0)
    del watched.view.live[sink]
    assert not watched.append(b"2")
    assert watched.view.flushed == 2
    assert watched.view._events == watched.view._waiting == []
    assert watched.view.slice(0, 2) == (event(1, b"1") + event(2, b"2"), 2, 2)
    assert watched.reads == 1


def test_what_waits_when_the_last_reader_leaves_does_not_take_the_view_back() -> None:
    """A reader gone between a commit and its flush, and a commit that nobody waits for: the flush
    of the first must not undo the second."""
    watched, sink = Watched(), Sink()
    watched.view.live[sink] = None
    watched.append(b"1")
    del watched.view.live[sink]
    watched.append(b"2")
    watched.view.flush(1.0)
    assert watched.view.flushed == 2
    late = Sink()
    watched.view.live[late] = None
    watched.append(b"3")
    watched.view.flush(1.0)
    assert late.written == [chunk(event(3, b"3"))]
    assert watched.view.slice(0, 3)[0] == b"".join(event(n, b"%d" % n) for n in (1, 2, 3))


def test_a_heartbeat_counts_as_a_write() -> None:
    watched, sink, sleeper = Watched(), Sink(), Sink()
    watched.view.live[sink] = None
    watched.view.sleepers[sleeper] = None
    watched.view.heartbeat(9.0)
    assert (sink.beats, sleeper.beats, watched.view.last_write) == (1, 1, 9.0)


def test_the_first_event_is_timed_once_for_each_reader() -> None:
    watched, early, late = Watched(), Sink(1.0), Sink(2.0)
    watched.view.live.update({early: None, late: None})
    watched.view.fresh.update({early, late})
    for now in (5.0, 6.0):
        watched.append(b"1")
        watched.view.flush(now)
    assert sorted(watched.hooks.first_events) == [3.0, 4.0]


# --- encoding -----------------------------------------------------------------------------------

texts = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8)
payloads = st.binary(max_size=20) | st.sampled_from([b"", b"\n", b"\r\n", b"a\nb", b"a\r", b"\r\r"])
positions = st.integers(1, 200) | st.integers(3840, 3850) | st.integers(1, 2**40)
record_lists = st.lists(st.tuples(positions, payloads, texts, texts), max_size=20)


@settings(deadline=None, print_blob=True)
@given(record_lists, st.booleans(), st.integers(1, 62**5 - 1))
def test_every_record_is_encoded_as_the_codec_would(
    shapes: list[tuple[int, bytes, str, str]], binary: bool, epoch: int
) -> None:
    shapes = sorted({shape[0]: shape for shape in shapes}.values())
    records = [Record(*shape) for shape in shapes]
    expected = [
        encode_event(
            base64.b64encode(record.payload) if binary else record.payload,
            id=str(Offset(epoch, record.position)).encode(),
            type=record.type.encode(),
            key=record.key.encode(),
        )
        for record in records
    ]
    encoder = native.NativeEncoder(epoch, binary=binary)
    assert encoder.encode(records) == expected
    assert [event for record in records for event in encoder.encode([record])] == expected


# --- the property -------------------------------------------------------------------------------


class Peer:
    """A reader with a transport, and what it must have been given in the end."""

    def __init__(self, hub: Hub, name: str, place: int) -> None:
        self.place = place
        self.transport = HeldTransport(high=120)
        stream = hub.streams_in_use[name]
        self.writer = Writer(
            stream, stream.view(), Subscription(place), self.transport, opened_at=0.0
        )
        self.writer.begin(b": hello\n\n")

    def positions(self, epoch: int) -> list[int]:
        found: list[int] = []
        for got in self.transport.events:
            assert got.type in ("message", "end"), got
            if got.type == "message":
                offset = parse_offset(got.last_event_id)
                assert offset.epoch == epoch
                assert got.data.strip() == str(offset.position)
                found.append(offset.position)
        return found


STEPS = [
    "append",
    "append",
    "append3",
    "large",
    "flush",
    "turn",
    "turn",
    "settle",
    "join",
    "join now",
]
STEPS += ["read", "read some", "hang up", "heartbeat", "pause", "portable"]
steps = st.sampled_from(STEPS)


@settings(
    deadline=None,
    print_blob=True,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(st.tuples(steps, st.integers(0, 9)), max_size=60), st.booleans(), st.integers(0, 2))
async def test_no_interleaving_loses_or_repeats_a_record(
    script: list[tuple[str, int]], ends: bool, tail: int
) -> None:
    """Each reader gets exactly what follows its place, in order, whatever happened when."""
    hub = Hub(view_tail_bytes=(0, 200, 1 << 20)[tail])
    stream = await hub.create("a")
    peers: list[Peer] = []
    gone: set[int] = set()

    async def append(count: int, pad: int = 0) -> None:
        for _ in range(count):
            # The payload is its own position, so that a record under another's id shows.
            await stream.append(b" " * pad + b"%d" % (stream.offset.position + 1))

    for step, number in script:
        peer = peers[number % len(peers)] if peers else None
        if step == "append":
            await append(1)
        elif step == "append3":
            await append(3)
        elif step == "large":
            await append(1, 150)
        elif step == "flush":
            hub._flush()
        elif step == "turn":
            await turns(1)
        elif step == "settle":
            await turns(number)
        elif step == "join" and len(peers) < 6:
            peers.append(Peer(hub, "a", min(number, stream.offset.position)))
        elif step == "join now" and len(peers) < 6:
            peers.append(Peer(hub, "a", stream.offset.position))
        elif step == "heartbeat":
            stream.view().heartbeat(0.0)
        elif step == "portable":
            # A reader of the other kind, whose leaving is a matter of task turns.
            await call(hub.asgi, "GET", "/stream/a?live=events&offset=now")
        elif peer is None or id(peer) in gone:
            continue
        elif step == "read":
            peer.transport.take()
        elif step == "read some":
            peer.transport.take(40 * number)
        elif step == "pause" and not peer.writer.is_paused:
            peer.writer.pause_writing()  # of its own accord, as TLS may, and resumed in its time
            peer.transport._paused = True
        elif step == "hang up":
            peer.transport.hang_up()
            gone.add(id(peer))
    tail_position = stream.offset.position
    if ends:
        await stream.close(EndReason.COMPLETE)
    for _ in range(60):
        await turns(3)
        for peer in peers:
            peer.transport.take()
    epoch = stream.offset.epoch
    note(f"tail {tail_position}, {[(p.place, p.positions(epoch)) for p in peers]}")
    for peer in peers:
        got = peer.positions(epoch)
        wanted = list(range(peer.place + 1, tail_position + 1))
        if id(peer) in gone:
            assert got == wanted[: len(got)]
            continue
        assert got == wanted
        assert [e.type for e in peer.transport.events if e.type == "end"] == ["end"] * ends
        assert peer.transport.is_closing() is ends


def test_events_of_a_view_are_what_a_decoder_gives_back() -> None:
    watched, sink = Watched(), Sink()
    watched.view.live[sink] = None
    watched.append(b"line\nline", b"", b"x")
    watched.view.flush(1.0)
    decoder = Decoder()
    _, _, body = sink.written[0].partition(b"\r\n")
    decoder.receive_data(body[:-2])
    assert [event.data for event in decoder.events()] == ["line\nline", "", "x"]

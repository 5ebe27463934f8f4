"""Every recorded answer comes out of the whole chain as it went in, across a cut anywhere.

A provider's bytes (split at random) are read by the gateway, kept as records by a hub, sent by the
real server, and read by two of our clients: one undisturbed, one through a proxy that splits the
bytes again and cuts the connection in the middle of an event chosen at random. Both must see the
events that the dialect's reader finds in the recording: none missing, none twice, in order. Every
place is drawn from the seed in a test's name.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from inprocess import until
from penstock.client import Event, connect
from penstock.core.errors import PenstockError
from penstock.core.record import EndReason, NewRecord
from penstock.core.resume import Backoff
from penstock.gateway.upstream import Upstream, answer
from penstock.llm import anthropic, openai_chat
from penstock.llm.assemble import Answer, Assembler
from penstock.llm.events import Failure, TokenEvent, TokenReader, from_record, to_record
from penstock.server.config import make_settings
from penstock.server.hub import Hub
from penstock.server.serve import make_server
from penstock.testing.recordings import DIALECTS, VOICES, Recording, built_in, load
from penstock.testing.upstream import RecordedUpstream

READERS: dict[str, Callable[[], TokenReader]] = {
    openai_chat.DIALECT: openai_chat.Reader,
    anthropic.DIALECT: anthropic.Reader,
}
MISSING = "no recordings here: set PENSTOCK_RECORDINGS to a folder of <dialect>.jsonl.gz files"
PATIENCE_S = 30.0
AT_ONCE = 12
"""Recordings in flight in one event loop: most of a recording's time is waiting to reconnect."""
PORTABLE_EVERY = 5
"""Of the portable path only every so many: it shares all but the last write with the fast one."""
BACKOFF = Backoff(base_ms=10, cap_ms=100, max_attempts=20)


# --- the cases ----------------------------------------------------------------------------------


@functools.cache
def recordings(dialect: str) -> tuple[Recording, ...]:
    found = load(dialect)
    if found:
        return found
    if os.environ.get("PENSTOCK_RECORDINGS_REQUIRED") == "1":
        pytest.fail(MISSING)
    pytest.skip(MISSING)


def read_offline(recording: Recording) -> list[TokenEvent]:
    """What the dialect's reader makes of the body in one piece: no network, no cuts."""
    reader = READERS[recording.dialect]()
    reader.receive_data(recording.body)
    reader.receive_eof()
    return [_printable(event) for event in reader.events()]


def _printable(event: TokenEvent) -> TokenEvent:
    """A failure as the gateway passes it on: its sentence without control characters."""
    if not isinstance(event, Failure):
        return event
    plain = "".join(c if c.isprintable() else " " for c in event.message)
    return replace(event, message=plain)


def assemble(events: list[TokenEvent]) -> Answer:
    assembler = Assembler()
    for event in events:
        assembler.receive_event(event)
    return assembler.answer()


# --- a proxy that splits and cuts ---------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Cut:
    """Where a connection ends: inside block `block` of the body, counted from 0.

    `how`: "reset" (RST), "fin" (a FIN in the middle of a chunk), or "clean" (the body is of no
    announced length, so that the cut looks like its end).
    """

    block: int
    how: str
    is_done: bool = False


@dataclass(slots=True)
class Proxy:
    """Passes connections on to one port; the first ones are cut as `cuts` says, the rest not."""

    upstream_port: int
    dice: random.Random
    cuts: list[Cut]
    port: int = 0
    connections: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[None]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut = self.cuts[self.connections] if self.connections < len(self.cuts) else None
        self.connections += 1
        task = asyncio.create_task(self._pass(reader, writer, cut))
        self._tasks.add(task)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: Cut | None
    ) -> None:
        source, sink = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            if cut is not None and cut.how == "clean":
                request = request.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
            sink.write(request)
            await self._answer(source, writer, cut)
        except ConnectionError:
            pass
        finally:
            sink.transport.abort()
            if cut is not None and cut.how == "reset" and cut.is_done:
                _reset(writer)
            writer.close()

    async def _answer(
        self, source: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: Cut | None
    ) -> None:
        """Passes the answer on in pieces; up to a random byte of the block to cut in."""
        held, passed = b"", 0
        while data := await source.read(65536):
            held += data
            stop = len(held)
            if cut is not None:
                while passed < cut.block and (end := held.find(b"\n\n")) >= 0:
                    await self._write(writer, held[: end + 2])
                    held, passed = held[end + 2 :], passed + 1
                if passed == cut.block and (end := held.find(b"\n\n")) >= 0:
                    # At most all of the block but the LF that would make it an event.
                    await self._write(writer, held[: self.dice.randrange(end + 2)])
                    cut.is_done = True
                    return
                stop = 0
            await self._write(writer, held[:stop])
            held = held[stop:]
        await self._write(writer, held)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        start = 0
        longest = self.dice.choice((3, 40, 400, 4000))
        while start < len(data):
            stop = start + self.dice.randint(1, longest if self.dice.random() < 0.9 else 4000)
            writer.write(data[start:stop])
            await writer.drain()
            # A turn of the loop: what was written arrives as a read of its own.
            await asyncio.sleep(0)
            start = stop


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# --- the chain ----------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Chain:
    """An upstream, a hub and its server, all in this loop."""

    upstream: RecordedUpstream
    hub: Hub
    port: int

    async def start(self, dialect: str, model: str, name: str, seed: int) -> str:
        """Asks the upstream; gives the path of the stream that its answer becomes."""
        upstream = Upstream(
            dialect=dialect,
            base_url=self.upstream.url + ("" if dialect == anthropic.DIALECT else "/v1"),
            model=model,
            extra={"penstock": {"tokens_per_s": 0, "split_seed": seed}},
        )
        stream = await self.hub.start(name, records(upstream))
        return f"/v1{stream.path}"


async def records(upstream: Upstream) -> AsyncGenerator[NewRecord]:
    async with aclosing(answer(upstream, [{"role": "user", "content": "?"}])) as events:
        async for event in events:
            type_, payload = to_record(event)
            yield NewRecord(msgspec.json.encode(payload), type_)


@asynccontextmanager
async def chain(*, fast: bool) -> AsyncGenerator[Chain]:
    settings = make_settings(port=0, retry_ms=100, log_level="critical")
    hub = Hub(settings=settings)
    server = make_server(settings, hub=hub, fast=fast)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        async with RecordedUpstream() as upstream:
            task = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await until(lambda: server.started)
                yield Chain(upstream=upstream, hub=hub, port=listener.getsockname()[1])
            finally:
                await hub.drain(within_s=0.5)
                server.should_exit = True
                await task


async def read_stream(port: int, path: str) -> tuple[list[Event], str | None, str]:
    """Reads to the end: the events, the end's reason, and where the client says it is."""
    url = f"http://127.0.0.1:{port}{path}"
    async with connect(url, backoff=BACKOFF, patience_s=PATIENCE_S) as events:
        seen = [event async for event in events]
        return seen, events.end_reason, events.last_event_id


async def check(
    running: Chain, recording: Recording, name: str, seed: int, *, model: str = ""
) -> None:
    """Follows one recording through the chain, live, twice at once."""
    model = model or f"recorded:{recording.sha256}"
    dice = random.Random(seed)
    expected = read_offline(recording)
    # Before the records two blocks of the transport's own, after them the end.
    blocks = 2 + len(expected) + 1
    places = [dice.randrange(blocks)]
    if dice.random() < 0.5:
        places.append(dice.randrange(max(1, blocks - places[0])))
    cuts = [Cut(block=place, how=dice.choice(("reset", "fin", "clean"))) for place in places]
    proxy = Proxy(running.port, dice, cuts)
    async with proxy.listen():
        path = await running.start(recording.dialect, model, name, seed)
        undisturbed, disturbed = await asyncio.gather(
            read_stream(running.port, path), read_stream(proxy.port, path)
        )
    assert cuts[0].is_done, "the first connection was not cut"
    assert proxy.connections >= 2, "nobody came back"
    compare(expected, undisturbed, disturbed)


Seen = tuple[list[Event], str | None, str]


def compare(expected: list[TokenEvent], undisturbed: Seen, disturbed: Seen) -> None:
    """The two readers and the offline one agree in every event, every id and the end."""
    assert disturbed == undisturbed
    events, reason, last_id = disturbed
    tokens = [from_record(event.type, event.json()) for event in events]
    assert tokens == expected
    ids = [event.id for event in events]
    assert all(before < after for before, after in pairwise(ids)), ids
    assert last_id.endswith("~")
    whole = assemble(tokens)
    assert whole == assemble(expected)
    failed = not expected or whole.failure is not None
    assert reason == (EndReason.FAILED if failed else EndReason.COMPLETE)


async def check_all(running: Chain, cases: list[tuple[int, Recording]], seed: int) -> None:
    """Every case, several at once; what fails says which recording and which seed."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(place: int, recording: Recording) -> str | None:
        own = seed * 1000 + place
        async with room:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await check(running, recording, f"recorded/{place}", own)
            except (AssertionError, PenstockError, TimeoutError) as error:
                return (
                    f"{recording.dialect} recording {place} ({recording.sha256[:12]}), "
                    f"seed {own}: {type(error).__name__} {str(error)[:2000]}"
                )
        return None

    said: list[Coroutine[Any, Any, str | None]] = [one(*case) for case in cases]
    failures = [failure for failure in await asyncio.gather(*said) if failure]
    assert not failures, "\n\n".join(failures)


# --- the claims ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_recording_survives_splits_and_cuts(dialect: str, seed: int) -> None:
    """Over the fast path, each recording is read once whole and once in pieces: the same."""
    cases = list(enumerate(recordings(dialect)))
    async with chain(fast=True) as running:
        await check_all(running, cases, seed)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_portable_path_gives_the_same_answers(dialect: str) -> None:
    cases = list(enumerate(recordings(dialect)))[::PORTABLE_EVERY]
    async with chain(fast=False) as running:
        await check_all(running, cases, seed=2)


def test_recordings_that_are_not_whole_are_among_them() -> None:
    """Otherwise nothing above would have shown that a failed answer comes out as failed."""
    whole = [assemble(read_offline(r)) for dialect in DIALECTS for r in recordings(dialect)]
    assert any(one.failure is not None for one in whole)
    assert any(one.failure is None for one in whole)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "portable"])
async def test_an_answer_survives_a_cut_in_each_of_its_blocks(fast: bool) -> None:
    """Cut once inside every block in turn, from the first comment to the end event."""
    events = (
        '{"id":"a","model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}]}',
        '{"choices":[{"index":0,"delta":{"content":"drop"}}]}',
        '{"choices":[{"index":0,"delta":{"content":" by drop"}}]}',
        '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        "[DONE]",
    )
    body = "".join(f"data: {event}\n\n" for event in events).encode()
    reader = openai_chat.Reader()
    reader.receive_data(body)
    expected = reader.events()
    async with chain(fast=fast) as running:
        stream = await running.hub.create("short")
        for event in expected:
            type_, payload = to_record(event)
            await stream.append(msgspec.json.encode(payload), type=type_)
        await stream.close()
        path = f"/v1{stream.path}"
        undisturbed = await read_stream(running.port, path)
        for place in range(2 + len(expected) + 1):
            for how in ("reset", "fin", "clean"):
                cut = Cut(block=place, how=how)
                proxy = Proxy(running.port, random.Random(place), [cut])
                async with proxy.listen():
                    disturbed = await read_stream(proxy.port, path)
                assert cut.is_done, cut
                compare(expected, undisturbed, disturbed)


@pytest.mark.parametrize("voice", VOICES)
async def test_our_own_streams_survive_splits_and_cuts(voice: str) -> None:
    """What every machine has to show the same with: no recording is needed."""
    seed = VOICES.index(voice) + 1
    print(f"seed {seed}")
    recording = built_in(voice).recording(DIALECTS[seed % 2])
    async with chain(fast=True) as running, asyncio.timeout(PATIENCE_S):
        await check(running, recording, voice, seed, model=recording.model)

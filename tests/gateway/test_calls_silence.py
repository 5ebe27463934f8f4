"""A provider's silence is bounded before the first token, between tokens and in all; nobody else's.

The clock is moved by hand. The wheel turns in real time, ten times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.providers import (
    DONE,
    HEAD,
    LAST,
    PATIENCE_S,
    STOP,
    WHOLE,
    Said,
    answers,
    chunk,
    collect,
    drain,
    failure_of,
    provider,
    request,
    said,
    text_of,
    until,
    upstream,
)
from penstock.gateway.calls import Calls
from penstock.gateway.wheel import Watch, Wheel
from penstock.llm.events import Text


class Clock:
    """A clock that is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def calls(clock: Clock) -> AsyncIterator[Calls]:
    async with Calls(clock=clock) as calls:
        yield calls


class Scripted:
    """A provider that says what it is told to, piece by piece."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.gone = asyncio.Event()

    async def __call__(self, asked: Said) -> bytes | None:
        leaving = asyncio.ensure_future(asked.gone())
        while True:
            piece = asyncio.ensure_future(self.pieces.get())
            await asyncio.wait([piece, leaving], return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                piece.cancel()
                self.gone.set()
                return None
            asked.writer.write(piece.result() or b"")

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.pieces.put_nowait(piece)


async def expect_gone(script: Scripted) -> None:
    await asyncio.wait_for(script.gone.wait(), PATIENCE_S)


@pytest.mark.parametrize(
    "said_before",
    [(), (HEAD,), (HEAD, chunk(b": ping\n\n") * 9), (HEAD, chunk(b"data: "), chunk(b"{"))],
    ids=["nothing", "the head", "pings", "half an event"],
)
async def test_no_token_in_time_ends_the_call(
    said_before: tuple[bytes, ...], calls: Calls, clock: Clock
) -> None:
    script = Scripted()
    async with provider(script) as one:
        settings = upstream(one.url, first_token_s=20, retries=5)
        task = asyncio.create_task(calls.ask(request(), [settings]))
        await until(lambda: bool(one.requests))
        script.say(*said_before)
        clock.now += 19
        done, _ = await asyncio.wait([task], timeout=0.25)
        assert not done
        clock.now += 2
        call = await task
        failure = failure_of(await drain(call))
        assert (failure.code, failure.status) == ("upstream-timeout", 504)
        assert failure.message == "the provider gave no token within 20 s"
        await expect_gone(script)
        assert len(one.requests) == 1  # not tried again: the time is over
        assert calls.slots(settings).free == settings.max_concurrent


async def test_another_upstream_is_asked_after_a_silent_one(calls: Calls, clock: Clock) -> None:
    async with provider(Scripted()) as silent, provider(answers(WHOLE)) as speaking:
        first, second = upstream(silent.url), upstream(speaking.url, name="two")
        task = asyncio.create_task(collect(calls, first, second))
        await until(lambda: bool(silent.requests))
        clock.now += 1e6
        call, events = await task
        assert (call.upstream, text_of(events)) == ("two", "hello")


async def test_silence_between_tokens_ends_the_call(calls: Calls, clock: Clock) -> None:
    script = Scripted()
    async with provider(script) as one:
        script.say(HEAD, chunk(said("one ")))
        settings = upstream(one.url, between_tokens_s=20)
        call = await calls.ask(request(), [settings])
        await call.read()
        for word in ("two ", "three "):
            reading = asyncio.create_task(call.read())  # type: ignore[arg-type]
            await asyncio.sleep(0)
            clock.now += 19
            script.say(chunk(b": ping\n\n"), chunk(said(word)))
            assert text_of(list(await reading)) == word
        reading = asyncio.create_task(call.read())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        clock.now += 21
        failure = failure_of(list(await reading))
        assert failure.message == "the provider said nothing more within 20 s"
        assert failure.code == "upstream-timeout"
        assert not await call.read()
        await expect_gone(script)
        assert calls.slots(settings).free == settings.max_concurrent


async def test_the_reader_s_own_time_is_not_the_provider_s_silence(
    calls: Calls, clock: Clock
) -> None:
    script = Scripted()
    async with provider(script) as one:
        script.say(HEAD, chunk(said("one ")))
        call = await calls.ask(request(), [upstream(one.url, between_tokens_s=20)])
        assert await call.read()
        for _ in range(3):
            clock.now += 300
            await asyncio.sleep(0.15)  # the wheel has turned
        script.say(chunk(said("two ")), chunk(STOP + DONE), LAST)
        assert text_of(await drain(call)) == "two "


@pytest.mark.parametrize("is_reading", [True, False])
async def test_the_whole_is_bounded_whoever_is_slow(
    is_reading: bool, calls: Calls, clock: Clock
) -> None:
    script = Scripted()
    async with provider(script) as one:
        script.say(HEAD, chunk(said("one ")))
        settings = upstream(one.url, whole_s=100, between_tokens_s=1000)
        call = await calls.ask(request(), [settings])
        await call.read()
        reading = asyncio.create_task(drain(call)) if is_reading else None
        await asyncio.sleep(0)
        clock.now += 101
        await expect_gone(script)
        events = await reading if reading else await drain(call)
        assert failure_of(events).message == "the whole answer was not there within 100 s"
        assert calls.slots(settings).free == settings.max_concurrent


async def test_what_waits_in_line_has_no_deadline_of_a_call(calls: Calls, clock: Clock) -> None:
    script = Scripted()
    async with provider(script) as one:
        settings = upstream(one.url, max_concurrent=1, first_token_s=5)
        script.say(HEAD, chunk(said("one ")))
        first = await calls.ask(request(), [settings])
        second = asyncio.create_task(calls.ask(request(), [settings]))
        await until(lambda: calls.slots(settings).waiting == 1)
        clock.now += 60
        await asyncio.sleep(0.15)
        assert not second.done()
        first.abort()
        await until(lambda: len(one.requests) == 2)
        second.cancel()
        await asyncio.wait([second])


async def test_tokens_that_came_in_time_are_read_however_late(calls: Calls, clock: Clock) -> None:
    async with provider(answers(WHOLE)) as one:
        call = await calls.ask(request(), [upstream(one.url, between_tokens_s=1)])
        clock.now += 100
        await asyncio.sleep(0.15)
        events = await drain(call)
        assert text_of(events) == "hello"
        assert call.failure is None


async def test_a_reader_that_stops_holds_the_provider_up_and_little_memory(calls: Calls) -> None:
    written = 0

    async def flood(asked: Said) -> bytes | None:
        nonlocal written
        asked.writer.write(HEAD)
        while not asked.writer.transport.is_closing():
            piece = chunk(said("x" * 10_000))
            asked.writer.write(piece)
            await asked.writer.drain()
            written += len(piece)
        return None

    async with provider(flood) as one:
        call = await calls.ask(request(), [upstream(one.url)])
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.2)
        assert written < 16_000_000  # what the kernel's own buffers hold, and 128 KiB of ours
        count = 0
        while count < 20_000_000:  # and it goes on when it is read
            count += sum(len(e.text) for e in await call.read() if isinstance(e, Text))
        call.abort()


class TestWheel:
    """One timer for all deadlines, and nothing done for one that only moves on."""

    async def test_a_deadline_is_noticed_once_and_not_before(self, clock: Clock) -> None:
        wheel, rung = Wheel(clock), 0

        def ring() -> None:
            nonlocal rung
            rung += 1

        watch = wheel.watch(ring)
        watch.set(clock.now + 5)
        clock.now += 4.9
        await asyncio.sleep(0.15)
        assert not rung
        clock.now += 0.2
        await until(lambda: rung == 1)
        clock.now += 100
        await asyncio.sleep(0.15)
        assert rung == 1
        wheel.close()

    async def test_a_deadline_that_is_moved_is_noticed_where_it_is(self, clock: Clock) -> None:
        wheel = Wheel(clock)
        rung: list[float] = []
        watch = wheel.watch(lambda: rung.append(clock.now))
        watch.set(clock.now + 5)
        watch.set(clock.now + 50)
        clock.now += 6
        await asyncio.sleep(0.15)
        assert not rung
        watch.set(clock.now + 1)
        clock.now += 1.5
        await until(lambda: bool(rung))
        watch.set(clock.now + 1)
        watch.cancel()
        clock.now += 10
        await asyncio.sleep(0.15)
        assert len(rung) == 1
        wheel.close()

    async def test_a_wheel_with_nothing_to_watch_does_not_turn(self, clock: Clock) -> None:
        wheel = Wheel(clock)
        watch = wheel.watch(lambda: None)
        assert not wheel.is_turning
        watch.set(clock.now + 5)
        assert wheel.is_turning
        watch.cancel()
        await until(lambda: not wheel.is_turning)

    async def test_moving_on_costs_nothing(self, clock: Clock) -> None:
        class Counting(Wheel):
            filed = 0

            def put(self, watch: Watch, due: float) -> int:
                self.filed += 1
                return super().put(watch, due)

        wheel = Counting(clock)
        watches = [wheel.watch(lambda: None) for _ in range(100)]
        for _ in range(1000):
            clock.now += 0.02
            for watch in watches:
                watch.set(clock.now + 60)
        assert wheel.filed == 100
        wheel.close()

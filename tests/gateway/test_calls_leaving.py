"""Whoever leaves a call closes its connection at once, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
import pytest
import trustme
import uvloop

from gateway.providers import (
    DONE,
    HEAD,
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
from penstock.core.gateway_errors import UpstreamBusy
from penstock.gateway.calls import Calls
from penstock.gateway.slots import Slots
from penstock.testing.upstream import RecordedUpstream

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

PLACES = {
    "before the head": "first_token_s=60",
    "before the first event": "first_token_s=60&early_head=1",
    "before the first content": "tokens_per_s=0&stall_after=1&stall_s=60",
    "mid-stream": "tokens_per_s=50",
    "in a stall": "tokens_per_s=0&stall_after=9&stall_s=60",
}


def run(loop: str, main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main)


@pytest.fixture
async def recorded() -> AsyncIterator[RecordedUpstream]:
    async with RecordedUpstream() as recorded:
        yield recorded


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("place", PLACES)
def test_cancelling_is_seen_by_the_provider_within_a_second(place: str, loop: str) -> None:
    async def main() -> None:
        async with RecordedUpstream() as recorded, Calls() as calls:
            settings = upstream(recorded.url)
            seen = asyncio.Event()

            async def consume() -> None:
                asked = request(f"built-in:granite:0?{PLACES[place]}")
                call = await calls.ask(asked, [settings])
                while await call.read():
                    seen.set()

            task = asyncio.create_task(consume())
            await recorded.logged("start")
            match place:
                case "before the head":
                    pass
                case "mid-stream" | "in a stall":
                    await seen.wait()
                case "before the first event":
                    await until(lambda: calls.running == 1)
                case _:
                    await recorded.logged("first-byte")
            left = asyncio.get_running_loop().time()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            gone = await asyncio.wait_for(recorded.logged("gone"), PATIENCE_S)
            at = gone["monotonic_s"]
            assert isinstance(at, float)
            assert at - left < 1.0
            assert calls.running == 0
            assert calls.slots(settings).free == settings.max_concurrent

    run(loop, main())


@pytest.mark.parametrize("loop", LOOPS)
def test_abort_is_seen_within_a_second_also_while_another_task_reads(loop: str) -> None:
    async def main() -> None:
        async with RecordedUpstream() as recorded, Calls() as calls:
            settings = upstream(recorded.url)
            asked = request(f"built-in:granite:0?{PLACES['in a stall']}")
            call = await calls.ask(asked, [settings])
            reading = asyncio.create_task(drain(call))
            await recorded.logged("first-byte")
            await asyncio.sleep(0)
            left = asyncio.get_running_loop().time()
            call.abort()
            call.abort()
            gone = await asyncio.wait_for(recorded.logged("gone"), PATIENCE_S)
            at = gone["monotonic_s"]
            assert isinstance(at, float)
            assert at - left < 1.0
            await asyncio.wait_for(reading, PATIENCE_S)
            assert not await call.read()
            assert calls.slots(settings).free == settings.max_concurrent

    run(loop, main())


@pytest.mark.parametrize("loop", LOOPS)
def test_two_hundred_asks_cancelled_at_random_moments_leave_nothing(loop: str) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)

    async def main() -> None:
        async with RecordedUpstream() as recorded:
            before = len(asyncio.all_tasks())
            async with Calls() as calls:
                # Some stand in line, some connect, some wait for the head, some read.
                settings = upstream(recorded.url, max_concurrent=60, retries=2)
                knobs = [*PLACES.values(), "status=503", "tokens_per_s=2000", "cut_after=0"]

                async def consume() -> None:
                    asked = request(f"built-in:granite:0?{chance.choice(knobs)}")
                    with contextlib.suppress(UpstreamBusy):
                        await drain(await calls.ask(asked, [settings]))

                tasks = [asyncio.create_task(consume()) for _ in range(200)]
                leaving: dict[asyncio.Task[None], float] = {}
                for task in chance.sample(tasks, len(tasks)):
                    await asyncio.sleep(chance.random() * 0.01)
                    task.cancel()
                    leaving[task] = asyncio.get_running_loop().time()
                await asyncio.wait(tasks)
                assert calls.running == 0, f"seed {seed}"
                assert calls.slots(settings).free == 60, f"seed {seed}"
                assert calls.slots(settings).waiting == 0
                await until(lambda: calls.connections == 0)
                left = asyncio.get_running_loop().time()
                started = {e["request"] for e in recorded.log if e["event"] == "start"}

                def ended() -> set[Any]:
                    ends = ("gone", "finished", "refused")
                    return {e["request"] for e in recorded.log if e["event"] in ends}

                await until(lambda: started <= ended())
                late = [e["monotonic_s"] for e in recorded.log if e["event"] == "gone"]
                assert max(float(str(at)) for at in late) - left < 1.0, f"seed {seed}"
            await until(lambda: len(asyncio.all_tasks()) == before)

    run(loop, main())
    gc.collect()  # what was left open would warn here, and a warning is an error


@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_that_nobody_takes_is_let_go_of_too(loop: str) -> None:
    """The provider reads nothing: what was to be sent is thrown away with the connection."""

    async def main() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            listener.setblocking(False)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with Calls() as calls:
                asked = request(text="x" * 20_000_000)
                task = asyncio.create_task(calls.ask(asked, [upstream(url)]))
                its, _ = await asyncio.get_running_loop().sock_accept(listener)
                with its:
                    its.setblocking(False)
                    await asyncio.sleep(0)
                    await asyncio.get_running_loop().sock_recv(its, 1000)
                    task.cancel()
                    await asyncio.wait([task])
                    assert calls.running == 0
                    received = 1
                    with contextlib.suppress(ConnectionError):
                        async with asyncio.timeout(5):
                            while received:
                                data = await asyncio.get_running_loop().sock_recv(its, 1 << 20)
                                received = len(data)

    run(loop, main())


async def test_cancelling_while_connecting_leaves_nothing_behind() -> None:
    """A full backlog answers no handshake."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        settings = upstream(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_s=0.2)
        async with Calls() as calls:
            task = asyncio.create_task(calls.ask(request(), [settings]))
            done, _ = await asyncio.wait([task], timeout=0.1)
            assert not done
            task.cancel()
            await asyncio.wait([task], timeout=1)
            assert task.cancelled()
            assert calls.slots(settings).free == settings.max_concurrent
            _, events = await collect(calls, settings)
            assert "no connection within 0.2 s" in failure_of(events).message


async def test_leaving_the_calls_cuts_off_what_runs(recorded: RecordedUpstream) -> None:
    async with Calls() as calls:
        asked = request(f"built-in:granite:0?{PLACES['in a stall']}")
        call = await calls.ask(asked, [upstream(recorded.url)])
    await asyncio.wait_for(recorded.logged("gone"), PATIENCE_S)
    assert not await call.read()
    with pytest.raises(RuntimeError, match="not open"):
        await calls.ask(asked, [upstream(recorded.url)])


async def test_leaving_the_calls_does_not_wait_for_bodies_that_never_end() -> None:
    async def answer(asked: Said) -> bytes | None:
        asked.writer.write(HEAD + chunk(said("hi") + STOP + DONE))
        await asked.gone()
        return None

    async with provider(answer) as one:
        async with Calls() as calls:
            await collect(calls, upstream(one.url))
            assert (calls.running, calls.connections) == (0, 1)
        await until(lambda: one.open == 0)


async def test_an_idle_connection_that_says_something_is_not_used_again() -> None:
    async def answer(asked: Said) -> bytes | None:
        asked.writer.write(WHOLE)
        spoke.append(asked.writer)
        return b""

    spoke: list[asyncio.StreamWriter] = []
    async with provider(answer) as one, Calls() as calls:
        await collect(calls, upstream(one.url))
        spoke[0].write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(0.05)
        _, events = await collect(calls, upstream(one.url))
        assert text_of(events) == "hello"
        assert one.connections == 2


async def test_what_comes_behind_an_answer_costs_the_connection_alone() -> None:
    async with provider(answers(WHOLE + WHOLE)) as one, Calls() as calls:
        for _ in range(3):
            _, events = await collect(calls, upstream(one.url))
            assert text_of(events) == "hello"
        await until(lambda: calls.connections == 0)
        assert one.connections == 3


async def test_leaving_the_calls_ends_those_that_still_ask(recorded: RecordedUpstream) -> None:
    async with Calls() as calls:
        asked = request(f"built-in:granite:0?{PLACES['before the head']}")
        task = asyncio.create_task(calls.ask(asked, [upstream(recorded.url, retries=0)]))
        await recorded.logged("start")
    await asyncio.wait_for(recorded.logged("gone"), PATIENCE_S)
    call = await asyncio.wait_for(task, PATIENCE_S)
    assert not await call.read()


@pytest.mark.parametrize("loop", LOOPS)
def test_tls_connections_are_asked_kept_and_cut_off(loop: str) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def main() -> None:
        with authority.cert_pem.tempfile() as trusted:
            own = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=trusted))
            gone = asyncio.Event()

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    for body in (WHOLE, WHOLE, HEAD + chunk(said("half"))):
                        await reader.readuntil(b'"}]')
                        writer.write(body)
                    await reader.read()
                gone.set()
                writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
            url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
            async with own, Calls(connector=own) as calls:
                for _ in range(2):
                    _, events = await collect(calls, upstream(url))
                    assert text_of(events) == "hello"
                call = await calls.ask(request(), [upstream(url)])
                await call.read()
                call.abort()
                await asyncio.wait_for(gone.wait(), 5)
            server.close()
            async with Calls() as strangers:
                settings = upstream(url)
                _, events = await collect(strangers, settings)
                assert failure_of(events).code == "upstream-unreachable"

    run(loop, main())


async def test_a_call_that_is_forgotten_gives_its_place_back_in_the_end(
    recorded: RecordedUpstream,
) -> None:
    async with Calls() as calls:
        settings = upstream(recorded.url, whole_s=0.3)
        await calls.ask(request("built-in:granite:0?tokens_per_s=5"), [settings])
        await until(lambda: calls.slots(settings).free == settings.max_concurrent)
        await asyncio.wait_for(recorded.logged("gone"), PATIENCE_S)


class TestSlots:
    """Places are given in turn, and back once."""

    async def test_the_first_in_line_is_the_next(self) -> None:
        slots = Slots("u", max_concurrent=1, max_waiting=9)
        first = await slots.take(1)
        order: list[int] = []

        async def wait(number: int) -> None:
            slot = await slots.take(PATIENCE_S)
            order.append(number)
            await asyncio.sleep(0)
            slot.give_back()
            slot.give_back()

        tasks = [asyncio.create_task(wait(number)) for number in range(5)]
        await until(lambda: slots.waiting == 5)
        tasks[2].cancel()
        first.give_back()
        first.give_back()
        await asyncio.wait(tasks)
        assert order == [0, 1, 3, 4]
        assert (slots.free, slots.waiting) == (1, 0)

    async def test_a_full_line_refuses_at_once_and_a_long_one_in_time(self) -> None:
        slots = Slots("u", max_concurrent=1, max_waiting=1)
        slot = await slots.take(1)
        waiting = asyncio.create_task(slots.take(0.05))
        await until(lambda: slots.waiting == 1)
        with pytest.raises(UpstreamBusy):
            await slots.take(PATIENCE_S)
        with pytest.raises(UpstreamBusy):
            await waiting
        assert slots.waiting == 0
        slot.give_back()
        assert slots.free == 1

    async def test_a_place_given_to_one_who_leaves_in_that_moment_is_not_lost(self) -> None:
        slots = Slots("u", max_concurrent=1, max_waiting=9)
        slot = await slots.take(1)
        leaving = asyncio.create_task(slots.take(PATIENCE_S))
        staying = asyncio.create_task(slots.take(PATIENCE_S))
        await until(lambda: slots.waiting == 2)
        slot.give_back()  # to the first, who has not noticed
        leaving.cancel()
        await asyncio.wait([leaving, staying])
        assert leaving.cancelled()
        staying.result().give_back()
        assert slots.free == 1


async def test_many_answers_at_once_use_each_connection_again() -> None:
    async def answer(_: Said) -> bytes:
        await asyncio.sleep(0)
        return WHOLE

    async with provider(answer) as one, Calls() as calls:
        settings = upstream(one.url, max_concurrent=20)
        for _ in range(10):
            got = await asyncio.gather(*(collect(calls, settings) for _ in range(40)))
            assert all(text_of(events) == "hello" for _, events in got)
        assert len(one.requests) == 400
        assert one.connections <= 40

"""A server that is told to stop tells its readers when to come back, and is gone in five seconds.

The processes are real and so are the signals. `serve` is what `penstock serve` runs, with the
fast path and without; the others run a user's own application. What those cannot do:

    server               cannot                              because
    uvicorn (portable)   be rid of a reader that never       it has the socket and we have not, and
                         reads, but with a                   it waits for ever by default
                         `--timeout-graceful-shutdown`
    granian              the same, but with a                the same
                         `--workers-kill-timeout`
    hypercorn            be rid of such a reader at all      its `--graceful-timeout` cuts it not
    hypercorn            drain on a signal to its parent     its workers get no signal then: their
                                                             readers are cut, and resume
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from penstock import EndReason, Hub
from penstock.core.errors import Draining
from penstock.core.limits import DRAIN_S
from raw_http import EVENT_STREAM, PATIENCE_S, EventReader, ask, connect, events
from running_servers import Running, running

GONE_WITHIN_S = 5.0
TEXT = {"Content-Type": "text/plain"}
SIGNALS = [signal.SIGINT, signal.SIGTERM]
SERVES = ["serve", "serve-portable"]


async def open_readers(server: Running, stack: AsyncExitStack, path: str) -> list[EventReader]:
    """Open three readers and wait until each is level."""
    readers = [await stack.enter_async_context(events(server.port, path)) for _ in range(3)]
    for reader in readers:
        await reader.next()
    return readers


async def assert_drained(reader: EventReader) -> None:
    """The body ends cleanly with `retry:` and the event `drain`, and nothing after them."""
    last = (await reader.rest())[-1]
    retry_ms = json.loads(last.data)["retry_ms"]
    assert last.type == "drain"
    assert reader.retry_ms == retry_ms
    told = f'retry: {retry_ms}\n\nevent: drain\ndata: {{"retry_ms":{retry_ms}}}\n\n'
    assert reader.raw.endswith(told.encode())
    assert await reader.connection.is_closed()


async def make_stuck(server: Running, stack: AsyncExitStack) -> None:
    """Open a reader that takes nothing of what then fills every buffer on the way to it."""
    path = "/v1/stream/big"
    assert (await ask(server.port, "PUT", path, TEXT)).status == 201
    reader = events(server.port, path, receive_buffer=4096)
    await stack.enter_async_context(reader)
    # Each append is answered after the one before it was written as far as it went.
    for _ in range(15):
        answer = await ask(server.port, "POST", path, TEXT, b"." * 1_000_000)
        assert answer.status == 204
    metrics = (await ask(server.port, "GET", "/metrics")).body
    assert b"\npenstock_readers_lagging 1.0\n" in metrics


async def exit_status(server: Running, since: float) -> int:
    """Wait for the exit, off the loop; at most five seconds after the signal."""
    left_s = GONE_WITHIN_S - (time.monotonic() - since)
    return await asyncio.to_thread(server.wait, left_s)


@pytest.mark.parametrize("kind", SERVES)
@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_drains_every_reader_and_the_exit_is_clean(
    kind: str, number: signal.Signals, tmp_path: Path
) -> None:
    witness = tmp_path / "witness"
    with running(kind, environment={"TEST_WITNESS": str(witness)}) as server:
        assert (await ask(server.port, "POST", "/test/start?name=ticks")).status == 204
        async with AsyncExitStack() as stack:
            readers = await open_readers(server, stack, "/v1/stream/ticks")
            signalled_at = server.send(number)
            for reader in readers:
                await assert_drained(reader)
            assert await exit_status(server, signalled_at) == 0, server.printed()
        assert witness.read_text("utf-8") == "closed ticks\n"
        assert "Traceback" not in server.printed()


@pytest.mark.parametrize("kind", SERVES)
async def test_a_stuck_reader_is_cut_at_the_deadline_and_the_exit_is_still_clean(
    kind: str,
) -> None:
    with running(kind) as server:
        async with AsyncExitStack() as stack:
            await make_stuck(server, stack)
            assert (await ask(server.port, "POST", "/test/start?name=ticks")).status == 204
            readers = await open_readers(server, stack, "/v1/stream/ticks")
            signalled_at = server.send(signal.SIGTERM)
            for reader in readers:
                await assert_drained(reader)
            assert await exit_status(server, signalled_at) == 0, server.printed()
            # It was given its time: the wait above was for it, and for nobody else.
            assert time.monotonic() - signalled_at >= DRAIN_S - 0.1


@pytest.mark.parametrize("kind", SERVES)
async def test_while_draining_it_is_not_ready_and_sends_new_readers_away(kind: str) -> None:
    """Nobody can connect any more; who comes over a connection that is open already is told."""
    with running(kind) as server:
        async with AsyncExitStack() as stack:
            await make_stuck(server, stack)
            kept = await stack.enter_async_context(connect(server.port))
            second = await stack.enter_async_context(connect(server.port))
            for connection in (kept, second):
                assert (await connection.ask("GET", "/readyz")).status == 200
            signalled_at = server.send(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_S):
                while (await kept.ask("GET", "/readyz")).status == 200:
                    pass
            assert (await kept.ask("GET", "/healthz")).status == 200
            refused = await kept.ask("GET", "/v1/stream/big?live=events")
            assert (refused.status, refused.code) == (503, "draining")
            assert int(refused["retry-after"]) > 0
            await second.send("GET", "/v1/stream/big", EVENT_STREAM)
            late = EventReader(second, await second.head())
            assert late.answer.status == 200
            assert await late.rest() == []
            assert late.retry_ms is not None
            with pytest.raises(ConnectionRefusedError):
                await ask(server.port, "GET", "/readyz")
            assert await exit_status(server, signalled_at) == 0


@pytest.mark.parametrize("kind", SERVES)
async def test_a_second_signal_ends_it_at_once(kind: str) -> None:
    with running(kind) as server:
        async with AsyncExitStack() as stack:
            await make_stuck(server, stack)
            kept = await stack.enter_async_context(connect(server.port))
            server.send(signal.SIGINT)
            async with asyncio.timeout(PATIENCE_S):
                while (await kept.ask("GET", "/readyz")).status == 200:
                    pass
            signalled_at = server.send(signal.SIGINT)
            await exit_status(server, signalled_at)
            assert time.monotonic() - signalled_at < DRAIN_S - 1


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-fast"])
@pytest.mark.parametrize("number", SIGNALS)
async def test_in_a_users_own_application_a_signal_drains_readers_too(
    kind: str, number: signal.Signals, tmp_path: Path
) -> None:
    witness = tmp_path / "witness"
    prompt = {"id": "42", "text": "the answer is", "is_endless": True}
    variables = {"TEST_WITNESS": str(witness)}
    with running(kind, "chat_app_for_tests", environment=variables) as server:
        async with AsyncExitStack() as stack:
            posted = await stack.enter_async_context(
                events(
                    server.port,
                    "/chat",
                    {"Content-Type": "application/json"},
                    method="POST",
                    body=json.dumps(prompt).encode(),
                )
            )
            assert [event.data for event in await posted.take(3)] == ['"the"', '"answer"', '"is"']
            readers = await open_readers(server, stack, "/v1/stream/chat/42")
            signalled_at = server.send(number)
            for reader in (posted, *readers):
                await assert_drained(reader)
            await exit_status(server, signalled_at)
        assert witness.read_text("utf-8") == "closed 42\n"


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [("uvicorn-fast", []), ("uvicorn", ["--timeout-graceful-shutdown", "1"])],
)
async def test_a_stuck_reader_cannot_hold_up_a_users_own_application(
    kind: str, arguments: list[str]
) -> None:
    with running(kind, "app_for_tests_with_lifespan", arguments=arguments) as server:
        async with AsyncExitStack() as stack:
            await make_stuck(server, stack)
            assert (await ask(server.port, "POST", "/test/start?name=ticks")).status == 204
            readers = await open_readers(server, stack, "/v1/stream/ticks")
            signalled_at = server.send(signal.SIGINT)
            for reader in readers:
                await assert_drained(reader)
            await exit_status(server, signalled_at)


async def test_granian_drains_its_readers_on_a_signal() -> None:
    with running("granian", "app_for_tests_with_lifespan") as server:
        async with AsyncExitStack() as stack:
            assert (await ask(server.port, "POST", "/test/start?name=ticks")).status == 204
            readers = await open_readers(server, stack, "/v1/stream/ticks")
            signalled_at = server.send(signal.SIGTERM)
            for reader in readers:
                await assert_drained(reader)
            assert await exit_status(server, signalled_at) == 0


# the hub by itself


class Source:
    """Yields for ever, and knows whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    async def __aiter__(self) -> AsyncGenerator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0)
        finally:
            self.is_closed = True


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


async def test_a_hub_as_a_context_manager_touches_no_signals_and_closes_its_sources() -> None:
    before = handlers()
    hub, source = Hub(), Source()
    async with hub:
        assert handlers() == before
        stream = await hub.start("ticks", aiter(source))
        while not stream.offset.position:
            await asyncio.sleep(0)
    assert source.is_closed
    assert stream.end is EndReason.LOST
    assert handlers() == before


async def test_a_lifespan_chains_the_handlers_it_finds_and_puts_them_back() -> None:
    heard: list[int] = []
    old = {number: signal.signal(number, lambda n, _: heard.append(n)) for number in SIGNALS}
    try:
        before = handlers()
        hub = Hub()
        async with hub.lifespan():
            assert handlers() != before
            signal.raise_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE_S):
                while not hub.is_draining:
                    await asyncio.sleep(0)
            with pytest.raises(Draining):
                await hub.start("late", aiter(Source()))
        assert heard == [signal.SIGINT]
        assert handlers() == before
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


async def test_the_hub_runs_until_its_last_user_leaves_and_can_run_again() -> None:
    hub, source = Hub(), Source()
    async with hub:
        async with hub:
            await hub.start("ticks", aiter(source))
        assert not source.is_closed
    assert source.is_closed
    again: AsyncIterator[int] = aiter(Source())
    async with hub:
        stream = await hub.start("again", again)
        assert stream.is_produced
    assert stream.end is EndReason.LOST

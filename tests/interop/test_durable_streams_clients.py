"""The published Durable Streams clients, TypeScript and Python, write, read, tail and resume.

They are unmodified. On the same streams, at the same time, are readers of native SSE: ours, a bare
one and an `EventSource`. Each sees the same records under the same offsets. The programs, one a
client and a direction, are in `durable_streams/`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from interop.durable_streams.readers import (
    BYTES,
    CLIENTS,
    JSON,
    PROGRAMS,
    TEXT,
    Batches,
    bare,
    event_source,
    foreign,
    ours,
    rest,
    take,
    whole,
)
from interop.durable_streams.serving import BACKENDS, Serving, serving
from running_programs import Program, program
from running_servers import require

VALUES: dict[str, list[Any]] = {
    JSON: [1, [2, [3, []]], {"a": "ä\u2028"}, "two\r\nlines", "", None, True, 2.5],
    TEXT: ["Über ", "den\n", "data: x\n\nevent: end\n\n", "Strom 🌊"],
    BYTES: [
        base64.b64encode(part).decode()
        for part in (bytes(range(256)), b"\xff", b"\r\n\r\n", b"\x00")
    ],
}
MANY: dict[str, list[Any]] = {
    JSON: [{"n": number} for number in range(60)],
    TEXT: [f"{number}, " for number in range(60)],
    BYTES: [base64.b64encode(bytes([number])).decode() for number in range(60)],
}


@pytest.fixture(scope="module", autouse=True)
def _clients() -> None:
    require("durable_streams")


@pytest.fixture(scope="module", params=BACKENDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Serving]:
    with serving(request.param, tmp_path_factory.mktemp("clients")) as running:
        yield running


@asynccontextmanager
async def writer(client: str, url: str, content_type: str) -> AsyncGenerator[Program]:
    """A published client that writes a stream, which it has created."""
    async with program(PROGRAMS / f"write.{CLIENTS[client]}", url, content_type) as writing:
        await writing.line()
        yield writing


async def done(writing: Program, command: str, values: object = True) -> str:
    """The offset after what a client was told to write."""
    await writing.say({command: values})
    return str((await writing.line())["offset"])


@asynccontextmanager
async def all_of(
    readers: Mapping[str, AbstractAsyncContextManager[Batches]],
) -> AsyncGenerator[dict[str, Batches]]:
    """Every reader at once, by name."""
    async with AsyncExitStack() as stack:
        opened = [stack.enter_async_context(reader) for reader in readers.values()]
        yield dict(zip(readers, [await opening for opening in opened], strict=True))


async def each(readers: Mapping[str, Batches], size: int) -> dict[str, tuple[Any, str]]:
    """What every reader gets next, and the offset after it."""
    found = await asyncio.gather(*(take(reader, size) for reader in readers.values()))
    return dict(zip(readers, found, strict=True))


def native(url: str, content_type: str) -> dict[str, AbstractAsyncContextManager[Batches]]:
    """The readers of native SSE."""
    return {
        "ours": ours(url, content_type),
        "bare": bare(url, content_type),
        "EventSource": event_source(url, content_type),
    }


@pytest.mark.parametrize("content_type", VALUES)
@pytest.mark.parametrize("client", CLIENTS)
async def test_what_a_client_writes_in_batches_every_client_reads_back(
    client: str, content_type: str, server: Serving, tmp_path: Path
) -> None:
    url = f"{server.streams}/back/{tmp_path.name}"
    values = [*VALUES[content_type], *MANY[content_type]]
    expected = whole(values, content_type)
    async with writer(client, url, content_type) as writing:
        offset = await done(writing, "append", values)
    async with all_of({name: foreign(name, url, "none") for name in CLIENTS}) as readers:
        assert await each(readers, len(expected)) == dict.fromkeys(readers, (expected, offset))
        assert [await rest(reader) for reader in readers.values()] == [[], []]


@pytest.mark.parametrize("content_type", VALUES)
async def test_everybody_gets_each_record_when_it_comes_under_the_same_offset(
    content_type: str, server: Serving, tmp_path: Path
) -> None:
    """Nothing is written before all, foreign and native, have what was written last."""
    url = f"{server.streams}/tail/{tmp_path.name}"
    ways = [(name, live) for name in CLIENTS for live in ("long-poll", "sse")]
    if content_type == BYTES:
        ways.remove(("python", "sse"))  # this client reads no base64
    async with (
        writer("typescript", url, content_type) as writing,
        all_of(
            {f"{name}, {live}": foreign(name, url, live) for name, live in ways}
            | native(url, content_type)
        ) as readers,
    ):
        for values in [*([value] for value in VALUES[content_type]), MANY[content_type]]:
            expected = whole(values, content_type)
            for command in ("append", "produce"):
                offset = await done(writing, command, values)
                seen = await each(readers, len(expected))
                assert seen == dict.fromkeys(readers, (expected, offset))
        await done(writing, "close")
        # The Python client does not know that streams end.
        del readers["python, long-poll"]
        assert await asyncio.gather(*map(rest, readers.values())) == [[]] * len(readers)


async def test_everybody_resumes_where_the_server_was_killed(tmp_path: Path) -> None:
    """Foreign readers come back with the offset that they saved, native ones by themselves."""
    before, after = MANY[JSON], [-value["n"] for value in MANY[JSON]]
    with serving("sqlite", tmp_path) as server:
        url = f"{server.streams}/kept"
        async with writer("typescript", url, JSON) as writing, all_of(native(url, JSON)) as staying:
            saved = await done(writing, "produce", before)
            ways = [(name, live) for name in CLIENTS for live in ("none", "long-poll", "sse")]
            first = {f"{name}, {live}": foreign(name, url, live) for name, live in ways}
            async with all_of(first) as readers:
                for seen in (await each(readers, len(before)), await each(staying, len(before))):
                    assert seen == dict.fromkeys(seen, (before, saved))
            server.kill()
            server.start_again()
            offset = await done(writing, "produce", after)
            second = {f"{name}, {live}": foreign(name, url, live, saved) for name, live in ways}
            second |= {"ours": ours(url, JSON, saved), "bare": bare(url, JSON, saved)}
            del staying["bare"]  # it repairs nothing
            async with all_of(second) as readers:
                for seen in (await each(readers, len(after)), await each(staying, len(after))):
                    assert seen == dict.fromkeys(seen, (after, offset))


async def test_a_producer_that_repeats_through_a_kill_writes_each_record_once(
    tmp_path: Path,
) -> None:
    """It does not know which of its requests the server that died had stored."""
    values = list(range(10_000))
    with serving("sqlite", tmp_path) as server:
        url = f"{server.streams}/once"
        staying = {"ours": ours(url, JSON), "EventSource": event_source(url, JSON)}
        async with (
            writer("typescript", url, JSON) as writing,
            all_of(staying) as readers,
        ):
            producing = asyncio.create_task(done(writing, "produce", values))
            for _ in range(3):
                async with bare(url, JSON, "now") as watching:
                    await take(watching, 500)
                    server.kill()
                assert not producing.done()
                server.start_again()
            offset = await producing
            assert await each(readers, len(values)) == dict.fromkeys(readers, (values, offset))

"""Kill the reader, reload, join from another device, at any event of any dialect, while the answer
runs and afterwards: it is the same answer, and the provider was called once."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping

import pytest

from gateway.gateways import PATHS, TEXT, Running, body, gateway, model, plain, shown, until
from llm.plain_clients import CLIENTS
from penstock.core.cursor import END_MARK
from penstock.server.dialects import MAX_DIALECTS
from penstock.testing.recordings import tokens
from raw_http import EVENT_STREAM, Answer, EventReader, connect

COUNT = 24
SAID = "".join(tokens(TEXT)[:COUNT])
PACED = model("tokens_per_s=150")
DIALECTS = tuple(CLIENTS)
WITH_IDS = ("anthropic-messages", "native", "vercel", "agui")
LIMITS = {"openai-responses": "max_output_tokens", "native": "max_output_tokens"}


def asked(dialect: str, name: str) -> bytes:
    """A request for a short answer, where the dialect can say that."""
    limit = {LIMITS.get(dialect, "max_tokens"): COUNT}
    return json.dumps(
        body(dialect, name, **({} if dialect in ("vercel", "agui") else limit))
    ).encode()


async def begin(running: Running, dialect: str = "openai-chat", name: str = PACED) -> str:
    """Ask, read nothing, and hang up; gives the path of the answer's stream."""
    async with connect(running.port) as connection:
        await connection.send("POST", PATHS[dialect], {}, asked(dialect, name))
        head = await connection.head("POST")
        connection.hang_up()
    return f"/v1/stream/{head['penstock-stream']}"


async def read(
    running: Running, target: str, headers: Mapping[str, str] | None = None, *, count: int = -1
) -> bytes:
    """Read a body to its end, or so many whole events of it, and hang up. Who has all of it
    already is told so by 204."""
    async with connect(running.port) as connection:
        await connection.send("GET", target, {**EVENT_STREAM, **(headers or {})})
        reader = EventReader(connection, await connection.head())
        has_all = END_MARK in f"{target}{headers}"
        assert reader.answer.status == (204 if has_all else 200), (target, reader.answer)
        while (count < 0 or len(blocks(reader.raw)) < count) and await reader.more():
            pass
        connection.hang_up()
    found = blocks(reader.raw)
    return b"".join(found if count < 0 else found[:count])


def blocks(raw: bytes) -> list[bytes]:
    """The whole events of a body, without comments and reconnection times."""
    raw = re.sub(rb"(?m)^:.*\n", b"", raw)
    found = [block + b"\n\n" for block in raw.split(b"\n\n")[:-1]]
    return [block.lstrip(b"\n") for block in found if block.strip() and b"retry:" not in block]


def last_id(raw: bytes) -> str:
    return re.findall(rb"(?m)^id: (.+)$", raw)[-1].decode()


def whole(dialect: str, raw: bytes) -> None:
    seen = CLIENTS[dialect](plain(raw))
    end = "complete" if dialect == "native" else "length"
    assert seen.text == SAID
    assert seen.end in (end, "length")


async def ended(running: Running, target: str) -> None:
    stream = await running.hub.get(target.removeprefix("/v1/stream/"))
    await until(lambda: stream.end is not None)


@pytest.mark.parametrize("dialect", WITH_IDS)
@pytest.mark.parametrize("how", ["header", "query", "offset"])
async def test_who_comes_back_with_an_id_goes_on_there(dialect: str, how: str) -> None:
    async with gateway() as running:
        path = await begin(running)
        target = f"{path}?dialect={dialect}"

        async def again(seen: bytes) -> bytes:
            id = last_id(seen)
            if how == "header":
                return await read(running, target, {"Last-Event-ID": id})
            name = "last_event_id" if how == "query" else "offset"
            return await read(running, f"{target}&{name}={id}")

        async def killed(count: int) -> bytes:
            seen = await read(running, target, count=count)
            # Only the last event of a record has an id: without one there is nothing to go on from.
            kept = b"".join(blocks(seen)[: with_id(blocks(seen))])
            return kept + (await again(kept) if kept else await read(running, target))

        bodies = await asyncio.gather(*(killed(count) for count in range(1, COUNT + 6)))
        kept = await read(running, target)
        assert set(bodies) == {kept}
        whole(dialect, kept)
        await ended(running, path)
        afterwards = await asyncio.gather(*(killed(count) for count in range(1, len(blocks(kept)))))
        assert set(afterwards) == {kept}
        assert await running.calls() == 1


def with_id(found: list[bytes]) -> int:
    """How many events there are up to the last that has an id."""
    places = [place for place, block in enumerate(found, start=1) if b"id: " in block]
    return places[-1] if places else 0


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_who_comes_back_without_an_id_begins_anew(dialect: str) -> None:
    async with gateway() as running:
        path = await begin(running)
        target = f"{path}?dialect={dialect}"
        kept = asyncio.create_task(read(running, target))

        async def killed(count: int) -> None:
            seen = await read(running, target, count=count)
            again = await read(running, target)
            assert again.startswith(seen)
            assert again == await kept

        await asyncio.gather(*(killed(count) for count in range(1, COUNT + 6)))
        whole(dialect, await kept)
        assert await running.calls() == 1


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_request_that_is_repeated_is_the_same_answer(dialect: str) -> None:
    """As a page or an SDK does that lost its connection, with the key of its request."""
    async with gateway() as running:

        async def killed(count: int) -> None:
            async with connect(running.port) as connection:
                await connection.send("POST", PATHS[dialect], key, asked(dialect, name))
                reader = EventReader(connection, await connection.head("POST"))
                while len(blocks(reader.raw)) < count and await reader.more():
                    pass
                connection.hang_up()
            again = await running.post(PATHS[dialect], json.loads(asked(dialect, name)), key)
            assert b"".join(blocks(again.body)).startswith(b"".join(blocks(reader.raw)))
            assert again["penstock-joined"] == "true"

        key, name = {"Idempotency-Key": "k"}, model("tokens_per_s=1500")
        first = asyncio.create_task(
            running.post(PATHS[dialect], json.loads(asked(dialect, name)), key)
        )
        await running.answer()
        await asyncio.gather(*(killed(count) for count in range(1, COUNT, 2)))
        seen = shown(dialect, (await first).body).text if dialect != "native" else SAID
        assert seen in (SAID, TEXT)
        assert await running.calls() == 1


async def test_a_response_goes_on_after_any_of_its_events() -> None:
    async with gateway() as running:
        path = await begin(running, "openai-responses")
        id = path.rpartition("/")[2]
        targets = {
            f"/v1/responses/resp_{id}?stream=true": "",
            f"{path}?dialect=openai-responses": "",
        }
        kept = {target: asyncio.create_task(read(running, target)) for target in targets}

        async def killed(target: str, count: int) -> None:
            seen = await read(running, target, count=count)
            number = json.loads(seen.rpartition(b"data: ")[2])["sequence_number"]
            async with places:
                rest = await read(running, f"{target}&starting_after={number}")
            assert seen + rest == await kept[target]

        # A stream is shown in so many ways at once and no more.
        places = asyncio.Semaphore(MAX_DIALECTS - 4)
        while_it_runs = [(target, count) for target in targets for count in range(1, COUNT)]
        async with asyncio.TaskGroup() as group:
            for target, count in while_it_runs[::2]:
                group.create_task(killed(target, count))
        bodies = {await body for body in kept.values()}
        assert len(bodies) == 1
        whole("openai-responses", bodies.pop())
        await ended(running, path)
        for target, count in while_it_runs[1::2]:
            await killed(target, count)
        assert await running.calls() == 1


async def test_a_page_that_is_loaded_again_finds_its_chat() -> None:
    async with gateway() as running:
        slow = model("tokens_per_s=0&stall_after=20&stall_s=0.4")
        async with connect(running.port) as connection:
            await connection.send("POST", PATHS["vercel"], {}, asked("vercel", slow))
            reader = EventReader(connection, await connection.head("POST"))
            await reader.until(b"text-delta")
            connection.hang_up()
        first, second = await asyncio.gather(
            running.get("/api/chat/chat-1/stream"), running.get("/api/chat/chat-1/stream")
        )
        assert first.body == second.body
        assert plain(first.body).startswith(plain(reader.raw).rpartition(b"\n\n")[0])
        assert shown("vercel", first.body).text == TEXT
        assert (await running.get("/api/chat/chat-1/stream")).status == 204
        assert await running.calls() == 1


@pytest.mark.parametrize("asked_in", PATHS)
async def test_an_answer_is_the_same_in_every_dialect_whoever_asked(asked_in: str) -> None:
    async with gateway() as running:
        path = await begin(running, asked_in, model("tokens_per_s=2000"))
        bodies: dict[str, set[bytes]] = {}

        async def one(dialect: str) -> None:
            found = await read(running, f"{path}?dialect={dialect}")
            bodies.setdefault(dialect, set()).add(found)

        await asyncio.gather(*(one(dialect) for dialect in DIALECTS * 3))
        await asyncio.gather(*(one(dialect) for dialect in DIALECTS))
        assert {len(found) for found in bodies.values()} == {1}
        texts = {CLIENTS[name](plain(*found)).text for name, found in bodies.items()}
        assert len(texts) == 1
        assert texts <= {SAID, TEXT}
        assert await running.calls() == 1


async def test_an_answer_is_there_after_a_restart(tmp_path: object) -> None:
    settings = {"backend": f"sqlite:///{tmp_path}/streams.db"}
    async with gateway(hub=settings) as running:
        path = await begin(running, name=model("tokens_per_s=0"))
        await ended(running, path)
        before = {name: await read(running, f"{path}?dialect={name}") for name in DIALECTS}
    async with gateway(hub=settings) as running:
        for name, kept in before.items():
            target = f"{path}?dialect={name}"
            assert await read(running, target) == kept
            if name in WITH_IDS:
                for count in range(3, COUNT, 5):
                    seen = b"".join(blocks(kept)[: with_id(blocks(kept)[:count])])
                    rest = await read(running, target, {"Last-Event-ID": last_id(seen)})
                    assert seen + rest == kept
        assert await running.calls() == 0


async def test_the_end_s_own_id_has_nothing_behind_it() -> None:
    async with gateway() as running:
        path = await begin(running, name=model("tokens_per_s=0"))
        await ended(running, path)
        for dialect in WITH_IDS:
            target = f"{path}?dialect={dialect}"
            id = last_id(await read(running, target))
            answer: Answer = await running.get(target, {**EVENT_STREAM, "Last-Event-ID": id})
            assert answer.status == 204, dialect

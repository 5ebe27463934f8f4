"""`?compact=1`: a late joiner is shown an answer in a handful of events, and can resume at each.

What is replayed is merged, what comes live is shown as it comes; the text and the places are those
of the log. On both backends and both paths.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inprocess import Called, call, serving, until
from penstock.core.cursor import parse_offset
from penstock.core.record import NewRecord
from penstock.llm.merging import merge_text
from penstock.server.hub import Hub, Stream
from penstock.wire.sse import Decoder, Event
from raw_http import events as open_events

PATHS: dict[str, dict[str, Any]] = {"fast": {}, "portable": {"http": "httptools"}}
HANDFUL = 12
TOKENS = 2000


@pytest.fixture(params=["memory", "sqlite"])
async def hub(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Hub]:
    address = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"
    async with Hub(address, drain_s=0.1) as hub:
        yield hub


def text(value: str, type_: str = "text", key: str = "") -> NewRecord:
    return NewRecord(json.dumps({"text": value}).encode(), type_, key)


def answer() -> list[NewRecord]:
    """A thought, an answer with a tool call in it, and the rest: 2,000 tokens and more."""
    records = [NewRecord(b'{"model":"m"}', "start")]
    records += [text(f"t{number} ", "reasoning") for number in range(TOKENS // 4)]
    records += [text(f"a{number} ") for number in range(TOKENS // 4)]
    records.append(NewRecord(b'{"index":0,"id":"c","name":"f","arguments":""}', "tool_delta"))
    for number in range(TOKENS // 4):
        delta = {"index": 0, "arguments": f"{number},"}
        records.append(NewRecord(json.dumps(delta).encode(), "tool_delta"))
    records += [text(f"b{number} ") for number in range(TOKENS // 4)]
    return [*records, NewRecord(b'{"tokens":2000}', "usage")]


async def fill(hub: Hub, records: list[NewRecord]) -> Stream:
    stream = await hub.create("a")
    for start in range(0, len(records), 100):
        await stream.append_batch(records[start : start + 100])
    return stream


async def read(hub: Hub, query: str = "", after: str | None = None) -> list[Event]:
    """Every event of a stream that has ended, its end aside."""
    headers = [(b"accept", b"text/event-stream")]
    if after is not None:
        headers.append((b"last-event-id", after.encode()))
    called: Called = await call(hub.asgi, "GET", f"/stream/a{query}", headers, stays=True)
    assert called.status == 200
    decoder = Decoder()
    decoder.receive_data(called.body)
    *events, end = decoder.events()
    assert end.type == "end"
    return events


def said(events: list[Event]) -> list[tuple[str, str]]:
    """What events say together: runs of one type are one."""
    runs: list[tuple[str, str]] = []
    for event in events:
        value = json.loads(event.data)
        joined = value.get("text", value.get("arguments", event.data))
        if runs and runs[-1][0] == event.type:
            runs[-1] = (event.type, runs[-1][1] + joined)
        else:
            runs.append((event.type, joined))
    return runs


async def test_a_reload_of_an_answer_is_a_handful_of_events(hub: Hub) -> None:
    stream = await fill(hub, answer())
    await stream.close()
    whole, compact = await read(hub), await read(hub, "?compact=1")
    assert len(whole) == len(answer())
    assert len(compact) <= HANDFUL
    assert said(compact) == said(whole)
    assert compact[-1].last_event_id == whole[-1].last_event_id == str(stream.offset)
    assert [json.loads(event.data) for event in compact if event.type == "tool_delta"] == [
        {
            "index": 0,
            "id": "c",
            "name": "f",
            "arguments": "".join(f"{n}," for n in range(TOKENS // 4)),
        }
    ]


async def test_it_is_resumable_at_every_offset(hub: Hub) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    stream = await fill(hub, answer())
    await stream.close()
    whole, compact = await read(hub), await read(hub, "?compact=1")
    ids = [event.last_event_id for event in whole]
    places = {event.last_event_id for event in compact}
    assert places <= set(ids), "it has no places of its own"
    for place in [*places, *rng.sample(ids, 25)]:
        index = ids.index(place) + 1
        rest = await read(hub, "?compact=1", place)
        assert said(rest) == said(whole[index:])
        assert len(rest) <= HANDFUL
        # And whoever was shown merged events goes on among those that are not, and back.
        assert (await read(hub, "", place)) == whole[index:]


async def test_only_neighbours_of_one_type_and_key_are_merged(hub: Hub) -> None:
    records = [text("a"), text("b", key="k"), text("c", key="k"), text("d"), text("e", "reasoning")]
    records += [NewRecord(b'{"text":"f","more":1}', "text"), NewRecord(b'"g"', "text"), text("h")]
    records += [NewRecord(b"1", "other"), NewRecord(b"2", "other"), text("i"), text("j")]
    stream = await fill(hub, records)
    await stream.close()
    events = await read(hub, "?compact=1")
    assert [(event.type, json.loads(event.data)) for event in events] == [
        ("text", {"text": "a"}),
        ("text", {"text": "bc"}),
        ("text", {"text": "d"}),
        ("reasoning", {"text": "e"}),
        ("text", {"text": "f", "more": 1}),
        ("text", "g"),
        ("text", {"text": "h"}),
        ("other", 1),
        ("other", 2),
        ("text", {"text": "ij"}),
    ]
    positions = [parse_offset(event.last_event_id).position for event in events]
    assert positions == [1, 3, 4, 5, 6, 7, 8, 9, 10, 12]


async def test_a_long_answer_is_merged_a_write_at_a_time(hub: Hub) -> None:
    records = [text(f"{number:03} " + "x" * 500) for number in range(2000)]
    stream = await fill(hub, records)
    await stream.close()
    whole, compact = await read(hub), await read(hub, "?compact=1")
    assert said(compact) == said(whole)
    assert 2 <= len(compact) <= 40


async def test_a_users_own_type_is_merged_by_its_own_function(tmp_path: Path) -> None:
    def merge(first: bytes, second: bytes) -> bytes | None:
        return b"%d" % (int(first) + int(second))

    async with Hub("memory://", merges={"sum": merge}, drain_s=0.1) as hub:
        stream = await fill(hub, [NewRecord(b"%d" % number, "sum") for number in range(100)])
        await stream.close()
        (event,) = await read(hub, "?compact=1")
        assert (event.type, event.data) == ("sum", "4950")
        assert event.last_event_id == str(stream.offset)


@pytest.mark.parametrize("path", PATHS)
async def test_a_late_joiner_of_a_running_answer_sees_the_rest_as_it_comes(
    hub: Hub, path: str
) -> None:
    goes_on: asyncio.Queue[NewRecord | None] = asyncio.Queue()

    async def source() -> AsyncIterator[NewRecord]:
        for record in answer():
            yield record
        while record := await goes_on.get():
            yield record

    async with serving(hub, **PATHS[path]) as server:
        stream = await hub.start("a", source())
        await until(lambda: stream.offset.position == len(answer()))
        async with open_events(server.port, "/v1/stream/a?compact=1") as reader:
            shown: list[Event] = []
            while not shown or shown[-1].last_event_id != str(stream.offset):
                shown.append(await reader.next())
            assert len(shown) <= HANDFUL
            for number in range(20):
                goes_on.put_nowait(text(f"live{number}"))
                event = await reader.next()
                assert json.loads(event.data) == {"text": f"live{number}"}
                assert event.last_event_id == str(stream.offset)
                shown.append(event)
            goes_on.put_nowait(None)
            assert [event.type for event in await reader.rest()] == ["end"]
        whole = await read(hub)
        assert said(shown) == said(whole)


@pytest.mark.parametrize("path", PATHS)
async def test_what_comes_live_is_not_merged_on_either_path(hub: Hub, path: str) -> None:
    async with serving(hub, **PATHS[path]) as server:
        stream = await hub.create("a")
        async with open_events(server.port, "/v1/stream/a?compact=1") as reader:
            await reader.until(b"retry:")
            await until(lambda: stream.readers)
            await stream.append_batch([text("a"), text("b"), text("c")])
            shown = await reader.take(3)
            assert [json.loads(event.data)["text"] for event in shown] == ["a", "b", "c"]


async def test_a_choice_that_is_none_is_refused(hub: Hub) -> None:
    await hub.create("a")
    for value in ("2", "true", "", "yes"):
        called = await call(hub.asgi, "GET", f"/stream/a?live=events&compact={value}")
        assert (called.status, called.code) == (400, "query-malformed"), value


async def test_reads_that_are_not_native_know_no_merging(hub: Hub) -> None:
    stream = await fill(hub, [text("a"), text("b")])
    await stream.close()
    called = await call(hub.asgi, "GET", "/stream/a?compact=1", stays=True)
    assert json.loads(called.body) == [{"text": "a"}, {"text": "b"}]
    called = await call(hub.asgi, "GET", "/stream/a?compact=1&live=sse&offset=-1", stays=True)
    assert b'[{"text": "a"},{"text": "b"}]' in called.body


async def test_half_a_character_in_each_of_two_deltas_is_one_in_the_merged() -> None:
    merged = merge_text(b'{"text":"a\\ud83d"}', b'{"text":"\\ude00b"}')
    assert merged is not None
    assert json.loads(merged) == {"text": "a😀b"}
    half = merge_text(b'{"text":"a"}', b'{"text":"\\ud83d"}')
    assert half is not None
    assert json.loads(half) == {"text": "a\ud83d"}


async def test_a_reader_is_not_lost_over_half_a_character(hub: Hub) -> None:
    halves = [NewRecord(rb'{"text":"\ud83d"}', "text"), NewRecord(rb'{"text":"\ude00"}', "text")]
    stream = await fill(hub, [*halves, text("x")])
    await stream.close()
    (event,) = await read(hub, "?compact=1")
    assert json.loads(event.data) == {"text": "😀x"}


async def test_a_merge_that_raises_leaves_nobody_waiting(tmp_path: Path) -> None:
    def merge(first: bytes, second: bytes) -> bytes | None:
        raise ValueError("a fault of whoever wrote it")

    async with (
        Hub(f"sqlite:///{tmp_path}/store.db", merges={"odd": merge}, drain_s=0.1) as hub,
        serving(hub) as server,
    ):
        await fill(hub, [NewRecord(b"1", "odd"), NewRecord(b"2", "odd")])
        async with open_events(server.port, "/v1/stream/a?compact=1") as reader:
            assert await reader.rest() == []

"""Claims on making streams, and on names that have none."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from penstock.backends.interface import StreamConfig
from penstock.core.errors import StoreFull, StreamConflict, StreamNotFound
from penstock.core.log import Retention
from penstock.core.record import EndReason
from penstock.testing.contract.place import ALL, Bounds, Place, news

CONFIG = StreamConfig()


async def a_new_stream_stands_at_its_beginning(place: Place) -> None:
    head, is_new = await place.backend.create("a", CONFIG)
    assert is_new
    assert head.earliest == head.tail
    assert (head.records, head.bytes, head.end) == (0, 0, None)
    assert await place.backend.head("a") == (head, CONFIG)
    assert await place.payloads("a") == []


async def a_stream_is_made_with_its_first_records_and_its_end_in_one(place: Place) -> None:
    head, is_new = await place.backend.create("a", CONFIG, news(b"1", b"22"), end=EndReason.LIMIT)
    assert is_new
    assert (head.records, head.bytes, head.end) == (2, 3, EndReason.LIMIT)
    assert await place.payloads("a") == [b"1", b"22"]


async def creating_again_leaves_it_as_it_is(place: Place) -> None:
    head = await place.create("a", b"1")
    again = await place.backend.create("a", CONFIG, news(b"2"), end=EndReason.COMPLETE)
    assert again == (head, False)
    assert await place.payloads("a") == [b"1"]


async def creating_again_with_another_configuration_is_refused(place: Place) -> None:
    config = StreamConfig(content_type="text/plain", ttl_s=60)
    await place.backend.create("a", config)
    for other in (
        replace(config, content_type="text/html"),
        replace(config, ttl_s=61),
        replace(config, ttl_s=None),
        replace(config, retention=Retention(max_records=1)),
    ):
        with pytest.raises(StreamConflict):
            await place.backend.create("a", other)
    same = replace(config, is_produced=True, ended_ttl_s=1.0)  # these are not compared
    assert not (await place.backend.create("a", same))[1]


async def what_a_stream_was_made_with_is_kept(place: Place) -> None:
    config = StreamConfig(
        content_type="text/plain; charset=utf-8",
        retention=Retention(max_records=7, max_bytes=1 << 50, max_age_s=0.1 + 0.2),
        expires_at=place.clock.now + 1 / 3,
        ended_ttl_s=2 / 3,
        is_produced=True,
    )
    await place.backend.create("a", config)
    kept = (await place.backend.head("a"))[1]
    assert kept == config
    assert (kept.ended_ttl_s, kept.is_produced) == (2 / 3, True)


async def many_who_create_the_same_get_one_stream(place: Place) -> None:
    made = await asyncio.gather(*[place.backend.create("a", CONFIG) for _ in range(20)])
    assert sorted(is_new for _, is_new in made) == [False] * 19 + [True]
    assert len({head for head, _ in made}) == 1


async def a_name_that_is_made_again_begins_a_later_epoch(place: Place) -> None:
    epochs: list[int] = []
    for _ in range(3):
        epochs.append((await place.create("a", b"1")).epoch)
        await place.backend.delete("a")
    assert epochs == sorted(set(epochs))


async def what_is_not_there_is_said_not_to_be(place: Place) -> None:
    for name in ("no", "nö/é/\U0001f600"):
        for attempt in (
            place.backend.append(name, news(b"1")),
            place.backend.append(name, [], end=EndReason.COMPLETE),
            place.backend.read(name, 0, ALL, ALL),
            place.backend.head(name),
            place.backend.delete(name),
        ):
            with pytest.raises(StreamNotFound):
                await attempt


async def a_name_is_any_text(place: Place) -> None:
    for name in ("a", "A", "a/b", "a%2Fb", "é", "e\u0301", "日本/\U0001f600", "x" * 512):
        await place.create(name, name.encode())
    for name in ("a", "A", "a/b", "a%2Fb", "é", "e\u0301", "日本/\U0001f600", "x" * 512):
        assert await place.payloads(name) == [name.encode()]


async def a_deleted_stream_is_gone(place: Place) -> None:
    await place.create("a", b"1")
    await place.backend.delete("a")
    with pytest.raises(StreamNotFound):
        await place.backend.head("a")
    with pytest.raises(StreamNotFound):
        await place.backend.delete("a")
    await place.create("a", b"2")
    assert await place.payloads("a") == [b"2"]


async def streams_are_bounded(place: Place) -> None:
    async with place.bounded(Bounds(max_streams=2)) as backend:
        await backend.create("a", CONFIG)
        await backend.create("b", CONFIG)
        with pytest.raises(StoreFull):
            await backend.create("c", CONFIG)
        assert not (await backend.create("b", CONFIG))[1]
        await backend.delete("a")
        assert (await backend.create("c", CONFIG))[1]


async def bytes_are_bounded_over_all_streams(place: Place) -> None:
    async with place.bounded(Bounds(max_bytes=10_000)) as backend:
        await backend.create("a", CONFIG, news(b"x" * 5_000))
        await backend.create("b", CONFIG, news(b"x" * 5_000))
        with pytest.raises(StoreFull):
            await backend.append("a", news(b"x"))
        with pytest.raises(StoreFull):
            await backend.create("c", CONFIG, news(b"x"))
        with pytest.raises(StreamNotFound):
            await backend.head("c")
        await backend.append("b", [], end=EndReason.COMPLETE)  # an end needs no room
        await backend.delete("b")
        await backend.append("a", news(b"x"))


CLAIMS = [
    a_new_stream_stands_at_its_beginning,
    a_stream_is_made_with_its_first_records_and_its_end_in_one,
    creating_again_leaves_it_as_it_is,
    creating_again_with_another_configuration_is_refused,
    what_a_stream_was_made_with_is_kept,
    many_who_create_the_same_get_one_stream,
    a_name_that_is_made_again_begins_a_later_epoch,
    what_is_not_there_is_said_not_to_be,
    a_name_is_any_text,
    a_deleted_stream_is_gone,
    streams_are_bounded,
    bytes_are_bounded_over_all_streams,
]

"""Claims on reading: bounded, in order, and never anything that is not committed."""

from __future__ import annotations

import asyncio

import pytest

from penstock.backends.interface import Joins, ReadsNow, StreamConfig
from penstock.core.errors import StreamNotFound
from penstock.core.log import Retention
from penstock.core.record import Record
from penstock.testing.contract.place import ALL, Place, news


async def a_read_is_bounded_by_records_and_by_bytes(place: Place) -> None:
    await place.create("a", b"aa", b"bb", b"cc", b"", b"dd")
    read = place.backend.read
    one = (await place.positions("a"))[0]
    assert [r.payload for r in await read("a", 0, 2, ALL)] == [b"aa", b"bb"]
    assert [r.payload for r in await read("a", one, ALL, 4)] == [b"bb", b"cc", b""]
    assert [r.payload for r in await read("a", one, ALL, 5)] == [b"bb", b"cc", b""]
    assert [r.payload for r in await read("a", one, ALL, 6)] == [b"bb", b"cc", b"", b"dd"]


async def a_read_gives_at_least_one_record_however_tight_its_bounds(place: Place) -> None:
    await place.create("a", b"x" * 100_000, b"y")
    for bounds in ((1, 1), (0, 0), (ALL, 0), (ALL, 99_999)):
        found = await place.backend.read("a", 0, *bounds)
        assert [record.payload for record in found] == [b"x" * 100_000]


async def reading_from_the_tail_gives_nothing(place: Place) -> None:
    head = await place.create("a", b"1")
    assert await place.payloads("a", head.tail) == []
    assert await place.payloads("a", head.tail + 1_000) == []


async def reading_from_before_the_earliest_gives_the_earliest_kept(place: Place) -> None:
    config = StreamConfig(retention=Retention(max_records=2))
    await place.create("a", b"1", config=config)
    place_of_one = (await place.positions("a"))[0]
    await place.backend.append("a", news(b"2", b"3", b"4"))
    for after in (0, place_of_one):
        assert await place.payloads("a", after) == [b"3", b"4"]


async def every_record_is_read_once_in_pieces_of_any_size(place: Place) -> None:
    payloads = [b"%d" % number + b"." * (number % 50) for number in range(9_000)]
    await place.create("a", *payloads)
    for records, size in ((1_000, ALL), (ALL, 10_000), (4_097, 1 << 20)):
        found: list[Record] = []
        after = 0
        while piece := await place.backend.read("a", after, records, size):
            found += piece
            after = piece[-1].position
        assert [record.payload for record in found] == payloads
    assert await place.payloads("a") == payloads


async def what_was_acknowledged_is_read_by_everybody(place: Place) -> None:
    await place.create("a")

    async def write_and_read(task: int) -> None:
        for number in range(10):
            payload = b"%d:%d" % (task, number)
            tail = (await place.backend.append("a", news(payload))).offset.position
            found = await place.backend.read("a", tail - 1, 1, ALL)
            assert found[0].payload == payload or found[0].position < tail

    await asyncio.gather(*[write_and_read(task) for task in range(10)])


async def a_read_at_once_gives_what_a_read_gives(place: Place) -> None:
    backend = place.having(ReadsNow)
    await place.create("a", b"1", b"2", b"3")
    now = backend.read_now("a", 0, 2, ALL)
    assert list(now) == list(await place.backend.read("a", 0, 2, ALL))


async def payloads_put_together_are_those_of_a_read(place: Place) -> None:
    backend = place.having(Joins)
    payloads = [b"%d" % number if number % 7 else b"" for number in range(6_000)]
    await place.create("a", *payloads)
    positions = await place.positions("a")
    tail = positions[-1]
    whole = await backend.read_joined("a", 0, tail, ALL, ALL, b",")
    assert whole == (b",".join(payloads), tail, 6_000)
    for after, upto, records, size in ((5, 50, ALL, ALL), (5, 50, 7, ALL), (0, tail, ALL, 30)):
        joined = await backend.read_joined("a", after, upto, records, size, b"")
        found = [
            r for r in await place.backend.read("a", after, records, size) if r.position <= upto
        ]
        assert joined.body == b"".join([record.payload for record in found])
        assert (joined.position, joined.records) == (found[-1].position, len(found))
    for after, upto in ((tail, tail), (7, 7)):
        assert await backend.read_joined("a", after, upto, ALL, ALL, b",") == (b"", after, 0)
    with pytest.raises(StreamNotFound):
        await backend.read_joined("no", 0, 1, ALL, ALL, b",")
    config = StreamConfig(retention=Retention(max_records=2))
    await place.create("few", b"1", b"\xff\x00", b"3", config=config)
    head, _ = await place.backend.head("few")
    joined = await backend.read_joined("few", 0, head.tail, ALL, ALL, b",")
    assert joined == (b"\xff\x00,3", head.tail, 2)


CLAIMS = [
    a_read_is_bounded_by_records_and_by_bytes,
    a_read_gives_at_least_one_record_however_tight_its_bounds,
    reading_from_the_tail_gives_nothing,
    reading_from_before_the_earliest_gives_the_earliest_kept,
    every_record_is_read_once_in_pieces_of_any_size,
    what_was_acknowledged_is_read_by_everybody,
    a_read_at_once_gives_what_a_read_gives,
    payloads_put_together_are_those_of_a_read,
]

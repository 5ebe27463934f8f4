"""Claims on appending: all or nothing, in order, and what an end does."""

from __future__ import annotations

import asyncio

import pytest

from penstock.backends.interface import AppendsNow, StreamConfig
from penstock.core.errors import PenstockError, StreamEnded, StreamNotFound
from penstock.core.log import Retention
from penstock.core.record import EndReason, NewRecord
from penstock.testing.contract.place import ALL, Heard, Place, news


async def an_append_gives_the_tail_after_it(place: Place) -> None:
    head = await place.create("a")
    one = await place.backend.append("a", news(b"1"))
    two = await place.backend.append("a", news(b"2", b"3"))
    assert one.offset.epoch == two.offset.epoch == head.epoch
    assert head.tail < one.offset.position < two.offset.position
    assert (await place.backend.head("a"))[0].tail_offset == two.offset
    assert (await place.positions("a"))[0] == one.offset.position
    assert (await place.positions("a"))[-1] == two.offset.position
    assert (one.end, one.is_duplicate) == (None, False)


async def records_come_back_as_they_were(place: Place) -> None:
    batch = [
        NewRecord(b""),
        NewRecord(b"\x00\xff\xfe\r\n\x00", "token", "a/b"),
        NewRecord("é\U0001f600".encode(), "é", "\U0001f600"),
        NewRecord(b"", "type", ""),
        NewRecord(bytes(range(256)) * 400, "", "key"),
        NewRecord(b"'; DROP TABLE records; --"),
    ]
    await place.create("a")
    given = list(batch)
    await place.backend.append("a", batch)
    assert batch == given
    found = await place.backend.read("a", 0, ALL, ALL)
    assert [NewRecord(r.payload, r.type, r.key) for r in found] == batch
    positions = [record.position for record in found]
    assert positions == sorted(set(positions))
    head, _ = await place.backend.head("a")
    assert head.bytes == sum(len(new.payload) + len(new.type) + len(new.key) for new in batch)


async def an_empty_append_changes_nothing(place: Place) -> None:
    head = await place.create("a", b"1")
    assert (await place.backend.append("a", [])).offset == head.tail_offset
    assert (await place.backend.head("a"))[0] == head


async def appends_of_one_task_are_in_order_among_those_of_many(place: Place) -> None:
    await place.create("a")

    async def write(task: int) -> None:
        for number in range(20):
            await place.backend.append("a", news(b"%d:%d" % (task, number)) * 2)

    await asyncio.gather(*[write(task) for task in range(10)])
    found = await place.payloads("a")
    assert len(found) == 400
    for task in range(10):
        own = [one for one in found if one.startswith(b"%d:" % task)]
        assert own == [b"%d:%d" % (task, number // 2) for number in range(40)]
    assert found[::2] == found[1::2], "a batch is not torn"


async def an_end_comes_with_its_batch_and_the_first_reason_stands(place: Place) -> None:
    await place.create("a", b"1")
    ended = await place.backend.append("a", news(b"2"), end=EndReason.CANCELLED)
    assert ended.end is EndReason.CANCELLED
    again = await place.backend.append("a", [], end=EndReason.COMPLETE)
    assert (again.offset, again.end) == (ended.offset, EndReason.CANCELLED)
    assert (await place.backend.head("a"))[0].end is EndReason.CANCELLED
    for batch in (news(b"3"), news(b"3", b"4")):
        with pytest.raises(StreamEnded) as refusal:
            await place.backend.append("a", batch, end=EndReason.COMPLETE)
        assert refusal.value.reason == "cancelled"
    assert await place.payloads("a") == [b"1", b"2"]


async def one_refused_append_does_not_disturb_others(place: Place) -> None:
    for name in ("a", "b"):
        await place.create(name)
    await place.backend.append("b", [], end=EndReason.COMPLETE)
    results = await asyncio.gather(
        *[place.backend.append(name, news(b"1")) for name in ("a", "b", "a", "no", "a")],
        return_exceptions=True,
    )
    assert [type(r) for r in results if isinstance(r, BaseException)] == [
        StreamEnded,
        StreamNotFound,
    ]
    assert await place.payloads("a") == [b"1", b"1", b"1"]


async def a_cancelled_append_is_whole_or_not_there(place: Place) -> None:
    await place.create("a")
    for turns in range(4):
        task = asyncio.create_task(place.backend.append("a", news(b"1", b"2", b"3")))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await place.backend.append("a", news(b"last"))
    found = await place.payloads("a")
    assert found.pop() == b"last"
    assert found == [b"1", b"2", b"3"] * (len(found) // 3)


async def retention_drops_the_oldest(place: Place) -> None:
    few = StreamConfig(retention=Retention(max_records=3))
    small = StreamConfig(retention=Retention(max_bytes=5))
    await place.create("few", config=few)
    await place.create("small", config=small)
    for number in range(10):
        for name in ("few", "small"):
            await place.backend.append(name, news(b"%d" % number, b"%d." % number))
    assert await place.payloads("few") == [b"8.", b"9", b"9."]
    assert await place.payloads("small") == [b"8.", b"9", b"9."]
    head, _ = await place.backend.head("few")
    assert (head.records, head.bytes) == (3, 5)
    first = (await place.positions("few"))[0]
    assert head.earliest < first
    await place.backend.append("small", news(b"x" * 100))
    assert await place.payloads("small") == [b"x" * 100], "the newest stays whatever its size"


async def a_batch_above_the_bounds_leaves_its_newest(place: Place) -> None:
    await place.create("a", b"0", config=StreamConfig(retention=Retention(max_records=2)))
    heard = Heard()
    place.backend.watch("a", 0, heard)
    await place.backend.append("a", news(*[b"%d" % number for number in range(1, 2_000)]))
    assert await place.payloads("a") == [b"1998", b"1999"]
    await place.until(lambda: len(heard.records) >= 2)
    assert heard.payloads[-2:] == [b"1998", b"1999"]


async def appends_without_waiting_are_in_order_with_the_others(place: Place) -> None:
    backend = place.having(AppendsNow)
    heard = Heard()
    await place.create("a")
    place.backend.watch("a", 0, heard)
    for number in range(100):
        backend.append_nowait("a", news(b"%d" % number))
    await place.backend.append("a", news(b"100"))
    assert await place.payloads("a") == [b"%d" % number for number in range(101)]
    await place.until(lambda: len(heard.records) == 101)
    assert heard.payloads == [b"%d" % number for number in range(101)]


async def an_append_without_waiting_to_nothing_is_refused_at_once_or_next_time(
    place: Place,
) -> None:
    backend = place.having(AppendsNow)
    await place.create("a", b"1")
    await place.backend.append("a", [], end=EndReason.COMPLETE)
    for name, expected in (("no", StreamNotFound), ("a", StreamEnded)):
        refused: PenstockError | None = None
        for _ in range(2):
            if refused is None:
                refused = _refusal(backend, name)
                await place.backend.head("a")  # nobody else's call says so
        assert isinstance(refused, expected)
    assert await place.payloads("a") == [b"1"]


def _refusal(backend: AppendsNow, name: str) -> PenstockError | None:
    try:
        backend.append_nowait(name, news(b"2"))
    except PenstockError as error:
        return error
    return None


CLAIMS = [
    an_append_gives_the_tail_after_it,
    records_come_back_as_they_were,
    an_empty_append_changes_nothing,
    appends_of_one_task_are_in_order_among_those_of_many,
    an_end_comes_with_its_batch_and_the_first_reason_stands,
    one_refused_append_does_not_disturb_others,
    a_cancelled_append_is_whole_or_not_there,
    retention_drops_the_oldest,
    a_batch_above_the_bounds_leaves_its_newest,
    appends_without_waiting_are_in_order_with_the_others,
    an_append_without_waiting_to_nothing_is_refused_at_once_or_next_time,
]

"""Claims on watches: every commit, in order, once, and nothing that is not committed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.backends.interface import StreamConfig
from penstock.core.errors import StreamNotFound
from penstock.core.log import Head, Retention
from penstock.core.record import EndReason, Record
from penstock.testing.contract.place import Heard, Place, news


async def a_commit_is_heard(place: Place) -> None:
    heard = Heard()
    head = await place.create("a")
    place.backend.watch("a", head.tail, heard)
    for number in range(1, 20):
        tail = (await place.backend.append("a", news(b"1", b"2"))).offset.position
        await place.until(lambda tail=tail: heard.head is not None and heard.head.tail == tail)
        assert len(heard.records) == 2 * number


async def a_watch_hears_what_follows_its_place(place: Place) -> None:
    head = await place.create("a", b"1", b"2", b"3")
    one = (await place.positions("a"))[0]
    late, past = Heard(one), Heard(head.tail)
    place.backend.watch("a", one, late)
    watch = place.backend.watch("a", head.tail, past)
    await place.backend.append("a", news(b"4"))
    await place.until(lambda: len(late.records) == 3)
    assert late.payloads == [b"2", b"3", b"4"]
    await place.until(lambda: past.payloads == [b"4"])
    watch.cancel()
    watch.cancel()
    await place.backend.append("a", news(b"5"))
    await place.until(lambda: late.payloads[-1] == b"5")
    assert past.payloads == [b"4"]


async def a_watch_far_behind_hears_everything_once_while_more_comes(place: Place) -> None:
    before = [b"%d" % number for number in range(10_000)]
    await place.create("a", *before)
    heard = Heard()
    place.backend.watch("a", 0, heard)
    for number in range(10_000, 10_200):
        await place.backend.append("a", news(b"%d" % number))
    await place.until(lambda: len(heard.records) == 10_200)
    assert heard.payloads == [b"%d" % number for number in range(10_200)]


async def watches_are_told_apart(place: Place) -> None:
    one, two = Heard(), Heard()
    await place.create("a")
    await place.create("b")
    place.backend.watch("a", 0, one)
    place.backend.watch("b", 0, two)
    await asyncio.gather(
        *[place.backend.append(name, news(name.encode())) for name in ("a", "b") * 20]
    )
    await place.until(lambda: len(one.records) == len(two.records) == 20)
    assert one.payloads == [b"a"] * 20
    assert two.payloads == [b"b"] * 20


async def the_end_is_heard_once_after_its_batch(place: Place) -> None:
    heard, late, at_tail = Heard(), Heard(), Heard()
    await place.create("a", b"1")
    place.backend.watch("a", 0, heard)
    tail = (await place.backend.append("a", news(b"2"), end=EndReason.LIMIT)).offset.position
    await place.backend.append("a", [], end=EndReason.COMPLETE)
    place.backend.watch("a", 0, late)
    place.backend.watch("a", tail, at_tail)
    for listener in (heard, late, at_tail):
        await place.until(lambda listener=listener: "E" in listener.calls)
        assert listener.end is EndReason.LIMIT
        assert listener.calls.strip("C") == "E"
    assert heard.payloads == late.payloads == [b"1", b"2"]
    assert at_tail.payloads == []


async def a_deleted_streams_listeners_hear_its_end_and_that_it_is_gone(place: Place) -> None:
    open_, ended = Heard(), Heard()
    for name, listener in (("a", open_), ("b", ended)):
        await place.create(name)
        place.backend.watch(name, 0, listener)
        await place.backend.append(name, news(b"1"))
        await place.until(lambda listener=listener: listener.calls == "C")
    await place.backend.append("b", [], end=EndReason.COMPLETE)
    await place.backend.delete("a")
    await place.backend.delete("b")
    await place.until(lambda: open_.calls[-1:] == ended.calls[-1:] == "D")
    assert (open_.calls, open_.end) == ("CED", EndReason.LOST)
    assert (ended.calls, ended.end) == ("CED", EndReason.COMPLETE)
    await place.create("a")
    await place.backend.append("a", news(b"2"))
    assert open_.payloads == [b"1"]


async def watching_nothing_is_refused_or_hears_that_it_is_gone(place: Place) -> None:
    heard = Heard()
    try:
        place.backend.watch("no", 0, heard)
    except StreamNotFound:
        return
    await place.until(lambda: heard.calls == "ED")
    assert heard.end is EndReason.LOST


async def a_listener_may_cancel_while_it_hears(place: Place) -> None:
    class Once(Heard):
        def committed(self, records: Sequence[Record], head: Head) -> None:
            super().committed(records, head)
            watch.cancel()

    once, other = Once(), Heard()
    await place.create("a")
    watch = place.backend.watch("a", 0, once)
    place.backend.watch("a", 0, other)
    for number in range(3):
        await place.backend.append("a", news(b"%d" % number))
    await place.until(lambda: len(other.records) == 3)
    assert once.payloads == [b"0"]
    assert other.payloads == [b"0", b"1", b"2"]


async def a_bounded_stream_is_heard_whole_by_who_keeps_up(place: Place) -> None:
    heard = Heard()
    await place.create("a", config=StreamConfig(retention=Retention(max_records=2)))
    place.backend.watch("a", 0, heard)
    for number in range(50):
        await place.backend.append("a", news(b"%d" % number))
        await place.until(lambda number=number: len(heard.records) == number + 1)
    assert heard.payloads == [b"%d" % number for number in range(50)]
    assert heard.head == (await place.backend.head("a"))[0]


async def a_slow_loop_hears_in_order(place: Place) -> None:
    """Many commits that come while the loop is busy arrive as they were made."""
    heard = Heard()
    await place.create("a")
    place.backend.watch("a", 0, heard)
    tasks = [asyncio.create_task(place.backend.append("a", news(b"%d" % n))) for n in range(500)]
    await asyncio.gather(*tasks)
    await place.until(lambda: len(heard.records) == 500)
    assert heard.payloads == [b"%d" % number for number in range(500)]


CLAIMS = [
    a_commit_is_heard,
    a_watch_hears_what_follows_its_place,
    a_watch_far_behind_hears_everything_once_while_more_comes,
    watches_are_told_apart,
    the_end_is_heard_once_after_its_batch,
    a_deleted_streams_listeners_hear_its_end_and_that_it_is_gone,
    watching_nothing_is_refused_or_hears_that_it_is_gone,
    a_listener_may_cancel_while_it_hears,
    a_bounded_stream_is_heard_whole_by_who_keeps_up,
    a_slow_loop_hears_in_order,
]

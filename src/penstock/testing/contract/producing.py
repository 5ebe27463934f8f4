"""Claims on idempotent producers and `Stream-Seq`: judged by `core.producer.Gate`, kept with the
log, in the same commit."""

from __future__ import annotations

import asyncio

import pytest

from penstock.core.errors import (
    ProducerEpochInvalid,
    ProducerFenced,
    ProducerGap,
    SequenceConflict,
    StreamEnded,
)
from penstock.core.producer import Stamp
from penstock.core.record import EndReason
from penstock.testing.contract.place import Place, news


async def a_stamped_append_is_appended_once(place: Place) -> None:
    await place.create("a")
    first = await place.backend.append("a", news(b"1", b"2"), stamp=Stamp("p", 0, 0))
    assert (first.seq, first.is_duplicate) == (0, False)
    again = await place.backend.append("a", news(b"1", b"2"), stamp=Stamp("p", 0, 0))
    assert (again.seq, again.is_duplicate, again.offset) == (0, True, first.offset)
    assert (await place.backend.append("a", news(b"3"), stamp=Stamp("p", 0, 1))).seq == 1
    old = await place.backend.append("a", news(b"1", b"2"), stamp=Stamp("p", 0, 0))
    assert (old.seq, old.is_duplicate) == (1, True)
    assert await place.payloads("a") == [b"1", b"2", b"3"]


async def a_stamp_that_is_not_next_is_refused_and_changes_nothing(place: Place) -> None:
    await place.create("a")
    with pytest.raises(ProducerGap):
        await place.backend.append("a", news(b"x"), stamp=Stamp("p", 0, 1))
    await place.backend.append("a", news(b"1"), stamp=Stamp("p", 5, 0))
    with pytest.raises(ProducerGap):
        await place.backend.append("a", news(b"x"), stamp=Stamp("p", 5, 2))
    with pytest.raises(ProducerFenced) as fenced:
        await place.backend.append("a", news(b"x"), stamp=Stamp("p", 4, 0))
    assert fenced.value.epoch == 5
    with pytest.raises(ProducerEpochInvalid):
        await place.backend.append("a", news(b"x"), stamp=Stamp("p", 6, 1))
    await place.backend.append("a", news(b"2"), stamp=Stamp("p", 5, 1))
    await place.backend.append("a", news(b"3"), stamp=Stamp("p", 6, 0))
    await place.backend.append("a", news(b"4"), stamp=Stamp("q", 0, 0))
    assert await place.payloads("a") == [b"1", b"2", b"3", b"4"]


async def many_stamped_appends_at_once_are_each_appended_once(place: Place) -> None:
    """Each is sent twice, in the order of their numbers, without waiting for one another."""
    await place.create("a")
    results = await asyncio.gather(
        *[
            place.backend.append("a", news(b"%d" % seq), stamp=Stamp("p", 0, seq))
            for seq in range(50)
            for _ in range(2)
        ]
    )
    assert [result.is_duplicate for result in results] == [False, True] * 50
    assert await place.payloads("a") == [b"%d" % seq for seq in range(50)]


async def many_producers_are_told_apart(place: Place) -> None:
    await place.create("a")
    await place.create("b")
    for seq in range(2):
        await asyncio.gather(
            *[
                place.backend.append(name, news(b"%d" % seq), stamp=Stamp(f"p{one}", 0, seq))
                for name in ("a", "b")
                for one in range(600)
            ]
        )
    for one in (0, 300, 599):
        again = await place.backend.append("a", news(b"x"), stamp=Stamp(f"p{one}", 0, 1))
        assert again.is_duplicate
    assert len(await place.payloads("a")) == 1_200


async def a_duplicate_succeeds_after_the_end_and_nothing_else_does(place: Place) -> None:
    await place.create("a")
    last = await place.backend.append(
        "a", news(b"1"), end=EndReason.COMPLETE, stamp=Stamp("p", 0, 0)
    )
    assert last.end is EndReason.COMPLETE
    again = await place.backend.append(
        "a", news(b"1"), end=EndReason.COMPLETE, stamp=Stamp("p", 0, 0)
    )
    assert (again.is_duplicate, again.end, again.offset) == (True, last.end, last.offset)
    for batch in (news(b"2"), []):
        with pytest.raises(StreamEnded):
            await place.backend.append("a", batch, end=EndReason.COMPLETE, stamp=Stamp("p", 0, 1))
    with pytest.raises(StreamEnded):
        await place.backend.append("a", news(b"2"), stamp=Stamp("q", 0, 0))


async def an_end_alone_can_be_stamped(place: Place) -> None:
    await place.create("a", b"1")
    ended = await place.backend.append("a", [], end=EndReason.FAILED, stamp=Stamp("p", 3, 0))
    assert (ended.end, ended.seq) == (EndReason.FAILED, 0)
    again = await place.backend.append("a", [], end=EndReason.FAILED, stamp=Stamp("p", 3, 0))
    assert again.is_duplicate


async def a_stream_seq_must_rise(place: Place) -> None:
    await place.create("a")
    await place.backend.append("a", news(b"1"), seq="a")
    for seq in ("a", "Z", ""):
        with pytest.raises(SequenceConflict):
            await place.backend.append("a", news(b"x"), seq=seq)
    await place.backend.append("a", news(b"2"))  # without one it asks nothing
    await place.backend.append("a", news(b"3"), seq="aa")
    with pytest.raises(SequenceConflict):
        await place.backend.append("a", news(b"x"), seq="aa")
    assert await place.payloads("a") == [b"1", b"2", b"3"]


async def what_producers_appended_is_known_after_a_restart(place: Place) -> None:
    await place.create("a")
    for seq in range(3):
        await place.backend.append("a", news(b"%d" % seq), stamp=Stamp("p", 7, seq), seq=f"{seq}")
    await place.restart()
    again = await place.backend.append("a", news(b"2"), stamp=Stamp("p", 7, 2))
    assert (again.is_duplicate, again.seq) == (True, 2)
    with pytest.raises(ProducerFenced):
        await place.backend.append("a", news(b"x"), stamp=Stamp("p", 6, 0))
    with pytest.raises(SequenceConflict):
        await place.backend.append("a", news(b"x"), seq="2")
    await place.backend.append("a", news(b"3"), stamp=Stamp("p", 7, 3), seq="3")
    assert await place.payloads("a") == [b"0", b"1", b"2", b"3"]


CLAIMS = [
    a_stamped_append_is_appended_once,
    a_stamp_that_is_not_next_is_refused_and_changes_nothing,
    many_stamped_appends_at_once_are_each_appended_once,
    many_producers_are_told_apart,
    a_duplicate_succeeds_after_the_end_and_nothing_else_does,
    an_end_alone_can_be_stamped,
    a_stream_seq_must_rise,
    what_producers_appended_is_known_after_a_restart,
]

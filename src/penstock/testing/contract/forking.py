"""Claims on forks: what they share, what is their own, and what outlives a delete."""

from __future__ import annotations

import pytest

from penstock.backends.interface import Fork, Forks, StreamConfig, Sweeps
from penstock.core.cursor import Offset
from penstock.core.errors import (
    ForkInvalid,
    OffsetGone,
    StreamConflict,
    StreamEnded,
    StreamGone,
    StreamNotFound,
)
from penstock.core.log import Head, Retention
from penstock.core.producer import Stamp
from penstock.core.record import EndReason
from penstock.testing.contract.place import ALL, Heard, Place, news

SAME = StreamConfig(content_type="")
TEXT = StreamConfig(content_type="text/plain")


async def _fork(
    place: Place, name: str, source: str, at: Offset | None = None, sub: int = 0
) -> Head:
    backend = place.having(Forks)
    head, _, is_new = await backend.fork(name, Fork(source=source, at=at, sub=sub), SAME)
    assert is_new
    return head


async def _after(place: Place, name: str, count: int) -> Offset:
    """The offset after that many records of a stream."""
    head, _ = await place.backend.head(name)
    return Offset(head.epoch, (await place.positions(name))[count - 1])


async def a_fork_begins_with_what_its_source_holds(place: Place) -> None:
    place.having(Forks)
    source = await place.create("a", b"1", b"2", b"3")
    head = await _fork(place, "f", "a")
    assert head == source
    assert await place.positions("f") == await place.positions("a")
    await place.backend.append("a", news(b"4a"))
    await place.backend.append("f", news(b"4f", b"5f"))
    assert await place.payloads("a") == [b"1", b"2", b"3", b"4a"]
    assert await place.payloads("f") == [b"1", b"2", b"3", b"4f", b"5f"]
    head, _ = await place.backend.head("f")
    assert (head.records, head.bytes) == (5, 7)


async def a_fork_in_the_middle_shares_what_lies_before_it(place: Place) -> None:
    place.having(Forks)
    await place.create("a", b"1", b"22", b"333")
    at = await _after(place, "a", 2)
    head = await _fork(place, "f", "a", at)
    assert (head.tail_offset, head.records, head.bytes) == (at, 2, 3)
    assert await place.payloads("f") == [b"1", b"22"]
    tail = (await place.backend.append("f", news(b"own"))).offset
    assert tail > at
    assert await place.payloads("f", at.position) == [b"own"]
    assert [r.payload for r in await place.backend.read("f", 0, 2, ALL)] == [b"1", b"22"]


async def a_fork_at_the_beginning_shares_nothing(place: Place) -> None:
    backend = place.having(Forks)
    head = await place.create("a")
    await place.backend.append("a", news(b"1"))
    fork = Fork(source="a", at=head.tail_offset)
    made, _, _ = await backend.fork("f", fork, SAME, news(b"own"), end=EndReason.COMPLETE)
    assert (made.records, made.end) == (1, EndReason.COMPLETE)
    assert await place.payloads("f") == [b"own"]


async def a_fork_of_forks_reads_through_them(place: Place) -> None:
    place.having(Forks)
    await place.create("0", b"0")
    for number in range(1, 6):
        await _fork(place, str(number), str(number - 1))
        await place.backend.append(str(number), news(b"%d" % number, b"%d'" % number))
    assert await place.payloads("5") == [
        *(b"0", b"1", b"1'", b"2", b"2'", b"3", b"3'", b"4", b"4'", b"5", b"5'")
    ]
    early = await _after(place, "5", 4)  # within what it has of another
    await _fork(place, "early", "5", early)
    await place.backend.append("early", news(b"own"))
    assert await place.payloads("early") == [b"0", b"1", b"1'", b"2", b"own"]


async def a_fork_of_an_ended_stream_is_open(place: Place) -> None:
    place.having(Forks)
    await place.create("a", b"1")
    await place.backend.append("a", [], end=EndReason.COMPLETE)
    assert (await _fork(place, "f", "a")).end is None
    await place.backend.append("f", news(b"2"))
    with pytest.raises(StreamEnded):
        await place.backend.append("a", news(b"2"))


async def producers_of_the_source_are_not_the_forks(place: Place) -> None:
    place.having(Forks)
    await place.create("a")
    await place.backend.append("a", news(b"1"), stamp=Stamp("p", 0, 0), seq="x")
    await _fork(place, "f", "a")
    appended = await place.backend.append("f", news(b"2"), stamp=Stamp("p", 0, 0), seq="a")
    assert not appended.is_duplicate


async def a_sub_offset_counts_records_of_a_json_stream(place: Place) -> None:
    place.having(Forks)
    await place.create("a", b"1", b"2", b"3")
    at = await _after(place, "a", 1)
    await _fork(place, "f", "a", at, sub=2)
    assert await place.payloads("f") == [b"1", b"2", b"3"]
    await _fork(place, "g", "a", at, sub=1)
    assert await place.payloads("g") == [b"1", b"2"]
    with pytest.raises(ForkInvalid):
        await _fork(place, "h", "a", at, sub=3)
    with pytest.raises(StreamNotFound):
        await place.backend.head("h")


async def a_sub_offset_counts_bytes_of_any_other(place: Place) -> None:
    backend = place.having(Forks)
    await place.create("a", b"one", b"two", config=TEXT)
    at = await _after(place, "a", 1)
    await _fork(place, "f", "a", at, sub=2)
    assert await place.payloads("f") == [b"one", b"tw"]
    head = (await place.backend.head("a"))[0]
    for wrong in (Fork(source="a", at=at, sub=4), Fork(source="a", at=head.tail_offset, sub=1)):
        with pytest.raises(ForkInvalid):
            await backend.fork("g", wrong, SAME)
    await backend.fork("g", Fork(source="a", at=at, sub=3), SAME, news(b"!"))
    assert await place.payloads("g") == [b"one", b"two", b"!"]


async def a_fork_where_its_source_has_no_place_is_refused(place: Place) -> None:
    place.having(Forks)
    head = await place.create("a", b"1")
    for at in (
        Offset(head.epoch, head.tail + 1),
        Offset(head.epoch + 1, head.tail),
        Offset(head.epoch - 1, 0),
    ):
        with pytest.raises(ForkInvalid):
            await _fork(place, "f", "a", at)
    with pytest.raises(StreamNotFound):
        await _fork(place, "f", "no")
    few = StreamConfig(retention=Retention(max_records=2))
    begin = (await place.create("few", config=few)).tail_offset
    await place.backend.append("few", news(b"1", b"2", b"3"))
    with pytest.raises(OffsetGone):
        await _fork(place, "f", "few", begin)
    with pytest.raises(StreamNotFound):
        await place.backend.head("f")


async def a_fork_is_of_its_sources_type_and_time(place: Place) -> None:
    backend = place.having(Forks)
    config = StreamConfig(content_type="text/plain", ttl_s=60)
    await place.create("a", b"1", config=config)
    with pytest.raises(StreamConflict):
        await backend.fork("f", Fork(source="a"), StreamConfig(content_type="text/html"))
    _, kept, _ = await backend.fork("f", Fork(source="a"), SAME)
    assert (kept.content_type, kept.ttl_s) == ("text/plain", 60)
    _, kept, _ = await backend.fork("g", Fork(source="a"), StreamConfig(content_type="", ttl_s=9))
    assert kept.ttl_s == 9


async def forking_again_leaves_it_as_it_is(place: Place) -> None:
    backend = place.having(Forks)
    await place.create("a", b"1", b"2", b"3")
    at = await _after(place, "a", 1)
    for fork in (Fork(source="a"), Fork(source="a", at=at), Fork(source="a", at=at, sub=1)):
        name = f"f{fork.sub}{fork.at}"
        head, config, is_new = await backend.fork(name, fork, SAME)
        assert is_new
        assert await backend.fork(name, fork, SAME) == (head, config, False)
        assert (await place.backend.head(name))[1] == config
        for other in (Fork(source="b", at=at), Fork(source="a", at=at, sub=2)):
            with pytest.raises(StreamConflict):
                await backend.fork(name, other, SAME)
        with pytest.raises(StreamConflict):
            await place.backend.create(name, StreamConfig())


async def a_deleted_source_is_gone_and_its_forks_live_on(place: Place) -> None:
    backend = place.having(Forks)
    await place.create("a", b"1", b"2")
    await _fork(place, "f", "a")
    await _fork(place, "g", "a", await _after(place, "a", 1))
    await place.backend.append("a", news(b"3"))
    heard = Heard()
    place.backend.watch("a", 0, heard)
    await place.until(lambda: bool(heard.records))
    await place.backend.delete("a")
    await place.until(lambda: heard.calls.endswith("ED"))
    for attempt in (
        place.backend.append("a", news(b"4")),
        place.backend.read("a", 0, ALL, ALL),
        place.backend.head("a"),
        place.backend.delete("a"),
    ):
        with pytest.raises(StreamGone):
            await attempt
    with pytest.raises(StreamConflict):
        await place.backend.create("a", StreamConfig())
    with pytest.raises(StreamConflict):
        await backend.fork("h", Fork(source="a"), SAME)
    assert await place.payloads("f") == [b"1", b"2"]
    await place.backend.delete("f")
    assert await place.payloads("g") == [b"1"]
    with pytest.raises(StreamGone):
        await place.backend.head("a")
    await place.backend.delete("g")
    for name in ("a", "f", "g"):
        with pytest.raises(StreamNotFound):
            await place.backend.head(name)
    assert (await place.backend.create("a", StreamConfig()))[1]


async def the_last_of_a_line_takes_its_deleted_sources_along(place: Place) -> None:
    place.having(Forks)
    await place.create("a", b"1")
    for source, name in (("a", "b"), ("b", "c"), ("c", "d")):
        await _fork(place, name, source)
    for name in ("b", "a", "c"):
        await place.backend.delete(name)
        assert await place.payloads("d") == [b"1"]
    await place.backend.delete("d")
    for name in ("a", "b", "c", "d"):
        with pytest.raises(StreamNotFound):
            await place.backend.head(name)


async def what_a_fork_shares_outlives_its_sources_retention(place: Place) -> None:
    backend = place.having(Forks)
    few = StreamConfig(retention=Retention(max_records=3))
    await place.create("a", b"1", b"2", b"3", config=few)
    await backend.fork("f", Fork(source="a"), StreamConfig())
    for number in range(4, 40):
        await place.backend.append("a", news(b"%d" % number) * 30)
        if isinstance(place.backend, Sweeps):
            await place.backend.sweep(100)
    assert await place.payloads("a") == [b"39"] * 3
    assert await place.payloads("f") == [b"1", b"2", b"3"]
    await place.backend.delete("a")
    if isinstance(place.backend, Sweeps):
        await place.backend.sweep(100)
    assert await place.payloads("f") == [b"1", b"2", b"3"]


async def a_fork_keeps_as_much_as_it_was_made_to(place: Place) -> None:
    backend = place.having(Forks)
    await place.create("a", *[b"%d" % number for number in range(2_000)])
    few = StreamConfig(content_type="", retention=Retention(max_records=3))
    await backend.fork("f", Fork(source="a"), few)
    await place.backend.append("f", news(b"own"))
    assert await place.payloads("f") == [b"1998", b"1999", b"own"]
    assert len(await place.payloads("a")) == 2_000


async def a_source_whose_time_is_over_is_gone_for_its_forks_sake(place: Place) -> None:
    backend = place.having(Forks)
    sweeps = place.having(Sweeps)
    await place.create("a", b"1", config=StreamConfig(ttl_s=10))
    await backend.fork("f", Fork(source="a"), StreamConfig(ttl_s=100))
    place.clock.now += 11
    with pytest.raises(StreamGone):
        await place.backend.head("a")
    assert await place.payloads("f") == [b"1"]
    place.clock.now += 100
    await sweeps.sweep(100)
    for name in ("a", "f"):
        with pytest.raises(StreamNotFound):
            await place.backend.head(name)


async def forks_outlive_a_restart(place: Place) -> None:
    place.having(Forks)
    await place.create("a", b"1", b"2")
    await _fork(place, "f", "a")
    await place.backend.append("f", news(b"own"))
    await place.backend.delete("a")
    await place.restart()
    assert await place.payloads("f") == [b"1", b"2", b"own"]
    with pytest.raises(StreamGone):
        await place.backend.head("a")
    await place.backend.delete("f")
    with pytest.raises(StreamNotFound):
        await place.backend.head("a")


CLAIMS = [
    a_fork_begins_with_what_its_source_holds,
    a_fork_in_the_middle_shares_what_lies_before_it,
    a_fork_at_the_beginning_shares_nothing,
    a_fork_of_forks_reads_through_them,
    a_fork_of_an_ended_stream_is_open,
    producers_of_the_source_are_not_the_forks,
    a_sub_offset_counts_records_of_a_json_stream,
    a_sub_offset_counts_bytes_of_any_other,
    a_fork_where_its_source_has_no_place_is_refused,
    a_fork_is_of_its_sources_type_and_time,
    forking_again_leaves_it_as_it_is,
    a_deleted_source_is_gone_and_its_forks_live_on,
    the_last_of_a_line_takes_its_deleted_sources_along,
    what_a_fork_shares_outlives_its_sources_retention,
    a_fork_keeps_as_much_as_it_was_made_to,
    a_source_whose_time_is_over_is_gone_for_its_forks_sake,
    forks_outlive_a_restart,
]

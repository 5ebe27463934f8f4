"""The memory backend: commits are shown in order and once, and what it keeps is bounded.

The laws of a log in general are tested on `core.log.Log`; here is what a backend adds to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.backends.interface import AppendsNow, ReadsNow, StreamConfig, Sweeps
from penstock.backends.memory import PAST_EPOCHS, MemoryBackend
from penstock.core.cursor import Offset
from penstock.core.errors import StoreFull, StreamConflict, StreamEnded, StreamNotFound
from penstock.core.limits import RECORD_OVERHEAD_BYTES
from penstock.core.log import Head, Retention
from penstock.core.record import EndReason, NewRecord, Record

WALL = 2_000_000_000.0
CONFIG = StreamConfig()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Heard:
    """A listener that keeps what it heard."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.heads: list[Head] = []
        self.ends: list[EndReason | None] = []
        self.trims: list[int] = []

    def committed(self, records: Sequence[Record], head: Head) -> None:
        self.positions += [record.position for record in records]
        self.heads.append(head)

    def trimmed(self, head: Head) -> None:
        self.trims.append(head.earliest)

    def ended(self, head: Head) -> None:
        self.ends.append(head.end)

    def deleted(self) -> None:
        self.is_deleted = True

    def restarted(self, head: Head) -> None:
        raise AssertionError("memory is never restarted")


def make(clock: Clock | None = None, **bounds: int) -> MemoryBackend:
    return MemoryBackend(clock=clock or Clock(), wall_clock=lambda: WALL, **bounds)


def new(*payloads: bytes) -> list[NewRecord]:
    return [NewRecord(payload) for payload in payloads]


def test_it_has_the_capabilities_the_hub_looks_for() -> None:
    backend = make()
    assert isinstance(backend, AppendsNow)
    assert isinstance(backend, ReadsNow)
    assert isinstance(backend, Sweeps)


async def test_creating_again_agrees_or_is_refused() -> None:
    backend = make()
    head, is_new = await backend.create("a", CONFIG)
    assert is_new
    assert (head.tail, head.end) == (0, None)
    assert await backend.create("a", CONFIG) == (head, False)
    with pytest.raises(StreamConflict, match="content type"):
        await backend.create("a", StreamConfig(content_type="text/plain"))
    with pytest.raises(StreamConflict, match="retention"):
        await backend.create("a", StreamConfig(retention=Retention(max_records=1)))


async def test_a_name_that_is_made_again_begins_a_later_epoch() -> None:
    """Also when many others came and went meanwhile, and without running ahead for all of them."""
    backend = make()
    first = (await backend.create("a", CONFIG))[0].epoch
    await backend.delete("a")
    for number in range(PAST_EPOCHS):
        name = str(number)
        assert (await backend.create(name, CONFIG))[0].epoch == first
        await backend.delete(name)
    assert (await backend.create("a", CONFIG))[0].epoch == first + 1
    assert (await backend.create("new", CONFIG))[0].epoch == first + 1  # the floor has risen


async def test_a_commit_is_heard_before_append_returns_and_once() -> None:
    backend, heard = make(), Heard()
    head, _ = await backend.create("a", CONFIG)
    backend.watch("a", 0, heard)
    assert (await backend.append("a", new(b"1", b"2"))).offset == Offset(head.epoch, 2)
    assert heard.positions == [1, 2]
    backend.append_nowait("a", new(b"3"))
    assert heard.positions == [1, 2, 3]
    assert [head.tail for head in heard.heads] == [2, 3]


async def test_a_watch_hears_what_follows_its_place_from_now_on() -> None:
    backend, late, past = make(), Heard(), Heard()
    await backend.create("a", CONFIG)
    await backend.append("a", new(b"1", b"2", b"3"))
    backend.watch("a", 1, late)
    watch = backend.watch("a", 3, past)
    assert (late.positions, past.positions) == ([2, 3], [])
    await backend.append("a", new(b"4"))
    assert (late.positions, past.positions) == ([2, 3, 4], [4])
    watch.cancel()
    watch.cancel()
    await backend.append("a", new(b"5"))
    assert past.positions == [4]


async def test_the_end_is_heard_once_with_its_batch_before_it() -> None:
    backend, heard, late = make(), Heard(), Heard()
    await backend.create("a", CONFIG)
    backend.watch("a", 0, heard)
    await backend.append("a", new(b"1"), end=EndReason.LIMIT)
    assert heard.positions == [1]
    assert heard.ends == [EndReason.LIMIT]
    await backend.append("a", [], end=EndReason.COMPLETE)
    assert heard.ends == [EndReason.LIMIT]
    with pytest.raises(StreamEnded):
        await backend.append("a", new(b"2"))
    backend.watch("a", 0, late)
    assert (late.positions, late.ends) == ([1], [EndReason.LIMIT])


async def test_a_deleted_streams_watchers_hear_lost_unless_it_had_ended() -> None:
    backend, heard, ended = make(), Heard(), Heard()
    for name, listener in (("a", heard), ("b", ended)):
        await backend.create(name, CONFIG)
        backend.watch(name, 0, listener)
    await backend.append("b", [], end=EndReason.COMPLETE)
    await backend.delete("a")
    await backend.delete("b")
    assert heard.ends == [EndReason.LOST]
    assert ended.ends == [EndReason.COMPLETE]
    for name in ("a", "b"):
        with pytest.raises(StreamNotFound):
            await backend.head(name)


async def test_what_is_unknown_is_said_to_be() -> None:
    backend = make()
    for attempt in (
        backend.append("no", new(b"1")),
        backend.read("no", 0, 1, 1),
        backend.head("no"),
        backend.delete("no"),
    ):
        with pytest.raises(StreamNotFound):
            await attempt
    with pytest.raises(StreamNotFound):
        backend.append_nowait("no", new(b"1"))
    with pytest.raises(StreamNotFound):
        backend.watch("no", 0, Heard())


async def test_streams_and_bytes_over_all_of_them_are_bounded() -> None:
    backend = make(max_streams=2, max_bytes=3 * RECORD_OVERHEAD_BYTES)
    await backend.create("a", CONFIG)
    await backend.create("b", CONFIG)
    with pytest.raises(StoreFull):
        await backend.create("c", CONFIG)
    for name in ("a", "b", "a"):
        await backend.append(name, new(b"x"))
    with pytest.raises(StoreFull):
        await backend.append("b", new(b"x"))
    assert (await backend.head("b"))[0].tail == 1
    await backend.append("b", [], end=EndReason.COMPLETE)  # an end needs no room
    await backend.delete("a")
    await backend.create("c", CONFIG)
    await backend.append("c", new(b"x"))


async def test_a_trim_drops_what_is_too_old_in_a_few_streams_at_a_time_and_says_so() -> None:
    clock = Clock()
    backend, heard = make(clock), Heard()
    old = StreamConfig(retention=Retention(max_age_s=10))
    for number in range(5):
        await backend.create(f"{number}", old)
        await backend.append(f"{number}", new(b"1", b"2", b"3"))
    await backend.create("kept", CONFIG)
    await backend.append("kept", new(b"1", b"2"))
    backend.watch("0", 3, heard)
    assert await backend.sweep(100) == 0
    assert heard.trims == []
    clock.now = 11
    dropped = [await backend.sweep(2) for _ in range(3)]
    assert sum(dropped) == 10
    assert max(dropped) == 4
    assert heard.trims == [2]
    assert (await backend.head("kept"))[0].records == 2


@settings(deadline=None, print_blob=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(["append", "delete", "end", "trim"]), st.integers(0, 2)),
        max_size=40,
    )
)
async def test_the_bytes_counted_are_those_of_the_logs(script: list[tuple[str, int]]) -> None:
    clock = Clock()
    backend = make(clock)
    config = StreamConfig(retention=Retention(max_records=5, max_age_s=8))
    for step, number in script:
        name = f"{number}"
        clock.now += 1
        await backend.create(name, config)
        try:
            if step == "append":
                await backend.append(name, new(b"x" * number, b"y"))
            elif step == "delete":
                await backend.delete(name)
            elif step == "end":
                await backend.append(name, [], end=EndReason.COMPLETE)
            else:
                await backend.sweep(number)
        except StreamEnded:
            pass
        heads = [(await backend.head(name))[0] for name in backend._streams]
        counted = sum(head.bytes + RECORD_OVERHEAD_BYTES * head.records for head in heads)
        assert backend.bytes == counted

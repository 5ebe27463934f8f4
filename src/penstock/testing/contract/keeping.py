"""Claims on what is kept and for how long: expiry, retention by age, listing, counting, documents,
and what is there after a restart."""

from __future__ import annotations

import pytest

from penstock.backends.interface import Counts, Documents, Lists, Opens, StreamConfig, Sweeps
from penstock.core.errors import StreamNotFound
from penstock.core.log import Retention
from penstock.core.record import EndReason
from penstock.testing.contract.place import ALL, Heard, Place, news


async def _sweep(place: Place) -> int:
    backend, total = place.having(Sweeps), 0
    while gone := await backend.sweep(10):
        total += gone
    return total


async def a_silent_stream_is_forgotten_and_a_used_one_is_not(place: Place) -> None:
    backend = place.having(Sweeps)
    config = StreamConfig(ttl_s=10)
    for name in ("silent", "fed", "read"):
        await place.create(name, config=config)
    for _ in range(4):
        place.clock.now += 5
        await place.backend.append("fed", news(b"1"))
        backend.touch("read")
        await backend.sweep(10)
    with pytest.raises(StreamNotFound):
        await place.backend.head("silent")
    for name in ("fed", "read"):
        await place.backend.head(name)
    place.clock.now += 11
    for name in ("fed", "read"):
        with pytest.raises(StreamNotFound):
            await place.backend.head(name)


async def a_stream_is_forgotten_when_its_time_is_over_also_unswept(place: Place) -> None:
    backend = place.having(Sweeps)
    await place.create("at", b"1", config=StreamConfig(expires_at=place.clock.now + 10))
    await place.create("ttl", b"1", config=StreamConfig(ttl_s=10))
    place.clock.now += 9
    assert await place.payloads("at") == [b"1"]
    backend.touch("at")
    place.clock.now += 1
    for name in ("at", "ttl"):
        for attempt in (
            place.backend.read(name, 0, ALL, ALL),
            place.backend.head(name),
            place.backend.append(name, news(b"2")),
            place.backend.delete(name),
        ):
            with pytest.raises(StreamNotFound):
                await attempt
        assert (await place.backend.create(name, StreamConfig()))[1]


async def an_ended_stream_is_forgotten_a_while_after_its_end(place: Place) -> None:
    backend = place.having(Sweeps)
    await place.create("a", b"1", config=StreamConfig(ended_ttl_s=10))
    place.clock.now += 100
    assert await _sweep(place) == 0
    await place.backend.append("a", [], end=EndReason.COMPLETE)
    place.clock.now += 9
    assert await _sweep(place) == 0
    backend.touch("a")  # somebody reads it still
    place.clock.now += 2
    assert await _sweep(place) == 0
    assert await place.payloads("a") == [b"1"]
    place.clock.now += 100
    assert await _sweep(place) == 1
    with pytest.raises(StreamNotFound):
        await place.backend.head("a")


async def listeners_hear_that_a_streams_time_is_over(place: Place) -> None:
    place.having(Sweeps)
    heard = Heard()
    await place.create("a", config=StreamConfig(ttl_s=10))
    place.backend.watch("a", 0, heard)
    await place.backend.append("a", news(b"1"))
    await place.until(lambda: heard.calls == "C")
    place.clock.now += 11
    await _sweep(place)
    await place.until(lambda: heard.calls == "CED")
    assert heard.end is EndReason.LOST


async def touching_what_is_not_there_is_nothing(place: Place) -> None:
    backend = place.having(Sweeps)
    backend.touch("no")
    assert await backend.sweep(10) == 0


async def a_sweep_drops_what_is_too_old_and_says_so(place: Place) -> None:
    backend = place.having(Sweeps)
    config = StreamConfig(retention=Retention(max_age_s=10))
    for name in ("a", "b"):
        await place.create(name, b"1", b"2", config=config)
    place.clock.now += 6
    await place.backend.append("a", news(b"3", b"4"))
    heard = Heard()
    place.backend.watch("a", 0, heard)
    await place.until(lambda: len(heard.records) == 4)
    assert await _sweep(place) == 0
    place.clock.now += 5
    assert await _sweep(place) == 3
    assert await place.payloads("a") == [b"3", b"4"]
    assert await place.payloads("b") == [b"2"], "the newest stays whatever its age"
    await place.until(lambda: heard.calls.endswith("T"))
    head, _ = await place.backend.head("a")
    assert heard.head == head
    assert head.records == 2
    place.clock.now += 100
    assert await _sweep(place) == 1
    assert await place.payloads("a") == [b"4"]
    await backend.sweep(10)


async def a_sweep_takes_few_streams_at_a_time_and_goes_round(place: Place) -> None:
    backend = place.having(Sweeps)
    for number in range(30):
        await place.create(f"{number}", config=StreamConfig(ttl_s=1 + number % 3))
    await place.create("kept")
    place.clock.now += 10
    swept = [await backend.sweep(7) for _ in range(6)]
    assert max(swept) <= 7
    assert sum(swept) == 30
    await place.backend.head("kept")


async def streams_are_listed_by_name(place: Place) -> None:
    backend = place.having(Lists)
    names = ["", "B", "a", "a/", "a/1", "a/10", "a/2", "a0", "b", "é", "\uffff", "\U0001f600"]
    for name in names[:0:-1]:
        await place.create(name, name.encode())
    found = await backend.list("", "", 100)
    assert [listed.name for listed in found] == names[1:]
    for listed in found:
        assert (listed.head, listed.config) == await place.backend.head(listed.name)
    assert [one.name for one in await backend.list("a/", "", 100)] == ["a/", "a/1", "a/10", "a/2"]
    assert [one.name for one in await backend.list("a/", "a/1", 1)] == ["a/10"]
    assert [one.name for one in await backend.list("", "a0", 2)] == ["b", "é"]
    assert await backend.list("c", "", 100) == []
    assert [one.name for one in await backend.list("\U0001f600", "", 9)] == ["\U0001f600"]
    await place.backend.delete("a/1")
    assert [one.name for one in await backend.list("a/1", "", 9)] == ["a/10"]


async def what_is_over_is_not_listed(place: Place) -> None:
    backend = place.having(Lists)
    place.having(Sweeps)
    for number in range(10):
        await place.create(f"{number}", config=StreamConfig(ttl_s=1 if number < 8 else 100))
    place.clock.now += 10
    await _sweep(place)
    assert [one.name for one in await backend.list("", "", 2)] == ["8", "9"]


async def streams_and_commits_are_counted(place: Place) -> None:
    backend = place.having(Counts)
    before = backend.counts
    assert before[:3] == (0, 0, 0)
    await place.create("a", b"x" * 100)
    await place.create("b")
    assert backend.counts.running == 2
    assert backend.counts.bytes >= 100
    commits = backend.counts.commits
    await place.backend.append("b", news(b"x", b"y", b"z"))
    assert backend.counts.commits == commits + 1
    await place.backend.append("b", [], end=EndReason.COMPLETE)
    assert backend.counts[:2] == (1, 1)
    await place.backend.delete("b")
    await place.backend.delete("a")
    assert backend.counts[:3] == (0, 0, 0)


async def documents_are_kept_by_kind_and_name(place: Place) -> None:
    backend = place.having(Documents)
    assert await backend.load_documents("hook") == {}
    await backend.store_document("hook", "é", b"\x00\xff")
    await backend.store_document("hook", "b", b"")
    await backend.store_document("other", "b", b"2")
    await backend.store_document("hook", "é", b"3")
    assert await backend.load_documents("hook") == {"é": b"3", "b": b""}
    await backend.store_document("hook", "b", None)
    await backend.store_document("hook", "none", None)
    assert await backend.load_documents("hook") == {"é": b"3"}
    await place.restart()
    backend = place.having(Documents)
    assert await backend.load_documents("hook") == {"é": b"3"}
    assert await backend.load_documents("other") == {"b": b"2"}


async def opening_and_closing_twice_is_nothing(place: Place) -> None:
    backend = place.having(Opens)
    await backend.open()
    await place.create("a", b"1")
    await backend.close()
    await backend.close()
    await backend.open()
    if place.can_restart:
        assert await place.payloads("a") == [b"1"]


async def what_was_committed_is_there_after_a_restart(place: Place) -> None:
    config = StreamConfig(content_type="text/plain", retention=Retention(max_records=3), ttl_s=60)
    await place.create("a", b"1", b"2", config=config)
    await place.backend.append("a", news(b"3", b"4"))
    await place.create("ended", b"1")
    await place.backend.append("ended", [], end=EndReason.FAILED)
    heads = [await place.backend.head(name) for name in ("a", "ended")]
    await place.create("gone")
    await place.backend.delete("gone")
    await place.restart()
    assert [await place.backend.head(name) for name in ("a", "ended")] == heads
    assert await place.payloads("a") == [b"2", b"3", b"4"]
    with pytest.raises(StreamNotFound):
        await place.backend.head("gone")
    await place.backend.append("a", news(b"5"))
    assert await place.payloads("a") == [b"3", b"4", b"5"]


async def a_fed_stream_is_lost_with_its_process_and_others_stay_open(place: Place) -> None:
    await place.create("fed", b"1", config=StreamConfig(is_produced=True, ended_ttl_s=10))
    await place.create("open", b"1")
    await place.restart()
    assert (await place.backend.head("fed"))[0].end is EndReason.LOST
    assert (await place.backend.head("open"))[0].end is None
    assert await place.payloads("fed") == [b"1"]
    if isinstance(place.backend, Sweeps):
        place.clock.now += 11
        assert await _sweep(place) == 1


async def epochs_go_on_after_a_restart(place: Place) -> None:
    first = (await place.create("a")).epoch
    await place.backend.delete("a")
    await place.restart()
    assert (await place.create("a")).epoch > first


CLAIMS = [
    a_silent_stream_is_forgotten_and_a_used_one_is_not,
    a_stream_is_forgotten_when_its_time_is_over_also_unswept,
    an_ended_stream_is_forgotten_a_while_after_its_end,
    listeners_hear_that_a_streams_time_is_over,
    touching_what_is_not_there_is_nothing,
    a_sweep_drops_what_is_too_old_and_says_so,
    a_sweep_takes_few_streams_at_a_time_and_goes_round,
    streams_are_listed_by_name,
    what_is_over_is_not_listed,
    streams_and_commits_are_counted,
    documents_are_kept_by_kind_and_name,
    opening_and_closing_twice_is_nothing,
    what_was_committed_is_there_after_a_restart,
    a_fed_stream_is_lost_with_its_process_and_others_stay_open,
    epochs_go_on_after_a_restart,
]

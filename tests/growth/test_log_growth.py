"""What a record costs depends neither on how long the log is nor on who has read it before.

Each test does the same work on a log and on one four times as long. A cost that grew with the
length would show as a ratio near four; noise and caches stay well below the bound. Times are
processor times of this process, best of several, taken in turns so that a busy machine hits both.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from time import process_time

import pytest

from penstock.core.log import Log, Retention
from penstock.core.record import NewRecord
from penstock.core.subscription import Read, Subscription

SHORT, LONG = 5_000, 20_000
WORK = 5_000  # records handled in one measurement: some ten milliseconds
RUNS = 5
ATTEMPTS = 3
MOST_GROWTH = 1.7

Work = Callable[[], object]

KEEP_ALL = Retention(max_records=1 << 40, max_bytes=1 << 50)
NEW = NewRecord(b"x" * 20, "token")
NEW_BYTES = 25


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """The collector's own passes grow with all that lives, here and in other tests."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def log_of(length: int, retention: Retention = KEEP_ALL) -> Log:
    log = Log("s", 1, retention)
    log.append([NEW] * length, 0.0)
    return log


def best_s(prepare: Sequence[Callable[[], Work]]) -> list[float]:
    """The shortest time of each work, taken in turns; preparing it is not counted."""
    best = [float("inf")] * len(prepare)
    for _ in range(RUNS):
        for index, prepared in enumerate(prepare):
            work = prepared()
            began = process_time()
            work()
            best[index] = min(best[index], process_time() - began)
    return best


def assert_no_growth(short: Callable[[], Work], long: Callable[[], Work]) -> None:
    """The second costs about what the first costs. Noise only raises a ratio: look again then."""
    ratios: list[float] = []
    for _ in range(ATTEMPTS):
        cheap, dear = best_s([short, long])
        ratios.append(dear / cheap)
        if ratios[-1] < MOST_GROWTH:
            return
    pytest.fail(f"the same work costs {ratios} times as much")


def spread(length: int) -> list[int]:
    """Places all over a log, near ones never in a row."""
    return [(number * 7919) % (length - 100) for number in range(WORK)]


def append_to(log: Log) -> Work:
    def work() -> None:
        for _ in range(WORK):
            log.append((NEW,), 0.0)

    return work


def resume_at(log: Log, places: list[int]) -> Work:
    """Each place is a reader that comes back, reads one write's worth and waits again."""

    def work() -> None:
        for place in places:
            step = Subscription(place).decide(log.head())
            assert isinstance(step, Read)
            log.read(step.after, 4, 1 << 18)

    return work


def test_appending_costs_the_same_in_a_long_log() -> None:
    assert_no_growth(lambda: append_to(log_of(SHORT)), lambda: append_to(log_of(LONG)))


@pytest.mark.parametrize("bound", ["records", "bytes", "age"])
def test_appending_to_a_full_log_costs_the_same_however_much_it_keeps(bound: str) -> None:
    """Each append drops a record at the front, and now and then the front is cut off."""

    def full(length: int) -> Log:
        keep = {
            "records": Retention(max_records=length, max_bytes=1 << 50),
            "bytes": Retention(max_records=1 << 40, max_bytes=length * NEW_BYTES),
            "age": Retention(max_records=1 << 40, max_bytes=1 << 50, max_age_s=length - 0.5),
        }[bound]
        log = Log("s", 1, keep)
        replace(log, length)()
        return log

    def replace(log: Log, count: int) -> Work:
        def work() -> None:
            for now in range(log.tail, log.tail + count):
                log.append((NEW,), float(now))

        return work

    short, long = full(SHORT), full(LONG)
    # As many as the long log keeps, so that cutting its front is part of what is measured.
    assert_no_growth(lambda: replace(short, LONG), lambda: replace(long, LONG))
    assert short.head().records == SHORT
    assert long.head().records == LONG


def test_resuming_costs_the_same_anywhere_in_a_long_log() -> None:
    short, long = log_of(SHORT), log_of(LONG)
    assert_no_growth(lambda: resume_at(short, spread(SHORT)), lambda: resume_at(long, spread(LONG)))


def test_resuming_near_the_tail_costs_the_same_as_near_the_beginning() -> None:
    log = log_of(LONG)
    beginning = [number % 90 for number in range(WORK)]
    tail = [LONG - 100 + place for place in beginning]
    assert_no_growth(lambda: resume_at(log, beginning), lambda: resume_at(log, tail))


def test_a_read_costs_what_it_returns_not_what_it_was_allowed() -> None:
    def catch_up(log: Log) -> Work:
        def work() -> None:
            for place in spread(SHORT)[: WORK // 5]:
                assert len(log.read(place, 1 << 40, 200)) == 10

        return work

    short, long = log_of(SHORT), log_of(LONG)
    assert_no_growth(lambda: catch_up(short), lambda: catch_up(long))


def was_read_by(readers: int) -> Log:
    log = log_of(SHORT)
    resume_at(log, [number % (SHORT - 100) for number in range(readers)])()
    return log


def test_earlier_readers_cost_the_producer_nothing() -> None:
    assert_no_growth(lambda: append_to(was_read_by(SHORT)), lambda: append_to(was_read_by(LONG)))


def test_earlier_readers_cost_later_ones_nothing() -> None:
    few, many = was_read_by(SHORT), was_read_by(LONG)
    places = spread(SHORT)
    assert_no_growth(lambda: resume_at(few, places), lambda: resume_at(many, places))


def test_replaying_a_whole_log_costs_the_same_per_record() -> None:
    def replay(log: Log) -> Work:
        def work() -> None:
            # As many passes as make both read the same number of records.
            for _ in range(LONG // log.tail):
                reader = Subscription()
                while isinstance(step := reader.decide(log.head()), Read):
                    reader.advance(log.read(step.after, 64, 1 << 18)[-1].position)

        return work

    short, long = log_of(SHORT), log_of(LONG)
    assert_no_growth(lambda: replay(short), lambda: replay(long))

"""The log keeps what it was given, in order, within its bounds, and remembers what it dropped."""

from __future__ import annotations

import sys

import pytest

from penstock.core.cursor import Offset
from penstock.core.errors import StreamEnded
from penstock.core.limits import RECORD_OVERHEAD_BYTES
from penstock.core.log import Log, Retention
from penstock.core.record import EndReason, NewRecord

ALL = 1 << 60


def news(*payloads: bytes) -> list[NewRecord]:
    return [NewRecord(payload) for payload in payloads]


def log_of(*payloads: bytes, retention: Retention | None = None) -> Log:
    log = Log("s", 1, retention)
    for payload in payloads:
        log.append(news(payload), 0.0)
    return log


def payloads(log: Log, after: int, max_records: int = ALL, max_bytes: int = ALL) -> list[bytes]:
    return [record.payload for record in log.read(after, max_records, max_bytes)]


def test_a_new_log_stands_at_its_beginning() -> None:
    head = Log("s", 7).head()
    assert (head.epoch, head.earliest, head.tail, head.records, head.bytes) == (7, 0, 0, 0, 0)
    assert head.tail_offset == head.earliest_offset == Offset(7, 0)
    assert head.end is None


def test_append_returns_the_records_in_their_places() -> None:
    log = log_of(b"a")
    added = log.append([NewRecord(b"b", "token", "k"), NewRecord(b"c")], 5.0)
    assert [(r.position, r.payload, r.type, r.key, r.at) for r in added] == [
        (2, b"b", "token", "k", 5.0),
        (3, b"c", "", "", 5.0),
    ]
    assert log.tail == added[-1].position


def test_a_records_position_is_the_place_after_it() -> None:
    log = log_of(b"a", b"b", b"c")
    for record in log.read(0, ALL, ALL):
        assert record not in log.read(record.position, ALL, ALL)
        assert record == log.read(record.position - 1, 1, ALL)[0]


def test_an_empty_batch_adds_nothing() -> None:
    log = log_of(b"a")
    assert log.append([], 0.0) == []
    assert log.tail == 1


def test_a_callers_batch_is_not_changed() -> None:
    batch = news(b"a", b"b")
    log_of().append(batch, 0.0)
    assert batch == news(b"a", b"b")


def test_reading_the_tail_gives_nothing() -> None:
    assert payloads(log_of(b"a"), 1) == []
    assert payloads(log_of(b"a"), 99) == []


def test_a_read_is_bounded_by_records_and_by_bytes() -> None:
    log = log_of(b"aa", b"bb", b"cc", b"dd")
    assert payloads(log, 0, max_records=2) == [b"aa", b"bb"]
    assert payloads(log, 1, max_bytes=4) == [b"bb", b"cc"]
    assert payloads(log, 1, max_bytes=5) == [b"bb", b"cc"]


def test_a_read_gives_at_least_one_record_however_tight_its_bounds() -> None:
    log = log_of(b"a" * 100, b"b")
    assert payloads(log, 0, max_bytes=1) == [b"a" * 100]
    assert payloads(log, 0, max_records=0, max_bytes=0) == [b"a" * 100]


def test_what_a_read_returned_is_not_changed_by_later_appends() -> None:
    log = log_of(b"a", retention=Retention(max_records=1))
    seen = log.read(0, ALL, ALL)
    log.append(news(b"b"), 0.0)
    assert [record.payload for record in seen] == [b"a"]


def test_the_first_reason_of_an_end_stands() -> None:
    log = log_of(b"a")
    assert log.close(EndReason.CANCELLED)
    assert not log.close(EndReason.COMPLETE)
    assert log.head().end is EndReason.CANCELLED


def test_an_ended_log_takes_no_record_and_can_still_be_read() -> None:
    log = log_of(b"a")
    log.close(EndReason.COMPLETE)
    with pytest.raises(StreamEnded) as refusal:
        log.append(news(b"b"), 0.0)
    assert refusal.value.reason == "complete"
    assert payloads(log, 0) == [b"a"]
    assert log.tail == 1


def test_the_oldest_records_go_when_there_are_too_many() -> None:
    log = log_of(b"a", b"b", b"c", retention=Retention(max_records=2))
    assert payloads(log, 0) == [b"b", b"c"]
    assert (log.earliest, log.tail) == (1, 3)


def test_the_oldest_records_go_when_they_hold_too_many_bytes() -> None:
    log = log_of(b"aaaa", b"bbb", b"cc", retention=Retention(max_bytes=5))
    assert payloads(log, 0) == [b"bbb", b"cc"]
    assert log.bytes == 5


def test_types_and_keys_count_as_bytes() -> None:
    log = Log("s", 1, Retention(max_bytes=10))
    log.append([NewRecord(b"12", "345", "67")], 0.0)
    assert log.bytes == 7
    log.append([NewRecord(b"1234")], 0.0)
    assert (log.bytes, log.earliest) == (4, 1)


def test_records_go_when_they_are_older_than_the_bound_and_not_before() -> None:
    log = Log("s", 1, Retention(max_age_s=10.0))
    log.append(news(b"a"), 0.0)
    log.append(news(b"b"), 5.0)
    log.append(news(b"c"), 5.0)
    assert log.trim(10.0) == 0
    assert log.trim(10.1) == 1
    assert payloads(log, 0) == [b"b", b"c"]


def test_the_newest_record_stays_whatever_its_size_and_age() -> None:
    log = log_of(b"a" * 100, retention=Retention(max_bytes=1, max_records=0, max_age_s=1.0))
    assert log.trim(1e9) == 0
    assert payloads(log, 0) == [b"a" * 100]


def test_an_ended_log_still_forgets_what_is_too_old() -> None:
    log = Log("s", 1, Retention(max_age_s=10.0))
    log.append(news(b"a", b"b"), 0.0)
    log.close(EndReason.COMPLETE)
    assert log.trim(11.0) == 1
    assert (log.earliest, log.tail) == (1, 2)


def test_a_batch_above_the_bounds_leaves_its_own_newest_records() -> None:
    log = Log("s", 1, Retention(max_records=2))
    added = log.append(news(b"a", b"b", b"c"), 0.0)
    assert [record.position for record in added] == [1, 2, 3]
    assert payloads(log, 0) == [b"b", b"c"]


def test_reading_from_before_the_earliest_gives_the_earliest_kept() -> None:
    log = log_of(b"a", b"b", b"c", retention=Retention(max_records=1))
    assert payloads(log, 0) == payloads(log, 1) == payloads(log, 2) == [b"c"]


def test_positions_outlive_what_is_cut_off_the_front() -> None:
    log = Log("s", 1, Retention(max_records=10))
    for number in range(1, 1001):
        (added,) = log.append(news(b"%d" % number), 0.0)
        assert added.position == number
    assert payloads(log, 995) == [b"996", b"997", b"998", b"999", b"1000"]
    assert (log.earliest, log.tail, log.head().records) == (990, 1000, 10)


def test_a_dropped_records_payload_is_let_go_at_once() -> None:
    # A large payload must not wait for the list's front to be cut off.
    payload = bytes(1000)
    held_here = sys.getrefcount(payload)
    log = log_of(payload, retention=Retention(max_records=1))
    assert sys.getrefcount(payload) > held_here
    log.append(news(b"next"), 0.0)
    assert sys.getrefcount(payload) == held_here


def test_a_footprint_counts_what_each_record_costs_beside_its_payload() -> None:
    log = log_of(b"a", b"b", b"c", retention=Retention(max_records=2))
    assert log.footprint == 2 + 2 * RECORD_OVERHEAD_BYTES

"""A reader moves along a log by rules: it catches up, lives, lags, learns of gaps, and ends."""

from __future__ import annotations

import pytest

from penstock.core.cursor import Offset
from penstock.core.log import Head, Log, Retention
from penstock.core.record import EndReason, NewRecord, Record
from penstock.core.subscription import (
    End,
    Gap,
    GapReason,
    Leave,
    Policy,
    Read,
    State,
    Subscription,
    Wait,
    latest,
)


def head(tail: int, earliest: int = 0, epoch: int = 1, end: EndReason | None = None) -> Head:
    return Head(
        epoch=epoch, earliest=earliest, tail=tail, records=tail - earliest, bytes=0, end=end
    )


def level_at(position: int, **settings: object) -> Subscription:
    """A subscription that has caught up with a log whose tail is at `position`."""
    reader = Subscription(position, **settings)  # type: ignore[arg-type]
    assert reader.decide(head(position)) == Wait()
    assert reader.state is State.LIVE
    return reader


def test_a_new_reader_catches_up_and_is_live_when_level() -> None:
    reader = Subscription()
    assert reader.decide(head(2)) == Read(0)
    assert reader.state is State.CATCH_UP
    reader.advance(2)
    assert reader.decide(head(2)) == Wait()
    assert reader.state is State.LIVE


def test_deciding_twice_says_the_same() -> None:
    for reader, at in [
        (Subscription(), head(2)),
        (Subscription(2), head(2)),
        (Subscription(0), head(9, earliest=5)),
        (Subscription(2), head(2, end=EndReason.COMPLETE)),
        (level_at(0, policy=Policy.LEAVE, max_lag=1), head(5)),
    ]:
        assert reader.decide(at) == reader.decide(at)


def test_a_live_reader_with_something_to_read_lags_until_it_is_level_again() -> None:
    reader = level_at(2)
    assert reader.decide(head(5)) == Read(2)
    assert reader.state is State.LAGGING
    reader.advance(5)
    assert reader.decide(head(5)) == Wait()
    assert reader.state is State.LIVE


def test_a_reader_is_told_of_the_end_only_after_the_last_record() -> None:
    reader = Subscription(1)
    ended = head(2, end=EndReason.FAILED)
    assert reader.decide(ended) == Read(1)
    reader.advance(2)
    assert reader.decide(ended) == End(EndReason.FAILED)
    reader.finish()
    assert reader.state is State.ENDED


def test_a_stream_that_ended_empty_ends_at_once() -> None:
    assert Subscription().decide(head(0, end=EndReason.LOST)) == End(EndReason.LOST)


def test_history_that_was_dropped_is_a_gap_and_then_the_earliest() -> None:
    reader = Subscription(3)
    step = reader.decide(head(10, earliest=6))
    assert step == Gap(str(Offset(1, 3)), 6, GapReason.TRIMMED)
    assert reader.state is State.GAP
    reader.skip(6)
    assert reader.decide(head(10, earliest=6)) == Read(6)


def test_standing_exactly_at_the_earliest_is_no_gap() -> None:
    assert Subscription(6).decide(head(10, earliest=6)) == Read(6)


def test_a_gap_grows_while_nobody_has_told_the_reader() -> None:
    reader = Subscription(3)
    reader.decide(head(10, earliest=6))
    assert reader.decide(head(12, earliest=8)) == Gap(str(Offset(1, 3)), 8, GapReason.TRIMMED)


def test_a_live_reader_whose_next_records_were_dropped_is_told_so() -> None:
    reader = level_at(2)
    assert isinstance(reader.decide(head(100, earliest=90)), Gap)


def test_a_gap_before_the_end_is_told_before_the_end() -> None:
    reader = Subscription(3)
    ended = head(10, earliest=10, end=EndReason.COMPLETE)
    assert reader.decide(ended) == Gap(str(Offset(1, 3)), 10, GapReason.TRIMMED)
    reader.skip(10)
    assert reader.decide(ended) == End(EndReason.COMPLETE)


def test_a_place_the_log_never_reached_is_a_gap() -> None:
    reader = Subscription(50)
    assert reader.decide(head(10)) == Gap(str(Offset(1, 50)), 0, GapReason.AHEAD)


@pytest.mark.parametrize("position", [0, 2, 5, 99])
@pytest.mark.parametrize("epoch", [1, 3])
def test_an_offset_of_another_epoch_is_never_honoured(epoch: int, position: int) -> None:
    brought = Offset(epoch, position)
    at = head(5, earliest=2, epoch=2)
    assert Subscription.at(brought, at).decide(at) == Gap(str(brought), 2, GapReason.EPOCH)


def test_an_offset_of_the_same_epoch_is_honoured() -> None:
    at = head(5, epoch=2)
    assert Subscription.at(Offset(2, 3), at).decide(at) == Read(3)


def test_a_malformed_place_is_a_gap_that_quotes_what_was_asked() -> None:
    reader = Subscription()
    reader.lose("no offset", GapReason.MALFORMED)
    assert reader.decide(head(5, earliest=2)) == Gap("no offset", 2, GapReason.MALFORMED)


def test_replay_shows_every_record() -> None:
    records = [Record(1, b"a", key="k"), Record(2, b"b", key="k")]
    reader = Subscription()
    assert reader.select(records) == records
    assert reader.skipped == 0


def test_latest_shows_the_newest_of_each_key_and_counts_the_rest() -> None:
    reader = Subscription(policy=Policy.LATEST)
    records = [
        Record(1, b"1", key="x"),
        Record(2, b"2"),
        Record(3, b"3", key="y"),
        Record(4, b"4", key="x"),
        Record(5, b"5"),
    ]
    assert [record.position for record in reader.select(records)] == [2, 3, 4, 5]
    assert reader.skipped == 1
    reader.select(records)
    assert reader.skipped == 2


def test_latest_of_nothing_is_nothing() -> None:
    assert latest([]) == []


def test_leave_goes_when_it_lags_more_than_allowed_and_keeps_its_place() -> None:
    reader = level_at(10, policy=Policy.LEAVE, max_lag=5)
    assert reader.decide(head(15)) == Read(10)
    assert reader.decide(head(16)) == Leave(6)
    reader.finish(left=True)
    assert reader.state is State.LEFT
    assert reader.position == 10


def test_leave_does_not_send_away_a_reader_that_is_still_catching_up() -> None:
    # Otherwise a reader that comes back at its place, as it was told to, is sent away again.
    reader = Subscription(10, policy=Policy.LEAVE, max_lag=5)
    assert reader.decide(head(100)) == Read(10)
    reader.advance(100)
    assert reader.decide(head(100)) == Wait()
    assert reader.decide(head(106)) == Leave(6)


def test_leave_without_a_bound_stays() -> None:
    assert level_at(0, policy=Policy.LEAVE).decide(head(10**9)) == Read(0)


def test_the_other_policies_never_leave() -> None:
    for policy in (Policy.REPLAY, Policy.LATEST):
        assert level_at(0, policy=policy, max_lag=1).decide(head(100)) == Read(0)


def test_a_reader_that_shared_a_place_takes_one_of_its_own_again() -> None:
    reader = level_at(2)
    reader.fall_behind(7)
    assert reader.state is State.LAGGING
    assert reader.decide(head(9)) == Read(7)


def test_a_slow_reader_costs_the_log_nothing_and_loses_nothing_that_is_kept() -> None:
    log = Log("s", 1, Retention(max_records=100))
    reader = Subscription()
    for number in range(100):
        log.append([NewRecord(b"%d" % number)], 0.0)
    seen: list[bytes] = []
    while isinstance(step := reader.decide(log.head()), Read):
        records = log.read(step.after, 7, 1 << 20)
        seen += [record.payload for record in records]
        reader.advance(records[-1].position)
    assert seen == [b"%d" % number for number in range(100)]

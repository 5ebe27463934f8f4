"""The log does what a plain list would, and its readers account for every record exactly once.

`LogMachine` drives a `Log` and the simplest model that could be right: a list that never forgets,
and a count of what has been dropped. `ReaderMachine` adds readers of every policy that move when
they please while the log grows, is trimmed and ends. Every other backend is compared with the log,
so this is where the comparison is anchored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from penstock.core.cursor import Offset
from penstock.core.errors import StreamEnded
from penstock.core.log import Log, Retention
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
)

# Few keys and short payloads, so that keys repeat and bounds are met often.
new_records = st.builds(
    NewRecord,
    st.binary(max_size=12),
    st.sampled_from(["", "token"]),
    st.sampled_from(["", "", "a", "b"]),
)
# Some batches are large enough for the log to cut off its list's front.
batches = st.lists(new_records, max_size=6) | st.builds(
    lambda new, count: [new] * count, new_records, st.integers(7, 90)
)
retentions = st.builds(
    Retention,
    max_records=st.integers(0, 5) | st.integers(60, 200),
    max_bytes=st.integers(0, 60) | st.just(1 << 40),
    max_age_s=st.none() | st.integers(0, 20).map(float),
)
EPOCH = 5


def size(record: Record) -> int:
    return len(record.payload) + len(record.type) + len(record.key)


class Model:
    """A list that never forgets, the number dropped from its front, and the end."""

    def __init__(self, retention: Retention) -> None:
        self.retention = retention
        self.everything: list[Record] = []
        self.dropped = 0
        self.end: EndReason | None = None

    @property
    def kept(self) -> list[Record]:
        return self.everything[self.dropped :]

    def append(self, batch: list[NewRecord], now: float) -> None:
        for new in batch:
            place = len(self.everything) + 1
            self.everything.append(Record(place, new.payload, new.type, new.key, now))
        self.trim(now)

    def trim(self, now: float) -> int:
        before = self.dropped
        while len(self.kept) > 1 and self.is_above_a_bound(now):
            self.dropped += 1
        return self.dropped - before

    def is_above_a_bound(self, now: float) -> bool:
        bounds, kept = self.retention, self.kept
        return (
            len(kept) > bounds.max_records
            or sum(map(size, kept)) > bounds.max_bytes
            or (bounds.max_age_s is not None and kept[0].at < now - bounds.max_age_s)
        )

    def read(self, after: int, max_records: int, max_bytes: int) -> list[Record]:
        found: list[Record] = []
        for record in self.kept:
            taken = sum(len(one.payload) for one in found) + len(record.payload)
            fits = len(found) < max_records and taken <= max_bytes
            if record.position > after:
                if found and not fits:
                    break
                found.append(record)
        return found


class LogMachine(RuleBasedStateMachine):
    """A log beside its model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    @initialize(retention=retentions)
    def create(self, retention: Retention) -> None:
        self.log = Log("s", EPOCH, retention)
        self.model = Model(retention)

    @rule(batch=batches)
    def append(self, batch: list[NewRecord]) -> None:
        given = list(batch)
        if self.model.end is not None:
            with pytest.raises(StreamEnded):
                self.log.append(batch, self.now)
            return
        added = self.log.append(batch, self.now)
        self.model.append(batch, self.now)
        assert batch == given
        assert added == self.model.everything[len(self.model.everything) - len(batch) :]

    @rule(elapsed=st.integers(0, 10))
    def time_passes(self, elapsed: int) -> None:
        self.now += elapsed

    @rule()
    def trim(self) -> None:
        assert self.log.trim(self.now) == self.model.trim(self.now)

    # Ending is rare, or most of a run would be spent on logs that take nothing.
    @precondition(lambda self: len(self.model.everything) > 20)
    @rule(reason=st.sampled_from(EndReason))
    def close(self, reason: EndReason) -> None:
        assert self.log.close(reason) == (self.model.end is None)
        self.model.end = self.model.end or reason

    @rule(
        after=st.integers(0, 300),
        max_records=st.integers(1, 8) | st.just(1 << 40),
        max_bytes=st.integers(0, 40) | st.just(1 << 40),
    )
    def read(self, after: int, max_records: int, max_bytes: int) -> None:
        expected = self.model.read(after, max_records, max_bytes)
        assert self.log.read(after, max_records, max_bytes) == expected

    @invariant()
    def head_is_what_the_model_says(self) -> None:
        head = self.log.head()
        kept = self.model.kept
        assert head.epoch == EPOCH
        assert head.tail == self.log.tail == len(self.model.everything)
        assert head.earliest == self.log.earliest == self.model.dropped
        assert head.records == len(kept)
        assert head.bytes == self.log.bytes == sum(map(size, kept))
        assert head.end is self.model.end
        assert head.tail_offset == Offset(EPOCH, head.tail)
        assert head.earliest_offset == Offset(EPOCH, head.earliest)

    @invariant()
    def what_is_kept_reads_back_whole(self) -> None:
        assert self.log.read(0, 1 << 40, 1 << 40) == self.model.kept


@dataclass
class Reader:
    """A subscription, and all it was ever told."""

    rules: Subscription
    began: int
    shown: list[Record] = field(default_factory=list)
    lost: list[range] = field(default_factory=list)  # positions that gaps covered
    passed_over: list[int] = field(default_factory=list)  # by LATEST
    end: EndReason | None = None
    was_live: bool = False

    @property
    def is_done(self) -> bool:
        return self.rules.state in (State.ENDED, State.LEFT)


class ReaderMachine(RuleBasedStateMachine):
    """Readers that move when they please, over a log that does what it pleases."""

    readers = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.everything: list[Record] = []
        self.all_readers: list[Reader] = []

    @initialize(retention=retentions)
    def create(self, retention: Retention) -> None:
        self.log = Log("s", EPOCH, retention)

    @precondition(lambda self: self.log.end is None)
    @rule(batch=batches, elapsed=st.integers(0, 5))
    def append(self, batch: list[NewRecord], elapsed: int) -> None:
        self.now += elapsed
        self.everything += self.log.append(batch, self.now)

    @rule(elapsed=st.integers(0, 10))
    def trim(self, elapsed: int) -> None:
        self.now += elapsed
        self.log.trim(self.now)

    @precondition(lambda self: len(self.everything) > 20)
    @rule(reason=st.sampled_from(EndReason))
    def close(self, reason: EndReason) -> None:
        self.log.close(reason)

    @rule(
        target=readers,
        policy=st.sampled_from(Policy),
        max_lag=st.none() | st.integers(0, 8),
        back=st.integers(0, 300),
    )
    def join(self, policy: Policy, max_lag: int | None, back: int) -> Reader:
        place = max(self.log.tail - back, 0)
        rules = Subscription.at(
            Offset(EPOCH, place), self.log.head(), policy=policy, max_lag=max_lag
        )
        reader = Reader(rules, began=place)
        self.all_readers.append(reader)
        return reader

    @rule(reader=readers, records=st.integers(1, 8), payload=st.integers(0, 40))
    def step(self, reader: Reader, records: int, payload: int) -> None:
        if not reader.is_done:
            self.carry_out(reader, records, payload)

    @rule(reader=readers)
    def read_until_nothing_is_left(self, reader: Reader) -> None:
        while not reader.is_done:
            if isinstance(self.carry_out(reader, 50, 1 << 20), Wait):
                break
        assert reader.is_done or reader.rules.position == self.log.tail

    def carry_out(self, reader: Reader, max_records: int, max_bytes: int) -> object:
        rules, head = reader.rules, self.log.head()
        place = rules.position
        step = rules.decide(head)
        assert rules.position == place
        match step:
            case Read(after):
                records = self.log.read(after, max_records, max_bytes)
                assert records
                assert records[0].position == after + 1
                self.show(reader, records)
            case Gap(asked, resume, reason):
                assert (asked, reason) == (str(Offset(EPOCH, place)), GapReason.TRIMMED)
                assert place < resume == head.earliest
                reader.lost.append(range(place + 1, resume + 1))
                rules.skip(resume)
            case Wait():
                assert place == head.tail
                assert rules.state is State.LIVE
                reader.was_live = True
            case End(reason):
                assert place == head.tail
                reader.end = reason
                rules.finish()
            case Leave(lag):
                assert rules.policy is Policy.LEAVE
                assert reader.was_live
                assert rules.max_lag is not None
                assert lag == head.tail - place > rules.max_lag
                rules.finish(left=True)
        return step

    def show(self, reader: Reader, records: list[Record]) -> None:
        shown = reader.rules.select(records)
        # LATEST leaves out only what a newer record of the same key replaces.
        for record in records:
            if record not in shown:
                assert reader.rules.policy is Policy.LATEST
                assert any(
                    other.key == record.key and other.position > record.position for other in shown
                )
                reader.passed_over.append(record.position)
        keys = [record.key for record in shown if record.key]
        assert reader.rules.policy is not Policy.LATEST or len(keys) == len(set(keys))
        reader.shown += shown
        reader.rules.advance(records[-1].position)

    @invariant()
    def every_record_is_accounted_for_exactly_once_and_in_order(self) -> None:
        for reader in self.all_readers:
            told = [record.position for record in reader.shown]
            assert told == sorted(told)
            assert [self.everything[position - 1] for position in told] == reader.shown
            lost = [position for gap in reader.lost for position in gap]
            accounted = sorted(told + lost + reader.passed_over)
            assert accounted == list(range(reader.began + 1, reader.rules.position + 1))
            assert reader.rules.skipped == len(reader.passed_over)

    @invariant()
    def who_was_told_of_the_end_has_had_everything(self) -> None:
        for reader in self.all_readers:
            if reader.rules.state is State.ENDED:
                assert reader.end is self.log.end is not None
                assert reader.rules.position == self.log.tail


TestLogIsAList = LogMachine.TestCase
TestLogIsAList.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestReadersMissNothing = ReaderMachine.TestCase
TestReadersMissNothing.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)

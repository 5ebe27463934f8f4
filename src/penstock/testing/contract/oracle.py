"""Random stories, told to a backend and to `core.log.Log` at once: the same must come of both.

The model is a log and a gate a stream, and what the interface says about names. Positions of a
backend need not be dense, so the model's are translated: each record's place is learned when it is
read back, and must never change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.backends.interface import Fork, Forks, StreamConfig, Sweeps
from penstock.core.cursor import Offset
from penstock.core.errors import (
    PenstockError,
    StreamConflict,
    StreamGone,
    StreamNotFound,
)
from penstock.core.log import Log, Retention
from penstock.core.producer import Gate, Stamp
from penstock.core.record import EndReason, NewRecord, Record
from penstock.testing.contract.place import ALL, Heard, Place

_T = TypeVar("_T")
NAMES = ("a", "b", "c", "d")
names = st.sampled_from(NAMES)
new_records = st.builds(
    NewRecord,
    st.binary(max_size=12),
    st.sampled_from(["", "token", "é"]),
    st.sampled_from(["", "", "k", "\U0001f600"]),
)


def _repeated(new: NewRecord, count: int) -> list[NewRecord]:
    return [new] * count


batches: st.SearchStrategy[list[NewRecord]] = st.lists(new_records, max_size=6) | st.builds(
    _repeated, new_records, st.integers(7, 90)
)
retentions = st.builds(
    Retention,
    max_records=st.integers(0, 5) | st.integers(60, 200) | st.just(10_000),
    max_bytes=st.integers(0, 60) | st.just(1 << 40),
    max_age_s=st.none() | st.integers(1, 20).map(float),
)
configs = st.builds(
    StreamConfig,
    content_type=st.sampled_from(["application/json", "text/plain"]),
    retention=retentions,
)
ends = st.none() | st.none() | st.sampled_from(EndReason)
stamps = st.none() | st.builds(
    Stamp, st.sampled_from(["p", "q"]), st.integers(0, 2), st.integers(0, 3)
)
sequences = st.none() | st.none() | st.sampled_from(["", "a", "aa", "b"])


@dataclass
class _Stream:
    """One stream of the model. `places` are the backend's, by the log's positions."""

    log: Log
    config: StreamConfig
    places: dict[int, int]
    gate: Gate = field(default_factory=Gate)
    source: str | None = None
    forks: int = 0
    is_gone: bool = False
    heard: Heard = field(default_factory=Heard)
    heard_from: int = 0
    everything: list[Record] = field(default_factory=list[Record])


class OracleMachine(RuleBasedStateMachine):
    """A backend beside its model."""

    def make_place(self) -> Place:
        """A backend of its own for one story."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.place = self.make_place()
        self.run(self.place.__aenter__())
        self.model: dict[str, _Stream] = {}
        self.epochs: dict[str, int] = {}

    def teardown(self) -> None:
        self.run(self.place.__aexit__(None, None, None))
        self.runner.close()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(coroutine)

    def both(self, coroutine: Coroutine[Any, Any, _T], model: Callable[[], object]) -> _T | None:
        """Run on both; what one refuses the other must refuse with the same code."""
        expected = refused = None
        try:
            model()
        except PenstockError as error:
            expected = error
        try:
            result = self.run(coroutine)
        except PenstockError as error:
            refused, result = error, None
        assert type(refused) is type(expected), f"{refused!r} and the log says {expected!r}"
        if refused is not None and expected is not None:
            assert refused.code == expected.code
        return result

    # the model

    def live(self, name: str) -> _Stream:
        stream = self.model.get(name)
        if stream is None:
            raise StreamNotFound(name)
        if stream.is_gone:
            raise StreamGone(name)
        return stream

    def existing(self, name: str) -> _Stream | None:
        stream = self.model.get(name)
        if stream is not None and stream.is_gone:
            raise StreamConflict(name, "state")
        return stream

    def begin(self, name: str, stream: _Stream) -> None:
        assert stream.log.epoch > self.epochs.get(name, -1), "a name's epochs rise"
        self.epochs[name] = stream.log.epoch
        self.model[name] = stream
        self.listen(name, stream)

    def listen(self, name: str, stream: _Stream) -> None:
        stream.heard_from = stream.log.tail
        after = stream.places[stream.log.tail]
        stream.heard = Heard(after)

        async def watch() -> None:
            self.place.backend.watch(name, after, stream.heard)

        self.run(watch())

    # the story

    @rule(name=names, config=configs, batch=batches, end=ends)
    def create(
        self, name: str, config: StreamConfig, batch: list[NewRecord], end: EndReason | None
    ) -> None:
        def model() -> None:
            if (there := self.existing(name)) is not None and there.config != config:
                raise StreamConflict(name, "configuration")

        was_there = name in self.model
        made = self.both(self.place.backend.create(name, config, batch, end=end), model)
        if made is None:
            return
        head, is_new = made
        assert is_new is not was_there
        if is_new:
            log = Log(name, head.epoch, config.retention)
            stream = _Stream(log, config, {})
            # Where it begins is the backend's choice; a first record lies after it.
            stream.places[0] = 0 if batch else head.tail
            self.added(name, stream, batch, end)
            self.begin(name, stream)

    @rule(name=names, batch=batches, end=ends, stamp=stamps, seq=sequences)
    def append(
        self,
        name: str,
        batch: list[NewRecord],
        end: EndReason | None,
        stamp: Stamp | None,
        seq: str | None,
    ) -> None:
        newest: list[int | None] = [None]

        def model() -> None:
            stream = self.live(name)
            log = stream.log
            if stamp is not None or seq is not None:
                newest[0] = stream.gate.admit(name, log.end, stamp, seq)
            if newest[0] is None and batch and log.end is not None:
                log.append(batch, self.place.clock.now)

        appended = self.both(
            self.place.backend.append(name, batch, end=end, stamp=stamp, seq=seq), model
        )
        if appended is None:
            return
        stream = self.model[name]
        assert appended.is_duplicate is (newest[0] is not None)
        if newest[0] is None:
            stream.gate.passed(stamp, seq)
            self.added(name, stream, batch, end)
        assert appended.offset == Offset(stream.log.epoch, stream.places[stream.log.tail])
        assert appended.end == stream.log.end
        if stamp is not None:
            assert appended.seq == (stamp.seq if newest[0] is None else newest[0])

    def added(
        self, name: str, stream: _Stream, batch: list[NewRecord], end: EndReason | None
    ) -> None:
        """Append to the model, and learn where the backend put what it keeps of it."""
        log = stream.log
        stream.everything += log.append(batch, self.place.clock.now) if batch else []
        if end is not None:
            log.close(end)
        self.sweep_now()
        kept = log.read(0, ALL, ALL)
        found = self.run(self.place.backend.read(name, 0, ALL, ALL))
        assert [NewRecord(r.payload, r.type, r.key) for r in found] == [
            NewRecord(r.payload, r.type, r.key) for r in kept
        ]
        for ours, theirs in zip(kept, found, strict=True):
            before = stream.places.setdefault(ours.position, theirs.position)
            assert before == theirs.position, "a record's place does not change"
        positions = [record.position for record in found]
        assert positions == sorted(set(positions))

    @rule(name=names, data=st.data(), records=st.integers(0, 9) | st.just(ALL))
    def read(self, name: str, data: st.DataObject, records: int) -> None:
        stream = self.model.get(name)
        if stream is None or stream.is_gone:
            self.both(self.place.backend.read(name, 0, records, ALL), lambda: self.live(name))
            return
        places = [place for place in stream.places if place >= stream.log.earliest]
        after = data.draw(st.sampled_from(sorted(places)), label="after")
        size = data.draw(st.integers(0, 40) | st.just(ALL), label="bytes")
        kept = stream.log.read(after, records, size)
        found = self.run(self.place.backend.read(name, stream.places[after], records, size))
        assert [(r.position, r.payload, r.type, r.key) for r in found] == [
            (stream.places[r.position], r.payload, r.type, r.key) for r in kept
        ]

    @rule(name=names)
    def delete(self, name: str) -> None:
        def model() -> None:
            self.live(name)

        if name in self.model and not self.model[name].is_gone:
            heard = self.model[name].heard
            self.both(self.place.backend.delete(name), model)
            self.run(self.place.until(lambda: heard.calls.endswith("D")))
            self.forget(name)
        else:
            self.both(self.place.backend.delete(name), model)

    def forget(self, name: str) -> None:
        stream = self.model[name]
        if stream.forks:
            stream.is_gone = True
            return
        del self.model[name]
        if stream.source is not None:
            source = self.model[stream.source]
            source.forks -= 1
            if source.is_gone and not source.forks:
                self.forget(stream.source)

    @precondition(lambda self: isinstance(self.place.backend, Forks))
    @rule(name=names, source=names, data=st.data(), retention=retentions, new=new_records)
    def fork(
        self,
        name: str,
        source: str,
        data: st.DataObject,
        retention: Retention,
        new: NewRecord,
    ) -> None:
        backend = self.place.having(Forks)
        config = StreamConfig(content_type="", retention=retention)
        of = self.model.get(source)
        if name in self.model or of is None or of.is_gone:

            def model() -> None:
                if self.existing(name) is not None:
                    raise StreamConflict(name, "configuration")
                if self.existing(source) is None:
                    raise StreamNotFound(source)

            # Another source than any stream has, so that it agrees with none that is there.
            other = Fork(source=source, sub=1 << 40)
            self.both(backend.fork(name, other, config), model)
            return
        log = of.log
        places = [place for place in of.places if place >= log.earliest]
        at = data.draw(st.sampled_from(sorted(places)), label="at")
        fork = Fork(source=source, at=Offset(log.epoch, of.places[at]))
        head, kept, is_new = self.run(backend.fork(name, fork, config, [new]))
        assert is_new
        branch = log.branch(name, head.epoch, at, retention)
        stream = _Stream(branch, kept, dict(of.places), source=source)
        stream.places = {ours: place for ours, place in of.places.items() if ours <= at}
        of.forks += 1
        # With a record of its own: before there is one, a fork's retention need not be heeded.
        self.added(name, stream, [new], None)
        self.begin(name, stream)

    @precondition(lambda self: isinstance(self.place.backend, Sweeps))
    @rule(elapsed=st.integers(0, 10))
    def time_passes(self, elapsed: int) -> None:
        self.place.clock.now += elapsed
        self.sweep_now()

    def sweep_now(self) -> None:
        """Let both drop what is too old; a backend need not before it is swept."""
        if isinstance(self.place.backend, Sweeps):
            for _ in range(len(self.model) + 2):  # going round, a few streams at a time
                self.run(self.place.backend.sweep(3))
        for stream in self.model.values():
            if not stream.is_gone:
                stream.log.trim(self.place.clock.now)

    @precondition(lambda self: self.place.can_restart)
    @rule()
    def restart(self) -> None:
        self.run(self.place.restart())
        for name, stream in self.model.items():
            if not stream.is_gone:
                self.listen(name, stream)

    # what must always be so

    @invariant()
    def heads_are_the_logs(self) -> None:
        for name, stream in self.model.items():
            if stream.is_gone:
                continue
            head, config = self.run(self.place.backend.head(name))
            log = stream.log
            assert config == stream.config
            assert (head.epoch, head.records, head.bytes, head.end) == (
                *(log.epoch, log.head().records, log.bytes, log.end),
            )
            assert head.tail == stream.places[log.tail]
            if log.earliest in stream.places:
                assert head.earliest >= stream.places[log.earliest]

    @invariant()
    def listeners_have_heard_it_all(self) -> None:
        for stream in self.model.values():
            if stream.is_gone:
                continue
            heard, tail = stream.heard, stream.log.tail
            due = [r for r in stream.everything if r.position > stream.heard_from]
            self.run(self.place.until(lambda heard=heard, due=due: len(heard.records) >= len(due)))
            assert [(r.payload, r.type, r.key) for r in heard.records] == [
                (r.payload, r.type, r.key) for r in due
            ]
            if stream.log.end is not None:
                self.run(self.place.until(lambda heard=heard: "E" in heard.calls))
            assert stream.log.tail == tail


def run_oracle(make_place: Callable[[], Place], examples: int) -> None:
    """Tell random stories; the shortest that goes wrong is shown, with how to tell it again."""

    class Machine(OracleMachine):
        def make_place(self) -> Place:
            return make_place()

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )

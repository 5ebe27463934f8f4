"""What is known of every log, and so must be there after a crash: the oracle of the crash test.

A log is one life of a name, from its creation to its deletion. What is known of it comes from
three sides: a writer whose append was acknowledged, a reader who was shown a record, and the
inspection after each restart. Whatever contradicts what is known already is a fault.

Positions of this engine are dense, which is what lets a reader of a batch be checked record by
record. Nothing here asks the server anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from crash.payloads import body, origin, payload
from penstock.core.cursor import Offset

KINDS: Final = (
    "lost of acknowledged",
    "taken back from a reader",
    "duplicated",
    "reordered",
    "torn batch",
    "made up",
    "producer's sequence",
    "wrong end",
    "wrong life",
    "wrong epoch",
    "reader left behind",
    "wrong answer",
)
"""What can go wrong."""
MAX_FAULTS: Final = 1_000
KEPT_EPOCHS: Final = 3
FLOOD: Final = "flood/"
"""What the names of logs with large appends begin with."""


class Fault(NamedTuple):
    """Something that must not be."""

    kind: str
    log: str
    what: str


class Batch(NamedTuple):
    """One request's records, by their writer's numbers; `last` is the position after it."""

    first: int
    stop: int
    state: str  # "acked", "unknown" (no answer came) or "refused"
    last: int | None = None


@dataclass(slots=True)
class Writer:
    """Somebody who writes to one log, a request at a time, and numbers the records."""

    name: str
    type: str = ""
    next: int = 0
    batches: list[Batch] = field(default_factory=list[Batch])

    def take(self, count: int, content_type: str) -> list[bytes]:
        """The next records. `note` says what became of them."""
        numbers = range(self.next, self.next + count)
        self.next += count
        return [payload(self.name, number, content_type) for number in numbers]

    def note(self, count: int, state: str, last: int | None = None) -> None:
        self.batches.append(Batch(self.next - count, self.next, state, last))


class Piece(NamedTuple):
    """What a reader of the protocol got as one body: the records between two positions."""

    reader: str
    epoch: int
    after: int
    until: int
    content: bytes


class Log:
    """What is known of one log. `may_end` holds the reasons that anybody has tried to end it for;
    `waits`: it is made by the server itself, and may not be there yet."""

    def __init__(self, ledger: Ledger, name: str, content_type: str, *, waits: bool = False):
        self.ledger, self.name, self.content_type, self.waits = ledger, name, content_type, waits
        ledger.lives += 1
        self.life = ledger.lives
        self.epochs: dict[int, dict[int, bytes]] = {}
        self.earliest = 0
        self.acked_tail = 0
        self.pieces: list[Piece] = []
        self.passed_over: list[tuple[str, int, int]] = []
        self.writers: dict[str, Writer] = {}
        self.fork: tuple[Log, int] | None = None
        self.may_end: set[str] = set()
        self.end: str | None = None
        self._counted: set[int] = set()
        self.is_deleting = self.is_deleted = self.is_held = False

    @property
    def epoch(self) -> int:
        """The latest that is known; 0 before the first."""
        return max(self.epochs, default=0)

    @property
    def records(self) -> dict[int, bytes]:
        """What is known of the present epoch, by position."""
        return self.epochs.get(self.epoch, {})

    @property
    def tail(self) -> int:
        """The highest position of the present epoch that is known."""
        return max(self.records, default=0)

    def writer(self, name: str, type: str = "") -> Writer:
        return self.writers.setdefault(name, Writer(name, type))

    def fault(self, kind: str, what: str) -> None:
        self.ledger.fault(kind, self.name, what)

    def begins(self, offset: Offset) -> None:
        """Note an epoch in which the log is."""
        if offset.epoch in self.epochs:
            return
        if self.epochs and not self.ledger.is_eager:
            self.fault("wrong epoch", f"{self.epoch} has become {offset.epoch}")
        if offset.epoch < self.epoch:
            self.fault("wrong epoch", f"{offset.epoch} again, after {self.epoch}")
        self.epochs[offset.epoch] = {}
        for old in sorted(self.epochs)[:-KEPT_EPOCHS]:
            del self.epochs[old]

    def know(self, offset: Offset, record: bytes, who: str) -> None:
        """Note that the record before this offset was shown, or acknowledged."""
        self.begins(offset)
        known = self.epochs[offset.epoch].setdefault(offset.position, record)
        if known != record:
            self.fault(
                "taken back from a reader",
                f"{offset} is {_short(record)} to {who}, and was {_short(known)}",
            )

    def acked(self, writer: Writer, records: Sequence[bytes], after: Offset, floor: int) -> None:
        """Note an acknowledged append, and the offset it was given. What was acknowledged before
        it was sent lies before it: `floor`."""
        first = after.position - len(records) + 1
        for position, record in enumerate(records, first):
            self.know(Offset(after.epoch, position), record, writer.name)
        if first <= floor and after.epoch == self.epoch and not self.ledger.is_eager:
            self.fault("reordered", f"{writer.name} got {after}, and {floor} came before it")
        self.acked_tail = max(self.acked_tail, after.position)
        writer.note(len(records), "acked", after.position)

    def ended(self, reason: str, who: str, *, is_acked: bool) -> None:
        """Note how it ended, as somebody was told."""
        if reason not in self.may_end:
            self.fault("wrong end", f"{who} was told {reason!r}, and nobody asked for that")
        elif self.end not in (None, reason):
            self.fault("wrong end", f"{who} was told {reason!r}, and it was {self.end!r}")
        elif is_acked or not self.ledger.is_eager:
            self.end = reason

    # the inspection: what the server has, all of it

    def compare(self, epoch: int, earliest: int, tail: int, read: Sequence[bytes]) -> None:
        """Compare with all that the log holds: records after `earliest`, up to `tail`."""
        self.begins(Offset(epoch, tail))
        self._count_lost(epoch, read, earliest)
        known = self.epochs.get(epoch, {})
        beyond = [position for position in known if position > tail]
        if beyond:
            last = known[max(beyond)]
            self.fault(
                "taken back from a reader",
                f"{len(beyond)} records after {Offset(epoch, tail)}, the last {_short(last)}",
            )
        for position, record in enumerate(read, earliest + 1):
            self.know(Offset(epoch, position), record, "the inspection")
        if earliest < self.earliest:
            self.fault("wrong answer", f"it begins at {earliest} and began at {self.earliest}")
        self.earliest = earliest
        for who, after, until in self.passed_over:
            if until > earliest:
                self.fault("lost of acknowledged", f"{who} was told that {after}-{until} is gone")
        self.passed_over.clear()
        self._compare_pieces(epoch, tail)
        self._compare_writers(earliest, read)

    def _count_lost(self, epoch: int, read: Sequence[bytes], earliest: int) -> None:
        """Count what was shown in epochs that are over and is not there: `eager` may lose it."""
        there = dict(enumerate(read, earliest + 1))
        for old in self.epochs.keys() - {epoch} - self._counted:
            self._counted.add(old)
            self.ledger.counts["records shown and lost, told of by a gap"] += sum(
                there.get(position) != record
                for position, record in self.epochs[old].items()
                if position > earliest
            )

    def _compare_pieces(self, epoch: int, tail: int) -> None:
        for piece in self.pieces:
            known = self.epochs.get(piece.epoch, {})
            positions = range(piece.after + 1, piece.until + 1)
            if piece.epoch == epoch and piece.until > tail:
                self.fault(
                    "taken back from a reader",
                    f"{piece.reader} was shown up to {piece.until} and {tail} is the last",
                )
            elif all(position in known for position in positions):
                content = body([known[position] for position in positions], self.content_type)
                if content != piece.content:
                    self.fault(
                        "taken back from a reader",
                        f"{piece.reader} was shown {_short(piece.content)} after {piece.after},"
                        f" and there is {_short(content)}",
                    )
            else:
                # Shown first and lost, or trimmed before anybody else saw it: nobody can say.
                self.ledger.counts["pieces that nobody else saw"] += 1
        self.pieces.clear()

    def _compare_writers(self, earliest: int, read: Sequence[bytes]) -> None:
        found: dict[str, list[int]] = {name: [] for name in self.writers}
        shared = 0 if self.fork is None else self.fork[1]
        for position, record in enumerate(read, earliest + 1):
            whose = origin(record)
            if position <= shared:
                self._compare_shared(position, record)
            elif whose is None or whose[0] not in found:
                self.fault("made up", f"{_short(record)} at {position}")
            else:
                found[whose[0]].append(whose[1])
                if payload(*whose, self.content_type) != record:
                    self.fault("made up", f"{_short(record)} at {position} is not what was sent")
        for name, numbers in found.items():
            self._compare_writer(self.writers[name], numbers, earliest)

    def _compare_shared(self, position: int, record: bytes) -> None:
        assert self.fork is not None
        known = self.fork[0].records.get(position)
        if known is not None and known != record:
            self.fault("taken back from a reader", f"{_short(record)} at {position} of a fork")

    def _compare_writer(self, writer: Writer, numbers: list[int], earliest: int) -> None:
        present = set(numbers)
        for before, after in pairwise(numbers):
            if after <= before:
                again = len(present) < len(numbers)
                kind = "duplicated" if again else "reordered"
                self.fault(kind, f"{writer.name}: {after} after {before}")
        # What retention dropped lies before the first that is kept.
        cut = numbers[0] if earliest and numbers else 0
        for batch in writer.batches:
            wanted = [n for n in range(batch.first, batch.stop) if n >= cut]
            there = sum(n in present for n in wanted)
            is_past = earliest and not numbers and (batch.last or 0) <= earliest
            if batch.state == "acked" and there < len(wanted) and not is_past:
                self.fault("lost of acknowledged", f"{writer.name}: {there} of {batch}")
            elif batch.state == "unknown" and there not in (0, len(wanted)):
                self.fault("torn batch", f"{writer.name}: {there} of {batch}")
            elif batch.state == "refused" and there:
                self.fault("made up", f"{writer.name}: {batch} was refused")
        beyond = [n for n in present if n >= writer.next]
        if beyond and not self.waits:
            self.fault("made up", f"{writer.name}: {beyond[:5]} were never sent")
        if self.waits and numbers != list(range(len(numbers))):
            self.fault("lost of acknowledged", f"{writer.name}: it counts {numbers[:9]}…")
        self._forget_past(writer, cut)

    def _forget_past(self, writer: Writer, cut: int) -> None:
        writer.batches = [batch for batch in writer.batches if batch.stop > cut]


class Ledger:
    """Every log, what was counted, and what is wrong."""

    def __init__(self, *, is_eager: bool = False) -> None:
        self.is_eager = is_eager
        self.logs: list[Log] = []
        self.faults: list[Fault] = []
        self.counts: Counter[str] = Counter()
        self.lives = 0
        self.hear: Callable[[Log, int], None] | None = None
        """Called with how many records somebody was shown, at once."""

    def log(self, name: str, content_type: str, *, waits: bool = False) -> Log:
        """Begin a life of a name."""
        log = Log(self, name, content_type, waits=waits)
        self.logs.append(log)
        return log

    def shown(self, log: Log, count: int) -> None:
        """Count what a reader was shown."""
        self.counts["records shown"] += count
        if self.hear is not None:
            self.hear(log, count)

    def fault(self, kind: str, log: str, what: str) -> None:
        assert kind in KINDS, kind
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(kind, log, what))


def _short(record: bytes) -> str:
    return repr(record) if len(record) < 60 else f"{record[:50]!r}… of {len(record)} bytes"

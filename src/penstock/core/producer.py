"""Producers: who may append next, so that a retry appends once and a ghost not at all.

Two rules stand at the door of a log, and this machine is both:

- An *idempotent producer* stamps each of its requests with its id, an epoch and a sequence
  number. Within an epoch the numbers begin at 0 and have no gaps: what was appended already is
  a duplicate, which succeeds and appends nothing. A later epoch fences the earlier one off: a
  process that was taken for dead and comes back is told so.
- `Stream-Seq` is one rising text a stream, for writers that agree on an order by themselves.

The order in which they speak is the protocol's: a fenced producer is told that first, then a
duplicate succeeds (also when the stream has ended since), then an ended log refuses, then come
gaps and the sequence. `admit` decides and changes nothing; `passed` notes an append that was
committed. A backend keeps both with the log, in the same commit. (Durable Streams 1.0, 5.2.1.)
"""

from __future__ import annotations

from typing import Final, NamedTuple

from penstock.core.errors import (
    ProducerEpochInvalid,
    ProducerFenced,
    ProducerGap,
    SequenceConflict,
    StreamEnded,
)
from penstock.core.limits import MAX_PRODUCERS
from penstock.core.record import EndReason

MAX_NUMBER: Final = 2**53 - 1
"""Highest epoch and sequence number: what a JavaScript number holds exactly."""


class Stamp(NamedTuple):
    """What an idempotent producer writes on a request."""

    producer: str
    epoch: int
    seq: int


class Gate:
    """One log's producers and its last `Stream-Seq`. Bounded: the producers that appended
    longest ago are forgotten above `max_producers`, and count as new when they come back."""

    __slots__ = ("_known", "_max", "seq")

    def __init__(self, seq: str = "", max_producers: int = MAX_PRODUCERS) -> None:
        self.seq = seq
        self._known: dict[str, tuple[int, int]] = {}
        self._max = max_producers

    def admit(
        self, name: str, end: EndReason | None, stamp: Stamp | None, seq: str | None
    ) -> int | None:
        """Decide on an append to the log `name`, which has ended or not.

        None lets it in. A number says that it was appended before: it is the producer's newest
        sequence number. Raises ProducerFenced, StreamEnded, ProducerEpochInvalid, ProducerGap,
        SequenceConflict.
        """
        state = None if stamp is None else self._known.get(stamp.producer)
        if stamp is not None and state is not None:
            epoch, newest = state
            if stamp.epoch < epoch:
                raise ProducerFenced(stamp.producer, epoch)
            if stamp.epoch == epoch and stamp.seq <= newest:
                return newest
        if end is not None:
            raise StreamEnded(name, end)
        if stamp is not None:
            _follows(stamp, state)
        if seq is not None and seq <= self.seq:
            raise SequenceConflict(seq, self.seq)
        return None

    def passed(self, stamp: Stamp | None, seq: str | None) -> None:
        """Note an append that was let in and is committed."""
        if stamp is not None:
            self.restore(stamp)
        if seq is not None:
            self.seq = seq

    def restore(self, stamp: Stamp) -> None:
        """Know a producer's newest append, as a store remembers it."""
        known = self._known
        known.pop(stamp.producer, None)  # to the end: the order is that of the last append
        known[stamp.producer] = (stamp.epoch, stamp.seq)
        if len(known) > self._max:
            del known[next(iter(known))]

    def knows(self, producer: str) -> bool:
        """Whether a producer's state is here."""
        return producer in self._known


def _follows(stamp: Stamp, state: tuple[int, int] | None) -> None:
    """Refuse an append that is not its producer's next."""
    if state is None:
        expected = 0
    elif stamp.epoch > state[0]:
        if stamp.seq:
            raise ProducerEpochInvalid(stamp.producer, stamp.seq)
        return
    else:
        expected = state[1] + 1
    if stamp.seq != expected:
        raise ProducerGap(stamp.producer, expected, stamp.seq)

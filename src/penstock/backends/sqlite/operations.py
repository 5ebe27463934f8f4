"""What the event loop asks of the writer of a `sqlite://` file, and what the writer tells it.

Operations go through one queue and are judged in its order; what comes of a group of them comes
back at once, after the group's commit.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from penstock.backends.interface import Counted, Fork, StreamConfig
from penstock.core.errors import PenstockError
from penstock.core.log import Head
from penstock.core.producer import Stamp
from penstock.core.record import EndReason, NewRecord

# What comes of an operation is known to whoever made it: the futures hold different things.
Answer = Future[Any]


@dataclass(slots=True)
class Create:
    name: str
    config: StreamConfig
    opening: Sequence[NewRecord]
    end: EndReason | None
    fork: Fork | None
    size: int
    answer: Answer | None


@dataclass(slots=True)
class Append:
    """One without an answer is an `append_nowait`."""

    name: str
    batch: Sequence[NewRecord]
    end: EndReason | None
    stamp: Stamp | None
    seq: str | None
    size: int
    answer: Answer | None


@dataclass(slots=True)
class Look:
    name: str
    answer: Answer | None
    size: int = 0


@dataclass(slots=True)
class Delete:
    name: str
    answer: Answer | None
    size: int = 0


@dataclass(slots=True)
class Sweep:
    max_streams: int
    answer: Answer | None
    size: int = 0


@dataclass(slots=True)
class StoreDocument:
    kind: str
    name: str
    body: bytes | None
    answer: Answer | None
    size: int = 0


@dataclass(slots=True)
class Close:
    answer: Answer | None
    size: int = 0


Operation = Create | Append | Look | Delete | Sweep | StoreDocument | Close


class Committed(NamedTuple):
    """A batch lies at the positions after `first`."""

    name: str
    first: int
    batch: Sequence[NewRecord]
    at: float
    head: Head


class Trimmed(NamedTuple):
    name: str
    head: Head


class Ended(NamedTuple):
    name: str
    head: Head


class Deleted(NamedTuple):
    name: str
    head: Head


class Restarted(NamedTuple):
    name: str
    head: Head


News = Committed | Trimmed | Ended | Deleted | Restarted


class Outcome(NamedTuple):
    """What came of an operation: a value, or why not."""

    operation: Operation
    value: object
    error: PenstockError | None = None


class Report(NamedTuple):
    """What the writer tells the event loop after a group."""

    news: Sequence[News]
    outcomes: Sequence[Outcome]
    counts: Counted

"""What a place to keep logs must do: six methods, and capabilities beside them.

A backend assigns offsets, at commit; nobody else computes one. A record that was handed to a
listener or returned by `read` is committed: nothing a restart could take back is ever shown.
Positions increase and need not be dense.

What only some engines can do (appending without waiting, leases, forks) is a capability: a
protocol of its own, which a backend has or has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from penstock.core.cursor import Offset
from penstock.core.log import Head, Retention
from penstock.core.record import EndReason, NewRecord, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """What a stream is created with. Two creates agree when these are equal."""

    content_type: str = "application/json"
    retention: Retention = field(default_factory=Retention)


class Listener(Protocol):
    """Who wants to hear of every commit of one stream. Called in the event loop; must not block."""

    def committed(self, records: Sequence[Record], head: Head) -> None:
        """Take records, in order, each once. `head` is the log's state after them."""
        ...

    def trimmed(self, head: Head) -> None:
        """Take where the log begins, after records became too old without a commit."""
        ...

    def ended(self, head: Head) -> None:
        """Take the end: no record follows. Called once, also when it had ended before."""
        ...


class Watch(Protocol):
    """A listener's registration."""

    def cancel(self) -> None:
        """Stop hearing. Safe to call twice."""
        ...


class Backend(Protocol):
    """A store of logs, as the hub uses it. Cancelling any of the coroutines leaves the store in
    the state before or after the call, never between."""

    async def create(self, name: str, config: StreamConfig) -> tuple[Head, bool]:
        """Create a stream; returns its head and whether it is new.

        Raises StreamConflict when it exists with another configuration, StoreFull when there is
        no room for one more.
        """
        ...

    async def append(
        self, name: str, batch: Sequence[NewRecord], *, end: EndReason | None = None
    ) -> Offset:
        """Append all of a batch or nothing, and end the stream with it when `end` is given.

        Returns the tail after commit. An empty batch with an end only ends; ending a stream that
        has ended is no error when the batch is empty, and the first reason stands. Raises
        StreamNotFound, StreamEnded, StoreFull.
        """
        ...

    async def read(
        self, name: str, after: int, max_records: int, max_bytes: int
    ) -> Sequence[Record]:
        """Give records after a position, oldest first: at least one where there is one, then as
        many as fit. From before the earliest kept it gives the earliest kept. Raises
        StreamNotFound."""
        ...

    async def head(self, name: str) -> tuple[Head, StreamConfig]:
        """Say where a stream stands, and how it was created. Raises StreamNotFound."""
        ...

    async def delete(self, name: str) -> None:
        """Forget a stream. Its watches hear `ended` with the reason `lost` unless it had ended.
        Raises StreamNotFound."""
        ...

    def watch(self, name: str, after: int, listener: Listener) -> Watch:
        """Call a listener with every record after a position, from now until cancelled.

        One watch a stream and node is meant: it is the node's tail, shared by all its readers.
        """
        ...


@runtime_checkable
class AppendsNow(Protocol):
    """A backend that can take an append without waiting for its commit."""

    def append_nowait(self, name: str, batch: Sequence[NewRecord]) -> None:
        """Queue a batch for the next commit. Raises StreamNotFound, StreamEnded, StoreFull, and
        AppendWindowFull when too much waits already."""
        ...


@runtime_checkable
class ReadsNow(Protocol):
    """A backend whose records lie in this process's memory: reading them needs no waiting."""

    def read_now(self, name: str, after: int, max_records: int, max_bytes: int) -> Sequence[Record]:
        """As `Backend.read`, at once."""
        ...


@runtime_checkable
class Trims(Protocol):
    """A backend whose retention by age has to be asked for."""

    def trim(self, max_streams: int) -> int:
        """Drop what is too old in at most that many streams, going round; returns the records
        dropped. The hub calls it once a second, so no call takes long."""
        ...

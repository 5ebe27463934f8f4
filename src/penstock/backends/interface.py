"""What a place to keep logs must do: six methods, and capabilities beside them.

A backend assigns offsets, at commit; nobody else computes one. A record that was handed to a
listener or returned by `read` is committed: nothing a restart could take back is ever shown,
unless the backend was told to show first (`durability="eager"`), and then a restart that lost
something changes the epoch. Positions increase and need not be dense.

What only some engines can do (appending without waiting, forks, listing) is a capability: a
protocol of its own, which a backend has or has not. `penstock.testing.contract` is the suite that
every backend passes, and that yours can be run against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from penstock.core.cursor import Offset
from penstock.core.log import Head, Retention
from penstock.core.producer import Stamp
from penstock.core.record import EndReason, NewRecord, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Where a stream branched off: after `at` of its source, or at the tail it had then.

    `sub` goes that much further into what follows `at`: records of a JSON stream, bytes of the
    next record of any other.
    """

    source: str
    at: Offset | None = None
    sub: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """What a stream is created with. Two creates agree when these are equal.

    A stream is forgotten `ttl_s` after it was last read or appended to, at `expires_at` (seconds
    since 1970), or `ended_ttl_s` after its end; whichever of them are given. `is_produced`: a
    process feeds it, and when that is gone the stream ends `lost`.
    """

    content_type: str = "application/json"
    retention: Retention = field(default_factory=Retention)
    ttl_s: int | None = None
    expires_at: float | None = None
    fork: Fork | None = None
    ended_ttl_s: float | None = field(default=None, compare=False)
    is_produced: bool = field(default=False, compare=False)


class Appended(NamedTuple):
    """What came of an append: the tail after it and, of a stamped one, its producer's newest
    sequence number. A duplicate appended nothing. `end` is set when the stream has ended."""

    offset: Offset
    end: EndReason | None = None
    seq: int = 0
    is_duplicate: bool = False


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

    def deleted(self) -> None:
        """The stream is gone, by a delete or because its time was over. The last call; `ended`
        came before it, with the reason `lost` where the stream had not ended."""
        ...

    def restarted(self, head: Head) -> None:
        """The log lost records that were shown, and goes on in a later epoch from `head`."""
        ...


class Watch(Protocol):
    """A listener's registration."""

    def cancel(self) -> None:
        """Stop hearing. Safe to call twice."""
        ...


class Backend(Protocol):
    """A store of logs, as the hub uses it.

    Cancelling any of the coroutines leaves the store in the state before or after the call,
    never between. Everything about one stream raises StreamNotFound where there is none (its time
    being over included), and StreamGone where it was deleted while forks of it live on. A store
    that cannot be used raises StoreFailed, DiskFull or StoreDamaged; nothing was stored then.
    """

    async def create(
        self,
        name: str,
        config: StreamConfig,
        opening: Sequence[NewRecord] = (),
        *,
        end: EndReason | None = None,
    ) -> tuple[Head, bool]:
        """Create a stream with its first records, in one commit; gives its head and whether it is
        new. One that is there is left as it is.

        Raises StreamConflict when it exists with another configuration (or was deleted and its
        forks hold its name), StoreFull when there is no room for one more.
        """
        ...

    async def append(
        self,
        name: str,
        batch: Sequence[NewRecord],
        *,
        end: EndReason | None = None,
        stamp: Stamp | None = None,
        seq: str | None = None,
    ) -> Appended:
        """Append all of a batch or nothing, and end the stream with it when `end` is given.

        Returns after commit. An empty batch with an end only ends; ending a stream that has ended
        is no error when the batch is empty and has no stamp, and the first reason stands. `stamp`
        and `seq` are judged by `core.producer.Gate` and kept with the log, in the same commit;
        raises what that raises, StreamEnded and StoreFull.
        """
        ...

    async def read(
        self, name: str, after: int, max_records: int, max_bytes: int
    ) -> Sequence[Record]:
        """Give records after a position, oldest first: at least one where there is one, then as
        many as fit. From before the earliest kept it gives the earliest kept."""
        ...

    async def head(self, name: str) -> tuple[Head, StreamConfig]:
        """Say where a stream stands, and how it was created."""
        ...

    async def delete(self, name: str) -> None:
        """Forget a stream. Its records stay for its forks as long as there are any."""
        ...

    def watch(self, name: str, after: int, listener: Listener) -> Watch:
        """Call a listener with every record after a position, from now until cancelled.

        One watch a stream and node is meant: it is the node's tail, shared by all its readers.
        """
        ...


@runtime_checkable
class Opens(Protocol):
    """A backend that must be opened before its first use, in the event loop that uses it."""

    async def open(self) -> None:
        """Open the store. Raises StoreLocked, StoreForeign, StoreDamaged, StoreFailed. Safe to
        call when it is open."""
        ...

    async def close(self) -> None:
        """Commit what waits and close. Safe to call twice; it can be opened again."""
        ...


@runtime_checkable
class AppendsNow(Protocol):
    """A backend that can take an append without waiting for its commit."""

    def append_nowait(self, name: str, batch: Sequence[NewRecord]) -> None:
        """Queue a batch for the next commit. Raises StreamNotFound, StreamEnded, StoreFull, and
        AppendWindowFull when too much waits already."""
        ...


@runtime_checkable
class CommitsNow(Protocol):
    """A backend whose commits need no waiting."""

    def append_now(
        self,
        name: str,
        batch: Sequence[NewRecord],
        *,
        end: EndReason | None = None,
        stamp: Stamp | None = None,
        seq: str | None = None,
    ) -> Appended:
        """As `Backend.append`, at once."""
        ...


@runtime_checkable
class ReadsNow(Protocol):
    """A backend whose records lie in this process's memory: reading them needs no waiting, an
    append commits before it returns, and a stream costs the same whether it is used or not."""

    def read_now(self, name: str, after: int, max_records: int, max_bytes: int) -> Sequence[Record]:
        """As `Backend.read`, at once."""
        ...


class Joined(NamedTuple):
    """Payloads of consecutive records as one run of bytes: the position of the last of them (that
    which was asked for, where there is none), and how many they are."""

    body: bytes
    position: int
    records: int


@runtime_checkable
class Joins(Protocol):
    """A backend that can put payloads together itself, for less than giving each of them."""

    async def read_joined(
        self, name: str, after: int, upto: int, max_records: int, max_bytes: int, separator: bytes
    ) -> Joined:
        """As `Backend.read`, no further than `upto`, with a separator between the payloads."""
        ...


@runtime_checkable
class Forks(Protocol):
    """A backend that can branch a stream off another without copying what they share."""

    async def fork(
        self,
        name: str,
        fork: Fork,
        config: StreamConfig,
        opening: Sequence[NewRecord] = (),
        *,
        end: EndReason | None = None,
    ) -> tuple[Head, StreamConfig, bool]:
        """As `create`, beginning with what the source holds up to the fork; gives the
        configuration too. Offsets up to there are the source's, and the epoch is.

        Of `config` an empty `content_type` is the source's, and so is the expiry where neither
        `ttl_s` nor `expires_at` is given. Raises ForkInvalid, StreamConflict for another content
        type, OffsetGone, and of the source StreamNotFound; a source that was deleted while forks
        of it live on is a StreamConflict.
        """
        ...


@runtime_checkable
class Sweeps(Protocol):
    """A backend whose retention by age and whose expiry have to be asked for."""

    def touch(self, name: str) -> None:
        """Count a read as use: what expires after silence begins it anew, and an ended stream is
        kept a little longer under its readers' hands. Unknown names are ignored."""
        ...

    async def sweep(self, max_streams: int) -> int:
        """Drop what is too old and forget what has expired, in at most that many streams, going
        round; gives how many records and streams went. The hub calls it once a second, so no call
        takes long. Watches hear of it."""
        ...


class Listed(NamedTuple):
    """One stream of a listing."""

    name: str
    head: Head
    config: StreamConfig


@runtime_checkable
class Lists(Protocol):
    """A backend that can say what it holds."""

    async def list(self, prefix: str, after: str, limit: int) -> Sequence[Listed]:
        """Give streams in the order of their names (as code points), those that begin with
        `prefix`, from after `after`, at most `limit`."""
        ...


@runtime_checkable
class Counts(Protocol):
    """A backend that counts for the metrics, without waiting."""

    @property
    def counts(self) -> Counted:
        """What is kept and what was written until now."""
        ...


class Counted(NamedTuple):
    """Streams that are open and that have ended; bytes kept (in memory, or in the file); commits:
    writes to the store since it was opened, each a group of appends."""

    running: int
    ended: int
    bytes: int
    commits: int


@runtime_checkable
class Documents(Protocol):
    """A backend that keeps small documents beside its logs, such as who subscribed to what."""

    async def load_documents(self, kind: str) -> dict[str, bytes]:
        """Give every document of a kind by name."""
        ...

    async def store_document(self, kind: str, name: str, body: bytes | None) -> None:
        """Store a document, or with None forget it. Returns after commit."""
        ...

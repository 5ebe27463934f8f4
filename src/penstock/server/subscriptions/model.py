"""What a subscription is: how it was asked for, whom it follows, and the wake that is under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgspec

from penstock.core.cursor import BEGINNING, Offset
from penstock.core.limits import LEASE_MS
from penstock.server.subscriptions.glob import Glob


class Kind(StrEnum):
    """How a subscriber hears that there is work."""

    WEBHOOK = "webhook"
    PULL_WAKE = "pull-wake"


class Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a subscription was asked for with. Two of the same id agree when these are equal, so
    `streams` are sorted and without doubles."""

    type: Kind
    pattern: str = ""
    streams: tuple[str, ...] = ()
    url: str = ""
    wake_stream: str = ""
    lease_ms: int = LEASE_MS
    description: str = ""


@dataclass(slots=True)
class Link:
    """A stream that a subscription follows.

    `acked` is how far its work is done: None from the beginning. `tail` is where the stream
    stands: None while there is no such stream, or its tail is not known yet. A link that
    `is_settling` begins at the tail the stream turns out to have.
    """

    is_explicit: bool
    acked: Offset | None = None
    tail: Offset | None = None
    is_settling: bool = False
    is_kept: bool = False  # in the store, or about to be

    @property
    def is_pending(self) -> bool:
        """Whether something follows what is acknowledged."""
        if self.tail is None or self.is_settling:
            return False
        return self.acked is None or self.tail > self.acked


@dataclass(slots=True)
class Wake:
    """One call to work. At any time one of these holds:

    - `due_at` is set: it is to be announced at that time.
    - `due_at` and `lease_until` are None: a wake record was written; nobody has claimed it yet.
    - `lease_until` is set: a receiver or a worker (`holder`) has it until then.
    """

    id: str
    generation: int
    cause: str
    due_at: float | None
    lease_until: float | None = None
    holder: str = ""
    is_answered: bool = False  # by a callback, since it was last announced

    @property
    def deadline(self) -> float | None:
        """When something has to happen if nobody does anything."""
        return self.lease_until if self.due_at is None else self.due_at


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscription. `base_url` is where its subscriber reached this server: callbacks go there.

    `announcing` is the wake whose delivery is under way: there is one at a time, also when that
    wake is over before its delivery is. A subscription that is not open yet is never woken.
    """

    id: str
    config: Config
    created_at: str
    base_url: str
    glob: Glob | None
    links: dict[str, Link] = field(default_factory=dict[str, Link])
    pending: dict[str, None] = field(default_factory=dict[str, None])
    generation: int = 0
    wake: Wake | None = None
    retries: int = 0
    announcing: str = ""
    is_open: bool = False
    gone: set[str] = field(default_factory=set[str])  # streams deleted before it was open
    is_full: bool = False  # it could not follow a stream, and somebody was told

    @property
    def lease_s(self) -> float:
        return self.config.lease_ms / 1000

    @property
    def is_failing(self) -> bool:
        """Whether the newest announcement failed and waits for its next try."""
        return self.retries > 0 and self.wake is not None and self.wake.due_at is not None

    def matches(self, name: str) -> bool:
        """Whether the pattern means a stream. Its own wake stream it never does: that would wake
        it for having been woken."""
        if self.glob is None or name == self.config.wake_stream or name.startswith("__"):
            return False  # the last are the server's own
        return self.glob.matches(name)


class Info(NamedTuple):
    """A followed stream as subscribers are shown it."""

    path: str
    link_type: str
    acked_offset: str
    tail_offset: str
    has_pending: bool


def info(name: str, link: Link) -> Info:
    """Describe a link."""
    return Info(
        name,
        "explicit" if link.is_explicit else "glob",
        offset_text(link.acked),
        offset_text(link.tail),
        link.is_pending,
    )


def offset_text(offset: Offset | None) -> str:
    """Write an offset; None is the beginning."""
    return BEGINNING if offset is None else str(offset)

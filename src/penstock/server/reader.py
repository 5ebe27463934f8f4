"""A reader: one connection's place in one stream, whatever carries its bytes.

`step` turns the subscription's decision into the next body bytes; the two paths differ only in
how they hand them over (`fastpath.py` writes to a transport it has taken over, `portable.py`
awaits ASGI's `send`). An `if` about the protocol belongs here or below, never in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from penstock.core.cursor import Offset
from penstock.core.subscription import (
    End,
    Gap,
    GapReason,
    Leave,
    Read,
    State,
    Subscription,
    Wait,
)
from penstock.server.view import Slice

if TYPE_CHECKING:
    from penstock.server.stream import Stream
    from penstock.server.view import View


class Reader(ABC):
    """What both kinds of readers are. `opened_at` is the hub's clock at the request; `is_loading`
    says that older events are on their way from the store."""

    __slots__ = (
        "_had_record",
        "_is_greeted",
        "_piece",
        "ends_at",
        "is_loading",
        "is_paused",
        "is_visible",
        "opened_at",
        "stream",
        "subscription",
        "view",
    )

    transport_name = ""

    def __init__(
        self,
        stream: Stream,
        view: View,
        subscription: Subscription,
        *,
        opened_at: float,
        is_visible: bool = False,
        ends_at: float | None = None,
    ) -> None:
        self.stream = stream
        self.view: View = view
        self.view.settle(stream.hub.clock())
        self.subscription = subscription
        self.opened_at = opened_at
        self.is_visible = is_visible  # heartbeats as events, which a page can see
        self.ends_at = ends_at  # by the hub's clock: the body ends then, to be resumed
        self.is_paused = False
        self.is_loading = False
        self._piece: tuple[int, Slice | None] | None = None
        self._had_record = False
        self._is_greeted = False

    @property
    def is_done(self) -> bool:
        """Whether the last thing was said."""
        return self.subscription.state in (State.ENDED, State.LEFT)

    @property
    def lag(self) -> int:
        """Positions between the stream's tail and this reader's place; 0 while level."""
        if self.subscription.state is State.LIVE:
            return 0
        return max(0, self.view.head.tail - self.subscription.position)

    @property
    def place(self) -> int:
        """The position up to which it was handed everything; that of all, while level."""
        subscription = self.subscription
        is_level = subscription.state is State.LIVE
        return self.view.flushed if is_level else subscription.position

    def step(self) -> bytes | None:
        """Give the next body bytes, at most one write's worth, none while `is_loading`; None when
        level with the rest."""
        view, subscription = self.view, self.subscription
        was_level = subscription.state is State.LIVE
        match subscription.decide(view.seen):
            case Wait():
                is_ready = view.make_ready(subscription.position)
                return self._greet() if is_ready else self._load(subscription.position)
            case Read(after):
                return self._read(after, is_live=was_level)
            case Gap(asked, resume, reason):
                return self._tell_gap(asked, resume, reason)
            case End(reason):
                if not view.make_ready(subscription.position):
                    return self._load(subscription.position)
                subscription.finish()
                return view.form.end(view.head.tail_offset, reason)
            case Leave():
                place = self.place
                subscription.finish(left=True)
                return view.form.drain(self.stream.hub.draw_retry_ms(), place)

    def _tell_gap(self, asked: str, resume: int, reason: GapReason) -> bytes:
        self.stream.hub.hooks.gap(reason)
        form, subscription = self.view.form, self.subscription
        offset = Offset(self.view.head.epoch, resume)
        told = form.gap(asked, offset, reason, subscription.position)
        if form.ends_at_gap:
            subscription.finish(left=True)
        else:
            subscription.skip(resume)
        return told

    def _greet(self) -> bytes | None:
        if self._is_greeted:
            return None
        self._is_greeted = True
        return self.view.form.greeting(self.view.seen) or None

    def _read(self, after: int, *, is_live: bool) -> bytes:
        view = self.view
        piece = view.slice(after, view.flushed, is_live=is_live)
        if piece is None:
            asked, piece = self._piece or (-1, None)
            if asked != after or piece is None:
                return self._load(after)
            self._piece = None
        self._is_greeted = True
        self.subscription.advance(piece.position)
        self._count(piece.records, len(piece.body))
        return piece.body

    def _load(self, after: int) -> bytes:
        """Ask for what follows a place from the store; says the last of the body when that was
        done, and the store has nothing where the log says there is something. Never is a reader
        shown what follows as its next: it comes back."""
        asked, piece = self._piece or (-1, None)
        self._piece = None
        if asked == after and piece is None:
            self.subscription.finish(left=True)
            return self.view.form.broken(after)
        self.is_loading = True
        self.stream.load(self.view, after, self)
        return b""

    def loaded(self, after: int, piece: Slice | None) -> None:
        """Take what the store had after a position, and go on."""
        self.is_loading = False
        self._piece = (after, piece)
        self.wake()

    def heartbeat_bytes(self) -> bytes:
        """A sign of life: a comment, or an event where the page asked to see it."""
        view = self.view
        tail = Offset(view.head.epoch, view.flushed)
        return view.form.heartbeat(tail, is_visible=self.is_visible)

    def _count(self, records: int, size: int) -> None:
        hub = self.stream.hub
        hub.hooks.delivered(records, size)
        if records and not self._had_record:
            self._had_record = True
            hub.hooks.first_event(hub.clock() - self.opened_at)

    # What `view.Sink` and the hub ask of every reader.

    def fall_behind(self, position: int) -> None:
        self.subscription.fall_behind(position)

    @abstractmethod
    def wake(self) -> None:
        """The tail moved, or the end came, or what was asked for is here: go on."""

    @abstractmethod
    def heartbeat(self) -> None:
        """Show a sign of life."""

    @abstractmethod
    def drain(self, retry_ms: int, reason: str = "drained") -> None:
        """Tell the reader when to come back, and end its body cleanly."""

    @abstractmethod
    def abort(self) -> None:
        """Cut the connection now."""

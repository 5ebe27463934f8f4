"""A reader: one connection's place in one stream, whatever carries its bytes.

`step` turns the subscription's decision into the next body bytes; the two paths differ only in
how they hand them over (`fastpath.py` writes to a transport it has taken over, `portable.py`
awaits ASGI's `send`). An `if` about the protocol belongs here or below, never in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from penstock.core.cursor import Offset
from penstock.core.subscription import End, Gap, Leave, Read, State, Subscription, Wait
from penstock.wire import native

if TYPE_CHECKING:
    from penstock.server.stream import Stream
    from penstock.server.view import View


class Reader(ABC):
    """What both kinds of readers are. `opened_at` is the hub's clock at the request."""

    __slots__ = (
        "_had_record",
        "is_paused",
        "is_visible",
        "opened_at",
        "stream",
        "subscription",
        "view",
    )

    transport_name = ""

    def __init__(
        self, stream: Stream, subscription: Subscription, *, opened_at: float, is_visible: bool
    ) -> None:
        self.stream = stream
        self.view: View = stream.view()
        self.view.settle(stream.hub.clock())
        self.subscription = subscription
        self.opened_at = opened_at
        self.is_visible = is_visible  # heartbeats as events, which a page can see
        self.is_paused = False
        self._had_record = False

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

    def step(self) -> bytes | None:
        """Give the next body bytes, at most one write's worth; None when level with the rest."""
        view, subscription = self.view, self.subscription
        match subscription.decide(view.seen):
            case Wait():
                return None
            case Read(after):
                body, position, count = view.slice(after, view.flushed)
                subscription.advance(position)
                self._count(count, len(body))
                return body
            case Gap(asked, resume, reason):
                self.stream.hub.hooks.gap(reason)
                subscription.skip(resume)
                return native.gap_event(asked, Offset(view.head.epoch, resume), reason)
            case End(reason):
                subscription.finish()
                return native.end_event(view.head.tail_offset, reason)
            case Leave():
                subscription.finish(left=True)
                return native.drain_event(self.stream.hub.draw_retry_ms())

    def heartbeat_bytes(self) -> bytes:
        """A sign of life: a comment, or an event where the page asked to see it."""
        if self.is_visible:
            return native.status_event(Offset(self.view.head.epoch, self.view.flushed))
        return native.HEARTBEAT

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
        """The tail moved, or the end came: go on."""

    @abstractmethod
    def heartbeat(self) -> None:
        """Show a sign of life."""

    @abstractmethod
    def drain(self, retry_ms: int) -> None:
        """Tell the reader when to come back, and end its body cleanly."""

    @abstractmethod
    def abort(self) -> None:
        """Cut the connection now."""

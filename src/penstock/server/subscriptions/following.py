"""Who follows which streams, and how far each has come. No IO.

A stream that is there when it is linked is followed from its tail, one that comes later from its
beginning. Links by pattern go with their stream; explicit ones wait for another of that name. An
append costs one lookup where nobody follows the stream.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from penstock.core.cursor import Offset
from penstock.core.errors import StoreFull, SubscriptionInvalid, SubscriptionNotFound
from penstock.core.limits import (
    MAX_FOLLOWED,
    MAX_FOLLOWED_IN_ALL,
    MAX_SUBSCRIPTIONS,
)
from penstock.core.log import Head
from penstock.server.subscriptions.model import Link, Subscription


class Changes(NamedTuple):
    """What is to be stored: subscriptions by id, cursors by id and stream."""

    subscriptions: Collection[str]
    cursors: Collection[tuple[str, str]]


class Following:
    """Every subscription of a hub, by id and by the streams it follows.

    `changed` and `moved` are what differs from the store: ids of subscriptions, and of cursors the
    id and the stream. `take_changes` hands them to whoever stores them, one at a time.
    """

    def __init__(self) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.changed: dict[str, None] = {}
        self.moved: dict[tuple[str, str], None] = {}
        self.overflowed: list[tuple[str, str]] = []  # who could not follow what, the first time
        self._taken = Changes((), ())
        self._followers: dict[str, list[Subscription]] = {}
        self._opening: set[Subscription] = set()
        self._round: list[str] = []
        self._links = 0

    def get(self, id: str) -> Subscription:
        """Give a subscription that is open. Raises SubscriptionNotFound."""
        found = self.subscriptions.get(id)
        if found is None or not found.is_open:
            raise SubscriptionNotFound(id)
        return found

    def add(self, sub: Subscription) -> None:
        """Take a subscription that is not open yet. Raises StoreFull."""
        if len(self.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise StoreFull("subscriptions", MAX_SUBSCRIPTIONS)
        self.subscriptions[sub.id] = sub
        self._opening.add(sub)
        self.changed[sub.id] = None

    def opened(self, sub: Subscription) -> None:
        """Open a subscription: from now on it can be woken."""
        self._opening.discard(sub)
        sub.gone.clear()
        sub.is_open = True

    def remove(self, sub: Subscription) -> None:
        """Forget a subscription and its cursors."""
        for name in list(sub.links):
            self.unlink(sub, name)
        self._opening.discard(sub)
        del self.subscriptions[sub.id]
        self.changed[sub.id] = None

    # storing

    @property
    def has_changes(self) -> bool:
        """Whether something is to be stored."""
        return bool(self.changed or self.moved)

    def take_changes(self) -> Changes:
        """Give what is to be stored. Say `stored` or `not_stored` before the next."""
        self._taken = Changes(self.changed.keys(), self.moved.keys())
        self.changed, self.moved = {}, {}
        return self._taken

    def stored(self) -> None:
        """Take that the changes are in the store."""
        self._taken = Changes((), ())

    def not_stored(self) -> None:
        """Take that some of the changes may not be in the store: they are to be stored again."""
        self.changed.update(dict.fromkeys(self._taken.subscriptions))
        self.moved.update(dict.fromkeys(self._taken.cursors))
        self._taken = Changes((), ())

    def is_stored(self, id: str) -> bool:
        """Whether the store has a subscription as it is."""
        return id not in self.changed and id not in self._taken.subscriptions

    # links

    def link(self, sub: Subscription, name: str, *, is_explicit: bool, settling: bool) -> Link:
        """Follow a stream; gives the link that is there if it is followed already.

        Raises SubscriptionInvalid, StoreFull.
        """
        link = sub.links.get(name)
        if link is None:
            if name == sub.config.wake_stream:
                raise SubscriptionInvalid(f"would be woken for having been woken: {name!r}")
            if len(sub.links) >= MAX_FOLLOWED:
                raise StoreFull("streams followed by one subscription", MAX_FOLLOWED)
            if self._links >= MAX_FOLLOWED_IN_ALL:
                raise StoreFull("streams followed by subscriptions", MAX_FOLLOWED_IN_ALL)
            link = sub.links[name] = Link(is_explicit, is_settling=settling)
            self._followers.setdefault(name, []).append(sub)
            self._links += 1
        elif is_explicit and not link.is_explicit:
            link.is_explicit = True
            self._keep(sub, name, link)
        return link

    def unlink_settling(self, sub: Subscription) -> None:
        """Take back links that nobody will settle any more."""
        for name, link in list(sub.links.items()):
            if link.is_settling:
                self.unlink(sub, name)

    def unlink(self, sub: Subscription, name: str) -> None:
        """Follow a stream no longer."""
        link = sub.links.pop(name)
        sub.pending.pop(name, None)
        self._links -= 1
        followers = self._followers[name]
        followers.remove(sub)
        if not followers:
            del self._followers[name]
        if link.is_kept:
            self.moved[sub.id, name] = None

    def settle(self, sub: Subscription, name: str, tail: Offset | None) -> None:
        """Begin a link at the tail its stream has, unless that moved or went in the meantime."""
        link = sub.links.get(name)
        if link is None or not link.is_settling:
            return
        link.is_settling = False
        if tail is not None and name not in sub.gone and (link.tail is None or tail > link.tail):
            link.tail = tail
        link.acked = link.tail
        self._keep(sub, name, link)

    def backfill(self, sub: Subscription, name: str, tail: Offset) -> None:
        """Follow from its tail a stream that was there before the subscription, if meant."""
        if name not in sub.links and name not in sub.gone and sub.matches(name):
            self.link(sub, name, is_explicit=False, settling=True)
            self.settle(sub, name, tail)

    def remove_explicit(self, sub: Subscription, name: str) -> None:
        """Take an explicit link away; one by pattern stays where the pattern means the stream."""
        link = sub.links.get(name)
        if link is None or not link.is_explicit:
            return
        if link.tail is not None and sub.matches(name):
            link.is_explicit = False
            self._keep(sub, name, link)
        else:
            self.unlink(sub, name)

    def ack(self, sub: Subscription, name: str, offset: Offset) -> None:
        """Note how far a stream's work is done; never back."""
        link = sub.links.get(name)
        if link is None or (link.acked is not None and offset <= link.acked):
            return
        link.acked = offset
        self._note_pending(sub, name, link)
        self._keep(sub, name, link)

    # what streams do

    def created(self, name: str, head: Head) -> list[Subscription]:
        """Link a new stream; gives who has work by it. O(subscriptions)."""
        woken: list[Subscription] = []
        for sub in self.subscriptions.values():
            link = sub.links.get(name)
            if link is None and sub.matches(name):
                link = self._link_new(sub, name)
            if link is not None:
                sub.gone.discard(name)
                _begin(link, head)
                self._note_pending(sub, name, link)
                if link.is_pending:
                    woken.append(sub)
        return woken

    def appended(self, name: str, head: Head) -> Iterable[Subscription]:
        """Note an append; gives who has work by it."""
        for sub in self._opening:
            if name not in sub.links and sub.matches(name):
                # Between the request and its answer: the subscription begins after this.
                self.backfill(sub, name, head.tail_offset)
        followers = self._followers.get(name)
        if not followers:
            return ()
        tail = head.tail_offset
        for sub in followers:
            link = sub.links[name]
            if link.tail is None or tail > link.tail:
                link.tail = tail
            self._note_pending(sub, name, link)
        return followers

    def deleted(self, name: str) -> list[Subscription]:
        """Note that a stream is gone; gives who followed it."""
        for sub in self._opening:
            sub.gone.add(name)
        followers = list(self._followers.get(name, ()))
        for sub in followers:
            link = sub.links[name]
            if not link.is_explicit:
                self.unlink(sub, name)
                continue
            link.acked = link.tail = None
            link.is_settling = False
            sub.pending.pop(name, None)
            self._keep(sub, name, link)
        return followers

    def some(self, count: int) -> list[tuple[str, Offset]]:
        """Give some followed streams and the tails they have, going round."""
        if not self._round:
            self._round = list(self._followers)
        names, self._round = self._round[:count], self._round[count:]
        return [(name, tail) for name in names if (tail := self.tail(name)) is not None]

    def tail(self, name: str) -> Offset | None:
        """Where a followed stream stands."""
        followers = self._followers.get(name)
        return followers[0].links[name].tail if followers else None

    # after a restart

    def found(self, name: str, head: Head) -> None:
        """Tell every subscription of a stream that is there."""
        for sub in self.subscriptions.values():
            link = sub.links.get(name)
            if link is None and sub.matches(name):
                link = self._link_new(sub, name)
                if link is not None:
                    _begin(link, head)
            if link is not None:
                link.tail = max(link.tail or head.tail_offset, head.tail_offset)
                if link.acked is None and not head.records:
                    link.acked = link.tail
                self._note_pending(sub, name, link)

    def forget_lost(self) -> None:
        """Let go of streams that were not found: deleted, and nobody was there to hear it."""
        for sub in self.subscriptions.values():
            for name, link in list(sub.links.items()):
                if link.tail is None and not link.is_explicit:
                    self.unlink(sub, name)
                elif link.tail is None and link.acked is not None:
                    link.acked = None
                    self._keep(sub, name, link)

    def _link_new(self, sub: Subscription, name: str) -> Link | None:
        try:
            return self.link(sub, name, is_explicit=False, settling=False)
        except StoreFull:
            # A stream is not refused for its followers' sake.
            if not sub.is_full:
                sub.is_full = True
                self.overflowed.append((sub.id, name))
            return None

    def _keep(self, sub: Subscription, name: str, link: Link) -> None:
        # What a restart finds out by itself, a new stream meant by the pattern, is not stored.
        link.is_kept = True
        self.moved[sub.id, name] = None

    def _note_pending(self, sub: Subscription, name: str, link: Link) -> None:
        if link.is_pending:
            sub.pending[name] = None
        else:
            sub.pending.pop(name, None)


def _begin(link: Link, head: Head) -> None:
    """Begin a link with a new stream: at its first record, or where that is to come."""
    link.is_settling = False
    link.tail = head.tail_offset
    link.acked = None if head.records else link.tail

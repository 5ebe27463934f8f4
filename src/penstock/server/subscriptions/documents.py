"""What of a subscription survives a restart, as the documents a backend keeps.

A cursor is a document of its own, so that an acknowledgement writes what it moves and nothing
else. Deadlines are stored by the wall clock and read back as no later than they could have been,
so that a clock that was set back holds nobody's lease for a year.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.cursor import BEGINNING, parse_offset
from penstock.core.errors import PenstockError, StoreDamaged
from penstock.core.limits import WEBHOOK_RETRY_CAP_S, WEBHOOK_RETRY_JITTER
from penstock.server.subscriptions.following import Following
from penstock.server.subscriptions.glob import Glob
from penstock.server.subscriptions.model import Config, Subscription, Wake, offset_text

SUBSCRIPTIONS: Final = "subscription"
CURSORS: Final = "subscription-cursor"
KEYS: Final = "subscription-key"


class StoredWake(msgspec.Struct, kw_only=True, omit_defaults=True):
    id: str
    generation: int
    cause: str
    due_at: float | None = None
    lease_until: float | None = None
    holder: str = ""


class StoredSubscription(msgspec.Struct, kw_only=True, omit_defaults=True):
    config: Config
    created_at: str
    base_url: str
    generation: int = 0
    retries: int = 0
    wake: StoredWake | None = None


class StoredCursor(msgspec.Struct, kw_only=True, omit_defaults=True):
    acked: str = BEGINNING
    is_explicit: bool = False


def encode_subscription(following: Following, id: str, now: float, wall: float) -> bytes | None:
    """Write a subscription, or None where there is none any more."""
    sub = following.subscriptions.get(id)
    if sub is None:
        return None
    ahead = wall - now
    return msgspec.json.encode(
        StoredSubscription(
            config=sub.config,
            created_at=sub.created_at,
            base_url=sub.base_url,
            generation=sub.generation,
            retries=sub.retries,
            wake=None if sub.wake is None else _stored_wake(sub, sub.wake, now, ahead),
        )
    )


def _stored_wake(sub: Subscription, wake: Wake, now: float, ahead: float) -> StoredWake:
    due_at, lease_until = wake.due_at, wake.lease_until
    if sub.announcing == wake.id and not wake.is_answered and not wake.holder:
        due_at, lease_until = now, None  # nobody knows yet that it arrived
    return StoredWake(
        id=wake.id,
        generation=wake.generation,
        cause=wake.cause,
        due_at=None if due_at is None else due_at + ahead,
        lease_until=None if lease_until is None else lease_until + ahead,
        holder=wake.holder,
    )


def encode_cursor(following: Following, id: str, name: str) -> bytes | None:
    """Write a cursor, or None where there is none any more."""
    sub = following.subscriptions.get(id)
    link = None if sub is None else sub.links.get(name)
    if link is None:
        return None
    stored = StoredCursor(acked=offset_text(link.acked), is_explicit=link.is_explicit)
    return msgspec.json.encode(stored)


def cursor_name(id: str, name: str) -> str:
    """The name of a cursor's document. No id has a slash."""
    return f"{id}/{name}"


def restore(
    following: Following,
    subscriptions: dict[str, bytes],
    cursors: dict[str, bytes],
    now: float,
    wall: float,
) -> None:
    """Read everything back. Nothing is open yet, and no tail is known. Raises StoreDamaged."""
    for id, body in subscriptions.items():
        try:
            stored = msgspec.json.decode(body, type=StoredSubscription)
            following.add(_subscription(id, stored, now, wall))
        except (msgspec.MsgspecError, PenstockError) as error:
            raise StoreDamaged(f"subscription {id}", str(error)) from None
    following.changed.clear()
    for document, body in cursors.items():
        id, _, name = document.partition("/")
        sub = following.subscriptions.get(id)
        if sub is None:  # left behind by a crash in the middle of a delete
            following.moved[id, name] = None
            continue
        try:
            cursor = msgspec.json.decode(body, type=StoredCursor)
            link = following.link(sub, name, is_explicit=cursor.is_explicit, settling=False)
            link.acked = None if cursor.acked == BEGINNING else parse_offset(cursor.acked)
        except (msgspec.MsgspecError, PenstockError) as error:
            raise StoreDamaged(f"cursor {document}", str(error)) from None
        link.is_kept = True


def _subscription(id: str, stored: StoredSubscription, now: float, wall: float) -> Subscription:
    config = stored.config
    glob = Glob(config.pattern) if config.pattern else None
    sub = Subscription(id, config, stored.created_at, stored.base_url, glob)
    sub.generation, sub.retries = stored.generation, stored.retries
    wake = stored.wake
    if wake is not None:
        sub.wake = Wake(
            wake.id,
            wake.generation,
            wake.cause,
            _ahead(wake.due_at, WEBHOOK_RETRY_CAP_S * (1 + WEBHOOK_RETRY_JITTER), now, wall),
            _ahead(wake.lease_until, sub.lease_s, now, wall),
            wake.holder,
        )
    return sub


def _ahead(at: float | None, most_s: float, now: float, wall: float) -> float | None:
    return None if at is None else now + min(max(at - wall, 0.0), most_s)

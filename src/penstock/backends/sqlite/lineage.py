"""Where a stream's records lie: its own, and up to its base those of what it is a fork of.

Questions to the file that the writer and the readers both ask, each on a connection of its own.
Positions are dense: a stream's own records lie at `base + 1` and on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

FRONT: Final = 512
"""Oldest records of a stream whose sizes are read at once."""
Ask = Callable[[str, Sequence[Any]], list[Any]]
"""Runs a statement and gives its rows."""


class Place(NamedTuple):
    """What says where a stream's records lie: a row's id, base and parent."""

    id: int
    base: int
    parent: int | None


def segments(ask: Ask, place: Place, after: int, upto: int) -> list[tuple[int, int, int]]:
    """Cut the records between two positions by stream: id, after, up to; in order.

    Nothing where a source is gone: then so is the fork that was asked for.
    """
    id, base, parent = place
    found: list[tuple[int, int, int]] = []
    while True:
        if max(after, base) < upto:
            found.append((id, max(after, base), upto))
        upto = min(upto, base)
        if parent is None or upto <= after:
            return found[::-1]
        id = parent
        rows = ask("SELECT base, parent FROM streams WHERE id = ?", (id,))
        if not rows:
            return []
        ((base, parent),) = rows


def record_at(ask: Ask, place: Place, position: int) -> tuple[bytes, str, str] | None:
    """One record's payload, type and key."""
    sql = "SELECT payload, type, key FROM records WHERE stream = ? AND position = ?"
    for id, _, _ in segments(ask, place, position - 1, position):
        for row in ask(sql, (id, position)):
            return row
    return None


def size_between(ask: Ask, place: Place, after: int, upto: int) -> int:
    """Bytes of payloads, types and keys between two positions. O(records)."""
    sql = (
        "SELECT coalesce(sum(length(payload) + length(type) + length(key)), 0) FROM records"
        " WHERE stream = ? AND position > ? AND position <= ?"
    )
    return sum(ask(sql, segment)[0][0] for segment in segments(ask, place, after, upto))


def front(ask: Ask, place: Place, after: int, upto: int) -> list[tuple[int, int]]:
    """Sizes and times of the records that follow a position, some of them."""
    sql = (
        "SELECT group_concat(size), group_concat(at) FROM (SELECT at,"
        " length(payload) + length(type) + length(key) AS size FROM records"
        " WHERE stream = ? AND position > ? AND position <= ? ORDER BY position LIMIT ?)"
    )
    for segment in segments(ask, place, after, upto):
        ((sizes, times),) = ask(sql, (*segment, FRONT))
        if sizes:
            return list(zip(map(int, sizes.split(",")), map(int, times.split(",")), strict=True))
    return []

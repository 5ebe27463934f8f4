"""Merging: consecutive records that say together what one can say.

A record type can have a pure function `merge(a, b) -> payload | None`: the payload that stands for
both, or None where they cannot be one. It must not matter in which order neighbours are merged
(`merge(merge(a, b), c)` is `merge(a, merge(b, c))`). A merged record has the place of the last it
stands for, so that a reader who was shown it goes on right after it; the log itself is never
changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from penstock.core.record import Record

Merge = Callable[[bytes, bytes], bytes | None]


class Merges:
    """The record types that can be merged, each with its function."""

    __slots__ = ("_of_type",)

    def __init__(self, of_type: Mapping[str, Merge]) -> None:
        self._of_type = dict(of_type)

    def merged(self, records: Sequence[Record]) -> list[Record]:
        """Give the same content in as few records as their types allow, in the same order.

        Only neighbours of one type and key are merged. O(n log n) bytes for n bytes: runs are
        merged in pairs, then the pairs in pairs, since joining one by one would copy the front
        again for each.
        """
        shown: list[Record] = []
        run: list[Record] = []
        for record in records:
            if run and (record.type, record.key) != (run[0].type, run[0].key):
                shown += self._merged_run(run)
                run = []
            run.append(record)
        return shown + self._merged_run(run)

    def _merged_run(self, run: list[Record]) -> list[Record]:
        merge = self._of_type.get(run[0].type) if run else None
        if merge is None:
            return run
        while len(run) > 1:
            shorter = _in_pairs(run, merge)
            if len(shorter) == len(run):
                return run
            run = shorter
        return run


def _in_pairs(run: list[Record], merge: Merge) -> list[Record]:
    """Merge each record with the one after it, where they can be one."""
    shown: list[Record] = []
    index = 0
    while index < len(run):
        first = run[index]
        index += 1
        if index < len(run):
            second = run[index]
            payload = merge(first.payload, second.payload)
            if payload is not None:
                first = Record(second.position, payload, second.type, second.key, second.at)
                index += 1
        shown.append(first)
    return shown

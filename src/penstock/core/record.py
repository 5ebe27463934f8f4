"""A record: what the log holds.

Offset, optional type, optional key, payload. The payload is bytes that the log never looks into;
what they mean is said by the stream's content type. A transport shows a record as an event; the
names of events that transports use for themselves are refused as record types here, once, for
every transport.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from penstock.core.errors import RecordFieldMalformed, RecordTooLarge, RecordTypeReserved
from penstock.core.limits import MAX_KEY_BYTES, MAX_TYPE_BYTES

RESERVED_TYPES: Final = frozenset({"end", "gap", "cursor", "status", "drain", "error", "open"})
"""`error` and `open` because browsers dispatch them as events of their own."""


class EndReason(StrEnum):
    """How a stream ended. A reader is never left guessing whether an answer is whole."""

    COMPLETE = "complete"
    CANCELLED = "cancelled"
    FAILED = "failed"
    LIMIT = "limit"
    LOST = "lost"


class NewRecord(NamedTuple):
    """A record before the log has given it a place. `checked` makes one from outside input.

    A tuple, as `Record` is: one of each is made for every append, and a frozen dataclass costs
    three times that.
    """

    payload: bytes
    type: str = ""
    key: str = ""


class Record(NamedTuple):
    """A record in its place. `position` is the place after it, within its log's epoch."""

    position: int
    payload: bytes
    type: str = ""
    key: str = ""
    at: float = 0.0


class Batch(NamedTuple):
    """Records that a producer gives together: they are committed in one commit, and `end`, where
    there is one, is how the stream ends with that commit. Nothing follows a batch with an end."""

    records: Sequence[NewRecord]
    end: EndReason | None = None


def check(record: NewRecord, max_bytes: int) -> None:
    """Say what is wrong with a record, if anything is. Raises as `checked`."""
    if len(record.payload) > max_bytes:
        raise RecordTooLarge(len(record.payload), max_bytes)
    if record.type:
        _check_type(record.type)
    if record.key:
        check_field("key", record.key, MAX_KEY_BYTES)


@lru_cache(maxsize=256)
def _check_type(type: str) -> None:
    if type in RESERVED_TYPES:
        raise RecordTypeReserved(type)
    check_field("type", type, MAX_TYPE_BYTES)


def checked(payload: bytes, type: str, key: str, max_bytes: int) -> NewRecord:
    """Make a record of outside input, or say what is wrong with it.

    Raises RecordTooLarge, RecordTypeReserved, or RecordFieldMalformed (control characters, which
    could break out of a header or an event's field, and lengths above the limits).
    """
    if len(payload) > max_bytes:
        raise RecordTooLarge(len(payload), max_bytes)
    if type:
        if type in RESERVED_TYPES:
            raise RecordTypeReserved(type)
        check_field("type", type, MAX_TYPE_BYTES)
    if key:
        check_field("key", key, MAX_KEY_BYTES)
    return NewRecord(payload, type, key)


def check_field(field: str, text: str, max_bytes: int) -> None:
    """Refuse what cannot stand in one line of text: CR, LF, NUL and the other control characters,
    unpaired surrogates, and more than the limit."""
    # isprintable also refuses the separators U+2028 and U+2029, which some parsers end lines at.
    if not text.isprintable():
        raise RecordFieldMalformed(field, "has control characters; use printable text")
    if len(text.encode()) > max_bytes:
        raise RecordFieldMalformed(field, f"is longer than {max_bytes} bytes; shorten it")

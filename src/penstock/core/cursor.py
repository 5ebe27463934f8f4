"""Offsets: names of places in one stream, as text that sorts.

An offset is `EEEEE L P…`: five base-62 digits of the stream's epoch, one digit that says how many
digits follow, and the position in base 62. Written like that, offsets of one stream sort as bytes
in the order of the log, and the first fourteen million records need at most ten characters.

The epoch tells logs of the same name apart: a log that was lost and begun again has a higher one,
so an offset of the old log is recognised and never silently honoured. It is seconds since
2026-01-01T00:00:00Z at creation, or one more than the last, whichever is higher; five digits last
for 29 years.

The position in an offset is the place *after* a record: reading from an offset gives what follows
it. The end of a stream has a mark of its own, `<tail>~`, which reads back as the tail: whoever
comes back with the mark has seen the end; whoever comes back with the bare tail has not.

Durable Streams calls other things *cursor* (a caching key) and *epoch* (of a producer); those are
always qualified in this project. What may be asked of an offset is here; who moves along a log is
in `subscription.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from penstock.core.errors import OffsetMalformed

DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VALUES: Final = {digit: value for value, digit in enumerate(DIGITS)}
EPOCH_DIGITS: Final = 5
EPOCH_ORIGIN_S: Final = 1_767_225_600  # 2026-01-01T00:00:00Z; decision 0003
MAX_EPOCH: Final = 62**EPOCH_DIGITS - 1
MAX_POSITION: Final = 2**63 - 1  # eleven digits; what every engine's integers hold
END_MARK: Final = "~"
BEGINNING: Final = "-1"
NOW: Final = "now"


def to_base62(value: int) -> str:
    """Write a non-negative integer with the digits 0-9 A-Z a-z, which sort as bytes."""
    if value < 62:
        return DIGITS[value]
    text = ""
    while value:
        value, digit = divmod(value, 62)
        text = DIGITS[digit] + text
    return text


def from_base62(text: str) -> int:
    """Read what `to_base62` wrote. Raises KeyError on any other character."""
    value = 0
    for digit in text:
        value = value * 62 + VALUES[digit]
    return value


def next_epoch(now_s: float, last: int = 0) -> int:
    """Give the epoch of a log created now: later than the last one, whatever the clock says."""
    return min(max(int(now_s) - EPOCH_ORIGIN_S, last + 1, 1), MAX_EPOCH)


_PAIRS: Final = [a + b for a in DIGITS for b in DIGITS]
_BLOCK: Final = len(_PAIRS)
_SHORT: Final = [("1" + pair[1]) if pair[0] == "0" else ("2" + pair) for pair in _PAIRS]
"""`position_text` of every position below `_BLOCK`."""


@dataclass(frozen=True, slots=True, order=True)
class Offset:
    """A place in one stream: what follows it is what a reader gets next.

    Compares in the order of the log within an epoch, and later epochs after earlier ones.
    `str(offset)` is what goes on the wire, and sorts the same way as bytes.
    """

    epoch: int
    position: int

    def __str__(self) -> str:
        return offset_text(self.epoch, self.position)

    @property
    def end_id(self) -> str:
        """The id of the end event whose stream has its tail here."""
        return str(self) + END_MARK


def offset_text(epoch: int, position: int) -> str:
    """What `str(Offset(epoch, position))` is, without making one: every append is answered so."""
    return offset_prefix(epoch) + position_text(position)


@lru_cache(maxsize=4096)
def offset_prefix(epoch: int) -> str:
    """The five digits that begin every offset of an epoch."""
    return to_base62(epoch).rjust(EPOCH_DIGITS, "0")


def position_text(position: int) -> str:
    """What follows the epoch: the number of digits, then the digits."""
    if position < _BLOCK:
        return _SHORT[position]
    if position < _BLOCK * _BLOCK:  # the first fourteen million, two digits at a time
        high, low = divmod(position, _BLOCK)
        return ("3" if high < 62 else "4") + _SHORT[high][1:] + _PAIRS[low]
    digits = to_base62(position)
    return DIGITS[len(digits)] + digits


def parse_offset(text: str) -> Offset:
    """Read an offset. Raises OffsetMalformed for anything `str(Offset)` could not have written."""
    if not EPOCH_DIGITS + 2 <= len(text) <= EPOCH_DIGITS + 12 or not text.isascii():
        raise OffsetMalformed(text)
    digits = text[EPOCH_DIGITS + 1 :]
    try:
        epoch = from_base62(text[:EPOCH_DIGITS])
        count = VALUES[text[EPOCH_DIGITS]]
        position = from_base62(digits)
    except KeyError:
        raise OffsetMalformed(text) from None
    # One place has one name: no leading zeros, and the count must be the count.
    if count != len(digits) or (count > 1 and digits[0] == "0") or position > MAX_POSITION:
        raise OffsetMalformed(text)
    return Offset(epoch, position)


def parse_event_id(text: str) -> tuple[Offset, bool]:
    """Read an event's id: the offset, and whether it carries the end mark."""
    if text.endswith(END_MARK):
        return parse_offset(text[: -len(END_MARK)]), True
    return parse_offset(text), False

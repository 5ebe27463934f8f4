"""Patterns over stream names: `*` is one segment, `**` is any number of them, none included.

Everything else is literal; `%2A` is a star that is part of a name. Matching is a bit-parallel
automaton (Baeza-Yates and Gonnet, "A new approach to text searching", 1992): its states are the
bits of one integer, each segment of a name is one step, so no pattern costs more than another of
its length, whatever name is held against it.
"""

from __future__ import annotations

from penstock.core.errors import NameMalformed, SubscriptionInvalid
from penstock.core.limits import MAX_NAME_BYTES
from penstock.wire.http import check_name


class Glob:
    """One pattern, ready to match. Raises SubscriptionInvalid."""

    __slots__ = ("_any", "_final", "_literal", "_one", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        segments = _segments(pattern)
        self._final = 1 << len(segments)
        self._any = 0  # states that stay where they are, whatever comes
        self._one = 0  # states that any segment leads on from
        self._literal: dict[str, int] = {}  # the states that this segment leads on from
        for index, segment in enumerate(segments):
            bit = 1 << index
            if segment == "**":
                self._any |= bit
            elif segment == "*":
                self._one |= bit
            else:
                name = segment.replace("%2A", "*").replace("%2a", "*")
                self._literal[name] = self._literal.get(name, 0) | bit

    def matches(self, name: str) -> bool:
        """Whether a stream's name is one of those meant."""
        states = self._skip(1)
        for segment in name.split("/"):
            onward = states & (self._one | self._literal.get(segment, 0))
            states = self._skip(onward << 1 | states & self._any)
            if not states:
                return False
        return bool(states & self._final)

    def _skip(self, states: int) -> int:
        # A `**` may stand for nothing. One step is enough, since no two stand side by side.
        return states | (states & self._any) << 1


def _segments(pattern: str) -> list[str]:
    if len(pattern.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise SubscriptionInvalid(f"has a pattern of more than {MAX_NAME_BYTES} bytes")
    try:
        check_name(pattern)
    except NameMalformed:
        raise SubscriptionInvalid(f"has a pattern that no name can match: {pattern!r}") from None
    segments: list[str] = []
    for segment in pattern.split("/"):
        if segment not in ("*", "**") and "*" in segment:
            raise SubscriptionInvalid(
                f"has a pattern with a star in {segment!r}: a star stands for a whole segment, "
                "and '%2A' for the character"
            )
        if segment != "**" or segments[-1:] != ["**"]:
            segments.append(segment)
    return segments

"""Finding patterns in text that comes in pieces, in time that grows with the text alone.

All patterns of a filter become one automaton whose states are the bits of one number, a bit for
each character or class of the patterns (Glushkov's construction, run in parallel as in Shift-And:
Navarro and Raffinot, "Flexible Pattern Matching in Strings", 4.2). A step is a few operations on
that number whatever the text, so there is nothing to backtrack; and the number says at any moment
whether a match may have begun that is not yet whole, which is what must be held back.

An automaton is shared by all answers: it keeps no place in any text. What filters do with it is
theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from penstock.core.errors import SettingInvalid
from penstock.llm.filters.pattern import (
    MAX_POSITIONS,
    Characters,
    Either,
    Node,
    Repeat,
    Series,
    count_positions,
    lengths,
    parse,
)

# Of how many characters it is remembered which classes they belong to. Texts in one language use a
# few hundred.
_MAX_REMEMBERED: Final = 8192

# How many steps are remembered. Prose takes the same few hundred again and again: a step that is
# remembered costs 0.3 µs, one that is worked out for the patterns of `redact.SECRETS` 1.3.
_MAX_STEPS: Final = 8192


@dataclass(slots=True)
class _Fragment:
    """A part of a pattern: where it may begin and end, and whether it may be skipped."""

    first: int = 0
    last: int = 0
    is_nullable: bool = True


@dataclass(slots=True)
class _Builder:
    """Writes trees out as positions, each with the class of its character, and edges."""

    sources: list[str] = field(default_factory=list[str])
    edges: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    loops: int = 0

    def build(self, node: Node) -> _Fragment:
        match node:
            case Characters(source):
                bit = 1 << len(self.sources)
                self.sources.append(source)
                return _Fragment(bit, bit, is_nullable=False)
            case Series(items):
                return self._join(self.build(item) for item in items)
            case Either(options):
                return self._choose([self.build(option) for option in options])
            case Repeat(item, least, most):
                if most is not None:
                    return self._join(self._copies(item, least, most))
                whole = self._join(self.build(item) for _ in range(max(least, 1)))
                self.loops |= 1 << (len(self.sources) - 1)
                whole.is_nullable = least == 0
                return whole

    def _copies(self, item: Node, least: int, most: int) -> Iterator[_Fragment]:
        for _ in range(least):
            yield self.build(item)
        # x{0,3} is (x(x(x)?)?)?: a copy follows only the one before it, and each may be the last.
        first = last = before = 0
        for _ in range(most - least):
            one = self.build(item)
            if before:
                self.edges.append((before, one.first))
            else:
                first = one.first
            before, last = one.last, last | one.last
        yield _Fragment(first, last)

    def _join(self, fragments: Iterable[_Fragment]) -> _Fragment:
        whole = _Fragment()
        for one in fragments:
            if whole.last and one.first:
                self.edges.append((whole.last, one.first))
            whole.first |= one.first if whole.is_nullable else 0
            whole.last = one.last | (whole.last if one.is_nullable else 0)
            whole.is_nullable = whole.is_nullable and one.is_nullable
        return whole

    def _choose(self, options: Sequence[_Fragment]) -> _Fragment:
        whole = _Fragment(is_nullable=any(option.is_nullable for option in options))
        for option in options:
            whole.first |= option.first
            whole.last |= option.last
        return whole


class Automaton:
    """Patterns, ready to be looked for; the longest match has `longest` characters.

    A state is the set of positions that the last character matched; 0 is none. An open repeat's
    position leads to itself, and its run is not part of `longest`.

    Attributes:
        longest: the longest match, in characters.
        first: the positions a match begins with.
        last: the positions a match ends with.
        unfinished: the positions that lead to others. Where a state has none of them, no match is
            under way that is not whole; an open repeat's position is a match and leads to itself.

    Raises:
        SettingInvalid: there is no pattern, one is not understood, or all are too large together.
    """

    __slots__ = (
        "_classes",
        "_is_first",
        "_jumps",
        "_open",
        "_remembered",
        "_shift",
        "_step_count",
        "_steps",
        "first",
        "last",
        "longest",
        "unfinished",
    )

    def __init__(
        self, patterns: Iterable[str], *, ignore_case: bool = False, may_be_open: bool = True
    ) -> None:
        nodes = [parse(pattern, may_be_open=may_be_open) for pattern in patterns]
        if not nodes:
            raise SettingInvalid("patterns", "is empty; name at least one")
        if sum(map(count_positions, nodes)) > MAX_POSITIONS:
            raise SettingInvalid(
                "patterns",
                f"are too large together; written out they may have {MAX_POSITIONS} characters",
            )
        builder = _Builder()
        whole = builder.build(Either(tuple(nodes)))
        self.longest = max(longest for _, longest in map(lengths, nodes))
        self.first, self.last, self._open = whole.first, whole.last, builder.loops
        self._shift, self._jumps = _split(builder.edges)
        self.unfinished = self._shift
        for sources, _ in self._jumps:
            self.unfinished |= sources
        flags = re.IGNORECASE if ignore_case else 0
        self._classes = _classes(builder.sources, flags)
        beginnings = {
            source: None for place, source in enumerate(builder.sources) if whole.first >> place & 1
        }
        self._is_first = re.compile("|".join(beginnings), flags)
        self._remembered: dict[str, int] = {}
        self._steps: dict[int, dict[str, int]] = {}
        self._step_count = 0

    def find_first(self, text: str, start: int) -> int:
        """The place of the next character that may begin a match, or -1."""
        found = self._is_first.search(text, start)
        return -1 if found is None else found.start()

    def step(self, state: int, char: str) -> int:
        """The state after `char`, a match that begins with it included."""
        steps = self._steps.get(state)
        if steps is None:
            steps = self._steps[state] = {}
        reached = steps.get(char)
        if reached is None:
            reached = self._work_out(state, char)
            if self._step_count >= _MAX_STEPS:
                self._steps.clear()
                self._step_count = 0
            self._step_count += 1
            steps[char] = reached
        return reached

    def _work_out(self, state: int, char: str) -> int:
        reached = (state & self._shift) << 1 | state & self._open | self.first
        for sources, targets in self._jumps:
            if state & sources:
                reached |= targets
        return reached & self._positions(char)

    def step_back(self, state: int, char: str) -> int:
        """The positions at `char` that lead to `state`, which is that of the next character."""
        reached = state >> 1 & self._shift | state & self._open
        for sources, targets in self._jumps:
            if state & targets:
                reached |= sources
        return reached & self._positions(char)

    def end_at(self, char: str) -> int:
        """The positions at `char` with which a match ends."""
        return self.last & self._positions(char)

    def start_of_match(self, chars: Sequence[str]) -> int:
        """Where the longest match begins that ends with the last of these characters."""
        return self._find_start(chars, self.end_at(chars[-1]))

    def start_of_unfinished(self, chars: Sequence[str], state: int) -> int:
        """Where the first match begins that is not whole after these characters; their number where
        there is none. `state` is the one after them."""
        return self._find_start(chars, state & self.unfinished)

    def _find_start(self, chars: Sequence[str], state: int) -> int:
        start = place = len(chars)
        while state:
            place -= 1
            start = place if state & self.first else start
            state = self.step_back(state, chars[place - 1]) if place else 0
        return start

    def _positions(self, char: str) -> int:
        """The positions whose class has this character."""
        positions = self._remembered.get(char)
        if positions is None:
            positions = 0
            for is_in, bits in self._classes:
                if is_in.fullmatch(char):
                    positions |= bits
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[char] = positions
        return positions


def _split(edges: list[tuple[int, int]]) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Edges as those that lead to the next position, which is one shift for all, and the others."""
    shift = 0
    jumps: dict[int, int] = {}
    for sources, targets in edges:
        if targets & (targets - 1) == 0 and sources & targets >> 1:
            shift |= targets >> 1
            sources &= ~(targets >> 1)
        if sources:
            jumps[targets] = jumps.get(targets, 0) | sources
    return shift, tuple((sources, targets) for targets, sources in jumps.items())


def _classes(sources: list[str], flags: int) -> tuple[tuple[re.Pattern[str], int], ...]:
    """Each class that occurs, once, with the positions it stands at."""
    bits: dict[str, int] = {}
    for place, source in enumerate(sources):
        bits[source] = bits.get(source, 0) | 1 << place
    return tuple((re.compile(source, flags), places) for source, places in bits.items())

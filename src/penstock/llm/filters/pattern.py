r"""What a filter can look for: a subset of regular expressions that cannot cost more than its text.

Python's own `re` backtracks, so a pattern can take exponential time, and nobody can say how much of
an unfinished match it would still need. The patterns here have no such cost, because they have a
longest match that is known before they are used:

    abc  \.  \n  \x41  \u2581     characters
    [a-z_]  [^"]  .  \d \w \s \D \W \S   classes, which mean what they mean in `re`
    (ab|cd)  (?:ab|cd)            groups, alternatives
    x?  x{3}  x{2,8}              repeats with an end
    x+  x*  x{20,}                repeats without one: of one character or class, and only as the
                                  last thing of the pattern

Refused, each with a sentence that says why: open repeats anywhere else, anchors and `\b`, look
around, back references, lazy repeats, a pattern that can match nothing at all, one that can match
more than `MAX_MATCH` characters (an open repeat's own run not counted), and one that is too large
once its repeats are written out.

Only text to tree happens here; `automaton.py` reads the tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from penstock.core.errors import SettingInvalid

MAX_MATCH: Final = 1024
"""The longest match a pattern may have, in characters. A filter holds back at most twice this."""

MAX_POSITIONS: Final = 4096
"""Characters and classes of all patterns together, repeats written out. A step of the automaton is
a handful of operations on a number of this many bits: 1.2 µs at the limit, measured."""

_MAX_PATTERN: Final = 4096
_MAX_DEPTH: Final = 16

_SPECIAL: Final = frozenset("\\()[]{}|?*+.^$")
_CLASSES: Final = frozenset("dDwWsS")
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_HEX_DIGITS: Final = {"x": 2, "u": 4}
_BRACES: Final = re.compile(r"\{(\d{1,5})(,?)(\d{0,5})\}")
_HEX: Final = re.compile(r"[0-9A-Fa-f]+")


@dataclass(frozen=True, slots=True)
class Characters:
    """One character of a class; `source` is the class as `re` spells it."""

    source: str


@dataclass(frozen=True, slots=True)
class Series:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`most` is None where there is no end."""

    item: Node
    least: int
    most: int | None


Node: TypeAlias = Characters | Series | Either | Repeat


def literal(text: str) -> str:
    """The pattern that matches `text` and nothing else."""
    return re.escape(text)


def parse(pattern: str, *, may_be_open: bool = True) -> Node:
    """The tree of a pattern; `may_be_open` allows a repeat without end as its last thing.

    Raises:
        SettingInvalid: it is not in the subset that the module describes; the sentence says why.
    """
    if not pattern or len(pattern) > _MAX_PATTERN:
        _refuse(pattern, f"has {len(pattern)} characters; write 1 to {_MAX_PATTERN}")
    node = _Parser(pattern).parse()
    _check_open(pattern, node, is_last=may_be_open)
    if count_positions(node) > MAX_POSITIONS:
        _refuse(pattern, f"is too large written out; it may have {MAX_POSITIONS} characters")
    least, most = lengths(node)
    if not least:
        _refuse(pattern, "matches where nothing is; ask for at least one character")
    if most > MAX_MATCH:
        _refuse(pattern, f"can match {most} characters; the most is {MAX_MATCH}")
    return node


def count_positions(node: Node) -> int:
    """How many characters and classes the tree has, repeats written out."""
    match node:
        case Characters():
            return 1
        case Series(items) | Either(items):
            return sum(map(count_positions, items))
        case Repeat(item, least, most):
            return count_positions(item) * (max(least, 1) if most is None else most)


def lengths(node: Node) -> tuple[int, int]:
    """The shortest and the longest match. The run of an open repeat counts as its least."""
    match node:
        case Characters():
            return 1, 1
        case Series(items):
            pairs = [lengths(item) for item in items]
            return sum(least for least, _ in pairs), sum(most for _, most in pairs)
        case Either(options):
            pairs = [lengths(option) for option in options]
            return min(least for least, _ in pairs), max(most for _, most in pairs)
        case Repeat(item, least, most):
            shortest, longest = lengths(item)
            return shortest * least, longest * (max(least, 1) if most is None else most)


def _check_open(pattern: str, node: Node, *, is_last: bool) -> None:
    match node:
        case Characters():
            pass
        case Series(items):
            for place, item in enumerate(items, 1):
                _check_open(pattern, item, is_last=is_last and place == len(items))
        case Either(options):
            for option in options:
                _check_open(pattern, option, is_last=is_last)
        case Repeat(item, _, most):
            if most is None and not (is_last and isinstance(item, Characters)):
                _refuse(pattern, "can match without end; give that repeat one, such as {1,64}")
            _check_open(pattern, item, is_last=False)


def _refuse(pattern: str, reason: str) -> NoReturn:
    raise SettingInvalid(f"pattern {pattern[:80]}", reason)


class _Parser:
    """Reads one pattern from left to right."""

    __slots__ = ("_depth", "_pattern", "_place")

    def __init__(self, pattern: str) -> None:
        self._pattern, self._place, self._depth = pattern, 0, 0

    def parse(self) -> Node:
        node = self._either()
        if self._place < len(self._pattern):
            self._fail("has a ) without its (")
        return node

    def _either(self) -> Node:
        options = [self._sequence()]
        while self._peek() == "|":
            self._place += 1
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Either(tuple(options))

    def _sequence(self) -> Node:
        items: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            items.append(self._repeat(self._atom()))
        return items[0] if len(items) == 1 else Series(tuple(items))

    def _atom(self) -> Node:
        char = self._peek()
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == "\\":
            return Characters(self._escape())
        self._place += 1
        if char == ".":
            return Characters(r"[^\n]")
        if char in _SPECIAL:
            self._fail(f"has {char} where it means nothing here; write \\{char} for the character")
        return Characters(re.escape(char))

    def _group(self) -> Node:
        self._place += 1
        if self._pattern.startswith("?:", self._place):
            self._place += 2
        elif self._peek() == "?":
            self._fail("has a (? group; only (?: is understood")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail(f"nests groups deeper than {_MAX_DEPTH}")
        node = self._either()
        self._depth -= 1
        if self._peek() != ")":
            self._fail("has a ( without its )")
        self._place += 1
        return node

    def _class(self) -> Characters:
        """Reads a class and writes it again, so that `re` reads nothing else into it."""
        self._place += 1
        written = "["
        if self._peek() == "^":
            self._place += 1
            written += "^"
        is_first = True
        while is_first or self._peek() != "]":
            low = self._class_item()
            if self._peek() == "-" and self._pattern[self._place + 1 : self._place + 2] != "]":
                self._place += 1
                low += "-" + self._class_item()
            written += low
            is_first = False
        self._place += 1
        return self._checked(written + "]")

    def _class_item(self) -> str:
        char = self._peek()
        if not char:
            self._fail("has a [ without its ]")
        if char == "\\":
            return self._escape()
        self._place += 1
        return re.escape(char)

    def _escape(self) -> str:
        char = self._pattern[self._place + 1 : self._place + 2]
        self._place += 2
        if char in _CLASSES and char:
            return "\\" + char
        if char in _CONTROLS:
            return re.escape(_CONTROLS[char])
        if char in _HEX_DIGITS:
            digits = self._pattern[self._place : self._place + _HEX_DIGITS[char]]
            if len(digits) != _HEX_DIGITS[char] or not _HEX.fullmatch(digits):
                self._fail(f"has \\{char} without {_HEX_DIGITS[char]} hexadecimal digits")
            self._place += len(digits)
            return re.escape(chr(int(digits, 16)))
        if not char or (char.isascii() and char.isalnum()):
            self._fail(f"has \\{char}, which is not understood here")
        return re.escape(char)

    def _repeat(self, item: Node) -> Node:
        char = self._peek()
        bounds = {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(char)
        if char == "{":
            found = _BRACES.match(self._pattern, self._place)
            if found is None:
                self._fail("has a { that is no repeat; write {2}, {2,8} or \\{")
            least = int(found[1])
            most = (int(found[3]) if found[3] else None) if found[2] else least
            if most is not None and (most < least or not most or (found[3] and not found[2])):
                self._fail(f"has the repeat {found[0]}, which repeats nothing")
            bounds, self._place = (least, most), found.end() - 1
        if bounds is None:
            return item
        self._place += 1
        if self._peek() in ("?", "*", "+", "{") and self._peek():
            self._fail("repeats a repeat, or a lazy one; put a group around it")
        return Repeat(item, *bounds)

    def _checked(self, source: str) -> Characters:
        try:
            re.compile(source)
        except re.error as error:
            self._fail(f"has the class {source}: {error.msg}")
        return Characters(source)

    def _peek(self) -> str:
        return self._pattern[self._place : self._place + 1]

    def _fail(self, reason: str) -> NoReturn:
        _refuse(self._pattern, f"{reason} (at character {self._place})")

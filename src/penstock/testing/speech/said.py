"""What one of our own answers says: its thought, its text and its tool calls, in pieces.

A piece is about a token and goes out as one event where the dialect can say it alone. A limit cuts
the answer after so many pieces, wherever that is. No dialect's words here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from penstock.llm.events import Json, parse_object

# A piece is up to six letters with the space before them, a run of white space, or one other
# character: about what tokenizers make of prose. Every character belongs to exactly one piece.
_PIECE: Final = re.compile(r" ?\w{1,6}|\s+|[^\w\s]")

CREATED_AT: Final = 1_767_225_600
"""When every answer of our own was made, for the dialects that say it: the start of 2026."""


def tokens(text: str) -> list[str]:
    """`text` in pieces of about a token each; together they are the text."""
    return _PIECE.findall(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool call: a name, and arguments as a JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One turn of a voice. It thinks, then says its text, then calls its tools."""

    text: str = ""
    thought: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidCall:
    """A tool call as far as it was said."""

    name: str
    arguments: tuple[str, ...]
    is_whole: bool

    @property
    def value(self) -> dict[str, Json]:
        """The arguments of a whole call, for the dialects that give them as a value."""
        return parse_object("".join(self.arguments)) or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer as far as its limit let it come.

    Attributes:
        id: what a dialect makes its ids from; the same for the same answer.
        model: who is said to have said it.
        is_cut: whether the limit was met before its end.
    """

    id: str
    model: str
    thought: tuple[str, ...]
    text: tuple[str, ...]
    calls: tuple[SaidCall, ...]
    is_cut: bool
    input_tokens: int

    @property
    def output_tokens(self) -> int:
        """All pieces, those of the thought included."""
        arguments = sum(len(call.arguments) for call in self.calls)
        return len(self.thought) + len(self.text) + arguments

    def reason(self, stop: str, length: str, tools: str) -> str:
        """Whichever of a dialect's words says why the answer ended."""
        if self.is_cut:
            return length
        return tools if self.calls else stop

    @property
    def whole_calls(self) -> tuple[SaidCall, ...]:
        """The calls of dialects that cannot say half of one."""
        return tuple(call for call in self.calls if call.is_whole)


def say(answer: Answer, *, model: str, input_tokens: int = 24, limit: int | None = None) -> Said:
    """The answer in pieces, no more of them than `limit`."""
    source = "\0".join(
        (answer.thought, answer.text, *(call.name + call.arguments for call in answer.calls))
    )
    taker = _Taker(limit)
    thought, text = taker.take(answer.thought), taker.take(answer.text)
    calls = tuple(said for call in answer.calls if (said := taker.take_call(call)) is not None)
    return Said(
        id=hashlib.sha256(source.strip("\0").encode()).hexdigest()[:24],
        model=model,
        thought=thought,
        text=text,
        calls=calls,
        is_cut=taker.is_cut,
        input_tokens=input_tokens,
    )


class _Taker:
    """Takes pieces until the limit is met."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit
        self.is_cut = False

    def take(self, text: str) -> tuple[str, ...]:
        pieces = tuple(tokens(text))
        if self._left is None:
            return pieces
        taken = pieces[: self._left]
        self._left -= len(taken)
        self.is_cut = self.is_cut or len(taken) < len(pieces)
        return taken

    def take_call(self, call: Call) -> SaidCall | None:
        arguments = self.take(call.arguments)
        if self.is_cut and not arguments:
            return None
        is_whole = not self.is_cut
        return SaidCall(name=call.name, arguments=arguments, is_whole=is_whole)

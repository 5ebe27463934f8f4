"""What several writers share: instructions apart, turns that alternate, and calls by their ids.

Providers other than OpenAI take the instructions beside the conversation, so those said in its
middle are put with the first ones, in order. They want user and assistant to take turns, and the
results of calls to come first in the turn after them: neighbours are put together, what tools gave
back among what the user said. Text of white space alone is refused by some of them: it is left
out, and a turn in which nothing is said is none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from penstock.llm.ask.request import (
    CallPart,
    MediaPart,
    Message,
    Part,
    Request,
    ResultPart,
    TextPart,
    ThoughtPart,
    text_of,
)
from penstock.llm.ask.written import Border, join_texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Neighbouring messages of one side."""

    role: Literal["user", "assistant"]
    parts: tuple[Part, ...]


def instructions_of(request: Request) -> str:
    """Every instruction, as one text."""
    return join_texts(text_of(m.parts) for m in request.messages if m.role == "system")


def turns_of(request: Request, border: Border, *, keeps_thoughts: bool = False) -> list[Turn]:
    """The conversation without its instructions, the two sides in turns: at least one.

    `keeps_thoughts`: whether what was thought is for this provider. Else it is left out, as its
    seal is another's; every provider takes a conversation without.
    """
    turns: list[tuple[Literal["user", "assistant"], list[Part]]] = []
    for message in request.messages:
        if message.role == "system":
            continue
        parts = message.parts if keeps_thoughts else without_thoughts(message, border)
        parts = _without_blanks(parts, border)
        if not parts:
            continue
        role: Literal["user", "assistant"] = "user"
        if message.role == "assistant":
            role = "assistant"
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        turns[-1][1].extend(parts)
    if not turns:
        border.refuse("conversation in which only the system speaks")
    return [Turn(role=role, parts=_results_first(parts)) for role, parts in turns]


def demand_user(turns: list[Turn], border: Border) -> None:
    """Refuses what Anthropic and Bedrock refuse: the model speaks first, or shows something."""
    if turns and turns[0].role == "assistant":
        border.refuse("assistant's first message")
    for turn in turns:
        if turn.role == "assistant" and any(isinstance(part, MediaPart) for part in turn.parts):
            border.refuse("image or file the model made")


def _without_blanks(parts: tuple[Part, ...], border: Border) -> tuple[Part, ...]:
    said: list[Part] = []
    for part in parts:
        if isinstance(part, ResultPart):
            said.append(replace(part, content=tuple(filter(_says, part.content))))
        elif _says(part):
            said.append(part)
    if len(said) != len(parts):
        border.leave_out("white space")
    return tuple(said)


def _says(part: Part) -> bool:
    return not isinstance(part, TextPart) or bool(part.text.strip())


def _results_first(parts: list[Part]) -> tuple[Part, ...]:
    results = [part for part in parts if isinstance(part, ResultPart)]
    if not results:
        return tuple(parts)
    return (*results, *(part for part in parts if not isinstance(part, ResultPart)))


def without_thoughts(message: Message, border: Border) -> tuple[Part, ...]:
    """What a message says, without what was thought for it."""
    parts = tuple(part for part in message.parts if not isinstance(part, ThoughtPart))
    if len(parts) != len(message.parts):
        border.leave_out("earlier thoughts")
    return parts


def names_of_calls(request: Request) -> dict[str, str]:
    """The function's name by the id of each call in the conversation."""
    return {
        part.id: part.name
        for message in request.messages
        for part in message.parts
        if isinstance(part, CallPart)
    }

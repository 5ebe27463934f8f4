"""What a dialect's file gives: its name, its place over HTTP, its words.

The type that `dialects.py` has a table of, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from penstock.llm.events import Json
from penstock.testing.speech.framing import Framing
from penstock.testing.speech.said import Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error in the place of a stream: its JSON, and the headers that belong to it."""

    body: dict[str, Json]
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """One dialect as its provider speaks it.

    Attributes:
        dialect: its name, as `penstock.llm.dialects` has it.
        file: the name of its recordings, without ".jsonl.gz".
        endpoint: the path it is asked at, whatever stands before that. `{model}` is the model.
        framing: how its streams are framed.
        speak: the stream of an answer, one item an event.
        refuse: an error status with a sentence.
        fail: an error under way, after so many events.
    """

    dialect: str
    file: str
    endpoint: str
    framing: Framing
    speak: Callable[[Said], Iterable[bytes]]
    refuse: Callable[[int, str], Refusal]
    fail: Callable[[str, int], bytes]

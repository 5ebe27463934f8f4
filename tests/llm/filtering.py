"""What the tests of all filters share: events through a filter, and what a reader then sees."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence

import pytest

from llm.reading import read
from penstock.llm.events import (
    Reasoning,
    Start,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
)
from penstock.llm.filters.chain import Chain, Filter
from penstock.testing.recordings import load

START = Start(id="a", model="m")
STOP = Stop(reason="stop", raw="stop")

MISSING = "no recordings here: set PENSTOCK_RECORDINGS to a folder of <dialect>.jsonl.gz files"
FILES = {
    "openai-chat": "openai-chat",
    "openai-responses": "openai-responses",
    "openai-completions": "openai-completions",
    "anthropic-messages": "anthropic-messages",
    "gemini": "gemini",
    "bedrock": "bedrock-eventstream",
    "cohere": "cohere",
    "ollama": "ollama-ndjson",
    "replicate": "replicate",
    "watsonx": "watsonx",
    "writer": "writer",
}


@functools.cache
def recorded(dialect: str) -> tuple[tuple[str, tuple[TokenEvent, ...]], ...]:
    """The events of every recording of a dialect, with its digest."""
    found = load(FILES[dialect])
    if not found:
        pytest.skip(MISSING)
    return tuple((one.sha256[:12], tuple(read(dialect, one.body))) for one in found)


def through(one: Filter | Chain, events: Iterable[TokenEvent]) -> list[TokenEvent]:
    return [given for event in events for given in one.receive_event(event)]


def text_of(events: Iterable[TokenEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def reasoning_of(events: Iterable[TokenEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Reasoning))


def arguments_of(events: Iterable[TokenEvent]) -> str:
    return "".join(event.arguments for event in events if isinstance(event, ToolCallDelta))


def calls_of(events: Iterable[TokenEvent]) -> list[ToolCall]:
    return [event for event in events if isinstance(event, ToolCall)]


def cuts(text: str) -> Iterator[list[str]]:
    """`text` in pieces: whole, a character each, and cut at every place and every two places."""
    yield [text]
    yield list(text)
    places = range(1, len(text))
    for one in places:
        yield [text[:one], text[one:]]
    for one, two in itertools.combinations(places, 2):
        yield [text[:one], text[one:two], text[two:]]


def answer_of(pieces: Sequence[str], kind: type[Text] | type[Reasoning] = Text) -> list[TokenEvent]:
    return [START, *(kind(text=piece) for piece in pieces if piece), STOP]


def draw_and_say_seed() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)

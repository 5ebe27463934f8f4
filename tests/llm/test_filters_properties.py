"""Whatever an answer says and wherever it is cut, a chain gives what the whole text gives."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.filtering import START, STOP, reasoning_of, text_of, through
from llm.reading import assert_in_order
from penstock.llm.events import (
    Data,
    Failure,
    Reasoning,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from penstock.llm.filters.chain import Chain
from penstock.llm.filters.table import read_filters

STRIPPED = [r"<\|[a-c]{1,3}\|>", "<ab?>", "aa"]
HIDDEN = ["ab{1,3}c", "b{2}", "c[ab]{2,}", "(a|<){3}"]
STOPS = ["abc", "|>b", "ccc"]
KINDS = [
    {"kind": "strip", "families": [], "patterns": STRIPPED, "channels": ["text", "reasoning"]},
    {"kind": "redact", "patterns": HIDDEN, "replacement": "[b]"},
    {"kind": "white-space", "max_empty_lines": 1},
    {"kind": "whole-tool-calls"},
    {"kind": "mine"},
]
STOPPING = {"kind": "stop", "sequences": STOPS}

texts = st.text("aabbcc<|> \n", min_size=1, max_size=8)
chars = st.text("aabbcc<|>", max_size=24)
others: st.SearchStrategy[TokenEvent] = st.sampled_from(
    [
        Data(kind="citation", value=1),
        Usage(input_tokens=1, output_tokens=2, partial=True),
        ToolCallDelta(index=0, id="i", name="f", arguments="{"),
        ToolCallDelta(index=0, arguments="}"),
        ToolCall(index=0, id="i", name="f", arguments="{}", arguments_valid=True),
    ]
)
pieces: st.SearchStrategy[TokenEvent] = st.one_of(
    texts.map(lambda text: Text(text=text)), texts.map(lambda text: Reasoning(text=text)), others
)
ends: st.SearchStrategy[TokenEvent] = st.sampled_from(
    [STOP, Stop(reason="length"), Failure(message="no", code="upstream-truncated")]
)


def double(event: TokenEvent) -> TokenEvent:
    """A filter of somebody's own: it says every letter b twice."""
    return Text(text=event.text.replace("b", "bb")) if isinstance(event, Text) else event


def chain_of(settings: list) -> Callable[[], Chain]:
    return read_filters(settings, {"mine": double})


def at_once(events: list[TokenEvent], end: TokenEvent) -> list[TokenEvent]:
    """The answer with its text in one event, and its reasoning in another."""
    whole: list[TokenEvent] = [START]
    if thought := reasoning_of(events):
        whole.append(Reasoning(text=thought))
    if text := text_of(events):
        whole.append(Text(text=text))
    return [*whole, end]


@given(st.lists(st.sampled_from(KINDS), max_size=5), st.lists(pieces, max_size=12), ends)
def test_a_chain_in_any_order_gives_what_it_gives_for_the_whole_text(
    settings: list, events: list[TokenEvent], end: TokenEvent
) -> None:
    make = chain_of(settings)
    given_ = through(make(), [START, *events, end])
    whole = through(make(), at_once(events, end))
    assert text_of(given_) == text_of(whole)
    assert reasoning_of(given_) == reasoning_of(whole)
    assert given_[0] == START
    assert given_[-1] == end
    beside = (Data, Usage, ToolCall)
    assert [e for e in given_ if isinstance(e, beside)] == [
        e for e in events if isinstance(e, beside)
    ]
    assert_in_order(given_)


@given(st.lists(st.sampled_from(KINDS), max_size=3), st.lists(pieces, max_size=12), ends)
def test_a_chain_that_stops_gives_the_text_that_it_gives_for_the_whole(
    settings: list, events: list[TokenEvent], end: TokenEvent
) -> None:
    make = chain_of([*settings, STOPPING, *settings])
    given_ = through(make(), [START, *events, end])
    assert text_of(given_) == text_of(through(make(), at_once(events, end)))
    assert_in_order(given_)


def naive_strip(text: str, patterns: list[str] = STRIPPED) -> list[bool]:
    """Which characters stay: each is laid on a pile, and a match on its top is taken off."""
    pile: list[int] = []
    for place in range(len(text)):
        pile.append(place)
        for start in range(len(pile)):
            said = "".join(text[p] for p in pile[start:])
            if any(re.fullmatch(pattern, said) for pattern in patterns):
                del pile[start:]
                break
    return [place in pile for place in range(len(text))]


def kept_of(text: str, patterns: list[str] = STRIPPED) -> list[str]:
    """What is shown for each character."""
    stays = naive_strip(text, patterns)
    return [char if stay else "" for char, stay in zip(text, stays, strict=True)]


def naive_redact(text: str, patterns: list[str] = HIDDEN) -> list[str]:
    """What is shown for each character."""
    hidden = [False] * len(text)
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            if any(re.fullmatch(pattern, text[start:end]) for pattern in patterns):
                hidden[start:end] = [True] * (end - start)
    marks = ["[b]" if not (place and hidden[place - 1]) else "" for place in range(len(text))]
    return [marks[n] if hidden[n] else text[n] for n in range(len(text))]


@given(chars, st.lists(st.integers(0, 24), max_size=6))
def test_what_stays_and_what_is_hidden_is_what_plain_searching_finds(
    text: str, places: list[int]
) -> None:
    places = sorted({min(place, len(text)) for place in places})
    parts = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    events = [START, *(Text(text=part) for part in parts if part), STOP]
    stays = naive_strip(text)
    kept = "".join(char for char, stay in zip(text, stays, strict=True) if stay)
    assert text_of(through(chain_of(KINDS[:1])(), events)) == kept
    assert text_of(through(chain_of(KINDS[1:2])(), events)) == "".join(naive_redact(text))


LONG = ["a{3}b{3}", "[ab]{8}c", "bab"]


@pytest.mark.parametrize("count", range(60))
def test_what_is_unfinished_for_long_is_decided_as_if_it_were_not(count: int) -> None:
    """After "aaaa" something is always unfinished, for much longer than may be held back."""
    for end in ("c", "bc", "bbb", "baba", "bbabbabac", "x"):
        text = "a" * count + end
        events = [*map(as_text, text), STOP]
        options = {"kind": "redact", "patterns": LONG, "replacement": "[b]"}
        assert text_of(through(chain_of([options])(), events)) == "".join(naive_redact(text, LONG))
        options = {"kind": "strip", "families": [], "patterns": LONG}
        kept = "".join(kept_of(text, LONG))
        assert text_of(through(chain_of([options])(), events)) == kept


@given(chars)
def test_a_stop_comes_where_the_first_sequence_is_whole(text: str) -> None:
    found = [(start + len(s), start) for s in STOPS for start in places_of(s, text)]
    wanted = text[: min(found)[1]] if found else text
    assert text_of(through(chain_of([STOPPING])(), [*map(as_text, text), STOP])) == wanted


def places_of(sequence: str, text: str) -> list[int]:
    return [n for n in range(len(text)) if text.startswith(sequence, n)]


def as_text(char: str) -> Text:
    return Text(text=char)


@pytest.mark.parametrize("naive", [naive_redact, kept_of])
@given(said=st.lists(st.tuples(st.booleans(), st.sampled_from("aabc<|>")), max_size=24))
def test_every_character_keeps_its_place_among_the_others(
    naive: Callable[[str], list[str]], said: list[tuple[bool, str]]
) -> None:
    """Text and reasoning a character at a time: what is shown of each stands where it was said."""
    events = [Text(text=c) if is_text else Reasoning(text=c) for is_text, c in said]
    shown = {
        Text: iter(naive("".join(c for is_text, c in said if is_text))),
        Reasoning: iter(naive("".join(c for is_text, c in said if not is_text))),
    }
    wanted = [(type(event), char) for event in events for char in next(shown[type(event)])]
    one = chain_of(KINDS[1:2] if naive is naive_redact else KINDS[:1])()
    found = [
        (type(event), char)
        for event in through(one, [*events, STOP])
        if isinstance(event, Text | Reasoning)
        for char in event.text
    ]
    assert found == wanted


@pytest.mark.parametrize("naive", [naive_redact, kept_of])
def test_an_event_between_two_characters_stays_between_them(
    naive: Callable[[str], list[str]],
) -> None:
    """Every text of five letters of these, with an event after each letter."""
    marks = [Data(kind="mark", value=place) for place in range(5)]
    make = chain_of(KINDS[1:2] if naive is naive_redact else KINDS[:1])
    for letters in itertools.product("<a|>b", repeat=5):
        events = [event for two in zip(map(as_text, letters), marks, strict=True) for event in two]
        shown = naive("".join(letters))
        wanted = [
            part
            for text, mark in zip(shown, marks, strict=True)
            for part in ([as_text(text)] if text else []) + [mark]
        ]
        assert through(make(), [*events, STOP]) == [*wanted, STOP], letters


@given(st.lists(pieces, max_size=16), st.integers(0, 16))
def test_what_was_shown_of_a_broken_answer_is_the_front_of_the_whole(
    events: list[TokenEvent], place: int
) -> None:
    make = chain_of(KINDS[:2])
    whole = text_of(through(make(), [START, *events, STOP]))
    chain = make()
    broken = text_of(through(chain, [START, *events[:place]]) + chain.flush())
    assert whole.startswith(broken)

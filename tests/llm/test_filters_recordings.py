"""Filters over every recorded answer: order, counts and ends stay, and what is not touched is as it
was. And what filters cost."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable

import pytest

from llm.filtering import (
    FILES,
    START,
    STOP,
    arguments_of,
    calls_of,
    draw_and_say_seed,
    reasoning_of,
    recorded,
    text_of,
    through,
)
from llm.reading import assert_in_order
from penstock.llm.events import Data, Failure, Reasoning, Stop, Text, TokenEvent, Usage
from penstock.llm.filters.chain import Chain
from penstock.llm.filters.redact import SECRETS
from penstock.llm.filters.strip import CONTROL_TOKENS
from penstock.llm.filters.table import read_filters

SETTINGS: dict[str, list] = {
    "strip": [{"kind": "strip", "families": [*CONTROL_TOKENS]}],
    "redact": [{"kind": "redact", "presets": [*SECRETS]}],
    "white-space": [{"kind": "white-space"}],
    "whole-tool-calls": [{"kind": "whole-tool-calls"}],
    "stop": [{"kind": "stop", "sequences": ["\u241eEND\u241e"]}],
    "mine": [{"kind": "mine"}],
}
SETTINGS["all"] = [options for settings in SETTINGS.values() for options in settings]


def chain_of(name: str) -> Chain:
    return read_filters(SETTINGS[name], {"mine": lambda event: event})()


def is_broken(events: tuple[TokenEvent, ...]) -> bool:
    """Whether the front of something hidden may be missing at the answer's end."""
    ends = [event for event in events if isinstance(event, Stop | Failure)]
    return any(isinstance(end, Failure) or end.reason == "length" for end in ends)


def kept(events: list[TokenEvent]) -> list[TokenEvent]:
    return [event for event in events if isinstance(event, Usage | Stop | Data)]


@pytest.mark.parametrize("dialect", FILES)
def test_an_empty_chain_changes_nothing(dialect: str) -> None:
    for digest, events in recorded(dialect):
        chain = Chain()
        for event in events:
            assert chain.receive_event(event) == [event], digest
        assert chain.flush() == []
        assert not chain.is_ended


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dialect", FILES)
def test_order_counts_and_ends_of_recorded_answers_stay(dialect: str, name: str) -> None:
    for digest, events in recorded(dialect):
        given = through(chain_of(name), events)
        assert_in_order(given)
        assert [e for e in given if isinstance(e, Usage | Stop)] == [
            e for e in events if isinstance(e, Usage | Stop)
        ], digest
        assert [type(e) for e in given if isinstance(e, Data | Failure)] == [
            type(e) for e in events if isinstance(e, Data | Failure)
        ], digest


@pytest.mark.parametrize("name", ["strip", "stop", "whole-tool-calls", "mine"])
@pytest.mark.parametrize("dialect", FILES)
def test_what_a_filter_does_not_look_for_is_as_it_was(dialect: str, name: str) -> None:
    for digest, events in recorded(dialect):
        if is_broken(events) or (name == "strip" and "<|" in text_of(events)):
            continue
        given = through(chain_of(name), events)
        assert text_of(given) == text_of(events), digest
        assert reasoning_of(given) == reasoning_of(events), digest
        assert arguments_of(given) == arguments_of(events) or name == "whole-tool-calls"
        assert calls_of(given) == calls_of(events), digest
        assert kept(given) == kept([*events]), digest


def test_the_control_tokens_that_a_recorded_server_let_through_are_stripped() -> None:
    leaking = [e for _, e in recorded("openai-chat") if "<|" in text_of(e)]
    assert leaking, "no recording lets a token through"
    for events in leaking:
        assert "<|" not in text_of(through(chain_of("strip"), events))


@pytest.mark.parametrize("dialect", FILES)
def test_a_word_of_each_recorded_answer_is_redacted_wherever_it_stands(dialect: str) -> None:
    draw = draw_and_say_seed()
    for digest, events in recorded(dialect):
        words = re.findall(r"\w{4,20}", text_of(events) + reasoning_of(events))
        if not words or is_broken(events):
            continue
        word = draw.choice(words)
        given = through(read_filters([{"kind": "redact", "patterns": [word]}])(), events)
        for read_ in (text_of, reasoning_of):
            assert read_(given) == hide(word, read_(events)), digest
            assert word not in read_(given)


def hide(word: str, text: str) -> str:
    """`text` with each run of matches, overlapping ones too, as one replacement."""
    spans = [range(found.start(), found.start() + len(word)) for found in places_of(word, text)]
    hidden = {place for span in spans for place in span}
    shown = [
        char if n not in hidden else "" if n - 1 in hidden else "[redacted]"
        for n, char in enumerate(text)
    ]
    return "".join(shown)


def places_of(word: str, text: str) -> list[re.Match[str]]:
    return list(re.finditer(f"(?={re.escape(word)})", text))


LINE, RUNS, ATTEMPTS, N = 3.0, 3, 4, 12_000
# Twice the longest match of any pattern below.
HELD = 2 * 301

HARD: dict[str, tuple[list, str]] = {
    "prose": (SETTINGS["all"], "the quick brown fox, and so on. "),
    "tokens": (SETTINGS["strip"], "a<|im_end|>"),
    "half tokens": (SETTINGS["strip"], "<|im_"),
    "nested tokens": (SETTINGS["strip"], "<|<|a|>"),
    "one letter": ([{"kind": "redact", "patterns": ["a{1,300}b", "[ab]{1,300}c"]}], "a"),
    "all hidden": ([{"kind": "redact", "patterns": ["a{1,300}", "(aa|a){1,100}"]}], "a"),
    "half hidden": ([{"kind": "redact", "patterns": ["(a|b){40}[ab]{1,60}b"]}], "abbabaab"),
    "open": ([{"kind": "redact", "patterns": ["k[a-z]{3,}"]}], "k"),
    "half stops": ([{"kind": "stop", "sequences": ["a" * 300 + "b"]}], "a"),
    "blanks": ([{"kind": "white-space"}], " \n"),
}


def best_s(work: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(RUNS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize("name", HARD)
def test_the_cost_of_a_filter_grows_with_the_text(name: str) -> None:
    settings, unit = HARD[name]
    make = read_filters(settings, {"mine": lambda event: event})

    def run(count: int) -> Callable[[], object]:
        text = (unit * (count // len(unit) + 1))[:count]
        events = [START, *(Text(text=char) for char in text), STOP]
        return lambda: through(make(), events)

    ratios: list[float] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(ATTEMPTS):
            ratios.append(best_s(run(2 * N)) / best_s(run(N)))
            if ratios[-1] < LINE:
                return
    finally:
        gc.enable()
    pytest.fail(f"twice the text costs {ratios} times as much, so it is not linear")


@pytest.mark.parametrize("name", ["prose", "half tokens", "one letter", "half stops"])
def test_what_is_held_back_is_bounded(name: str) -> None:
    settings, unit = HARD[name]
    chain = read_filters(settings, {"mine": lambda event: event})()
    longest_wait = 0
    shown = 0
    for place in range(5000):
        given = text_of(chain.receive_event(Text(text=unit[place % len(unit)])))
        shown += len(given)
        longest_wait = max(longest_wait, place + 1 - shown)
    assert longest_wait <= HELD


@pytest.mark.parametrize("kind", [Text, Reasoning])
def test_a_long_event_costs_no_more_than_many_short_ones(
    kind: type[Text] | type[Reasoning],
) -> None:
    text = "the quick <|im_end|> brown a@b.example fox " * 2500
    whole = best_s(lambda: through(chain_of("all"), [kind(text=text), STOP]))
    pieces = [kind(text=text[n : n + 8]) for n in range(0, len(text), 8)]
    assert whole < 2 * best_s(lambda: through(chain_of("all"), [*pieces, STOP]))

"""Every recorded answer is counted as its provider counted it, and cut before it passes a limit.

How much was shown is judged by the recording's own count. Where a provider sends a token an event,
that is its events; where it sends several, its count is shared out by bytes. Of the count is left
out what no reader is shown: hidden thoughts, frames of tool calls, tools the provider runs itself,
and what opens and ends a turn (Claude counts 5 tokens for an answer of one letter).
"""

from __future__ import annotations

import pytest

from llm.filtering import FILES, recorded
from penstock.llm.budget import Limits
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
from penstock.llm.meter import WRITTEN, Meter
from penstock.llm.meter_estimate import CALL_TOKENS

# What opens and ends a turn, in tokens.
TURN = 4


def size_of(event: TokenEvent) -> int:
    match event:
        case Text(text=text) | Reasoning(text=text):
            return len(text.encode())
        case ToolCallDelta(name=name, arguments=arguments):
            return len((name + arguments).encode())
        case _:
            return 0


def usage_of(events: tuple[TokenEvent, ...]) -> Usage | None:
    return next((e for e in reversed(events) if isinstance(e, Usage)), None)


def shares(events: tuple[TokenEvent, ...]) -> list[float] | None:
    """How many tokens each written event shows, or None where the count says more than that."""
    usage = usage_of(events)
    sizes = [size_of(e) for e in events if isinstance(e, WRITTEN)]
    if usage is None or usage.partial or not sizes or isinstance(events[-1], Failure):
        return None
    count = usage.output_tokens
    if not any(isinstance(e, Reasoning) for e in events):
        count -= usage.reasoning_tokens or 0
    count -= CALL_TOKENS * sum(isinstance(e, ToolCall) for e in events)
    if 0.8 * count <= len(sizes):
        return [1.0] * len(sizes)
    count = max(len(sizes), count - TURN)
    has_hidden = any(isinstance(e, ToolCall | Data) for e in events)
    # Below 2.5 bytes a token something is not shown.
    if has_hidden or sum(sizes) < 2.5 * count:
        return None
    return [count * size / sum(sizes) for size in sizes]


def shown(events: tuple[TokenEvent, ...], limit: int) -> int:
    """How many written events a reader is shown under a limit of output tokens."""
    meter = Meter(limits=Limits(output_tokens=limit))
    count = 0
    for event in events:
        if meter.receive_event(event) is not None:
            break
        count += isinstance(event, WRITTEN)
    return count


@pytest.mark.parametrize("dialect", FILES)
def test_a_recorded_answer_is_counted_as_its_provider_counted_it(dialect: str) -> None:
    for digest, events in recorded(dialect):
        meter = Meter(input_tokens=99)
        assert all(meter.receive_event(event) is None for event in events)
        usage = usage_of(events)
        if usage is not None and not usage.partial:
            assert meter.counts().usage == usage, digest
            assert not meter.counts().is_estimate
        else:
            assert meter.counts().is_estimate
            assert meter.counts().usage.output_tokens > 0 or not any(map(size_of, events))


@pytest.mark.parametrize("dialect", FILES)
def test_no_more_than_the_limit_and_one_event_is_shown(dialect: str) -> None:
    for digest, events in recorded(dialect):
        tokens = shares(events)
        if tokens is None:
            continue
        for limit in {*range(1, 40), *range(40, int(sum(tokens)) + 2, 7)}:
            count = shown(events, limit)
            seen, largest = sum(tokens[:count]), max(tokens)
            assert seen <= limit + largest + 1e-6, (digest, limit, seen)


def test_what_can_be_judged_is_most_of_what_was_recorded() -> None:
    every = [events for dialect in FILES for _, events in recorded(dialect)]
    counted = [events for events in every if usage_of(events) is not None]
    judged = [events for events in counted if shares(events) is not None]
    print(f"{len(judged)} of {len(counted)} with a count, of {len(every)}")
    assert len(judged) >= 0.55 * len(counted)


def test_an_answer_within_its_limit_is_cut_only_where_the_estimate_is_above_the_count() -> None:
    """With a token an event the estimate is the count: nothing is cut before the limit."""
    early: list[float] = []
    for dialect in FILES:
        for _, events in recorded(dialect):
            tokens, usage = shares(events), usage_of(events)
            if tokens is None or usage is None or sum(tokens) < 30:
                continue
            limit = max(usage.output_tokens, len(tokens))
            early.append(shown(events, limit) / len(tokens))
    early.sort()
    print([round(share, 2) for share in early])
    assert early[0] >= 0.6
    assert sum(share == 1.0 for share in early) >= len(early) // 2


@pytest.mark.parametrize("dialect", FILES)
def test_a_final_count_above_the_limit_cuts_nothing(dialect: str) -> None:
    for _, events in recorded(dialect):
        whole = [
            e for e in events if isinstance(e, Stop) or (isinstance(e, Usage) and not e.partial)
        ]
        meter = Meter(limits=Limits(output_tokens=0))
        assert all(meter.receive_event(event) is None for event in whole)

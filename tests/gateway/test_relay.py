"""A relay gives what its provider says, in order and together, and ends for one of five reasons.

The provider is fed by hand, and the clock moved by hand.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from llm.reading import assert_in_order
from penstock import Hub
from penstock.core.errors import PenstockError, StoreFailed
from penstock.core.gateway_errors import UpstreamBusy
from penstock.core.limits import MAX_ANSWER_BYTES, MAX_RECORD_BYTES
from penstock.core.record import Batch, EndReason, NewRecord, Record
from penstock.gateway.records import events_of, record_of
from penstock.gateway.relay import Relay
from penstock.llm.budget import Limits
from penstock.llm.events import (
    Data,
    Failure,
    Json,
    Reasoning,
    Start,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from penstock.llm.filters.chain import Chain, EventFunction, Filter
from penstock.llm.filters.table import read_filters
from penstock.llm.meter import Meter
from raw_http import PATIENCE_S

START = Start(id="a", model="m-1")
STOP = Stop(reason="stop", raw="stop")
USAGE = Usage(input_tokens=7, output_tokens=3)
CUT = Stop(reason="length", raw="penstock-limit")


def text(*words: str) -> list[TokenEvent]:
    return [Text(text=word) for word in words]


def partial(output: int, read: int = 0) -> Usage:
    """What is said of usage that the provider did not count to its end."""
    return Usage(input_tokens=read, output_tokens=output, partial=True)


class Fed:
    """A provider that says what it is fed: one sequence for each read, and an empty one at the end.

    A read without food waits until it is fed, or left: as a call, it then has nothing more.
    """

    upstream, model = "main", "m-1"

    def __init__(self, *reads: Sequence[TokenEvent]) -> None:
        self.food: asyncio.Queue[Sequence[TokenEvent]] = asyncio.Queue()
        for events in reads:
            self.food.put_nowait(events)
        self.is_left = False
        self.is_read = asyncio.Event()

    async def read(self) -> Sequence[TokenEvent]:
        self.is_read.set()
        return await self.food.get()

    def abort(self) -> None:
        self.is_left = True
        self.food.put_nowait([])

    async def ask(self) -> Fed:
        return self


class Told:
    """Whom a relay tells, with a clock that stands; `grants` is what there is for the asking."""

    def __init__(self, *grants: Limits | PenstockError) -> None:
        self.grants = [*grants]
        self.now = 100.0
        self.asked = 0
        self.waits: asyncio.Event | None = None
        self.first: list[tuple[str, str, float, float]] = []
        self.ended: list[Relay] = []
        self.relay: Relay | None = None

    async def more(self) -> bool:
        self.asked += 1
        if self.waits is not None:
            await self.waits.wait()
        if not self.grants:
            return False
        grant = self.grants.pop(0)
        if isinstance(grant, PenstockError):
            raise grant
        assert self.relay is not None
        self.relay.meter.limits = grant
        return self.relay.meter.cut_by is None

    def first_token(self, upstream: str, model: str, waited_s: float, added_s: float) -> None:
        self.first.append((upstream, model, waited_s, added_s))

    async def settled(self, relay: Relay) -> None:
        self.ended.append(relay)


def relay(
    provider: Fed | Callable[[], Awaitable[Fed]],
    *filters: Filter | EventFunction,
    limits: Limits | None = None,
    told: Told | None = None,
    is_lowered: bool = False,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Relay:
    told = told or Told()
    told.relay = Relay(
        provider.ask if isinstance(provider, Fed) else provider,
        Chain(filters),
        Meter(limits=limits),
        told,
        is_lowered=lambda upstream: is_lowered and upstream == "main",
        clock=lambda: told.now,
        max_record_bytes=max_record_bytes,
    )
    return told.relay


async def batches(one: Relay) -> list[Batch]:
    async with asyncio.timeout(PATIENCE_S):
        return [batch async for batch in one]


def said(records: Sequence[NewRecord]) -> list[TokenEvent]:
    return events_of(Record(0, new.payload, new.type) for new in records)


async def all_of(one: Relay) -> list[TokenEvent]:
    """Everything a relay gives; in the order that events have, and the end with the last of it."""
    given = await batches(one)
    assert [batch.end for batch in given[:-1]] == [None] * (len(given) - 1)
    assert given[-1].end == one.end is not None
    events = [event for batch in given for event in said(batch.records)]
    assert_in_order(events)
    return events


class Breaks:
    """A filter that raises at an event of a type, and when it is flushed."""

    def __init__(self, *kinds: type[TokenEvent], at_flush: bool = False) -> None:
        self._kinds, self._at_flush = kinds, at_flush

    def receive_event(self, event: TokenEvent) -> list[TokenEvent]:
        if isinstance(event, self._kinds):
            raise ValueError("the-secret-word")
        return [event]

    def flush(self) -> list[TokenEvent]:
        if self._at_flush:
            raise ValueError("the-secret-word")
        return []


def filters(kind: str, **options: list[Json]) -> Chain:
    """A filter as the configuration names it. A chain is one too."""
    return read_filters([{"kind": kind, **options}])()


def held(pattern: str) -> Chain:
    return filters("redact", patterns=[pattern])


# --- what comes ---------------------------------------------------------------------------------


async def test_what_one_read_brings_is_one_batch_in_its_order() -> None:
    reads = [
        [START, *text("a", "b")],
        [Reasoning(text="c"), ToolCallDelta(index=0, id="t", name="f", arguments="{")],
        [
            ToolCallDelta(index=0, arguments="}"),
            ToolCall(index=0, id="t", name="f", arguments="{}", arguments_valid=True),
            Data(kind="citation", value={"a": [1, None, "é\u2028"]}),
            STOP,
        ],
        [USAGE],
    ]
    given = await batches(relay(Fed(*reads, [])))
    assert [said(batch.records) for batch in given] == [*reads, []]
    assert [batch.end for batch in given] == [None, None, None, None, "complete"]


async def test_usage_after_the_stop_and_data_after_it_are_given() -> None:
    events = [START, *text("a"), STOP, Data(kind="b", value=1), USAGE]
    assert await all_of(relay(Fed(events, []))) == events


async def test_an_answer_that_nobody_counted_says_what_is_thought_it_used() -> None:
    one = relay(Fed([START, *text("a", "b", "c"), STOP], []))
    assert await all_of(one) == [START, *text("a", "b", "c"), STOP, partial(3)]
    assert one.end == "complete"
    assert one.counts().is_estimate


async def test_a_provider_that_counts_as_it_goes_has_the_last_word_of_its_own() -> None:
    events = [START, partial(1, 7), *text("a", "b"), partial(2, 7), STOP]
    assert await all_of(relay(Fed(events, []))) == [*events, partial(2, 7)]
    assert await all_of(relay(Fed([*events, USAGE], []))) == [*events, USAGE]


async def test_an_end_without_a_stop_is_truncated() -> None:
    provider = Fed([START, *text("a")], [])
    one = relay(provider)
    *before, last = await all_of(one)
    assert before == [START, *text("a"), partial(1)]
    assert isinstance(last, Failure)
    assert (last.code, last.status, one.end) == ("upstream-truncated", 502, "failed")
    assert provider.is_left


async def test_a_failure_of_the_provider_is_the_last_and_has_the_usage_before_it() -> None:
    failure = Failure(message="overloaded", code="overloaded_error", status=529)
    provider = Fed([START, *text("a", "b"), failure])
    one = relay(provider)
    assert await all_of(one) == [START, *text("a", "b"), partial(2), failure]
    assert (one.end, provider.is_left) == ("failed", True)


async def test_a_failure_after_the_stop_fails_the_answer() -> None:
    one = relay(Fed([START, *text("a"), STOP, USAGE], [Failure(message="x", code="y")]))
    assert (await all_of(one))[-2:] == [USAGE, Failure(message="x", code="y")]
    assert one.end == "failed"


async def test_a_provider_that_cannot_be_asked_fails_the_answer_and_is_not_counted() -> None:
    async def ask() -> Fed:
        raise UpstreamBusy("main")

    told = Told()
    one = relay(ask, told=told)
    (failure,) = await all_of(one)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.status, one.end) == ("upstream-busy", 503, "failed")
    await one.aclose()
    assert (one.upstream, one.first_token_s, told.first) == ("", None, [])


async def test_what_is_no_error_of_ours_goes_through() -> None:
    async def ask() -> Fed:
        raise ZeroDivisionError

    one = relay(ask)
    with pytest.raises(ZeroDivisionError):
        await anext(one)
    await one.aclose()
    assert one.end == "failed"


# --- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_piecewise", [False, True])
async def test_an_answer_is_cut_at_its_limit(*, is_piecewise: bool) -> None:
    events = [START, *text("a", "b", "c", "d", "e")]
    provider = Fed(*([[event] for event in events] if is_piecewise else [events]))
    one = relay(provider, limits=Limits(output_tokens=3))
    # What came in one read was written by then, shown or not.
    used = partial(4 if is_piecewise else 5)
    assert await all_of(one) == [START, *text("a", "b", "c"), CUT, used]
    assert (one.end, one.cut_by, provider.is_left) == ("limit", "output_tokens", True)


async def test_a_limit_of_nothing_shows_nothing() -> None:
    one = relay(Fed([START, *text("a")]), limits=Limits(output_tokens=0))
    assert await all_of(one) == [START, CUT, partial(1)]
    assert one.first_token_s is None


async def test_a_count_that_came_with_the_cut_is_the_count() -> None:
    one = relay(
        Fed([START, *text("a", "b", "c"), STOP, Usage(input_tokens=9, output_tokens=30)]),
        limits=Limits(output_tokens=2),
    )
    used = Usage(input_tokens=9, output_tokens=30)
    assert await all_of(one) == [START, *text("a", "b"), CUT, used]
    assert not one.counts().is_estimate


async def test_what_filters_hold_is_decided_before_the_cut() -> None:
    one = relay(
        Fed([START, *text("b", "a", "a", "a", "a")]),
        held("aaaa"),
        limits=Limits(output_tokens=3),
    )
    # The front of something hidden is not shown.
    assert await all_of(one) == [START, *text("b"), CUT, partial(5)]


async def test_more_is_asked_for_at_each_limit_and_the_answer_goes_on() -> None:
    told = Told(Limits(output_tokens=4), Limits(output_tokens=5))
    one = relay(
        Fed([START, *text("a", "b", "c", "d")], text("e", "f", "g")),
        limits=Limits(output_tokens=2),
        told=told,
    )
    assert await all_of(one) == [START, *text("a", "b", "c", "d", "e"), CUT, partial(7)]
    assert (told.asked, one.end) == (3, "limit")


async def test_more_that_is_too_little_cuts() -> None:
    told = Told(Limits(output_tokens=1))
    one = relay(Fed([START, *text("a", "b")]), limits=Limits(output_tokens=1), told=told)
    assert await all_of(one) == [START, *text("a"), CUT, partial(2)]


async def test_a_store_that_fails_when_more_is_asked_for_ends_the_answer_with_what_came() -> None:
    one = relay(
        Fed([START, *text("a", "b")]),
        limits=Limits(output_tokens=1),
        told=Told(StoreFailed("write", "no")),
    )
    *before, failure = await all_of(one)
    assert before == [START, *text("a"), partial(2)]
    assert isinstance(failure, Failure)
    assert (failure.code, one.end) == ("store-failed", "failed")


async def test_an_answer_that_is_ended_while_it_asks_for_more_loses_nothing() -> None:
    told = Told(Limits(output_tokens=9))
    told.waits = asyncio.Event()
    provider = Fed([START, *text("a", "b", "c")])
    one = relay(provider, limits=Limits(output_tokens=1), told=told)
    going = asyncio.create_task(batches(one))
    async with asyncio.timeout(PATIENCE_S):
        while not told.asked:
            await asyncio.sleep(0)
    words = said(one.last_words(EndReason.CANCELLED))
    assert words == [START, *text("a"), partial(3)]
    assert provider.is_left
    told.waits.set()
    # The store may not have taken that end: it has it once more, and nothing with it.
    assert await going == [Batch([], EndReason.CANCELLED)]
    assert one.cut_by is None


@pytest.mark.parametrize("is_lowered", [True, False])
async def test_a_provider_s_end_for_length_is_the_budget_s_where_that_lowered_it(
    *, is_lowered: bool
) -> None:
    stop = Stop(reason="length", raw="max_tokens")
    one = relay(Fed([START, *text("a"), stop, USAGE], []), is_lowered=is_lowered)
    assert await all_of(one) == [START, *text("a"), stop, USAGE]
    assert one.end == ("limit" if is_lowered else "complete")
    assert one.cut_by == ("output_tokens" if is_lowered else None)


# --- filters ------------------------------------------------------------------------------------


async def test_a_filter_s_end_leaves_the_provider_and_counts_all_that_came() -> None:
    provider = Fed([START, *text("a", "b", "##", "c"), STOP, USAGE], text("never"))
    one = relay(provider, filters("stop", sequences=["##"]))
    assert await all_of(one) == [START, *text("a", "b"), Stop(reason="stop", raw="##"), USAGE]
    assert (one.end, provider.is_left) == ("complete", True)


async def test_a_filter_that_refuses_a_tool_call_fails_the_answer() -> None:
    call = ToolCall(index=0, id="t", name="f", arguments="{", arguments_valid=False)
    provider = Fed([START, *text("a"), call, STOP, USAGE])
    one = relay(provider, filters("whole-tool-calls"))
    *before, failure = await all_of(one)
    assert before == [START, *text("a"), USAGE]
    assert isinstance(failure, Failure)
    assert (failure.code, one.end) == ("upstream-arguments-invalid", "failed")
    assert provider.is_left


async def test_what_is_wholly_filtered_gives_no_batch() -> None:
    def nothing(event: TokenEvent) -> None:
        return None

    given = await batches(relay(Fed(text("a"), text("b"), [STOP, USAGE], []), nothing))
    assert [said(batch.records) for batch in given] == [[STOP, USAGE], []]


@pytest.mark.parametrize(("kind", "seen"), [(Text, [START]), (Usage, [START, *text("a"), STOP])])
async def test_a_filter_that_raises_fails_the_answer_and_is_logged_without_its_words(
    kind: type[TokenEvent], seen: list[TokenEvent], caplog: pytest.LogCaptureFixture
) -> None:
    provider = Fed([START, *text("a"), STOP, USAGE])
    one = relay(provider, Breaks(kind))
    *before, failure = await all_of(one)
    assert before == [*seen, USAGE]
    assert isinstance(failure, Failure)
    assert (failure.code, failure.status, one.end) == ("filter-failed", 500, "failed")
    assert provider.is_left
    assert "ValueError" in caplog.text
    assert "the-secret-word" not in caplog.text


async def test_a_filter_that_raises_at_the_cut_fails_the_answer() -> None:
    one = relay(Fed([START, *text("a", "b")]), Breaks(Stop), limits=Limits(output_tokens=1))
    *before, failure = await all_of(one)
    assert before == [START, *text("a"), partial(2)]
    assert isinstance(failure, Failure)
    assert one.end == "failed"


@pytest.mark.parametrize("is_truncated", [True, False])
async def test_a_filter_that_raises_when_it_is_flushed_hides_nothing_else(
    *, is_truncated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    provider = Fed([START, *text("a")], *([[]] if is_truncated else []))
    one = relay(provider, Breaks(at_flush=True))
    if is_truncated:
        *before, failure = await all_of(one)
        assert before == [START, *text("a"), partial(1)]
        assert isinstance(failure, Failure)
        assert failure.code == "upstream-truncated"
    else:
        await anext(one)
        assert said(one.last_words(EndReason.CANCELLED)) == [partial(1)]
    assert "ValueError" in caplog.text
    assert "the-secret-word" not in caplog.text


# --- too much -----------------------------------------------------------------------------------


async def test_an_endless_answer_is_ended() -> None:
    piece = text("x" * 1_000_000)
    provider = Fed([START], *[piece] * 40)
    one = relay(provider)
    *before, usage, failure = await all_of(one)
    assert isinstance(failure, Failure)
    assert (failure.code, one.end, provider.is_left) == ("upstream-endless", "failed", True)
    assert isinstance(usage, Usage)
    size = sum(len(record_of(event).payload) for event in before)
    assert MAX_ANSWER_BYTES < size <= MAX_ANSWER_BYTES + 1_000_100


async def test_an_answer_of_endless_small_events_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.gateway.relay._MOST_RECORDS", 100)
    one = relay(Fed([START], *[text(*"abcdefgh")] * 40))
    *before, _, failure = await all_of(one)
    assert isinstance(failure, Failure)
    assert (failure.code, len(before)) == ("upstream-endless", 101)


@pytest.mark.parametrize("kind", [Text, Reasoning])
@pytest.mark.parametrize("char", ["x", "\n", "é", "\U0001f600", "\x00"])
async def test_a_text_too_large_for_a_record_is_several(
    kind: type[Text] | type[Reasoning], char: str
) -> None:
    whole = f"<{char * 5_000}>"
    one = relay(Fed([START, kind(text=whole), STOP, USAGE], []), max_record_bytes=1_000)
    (batch, _) = await batches(one)
    assert max(len(record.payload) for record in batch.records) <= 1_000
    pieces = [event for event in said(batch.records) if isinstance(event, kind)]
    assert "".join(piece.text for piece in pieces) == whole
    assert one.end == "complete"


@pytest.mark.parametrize(
    "event",
    [
        Data(kind="image", value="x" * 2_000),
        ToolCall(index=0, id="t", name="f", arguments='"' * 2_000, arguments_valid=False),
    ],
)
async def test_anything_else_too_large_for_a_record_fails_the_answer(event: TokenEvent) -> None:
    provider = Fed([START, *text("a"), event])
    one = relay(provider, max_record_bytes=1_000)
    *before, failure = await all_of(one)
    assert before == [START, *text("a"), partial(1)]
    assert isinstance(failure, Failure)
    assert (failure.code, one.end, provider.is_left) == ("upstream-endless", "failed", True)


# --- ends that others give ----------------------------------------------------------------------


async def test_last_words_are_what_is_held_and_what_was_used() -> None:
    provider = Fed([START, *text("say ", "aaa")])
    one = relay(provider, held("a{3,9}b"))
    assert said((await anext(one)).records) == [START, *text("say ")]
    reading = asyncio.create_task(batches(one))
    await asyncio.sleep(0)
    assert said(one.last_words(EndReason.CANCELLED)) == [partial(2)]
    assert provider.is_left
    assert await reading == [Batch([], EndReason.CANCELLED)]
    assert one.last_words(EndReason.LOST) == []
    with pytest.raises(StopAsyncIteration):
        await anext(one)
    assert one.end == "cancelled"


async def test_last_words_show_what_can_be_nothing_hidden() -> None:
    one = relay(Fed([START, *text("a ", " ")]), filters("white-space"))
    await anext(one)
    words = said(one.last_words(EndReason.CANCELLED))
    assert words[-1] == partial(2)


async def test_there_are_no_words_of_an_answer_that_nobody_gives() -> None:
    provider, asked = Fed(), asyncio.Event()

    async def ask() -> Fed:
        await asked.wait()
        return provider

    one = relay(ask)
    going = asyncio.create_task(batches(one))
    await asyncio.sleep(0)
    assert one.last_words(EndReason.CANCELLED) == []
    asked.set()
    assert await going == [Batch([], EndReason.CANCELLED)]
    await one.aclose()
    assert provider.is_left
    assert not provider.is_read.is_set()


async def test_there_are_no_words_after_the_answer_s_own_end() -> None:
    one = relay(Fed([START, *text("a"), STOP, USAGE], []))
    await all_of(one)
    assert one.last_words(EndReason.CANCELLED) == []
    assert one.end == "complete"


async def test_reading_can_be_cancelled() -> None:
    told, provider = Told(), Fed([START])
    one = relay(provider, told=told)
    await anext(one)
    reading = asyncio.ensure_future(anext(one))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await one.aclose()
    assert provider.is_left
    assert len(told.ended) == 1


@pytest.mark.parametrize("is_begun", [True, False])
async def test_closing_settles_once(*, is_begun: bool) -> None:
    told, provider = Told(), Fed([START, *text("a")])
    one = relay(provider, told=told)
    if is_begun:
        await anext(one)
    told.now += 5
    await one.aclose()
    told.now += 5
    await one.aclose()
    assert told.ended == [one]
    assert (one.end, one.total_s, provider.is_left) == ("failed", 5, is_begun)
    assert one.counts().usage.output_tokens == (1 if is_begun else 0)


# --- figures ------------------------------------------------------------------------------------


async def test_the_first_token_is_told_once_it_is_committed() -> None:
    told, provider = Told(), Fed([START])
    one = relay(provider, told=told)
    await anext(one)
    told.now += 2
    provider.food.put_nowait(text("a"))
    await anext(one)
    told.now += 0.5  # the commit
    assert told.first == []
    provider.food.put_nowait(text("b"))
    await anext(one)
    told.now += 9
    await one.aclose()
    assert told.first == [("main", "m-1", 2, 0.5)]
    assert (one.first_token_s, one.total_s) == (2, 11.5)


async def test_a_whole_answer_in_one_read_has_a_first_token_too() -> None:
    told = Told()
    one = relay(Fed([START, *text("a"), STOP, USAGE], []), told=told)
    await batches(one)
    cut = relay(Fed([START, *text("a", "b")]), told=told, limits=Limits(output_tokens=1))
    await batches(cut)
    await cut.aclose()
    assert len(told.first) == 2


async def test_a_token_that_is_held_back_is_late_by_us() -> None:
    told, provider = Told(), Fed([START, *text("a")])
    one = relay(provider, held("aab"), told=told)
    await anext(one)
    going = asyncio.ensure_future(anext(one))
    await asyncio.sleep(0)
    told.now += 3
    provider.food.put_nowait(text("c"))
    assert said((await going).records)
    provider.food.put_nowait(text("d"))
    await anext(one)
    assert told.first == [("main", "m-1", 0, 3)]


async def test_a_first_token_that_was_never_shown_is_not_told() -> None:
    told = Told()
    one = relay(Fed([START, *text("a")]), held("aab"), told=told)
    await anext(one)
    one.last_words(EndReason.CANCELLED)
    await one.aclose()
    assert told.first == []


# --- what needs no task -------------------------------------------------------------------------


class Pushed(Fed):
    """A provider that gives away what it is fed as it comes, while somebody waits for it."""

    sink: Callable[[list[TokenEvent]], bool] | None = None

    def push_to(self, sink: Callable[[list[TokenEvent]], bool]) -> None:
        self.sink = sink

    def say(self, *words: str) -> bool:
        """Say something; whether it was dealt with at once. Else it is read."""
        assert self.sink is not None
        events = text(*words)
        if self.sink(events):
            return True
        self.food.put_nowait(events)
        return False


class Store:
    """What is committed at once, if it takes it."""

    def __init__(self) -> None:
        self.takes = True
        self.records: list[NewRecord] = []

    def __call__(self, records: Sequence[NewRecord]) -> bool:
        if self.takes:
            self.records += records
        return self.takes


async def waiting(provider: Fed, one: Relay) -> asyncio.Future[Batch]:
    """A relay that waits for its provider."""
    provider.is_read.clear()
    going = asyncio.ensure_future(anext(one))
    async with asyncio.timeout(PATIENCE_S):
        await provider.is_read.wait()
    return going


async def test_text_that_is_pushed_is_committed_where_it_comes() -> None:
    told, provider, store = Told(), Pushed([START, *text("a")]), Store()
    one = relay(provider, told=told)
    one.push_to(store)
    await anext(one)
    told.now += 0.25
    going = await waiting(provider, one)
    assert provider.say("b", "c")
    assert provider.say("d")
    assert said(store.records) == text("b", "c", "d")
    provider.food.put_nowait([STOP])
    provider.food.put_nowait([])
    assert said((await going).records) == [STOP]
    assert said((await anext(one)).records) == [partial(4)]
    await one.aclose()
    assert told.first == [("main", "m-1", 0, 0.25)]


async def test_text_that_cannot_be_committed_at_once_is_given_once() -> None:
    provider, store = Pushed([START, *text("a")]), Store()
    one = relay(provider)
    one.push_to(store)
    await anext(one)
    going = await waiting(provider, one)
    store.takes = False
    assert not provider.say("b")
    assert said((await going).records) == text("b")
    store.takes = True
    going = await waiting(provider, one)
    assert provider.say("c")
    going.cancel()
    assert one.counts().usage.output_tokens == 3


async def test_text_that_could_not_be_committed_is_among_the_last_words() -> None:
    provider, store = Pushed([START, *text("a")]), Store()
    one = relay(provider)
    one.push_to(store)
    await anext(one)
    going = await waiting(provider, one)
    store.takes = False
    assert not provider.say("b")
    assert said(one.last_words(EndReason.CANCELLED)) == [*text("b"), partial(2)]
    assert not provider.say("c")
    assert await going == Batch([], EndReason.CANCELLED)


async def test_nothing_is_committed_at_once_near_a_limit_or_behind_a_filter() -> None:
    for limits, some in ((Limits(output_tokens=20), []), (None, [filters("white-space")])):
        provider, store = Pushed([START, *text("a")]), Store()
        one = relay(provider, *some, limits=limits)
        one.push_to(store)
        await anext(one)
        going = await waiting(provider, one)
        assert provider.sink is None or not provider.say("b" * 60)
        assert not store.records
        going.cancel()


@pytest.mark.parametrize("seed", range(40))
async def test_pushed_or_read_an_answer_is_cut_at_the_same_place(seed: int) -> None:
    draw = random.Random(seed)
    # Six characters an event are a token each; a few more, and all of it counts by its bytes.
    sizes = draw.choice([[1, 3, 9], [6, 6, 6, 6, 7], [1, 40], [6, 6, 6, 6, 6, 6, 6, 900]])
    words = ["x" * 6] * draw.randint(0, 90) + ["x" * draw.choice(sizes) for _ in range(400)]
    limit = draw.randint(60, 300)
    read = relay(Fed([START], *[text(word) for word in words]), limits=Limits(output_tokens=limit))
    expected = await all_of(read)
    provider, store = Pushed([START]), Store()
    one = relay(provider, limits=Limits(output_tokens=limit))
    one.push_to(store)
    given = said((await anext(one)).records)
    left = iter(words)
    while one.end is None:
        going = await waiting(provider, one)
        while not going.done() and provider.say(next(left)):
            pass
        batch = await going
        given += [*said(store.records), *said(batch.records)]
        store.records.clear()
    shown = [event for event in given if isinstance(event, Text)]
    assert shown == [event for event in expected if isinstance(event, Text)]
    assert one.end == "limit"


# --- in a hub -----------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/streams.db"


async def test_a_stream_has_what_the_relay_gave_and_its_end(backend: str) -> None:
    told = Told()
    events = [START, *text(*"abcdefgh"), STOP, USAGE]
    async with Hub(backend) as hub:
        one = relay(Fed(*[[event] for event in events], []), told=told)
        stream = await hub.start("a", one, last_words=one.last_words)
        async with asyncio.timeout(PATIENCE_S):
            await stream.wait(len(events))
            while stream.end is None or not told.ended:
                await asyncio.sleep(0.001)
        assert events_of(await stream.records()) == events
        assert stream.end == "complete"


@pytest.mark.parametrize("after", [0, 1, 3, 8])
async def test_a_cancelled_stream_has_the_usage_so_far(backend: str, after: int) -> None:
    told, provider = Told(), Fed([START, *text(*"abcdefgh")][: after + 1])
    async with Hub(backend) as hub:
        one = relay(provider, told=told)
        stream = await hub.start("a", one, last_words=one.last_words)
        async with asyncio.timeout(PATIENCE_S):
            await stream.wait(after)
        assert await stream.cancel()
        assert provider.is_left
        assert events_of(await stream.records()) == [
            START,
            *text(*"abcdefgh")[:after],
            partial(after),
        ]
        assert (stream.end, told.ended[0].end) == ("cancelled", "cancelled")


async def test_a_stream_whose_server_stops_is_lost_with_the_usage_so_far(backend: str) -> None:
    told = Told()
    async with Hub(backend) as hub:
        one = relay(Fed([START, *text("a", "b")]), told=told)
        stream = await hub.start("a", one, last_words=one.last_words)
        async with asyncio.timeout(PATIENCE_S):
            await stream.wait(2)
    assert (stream.end, told.ended[0].end) == ("lost", "lost")
    if backend != "memory://":
        async with Hub(backend) as hub:
            again = await hub.get("a")
            assert events_of(await again.records()) == [START, *text("a", "b"), partial(2)]


class OneBehind:
    """A filter that always holds the last word, and gives it when the answer is broken off."""

    def __init__(self) -> None:
        self._held: list[TokenEvent] = []

    def receive_event(self, event: TokenEvent) -> list[TokenEvent]:
        held, self._held = self._held, [event] if isinstance(event, Text) else []
        return held if self._held else [*held, event]

    def flush(self) -> list[TokenEvent]:
        return self._held


async def test_a_stream_that_is_cancelled_at_any_moment_has_a_front_of_the_answer(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    words = [f"{number} " for number in range(200)]
    async with Hub(backend) as hub:
        for turns in range(0, 200, 10):
            one = relay(Fed([START], *[text(word) for word in words]), OneBehind())
            stream = await hub.start(f"a{turns}", one, last_words=one.last_words)
            for _ in range(turns):
                await asyncio.sleep(0)
            await stream.cancel()
            events = events_of(await stream.records())
            shown = [event.text for event in events if isinstance(event, Text)]
            assert shown == words[: len(shown)], turns
            assert not events or isinstance(events[-1], Usage), turns
            assert (stream.end, one.end) == ("cancelled", "cancelled")
    assert not caplog.records

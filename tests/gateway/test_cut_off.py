"""At a budget of N output tokens never more than N and one chunk of the provider is shown.

Counted by each recording's own usage (`llm/test_meter_recordings.py` says how), over HTTP as the
provider sent it. The stream ends as `limit`, every client sees its dialect's own word for an end by
length, and the provider, which would write on, is left.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.gateways import PATHS, TEXT, gateway, model, shown, until
from llm.filtering import FILES, MISSING
from llm.plain_clients import CLIENTS
from llm.reading import read
from llm.test_meter_recordings import shares
from penstock import Hub
from penstock.core.record import EndReason
from penstock.gateway.account import Caller
from penstock.gateway.answers import Answers
from penstock.gateway.config import read_config
from penstock.gateway.records import events_of
from penstock.llm.ask.dialects import WRITERS, read_request
from penstock.llm.budget import Limits
from penstock.llm.dialects import find_dialect
from penstock.llm.events import Failure, Stop, Text, TokenEvent, ToolCall, Usage
from penstock.llm.meter import WRITTEN, Meter
from penstock.llm.write.about import About
from penstock.server.stream import Stream
from penstock.testing.recordings import Recording, load, tokens
from penstock.testing.speech.dialects import SPEAKERS
from penstock.testing.upstream import RecordedUpstream
from raw_http import PATIENCE_S

AT_ONCE = 16
BUDGETS = (1, 2, 7, 40, 200)


def base_url(provider: RecordedUpstream, dialect: str) -> str:
    return f"{provider.url}/v1" if dialect.startswith("openai") else provider.url


def upstream(provider: RecordedUpstream, dialect: str) -> dict[str, Any]:
    known: dict[str, Any] = {"dialect": dialect, "base_url": base_url(provider, dialect)}
    known |= {"models": [f"{dialect}/*"], "retries": 0}
    return known | ({"api_key": "k", "region": "eu-west-1"} if dialect == "bedrock" else {})


@asynccontextmanager
async def answering(provider: RecordedUpstream, dialect: str, n: int) -> AsyncGenerator[Answers]:
    """Answers of one provider under a budget of N output tokens each."""
    tables = {
        "upstreams": {"main": upstream(provider, dialect)},
        "budgets": {"answer": {"output_tokens": n}},
    }
    config = read_config(tables, environment={})
    assert config is not None
    hub = Hub()
    answers = Answers(hub, config)
    try:
        async with hub:
            await answers.open()
            yield answers
    finally:
        await answers.close()


def recordings(dialect: str) -> Sequence[Recording]:
    found = load(FILES[dialect])
    if not found:
        pytest.skip(MISSING)
    return found


def cut_at(dialect: str, chunks: Sequence[bytes], n: int) -> tuple[int, int] | None:
    """How many events come before the one that is cut, and how many chunks until then; None where
    the answer is not cut. Nothing is decided before the first content."""
    reader = find_dialect(dialect).make_reader()
    meter = Meter(limits=Limits(output_tokens=n))
    seen: int | None = None
    count, has_content = 0, False
    for place, chunk in enumerate(chunks, start=1):
        reader.receive_data(chunk)
        for event in reader.events():
            if meter.receive_event(event) is not None and seen is None:
                seen = count
            count += 1
            has_content = has_content or isinstance(event, (*WRITTEN, ToolCall, Stop))
        if seen is not None and has_content:
            return seen, place
    return None


async def ask(answers: Answers, name: str) -> Stream:
    body = {"model": name, "messages": [{"role": "user", "content": "Why?"}]}
    request = read_request("openai-chat", json.dumps(body).encode())
    stream, _ = await answers.start(request, Caller(), dialect="openai-chat")
    async with asyncio.timeout(PATIENCE_S):
        while stream.end is None:
            await stream.wait(stream.head.tail)
    return stream


@pytest.mark.parametrize("dialect", WRITERS)
async def test_no_recording_shows_more_than_its_budget_and_a_chunk(dialect: str) -> None:
    found = recordings(dialect)
    slots = asyncio.Semaphore(AT_ONCE)
    cut = judged = 0

    async def one(answers: Answers, place: int, n: int) -> None:
        nonlocal cut, judged
        recording = found[place]
        chunks = SPEAKERS[dialect].framing.split(recording.body)
        found_at = cut_at(dialect, chunks, n)
        if found_at is None or recording.status != 200:
            return
        events = tuple(read(dialect, recording.body))
        limit, needed = found_at
        # It stands still where it is to be cut: who does not leave it, waits.
        knobs = f"tokens_per_s=0&stall_after={needed}&stall_s=60"
        name = f"{dialect}/recorded:{place}?{knobs}"
        async with slots:
            stream = await ask(answers, name)
        records = await stream.records()
        given = events_of(records)
        check(stream, events, given, limit, n)
        check_every_client(About.from_record(records[0]), given)
        cut += 1
        judged += shares(events) is not None
        if needed < len(chunks):
            await until(lambda: left(provider, name))

    async with RecordedUpstream() as provider:
        for n in BUDGETS:
            provider.log.clear()
            async with answering(provider, dialect, n) as answers:
                await asyncio.gather(*(one(answers, place, n) for place in range(len(found))))
                await until(lambda: answers.books.running == 0)
    print(f"{dialect}: {len(found)} recordings, {cut} cuts, {judged} judged by their own count")
    assert judged


def left(provider: RecordedUpstream, name: str) -> bool:
    """Whether an answer's client went away. Some dialects have the model in their path."""
    name = name.partition("/")[2]
    gone = [str(entry["model"]) for entry in provider.log if entry["event"] == "gone"]
    return any(model.endswith(name) for model in gone)


def check(
    stream: Stream,
    events: tuple[TokenEvent, ...],
    given: list[TokenEvent],
    limit: int,
    n: int,
) -> None:
    """What was shown is the front of the recording, and within the budget by its own count."""
    assert stream.end == EndReason.LIMIT
    written = [event for event in given if isinstance(event, WRITTEN)]
    assert written == [event for event in events[:limit] if isinstance(event, WRITTEN)]
    stops = [event for event in given if isinstance(event, Stop)]
    assert [stop.reason for stop in stops] == ["length"]
    assert isinstance(given[-1], Usage)
    parts = shares(events)
    if parts is not None:
        seen = sum(parts[: len(written)])
        assert seen <= n + max(parts) + 1e-6, (stream.name, n, seen)


def check_every_client(about: About, given: list[TokenEvent]) -> None:
    text = "".join(event.text for event in given if isinstance(event, Text))
    for dialect, client in CLIENTS.items():
        writer = about.make_writer(dialect)
        for event in given:
            writer.receive_event(event)
        writer.end(EndReason.LIMIT)
        seen = client(writer.data_to_send())
        # Our own dialect says the stream's end itself.
        end = "limit" if dialect == "native" else "length"
        assert (seen.end, seen.text) == (end, text), dialect


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("obeys", [0, 1])
async def test_every_client_sees_an_end_by_length(dialect: str, obeys: int) -> None:
    async with gateway(budgets={"answer": {"output_tokens": 9}}) as running:
        answer = await running.create(dialect, model(f"tokens_per_s=0&obeys_limit={obeys}"))
        seen = shown(dialect, answer.body) if dialect != "native" else None
        stream = await running.answer()
        await until(lambda: stream.end is not None)
        assert stream.end == "limit"
        text = "".join(
            event.text for event in events_of(await stream.records()) if isinstance(event, Text)
        )
        assert text == "".join(tokens(TEXT)[:9])
        if seen is not None:
            assert (seen.end, seen.text) == ("length", text)
        # A provider that can be told is told, and its own word goes on.
        assert running.provider.log[0]["max_output_tokens"] == 9


async def test_a_callers_own_maximum_is_no_budget_s() -> None:
    async with gateway() as running:
        answer = await running.create("openai-chat", model(), max_tokens=9)
        assert shown("openai-chat", answer.body).end == "length"
        assert (await running.answer()).end == "complete"


async def test_an_answer_that_fails_within_its_budget_is_no_cut() -> None:
    async with gateway(budgets={"answer": {"output_tokens": 90}}) as running:
        await running.create("openai-chat", model("tokens_per_s=0&cut_after=9"))
        stream = await running.answer()
        await until(lambda: stream.end is not None)
        assert stream.end == "failed"
        assert isinstance(events_of(await stream.records())[-1], Failure)

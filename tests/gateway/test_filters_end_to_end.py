"""Control tokens, secrets and stop sequences never reach a reader, wherever a body is cut.

Bodies of every provider's dialect are split at every byte, broken off at every byte and cancelled
after every event, and what is committed is read in every dialect that is written, by its plainest
client. A few go by HTTP, cut at random.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.gateways import PATHS, TEXT, gateway, model, plain, until
from llm.plain_clients import CLIENTS, ENVELOPE
from penstock.core.record import EndReason, NewRecord, Record
from penstock.gateway.records import events_of
from penstock.gateway.relay import Relay
from penstock.llm.dialects import find_dialect
from penstock.llm.events import Reasoning, Text, TokenEvent, ToolCallDelta
from penstock.llm.filters.table import read_filters
from penstock.llm.meter import Meter
from penstock.llm.write.dialects import find_out_dialect
from penstock.testing.recordings import tokens
from penstock.testing.speech.dialects import SPEAKERS
from penstock.testing.speech.said import Said, SaidCall
from penstock.testing.speech.speaker import Speaker

KEY = "sk-QQQQwwwwEEEErrrrTTTT"
FILTERS: list[dict[str, Any]] = [
    {"kind": "strip"},
    {"kind": "redact", "presets": ["api-keys"], "patterns": ["пароль-[0-9]{2}"]},
    {"kind": "stop", "sequences": ["§§§", "\u2028ZZ"]},
]
make_chain = read_filters(FILTERS)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a model says, and what may be seen of it. `hidden` is in nothing that anybody reads."""

    said: str
    seen: str
    hidden: tuple[str, ...]


# In one: a token, a key, letters of two bytes each.
HIDES = Case(
    said=f"a<|im_end|>b {KEY} c пароль-42.",
    seen="ab [redacted] c [redacted].",
    hidden=("<|", "im_", "|>", "sk-", "QQQQ", "TTTT", "пар", "\\u043f", "-42"),
)
# A token inside a token, and one inside a key.
NESTS = Case(
    said=f"a<|im_<|pad|>nd|>b sk-<|pad|>{KEY[3:]} c.",
    seen="ab [redacted] c.",
    hidden=("<|", "im_", "pad", "|>", "sk-", "QQQQ", "TTTT"),
)
STOPS = Case(said="One.§§§Two.", seen="One.", hidden=("Two",))
STOPS_AT_A_LINE = Case(said="One \u2028ZZTwo.", seen="One ", hidden=("Two",))
CASES = {"hides": HIDES, "nests": NESTS, "stops": STOPS, "stops at a line": STOPS_AT_A_LINE}


class Read:
    """A provider whose reads were made before; behind the last it raises `error`, if any."""

    upstream, model = "main", "m-1"

    def __init__(
        self, reads: Sequence[Sequence[TokenEvent]], error: type[Exception] | None = None
    ) -> None:
        self._reads, self._error = iter(reads), error

    async def ask(self) -> Read:
        return self

    async def read(self) -> Sequence[TokenEvent]:
        for events in self._reads:
            if events:
                return events
        if self._error is not None:
            raise self._error
        return ()

    def abort(self) -> None:
        self._reads = iter(())


class Nobody:
    """Who is told of nothing."""

    async def more(self) -> bool:
        return False

    def first_token(self, upstream: str, model: str, waited_s: float, added_s: float) -> None:
        pass

    async def settled(self, relay: Relay) -> None:
        pass


def speak(speaker: Speaker, draw: random.Random, text: str, channel: str = "text") -> bytes:
    """A provider's body that says a text, in pieces of one to six characters."""
    pieces: tuple[str, ...] = ()
    while text:
        size = draw.randint(1, 6)
        pieces, text = (*pieces, text[:size]), text[size:]
    call = SaidCall(name="f", arguments=pieces, is_whole=True)
    said = Said(
        id="0123456789" * 2,
        model="m-1",
        thought=pieces if channel == "thought" else (),
        text=pieces if channel == "text" else ("So.",),
        calls=(call,) if channel == "call" else (),
        is_cut=False,
        input_tokens=7,
    )
    return b"".join(speaker.speak(said))


def reads(dialect: str, *pieces: bytes) -> tuple[tuple[TokenEvent, ...], ...]:
    """The events that a provider's reader gives after each piece, and at the end of the body."""
    reader = find_dialect(dialect).make_reader()
    found: list[tuple[TokenEvent, ...]] = []
    for piece in pieces:
        reader.receive_data(piece)
        found.append(tuple(reader.events()))
    reader.receive_eof()
    return (*found, tuple(reader.events()))


def said(records: Sequence[NewRecord]) -> list[TokenEvent]:
    return events_of(Record(0, new.payload, new.type) for new in records)


def relay_of(read: Read) -> Relay:
    return Relay(
        read.ask, make_chain(), Meter(), Nobody(), is_lowered=lambda _: False, clock=lambda: 0.0
    )


def text_of(events: Sequence[TokenEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


async def check(case: Case, given: Sequence[Sequence[TokenEvent]], end: EndReason) -> None:
    """What a stream gets of these reads, and everybody of the stream."""
    events: list[TokenEvent] = []
    relay = relay_of(Read(given))
    async for batch in relay:
        events += said(batch.records)
        assert case.seen.startswith(text_of(events)), events
    assert relay.end == end
    assert end != EndReason.COMPLETE or text_of(events) == case.seen
    everybody_sees(case, events, end)


class Waits(Exception):
    """The provider has said no more yet."""


async def check_cancelled(case: Case, given: Sequence[Sequence[TokenEvent]]) -> None:
    """The same of an answer that is cancelled after each event of its provider."""
    flat = [event for events in given for event in events]
    for count in range(len(flat)):
        relay, events = relay_of(Read([[one] for one in flat[:count]], Waits)), list[TokenEvent]()
        with suppress(Waits):
            async for batch in relay:
                events += said(batch.records)
        events += said(relay.last_words(EndReason.CANCELLED))
        assert case.seen.startswith(text_of(events)), events
        everybody_sees(case, events, EndReason(relay.end or EndReason.CANCELLED))


def everybody_sees(case: Case, events: Sequence[TokenEvent], end: EndReason) -> None:
    for name, client in CLIENTS.items():
        writer = find_out_dialect(name).make_writer(ENVELOPE)
        for event in events:
            writer.receive_event(event)
        writer.end(end)
        body = writer.data_to_send()
        assert client(body).text == text_of(events), name
        said_there = everything_in(body)
        assert not [hidden for hidden in case.hidden if hidden in said_there], (name, body)


def everything_in(body: bytes) -> str:
    """Everything that a body says: as it is, and as JSON reads it."""
    parts = [body.decode()]
    for line in body.decode().split("\n"):
        if line.startswith("data: {"):
            parts += strings(json.loads(line[6:]))
    return "\n".join(parts)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def draw_and_say_seed() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dialect", SPEAKERS)
async def test_a_body_split_at_every_byte_shows_nothing_hidden(dialect: str, name: str) -> None:
    case = CASES[name]
    body = speak(SPEAKERS[dialect], draw_and_say_seed(), case.said)
    # Where the bytes were cut shows in the reads alone: what was relayed once is not again.
    found = {reads(dialect, body[:place], body[place:]) for place in range(1, len(body))}
    found.add(reads(dialect, *(bytes([byte]) for byte in body)))
    for given in found:
        await check(case, given, EndReason.COMPLETE)


BROKEN = [(dialect, "hides") for dialect in SPEAKERS] + [("openai-chat", "nests")]


@pytest.mark.parametrize(("dialect", "name"), BROKEN)
async def test_a_body_broken_off_at_any_byte_shows_nothing_hidden(dialect: str, name: str) -> None:
    case = CASES[name]
    body = speak(SPEAKERS[dialect], draw_and_say_seed(), case.said)
    whole = text_of([event for events in reads(dialect, body) for event in events])
    for given in {reads(dialect, body[:place]) for place in range(len(body))}:
        came = [event for events in given for event in events]
        # Some dialects are over before their last byte.
        is_over = text_of(came) == whole and type(came[-1]).__name__ != "Failure"
        await check(case, given, EndReason.COMPLETE if is_over else EndReason.FAILED)


@pytest.mark.parametrize("name", CASES)
async def test_an_answer_cancelled_after_any_event_shows_nothing_hidden(name: str) -> None:
    case, draw = CASES[name], draw_and_say_seed()
    for _ in range(5):
        body = speak(SPEAKERS["openai-chat"], draw, case.said)
        await check_cancelled(case, reads("openai-chat", body))


CHANNELS: dict[str, Callable[[TokenEvent], str]] = {
    "thought": lambda event: event.text if isinstance(event, Reasoning) else "",
    "call": lambda event: event.arguments if isinstance(event, ToolCallDelta) else "",
}


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("dialect", ["openai-chat", "anthropic-messages", "bedrock"])
async def test_thoughts_and_arguments_hide_keys_too(dialect: str, channel: str) -> None:
    text = f'{{"a": "see {KEY}!"}}'
    body = speak(SPEAKERS[dialect], draw_and_say_seed(), text, channel)
    for given in {reads(dialect, body[:place], body[place:]) for place in range(1, len(body))}:
        events: list[TokenEvent] = []
        async for batch in relay_of(Read(given)):
            events += said(batch.records)
            shown = "".join(map(CHANNELS[channel], events))
            assert '{"a": "see [redacted]!"}'.startswith(shown)
        assert shown == '{"a": "see [redacted]!"}'
        for name in CLIENTS:
            writer = find_out_dialect(name).make_writer(ENVELOPE)
            for event in events:
                writer.receive_event(event)
            writer.end(EndReason.COMPLETE)
            assert "QQQQ" not in everything_in(writer.data_to_send()), name


# --- by HTTP ------------------------------------------------------------------------------------

WORDS = tokens(TEXT)
# Words of our own text, in the roles of what is to be hidden. Each is several tokens of it.
TOKEN, SECRET, END = ("".join(WORDS[start : start + 3]).strip() for start in (12, 40, 90))


@pytest.mark.parametrize("dialect", PATHS)
async def test_nothing_hidden_comes_by_http(dialect: str) -> None:
    draw = draw_and_say_seed()
    filters = [
        {"kind": "strip", "patterns": [TOKEN]},
        {"kind": "redact", "patterns": [SECRET]},
        {"kind": "stop", "sequences": [END]},
    ]
    expected = TEXT.replace(TOKEN, "").replace(SECRET, "[redacted]").partition(END)[0]
    async with gateway(filters=filters) as running:
        for _ in range(4):
            name = model(
                f"tokens_per_s=0&burst={draw.randint(1, 9)}&split_seed={draw.randint(0, 999)}"
            )
            answer = await running.create(dialect, name)
            assert answer.status == 200
            seen = CLIENTS[dialect](plain(answer.body)).text if dialect != "native" else None
            assert seen in (None, expected)
            # Our own dialect says at which sequence the answer stopped.
            for hidden in (SECRET,) if dialect == "native" else (SECRET, END):
                assert hidden not in everything_in(plain(answer.body))
        for stream in running.answers():
            await until(lambda: stream.end is not None)  # noqa: B023
            for name in CLIENTS:
                body = (await running.get(f"/v1/stream/{stream.name}?dialect={name}")).body
                assert CLIENTS[name](plain(body)).text == expected, name

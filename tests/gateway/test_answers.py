"""Answers are streams with names of their own, joined by key, and started only for who may."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.gateways import TEXT, config, model, until
from penstock import Hub
from penstock.core.errors import Draining, PenstockError, StoreFull, StreamNotFound
from penstock.core.gateway_errors import (
    BudgetExhausted,
    IdempotencyMismatch,
    KeyRefused,
    ModelUnknown,
    PriceUnknown,
)
from penstock.gateway.account import Caller
from penstock.gateway.answers import Answers
from penstock.gateway.records import events_of
from penstock.llm.ask.dialects import read_request
from penstock.llm.ask.request import Request
from penstock.llm.events import Text
from penstock.llm.write.about import About
from penstock.server.stream import Stream
from penstock.testing.upstream import RecordedUpstream
from raw_http import PATIENCE_S

ANYBODY = Caller()
FAST, SLOW = model(), model("tokens_per_s=0&stall_after=6&stall_s=60")
SILENT, FAILING = model("first_token_s=60"), model("status=503")


@dataclass(frozen=True)
class Open:
    """Answers that are open, and the provider behind them."""

    answers: Answers
    provider: RecordedUpstream

    @property
    def calls(self) -> int:
        return len({entry["request"] for entry in self.provider.log})

    async def start(self, name: str = FAST, **how: Any) -> tuple[Stream, bool]:
        caller = how.pop("caller", ANYBODY)
        how.setdefault("dialect", "openai-chat")
        return await self.answers.start(asking(name), caller, **how)

    async def whole(self, name: str = FAST, **how: Any) -> tuple[Stream, bool]:
        """Start or join, and wait for the end."""
        stream, is_new = await self.start(name, **how)
        await until(lambda: stream.end is not None and not stream.is_produced)
        return stream, is_new


@asynccontextmanager
async def opened(
    backend: str = "memory://", *, hub: dict[str, Any] | None = None, **tables: Any
) -> AsyncGenerator[Open]:
    """Answers in a hub, as `GatewayApp` runs them."""
    async with RecordedUpstream() as provider:
        kept = Hub(backend, **(hub or {}))
        answers = Answers(kept, config(provider, **tables))
        try:
            async with kept:
                await answers.open()
                yield Open(answers, provider)
        finally:
            await answers.close()


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else stored(tmp_path)


def stored(folder: Path) -> str:
    return f"sqlite:///{folder / 'streams.db'}"


def asking(name: str, question: str = "Why?", **more: Any) -> Request:
    said = {"model": name, "messages": [{"role": "user", "content": question}], **more}
    return read_request("openai-chat", json.dumps(said).encode())


async def text_of(stream: Stream) -> str:
    events = events_of(await stream.records())
    return "".join(event.text for event in events if isinstance(event, Text))


def scope(**headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return {"type": "http", "headers": pairs}


# --- names --------------------------------------------------------------------------------------


async def test_an_answer_has_a_name_that_nobody_can_guess() -> None:
    async with opened() as open_:
        names = {(await open_.start())[0].name for _ in range(50)}
        assert len(names) == 50
        assert all(re.fullmatch(r"answers/[0-9a-f]{32}", name) for name in names)
        assert {
            Answers.name_of(Answers.id_of(each)) for each in open_.answers.hub.streams()
        } >= names


async def test_an_answer_opens_with_what_it_is() -> None:
    async with opened() as open_:
        stream, is_new = await open_.start(dialect="vercel", options={"message_id": "m1"})
        opening = (await stream.records())[0]
        about = About.from_record(opening)
        assert is_new
        assert (about.id, about.model) == (Answers.id_of(stream), FAST)
        assert (about.dialect, about.options) == ("vercel", {"message_id": "m1"})
        assert about.fingerprint == ""
        assert about.created_at > 1_700_000_000


async def test_names_made_of_keys_say_nothing_of_them() -> None:
    async with opened() as open_:
        caller = open_.answers.caller(scope(authorization="Bearer sk-mine"))
        stream, _ = await open_.start(caller=caller, idempotency_key="order-1")
        about = About.from_record((await stream.records())[0])
        for text in (stream.name, repr(caller), repr(about), caller.credential):
            assert "order-1" not in text
            assert "sk-mine" not in text
        assert caller.credential
        assert caller.credential not in repr(caller) + stream.name + repr(about)


async def test_a_gateway_without_a_store_makes_other_names_each_time() -> None:
    names = set[str]()
    for _ in range(2):
        async with opened() as open_:
            stream, _ = await open_.start(idempotency_key="k")
            names |= {stream.name, open_.answers.chat_name(ANYBODY, "chat-1")}
    assert len(names) == 4


async def test_a_chat_s_log_is_its_caller_s() -> None:
    async with opened() as open_:
        name = open_.answers.chat_name
        other = Caller(credential="other")
        assert name(ANYBODY, "a") == name(ANYBODY, "a")
        # No two rows of texts are one.
        rows = [(ANYBODY, "a"), (ANYBODY, "b"), (other, "a"), (Caller(credential="othera"), "")]
        assert len({name(*row) for row in rows}) == 4


# --- joining ------------------------------------------------------------------------------------


async def test_the_secret_of_names_outlives_a_restart(tmp_path: Path) -> None:
    async with opened(stored(tmp_path)) as open_:
        caller = open_.answers.caller(scope(x_api_key="sk-mine"))
        first, _ = await open_.whole(caller=caller, idempotency_key="k")
        chat = open_.answers.chat_name(caller, "chat-1")
    async with opened(stored(tmp_path)) as open_:
        caller = open_.answers.caller(scope(x_api_key="sk-mine"))
        again, is_new = await open_.start(caller=caller, idempotency_key="k")
        assert (again.name, is_new) == (first.name, False)
        assert await text_of(again) == TEXT
        assert open_.answers.chat_name(caller, "chat-1") == chat
        assert (await open_.answers.find(caller, "k")).name == first.name
        assert open_.calls == 0


@pytest.mark.parametrize("name", [FAST, SILENT], ids=["fast", "silent"])
async def test_fifty_who_ask_at_once_under_one_key_have_one_answer(backend: str, name: str) -> None:
    async with opened(backend, budgets={"all": {"output_tokens": 100_000}}) as open_:
        async with asyncio.timeout(PATIENCE_S):
            found = await asyncio.gather(
                *(open_.start(name, idempotency_key="k") for _ in range(50))
            )
        assert sum(is_new for _, is_new in found) == 1
        assert len({stream.name for stream, _ in found}) == 1
        await until(lambda: open_.calls == 1)
        await found[0][0].cancel()
        await until(lambda: open_.answers.books.running == 0)
        assert open_.calls == 1


async def test_of_fifty_requests_under_one_key_one_is_answered(backend: str) -> None:
    async with opened(backend) as open_:
        asked = [asking(FAST, f"question {number}") for number in range(50)]
        found = await asyncio.gather(
            *(
                open_.answers.start(each, ANYBODY, dialect="openai-chat", idempotency_key="k")
                for each in asked
            ),
            return_exceptions=True,
        )
        answered = [each for each in found if not isinstance(each, BaseException)]
        assert len(answered) == 1
        assert sum(isinstance(each, IdempotencyMismatch) for each in found) == 49
        await until(lambda: answered[0][0].end is not None)
        assert open_.calls == 1


async def test_another_body_or_dialect_under_a_key_is_refused(backend: str) -> None:
    async with opened(backend) as open_:
        await open_.whole(idempotency_key="k")
        for request, dialect in [
            (asking(FAST, "What?"), "openai-chat"),
            (asking(FAST, temperature=1), "openai-chat"),
            (asking(FAST), "native"),
        ]:
            with pytest.raises(IdempotencyMismatch):
                await open_.answers.start(request, ANYBODY, dialect=dialect, idempotency_key="k")
        # The order of a body's fields says nothing.
        body = {"messages": [{"content": "Why?", "role": "user"}], "model": FAST}
        again = read_request("openai-chat", json.dumps(body).encode())
        _, is_new = await open_.answers.start(
            again, ANYBODY, dialect="openai-chat", idempotency_key="k"
        )
        assert not is_new
        assert open_.calls == 1


async def test_a_stream_of_somebody_else_s_under_that_name_is_no_answer_to_join() -> None:
    async with opened() as open_:
        stream, _ = await open_.whole(idempotency_key="k")
        await open_.answers.hub.delete(stream.name)
        await open_.answers.hub.create(stream.name)
        with pytest.raises(IdempotencyMismatch):
            await open_.start(idempotency_key="k")


async def test_two_callers_with_one_key_have_two_answers() -> None:
    async with opened() as open_:
        callers = [open_.answers.caller(scope(api_key=key)) for key in ("sk-a", "sk-b")]
        found = [await open_.whole(caller=each, idempotency_key="k") for each in callers]
        assert [is_new for _, is_new in found] == [True, True]
        assert open_.calls == 2
        with pytest.raises(StreamNotFound):
            await open_.answers.find(ANYBODY, "k")


async def test_an_answer_that_was_deleted_is_begun_anew(backend: str) -> None:
    async with opened(backend) as open_:
        stream, _ = await open_.whole(idempotency_key="k")
        await open_.answers.hub.delete(stream.name)
        again, is_new = await open_.whole(idempotency_key="k")
        assert is_new
        assert await text_of(again) == TEXT


async def test_an_answer_that_failed_before_it_said_anything_is_begun_anew(backend: str) -> None:
    async with opened(backend) as open_:
        name = model("tokens_per_s=0&fail_times=1")
        first, _ = await open_.whole(name, idempotency_key="k")
        assert first.end == "failed"
        again, is_new = await open_.whole(name, idempotency_key="k")
        assert (again.name, again.end, is_new) == (first.name, "complete", True)
        assert await text_of(again) == TEXT
        joined, is_new = await open_.start(name, idempotency_key="k")
        assert (joined.name, is_new) == (first.name, False)
        assert open_.calls == 2


@pytest.mark.parametrize(
    ("name", "end"),
    [(model("tokens_per_s=0&cut_after=9"), "failed"), (SILENT, "cancelled")],
    ids=["after words", "cancelled"],
)
async def test_other_ends_are_joined_as_they_are(name: str, end: str) -> None:
    async with opened() as open_:
        stream, _ = await open_.start(name, idempotency_key="k")
        if end == "cancelled":
            await stream.cancel()
        await until(lambda: stream.end is not None)
        joined, is_new = await open_.start(name, idempotency_key="k")
        assert (joined, is_new, joined.end) == (stream, False, end)


async def test_a_failure_that_somebody_is_being_told_of_is_joined() -> None:
    async with opened() as open_:
        stream, _ = await open_.start(FAILING, idempotency_key="k")
        with stream.attended():
            await until(lambda: stream.end is not None and not stream.is_produced)
            joined, is_new = await open_.start(FAILING, idempotency_key="k")
            assert (joined, is_new) == (stream, False)
        assert (await open_.whole(FAILING, idempotency_key="k"))[1]


@pytest.mark.parametrize("has_words", [True, False])
async def test_a_lost_answer_is_joined_for_its_words_alone(
    tmp_path: Path, *, has_words: bool
) -> None:
    name = SLOW if has_words else SILENT
    async with opened(stored(tmp_path)) as open_:
        stream, _ = await open_.start(name, idempotency_key="k")
        await open_.provider.logged("start")
        if has_words:
            await stream.wait(4)
    async with opened(stored(tmp_path)) as open_:
        again, is_new = await open_.start(name, idempotency_key="k")
        assert is_new is not has_words
        assert again.end == ("lost" if has_words else None)
        await again.cancel()


async def test_an_answer_that_could_not_start_is_started_by_the_next(backend: str) -> None:
    async with opened(backend, hub={"max_streams": 3}) as open_:
        hub = open_.answers.hub
        others = [await hub.create() for _ in range(3 - len(hub.streams()))]
        found = await asyncio.gather(
            *(open_.start(idempotency_key="k") for _ in range(3)), return_exceptions=True
        )
        assert [type(each) for each in found] == [StoreFull] * 3
        assert open_.answers.books.running == 0
        await hub.delete(others[0].name)
        assert (await open_.start(idempotency_key="k"))[1]


async def test_who_is_cancelled_while_starting_keeps_nobody_waiting(backend: str) -> None:
    async with opened(backend, budgets={"all": {"output_tokens": 100_000}}) as open_:
        for turns in range(12):
            key = f"k{turns}"
            first = asyncio.ensure_future(open_.start(SILENT, idempotency_key=key))
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()
            async with asyncio.timeout(PATIENCE_S):
                stream, _ = await open_.start(SILENT, idempotency_key=key)
                # Whoever began it, there is somebody who gives it.
                assert stream.is_produced, turns
                await stream.cancel()
        await until(lambda: open_.answers.books.running == 0)


async def test_who_is_cancelled_while_the_store_is_at_it_leaves_no_answer_that_never_ends(
    tmp_path: Path,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    async with opened(stored(tmp_path)) as open_:
        for number in range(60):
            key = f"k{number}"
            asked = asyncio.ensure_future(open_.start(SILENT, idempotency_key=key))
            await asyncio.sleep(draw.uniform(0, 0.004))  # the moment is what is drawn
            asked.cancel()
            await asyncio.wait([asked])
            stream, _ = await open_.start(SILENT, idempotency_key=key)
            assert stream.is_produced or stream.end is not None, number
            await stream.cancel()
        await until(lambda: open_.answers.books.running == 0)


# --- who may ask, and for what ------------------------------------------------------------------

KEYS = {
    "alice": {"secret": "sk-alice", "user": "anna"},
    "bob": {"secret": "sk-bob", "models": ["sky-*"]},
}


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-alice"},
        {"authorization": "bearer  sk-alice "},
        {"x_api_key": "sk-alice"},
        {"api_key": "sk-alice"},
        {"authorization": "Basic c2stYWxpY2U=", "x_api_key": "sk-alice"},
    ],
)
async def test_a_key_is_found_where_sdks_put_it(headers: dict[str, str]) -> None:
    async with opened(keys=KEYS) as open_:
        caller = open_.answers.caller(scope(**headers))
        assert (caller.key, caller.user, caller.models) == ("alice", "anna", ("*",))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer sk-mallory"},
        {"authorization": "Bearer"},
        {"authorization": "sk-alice"},
        {"authorization": "Bearer sk-mallory", "x_api_key": "sk-alice"},
        {"x_api_key": ""},
        {"x_api_key": "sk-alice\xff"},
        {"x_api_key": "sk-alice" * 1000},
    ],
)
async def test_anything_else_is_refused(headers: dict[str, str]) -> None:
    async with opened(keys=KEYS) as open_:
        with pytest.raises(KeyRefused) as refused:
            open_.answers.caller(scope(**headers))
        assert "sk-" not in str(refused.value)


async def test_without_keys_anybody_may_ask() -> None:
    async with opened() as open_:
        for headers in ({}, {"authorization": "Bearer anything"}):
            caller = open_.answers.caller(scope(**headers))
            assert (caller.key, caller.user) == ("", "")
            assert caller.may_ask("anything")


async def test_a_key_is_for_its_models() -> None:
    async with opened(keys=KEYS) as open_:
        bob = open_.answers.caller(scope(x_api_key="sk-bob"))
        assert open_.answers.models(bob) == open_.answers.models() == ["sky-1"]
        assert (await open_.start("sky-1", caller=bob))[1]
        for name in (FAST, "nobody-1"):
            with pytest.raises(ModelUnknown):
                await open_.start(name, caller=bob)


@pytest.mark.parametrize(
    ("name", "tables", "error"),
    [
        ("nobody-1", {}, ModelUnknown),
        (FAST, {"budgets": {"answer": {"money": "1"}}}, PriceUnknown),
        (FAST, {"budgets": {"all": {"total_tokens": 1}}}, BudgetExhausted),
    ],
)
async def test_what_may_not_start_leaves_nothing(
    name: str, tables: dict[str, Any], error: type[PenstockError]
) -> None:
    async with opened(**tables) as open_:
        for key in (None, "k"):
            with pytest.raises(error):
                await open_.start(name, idempotency_key=key)
        assert not [one for one in open_.answers.hub.streams() if one.name.startswith("answers/")]
        assert (open_.calls, open_.answers.books.running) == (0, 0)


async def test_a_gateway_that_goes_away_starts_nothing() -> None:
    async with opened() as open_:
        open_.answers.hub.is_draining = True
        with pytest.raises(Draining):
            await open_.start()
        assert open_.answers.books.running == 0


async def test_an_answer_s_own_patience_outranks_the_configured_one() -> None:
    async with opened(gateway={"unread_s": 0.05}) as open_:
        left, _ = await open_.start(SILENT)
        kept, _ = await open_.start(SILENT, unread_s=float("inf"))
        await until(lambda: left.end is not None)
        assert (left.end, kept.end) == ("cancelled", None)


async def test_opening_and_closing_again_does_nothing() -> None:
    async with opened() as open_:
        await open_.answers.open()
        assert (await open_.whole())[0].end == "complete"
        await open_.answers.close()
        await open_.answers.close()


async def test_an_upstream_s_own_maximum_is_no_budget_s_end() -> None:
    small = {"max_output_tokens": 5, "retries": 0, "models": ["built-in:*"]}
    async with RecordedUpstream() as provider:
        upstream = {"dialect": "openai-chat", "base_url": f"{provider.url}/v1", **small}
        for limit, end in ((9, "complete"), (4, "limit")):
            tables: dict[str, Any] = {"budgets": {"answer": {"output_tokens": limit}}}
            async with opened(upstreams={"main": upstream}, **tables) as open_:
                stream, _ = await open_.whole()
                assert stream.end == end

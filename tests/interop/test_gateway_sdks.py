"""The vendors' SDKs, unmodified, against `penstock serve` with the recorded upstream behind it.

`openai` and `anthropic` for Python in their newest versions and the major ones before, npm's
`openai`, `@anthropic-ai/sdk`, `ai` in three major versions with the chat and the transport that
`useChat` is made of, and `@ag-ui/client`. What runs is in `llm_sdks/`; `test_llm_sdks.py` has the
same SDKs read everything that can be written.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from interop.llm_sdks.clients import PROGRAMS
from interop.llm_sdks.serving import (
    AT_ONCE,
    PATIENT,
    PROVIDERS,
    Caller,
    Gateway,
    calling,
    serving,
    shown,
)
from penstock.testing.recordings import SPECIAL_VOICES, built_in
from penstock.testing.speech.said import Answer, say, tokens

# A program is started once, and so is a gateway: to import the SDKs takes longer than most of what
# is asked of them.
pytestmark = pytest.mark.asyncio(loop_scope="module")
EVERY_PROGRAM = pytest.mark.parametrize("caller", PROGRAMS, indirect=True, scope="module")
EVERY_PROVIDER = pytest.mark.parametrize("provider", PROVIDERS)
EITHER_WAY = pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
NODE = pytest.mark.parametrize("caller", ["node"], indirect=True, scope="module")
PAGES = pytest.mark.parametrize("client", ["ai 5", "ai 6", "ai 7"])

TEXT = built_in("granite").turns[0]
HEARTBEAT_S, HEAD_WAIT_S, BUDGET, KEY = 0.3, 0.5, 20, "sk-team-secret"

# OpenAI's Responses takes none below this.
LIMIT = 16

# What an SDK raises for a status. The newest Anthropic has a class for 503 alone.
CLASSES = {
    400: {"BadRequestError"},
    401: {"AuthenticationError"},
    403: {"PermissionDeniedError"},
    404: {"NotFoundError"},
    429: {"RateLimitError"},
    500: {"InternalServerError"},
    503: {"InternalServerError", "ServiceUnavailableError"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Gateway]:
    more = f"heartbeat_s = {HEARTBEAT_S}\n[gateway]\nhead_wait_s = {HEAD_WAIT_S}\n"
    async with serving(tmp_path_factory.mktemp("gateway"), more) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Gateway]:
    """A gateway that wants a key and has a budget for every answer."""
    more = f"[keys.team]\nsecret = '{KEY}'\n[budgets.answer]\noutput_tokens = {BUDGET}\n"
    async with serving(tmp_path_factory.mktemp("guarded"), more) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def caller(request: pytest.FixtureRequest, gateway: Gateway) -> AsyncGenerator[Caller]:
    async with calling(request.param) as program:
        yield Caller(request.param, program, gateway)


def model(provider: str, voice: str = "granite", knobs: str = AT_ONCE) -> str:
    """A voice that a provider speaks with, in its dialect."""
    return f"{provider}/built-in:{voice}?{knobs}"


def calls_of(answer: Answer) -> list[Any]:
    return [[call.name, json.loads(call.arguments)] for call in answer.calls]


def told(said: Mapping[str, Any]) -> str:
    """The sentence of a failure, wherever the client has it."""
    return said.get("message") or said.get("failed") or ""


@EVERY_PROGRAM
@EVERY_PROVIDER
@EITHER_WAY
async def test_what_a_provider_said_is_what_an_sdk_shows(
    caller: Caller, provider: str, whole: bool
) -> None:
    """Text of every script, thoughts, tool calls, usage and the end, of every provider."""
    clients = caller.sdks if whole else caller.clients
    for voice in (*SPECIAL_VOICES, "granite"):
        answer = built_in(voice).answers[0]
        counted = say(answer, model="m")
        for client, said in await caller.show(clients, model(provider, voice), whole=whole):
            assert said.text == answer.text, (client, voice)
            assert said.reasoning == answer.thought, (client, voice)
            assert said.calls == calls_of(answer), (client, voice)
            assert said.usage == (counted.input_tokens, counted.output_tokens), (client, voice)
            assert said.end == ("tool_use" if answer.calls else "stop"), (client, voice)
            assert not said.failed, (client, voice)


@EVERY_PROGRAM
@EVERY_PROVIDER
@EITHER_WAY
async def test_the_maximum_that_was_asked_for_is_the_end(
    caller: Caller, provider: str, whole: bool
) -> None:
    named = model(provider)
    for client, said in await caller.show(caller.sdks, named, whole=whole, max_tokens=LIMIT):
        assert (said.end, len(tokens(said.text))) == ("length", LIMIT), client
        assert TEXT.startswith(said.text), client
    limits = {entry["max_output_tokens"] for entry in caller.gateway.logged(named)[-3:]}
    assert limits == {LIMIT}


@EVERY_PROGRAM
@EVERY_PROVIDER
async def test_an_error_in_mid_stream_brings_the_providers_words(
    caller: Caller, provider: str
) -> None:
    named = model(provider, knobs=f"{AT_ONCE}&error_after=9")
    for client, said in await caller.show(caller.clients, named):
        assert said.end == "failed", client
        assert "asked to fail here" in said.failed, client
        assert said.text, client
        assert TEXT.startswith(said.text), client


@EVERY_PROGRAM
@EVERY_PROVIDER
@pytest.mark.parametrize(
    "how", ["cut_after=9", "cut_after=9&cut=clean", "error_after=9&error=garbage"]
)
async def test_an_answer_that_breaks_off_is_no_success(
    caller: Caller, provider: str, how: str
) -> None:
    for client, said in await caller.show(
        caller.clients, model(provider, knobs=f"{AT_ONCE}&{how}")
    ):
        assert said.end == "failed", client
        assert said.failed, client
        assert said.text, client
        assert TEXT.startswith(said.text), client


@EVERY_PROGRAM
@EITHER_WAY
@pytest.mark.parametrize("status", CLASSES)
async def test_what_a_provider_refuses_is_raised_as_the_class_it_is(
    caller: Caller, status: int, whole: bool
) -> None:
    """With the provider's sentence, which is all that a page shows."""
    for provider in PROVIDERS:
        named = model(provider, knobs=f"status={status}")
        clients = caller.sdks if whole else caller.clients
        for client, said in await caller.ask(clients, named, whole=whole):
            assert f"asked to answer {status}" in told(said), (client, provider)
            if client in caller.sdks:
                assert said.get("raised") in CLASSES[status], (client, provider)
                assert said["status"] == status, (client, provider)


@EVERY_PROGRAM
async def test_a_provider_that_fails_at_first_is_asked_again(caller: Caller) -> None:
    for client in caller.clients:
        before = len(caller.gateway.upstream.log)
        # No two requests have the same name, of which only the first is to fail.
        knobs = f"{AT_ONCE}&fail_times=1&retry_after_s=0&split_seed={before}"
        named = model(PATIENT, knobs=knobs)
        ((_, said),) = await caller.show([client], named)
        assert (said.text, said.end) == (TEXT, "stop"), client
        assert len(caller.gateway.logged(named)) == 2, client


@EVERY_PROGRAM
async def test_a_wait_for_the_first_word_is_filled_with_heartbeats(caller: Caller) -> None:
    """Clients that wait two seconds for a byte, and get the first word after four."""
    began = time.monotonic()
    named = model("openai-chat", knobs=f"{AT_ONCE}&first_token_s=4")
    for client, said in await caller.show(caller.clients, named, timeout_s=2):
        assert (said.text, said.end) == (TEXT, "stop"), client
    assert time.monotonic() - began >= 4


@EVERY_PROGRAM
async def test_a_model_that_nobody_serves_is_not_found(caller: Caller) -> None:
    for client, said in await caller.ask(caller.clients, "nobody-knows"):
        assert "nobody-knows" in told(said), client
        if client in caller.sdks:
            assert (said["raised"], said["status"]) == ("NotFoundError", 404), client


@EVERY_PROGRAM
async def test_the_same_request_with_the_same_key_joins_the_answer(caller: Caller) -> None:
    """Of a page, no two requests are the same: each message has an id of its own."""
    for client in caller.sdks:
        named = model("openai-chat", knobs="tokens_per_s=1000&burst=50")
        before = len(caller.gateway.logged(named))
        headers = {"Idempotency-Key": f"{caller.name} {client}"}
        asked = await caller.show([client, client], named, headers=headers)
        asked += await caller.show([client], named, headers=headers)
        assert {said.text for _, said in asked} == {TEXT}, client
        assert len(caller.gateway.logged(named)) - before == 1, client


@EVERY_PROGRAM
@EVERY_PROVIDER
@pytest.mark.parametrize("obeys", [1, 0], ids=["obeying", "writing on"])
async def test_a_budget_ends_an_answer_as_the_dialect_has_it(
    caller: Caller, guarded: Gateway, provider: str, obeys: int
) -> None:
    """Also where the provider writes on beyond the maximum that it was told."""
    named = model(provider, knobs=f"tokens_per_s=400&obeys_limit={obeys}")
    here = caller._replace(gateway=guarded)
    for client, said in await here.show(caller.clients, named, key=KEY):
        assert (said.end, said.failed) == ("length", ""), client
        assert 0 < len(tokens(said.text)) <= BUDGET + 1, client
        assert TEXT.startswith(said.text), client
    assert guarded.logged(named)[-1]["max_output_tokens"] == BUDGET


@EVERY_PROGRAM
async def test_who_has_no_key_is_refused(caller: Caller, guarded: Gateway) -> None:
    here = caller._replace(gateway=guarded)
    named = model("openai-chat", knobs="burst=7")
    for key in ("sk-wrong", KEY + "x"):
        for client, said in await here.ask(caller.clients, named, key=key):
            assert "key" in told(said), client
            if client in caller.sdks:
                assert (said["raised"], said["status"]) == ("AuthenticationError", 401), client
    assert not guarded.logged(named)


@NODE
@PAGES
async def test_a_page_that_is_loaded_again_finds_its_answer(caller: Caller, client: str) -> None:
    """Two pages of one chat: the second is given all of the answer that the first one asked for."""
    chat = f"resumed {client}"
    named = model("openai-chat", knobs=f"tokens_per_s=150&split_seed={client[-1]}")
    base = caller.gateway.base
    asked = {"base": base, "client": client, "model": named, "chat": chat}
    await caller.program.say({**asked, "id": 1})
    await caller.gateway.until_logged(named, "first-byte")
    await caller.program.say({**asked, "id": 2, "then": "resume"})
    lines = [await caller.program.line(), await caller.program.line()]
    assert [shown(line).text for line in lines] == [TEXT, TEXT]
    assert shown(lines[0]) == shown(lines[1])
    assert len(caller.gateway.logged(named)) == 1
    ((_, after),) = await caller.show([client], named, chat=chat, then="resume")
    assert (after.text, after.failed) == ("", "")  # nothing runs, so there is nothing to resume


@NODE
@PAGES
async def test_a_page_that_stops_its_answer_stops_the_provider(caller: Caller, client: str) -> None:
    named = model("openai-chat", knobs=f"tokens_per_s=20&split_seed={client[-1]}")
    ((_, said),) = await caller.show([client], named, chat=f"stopped {client}", then="stop")
    gone = await caller.gateway.until_logged(named, "gone")
    assert gone["events_sent"] < gone["events"]
    assert said.text
    assert TEXT.startswith(said.text)

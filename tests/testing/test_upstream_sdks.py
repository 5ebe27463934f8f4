"""The vendors' own SDKs take the recorded upstream for the provider."""

from __future__ import annotations

import json

import anthropic
import openai
import pytest

from penstock.testing.recordings import SPECIAL_VOICES, built_in
from penstock.testing.speech.said import Answer, say
from penstock.testing.upstream import RecordedUpstream

ASKED = {"messages": [{"role": "user", "content": "Well?"}]}
EVERY_VOICE = pytest.mark.parametrize("voice", [*SPECIAL_VOICES, "granite"])


def said(voice: str) -> tuple[Answer, int, int]:
    """What a voice says first, and what that counts."""
    answer = built_in(voice).answers[0]
    counted = say(answer, model="m")
    return answer, counted.input_tokens, counted.output_tokens


def calls(answer: Answer) -> list[tuple[str, object]]:
    return [(call.name, json.loads(call.arguments)) for call in answer.calls]


def openai_client(upstream: RecordedUpstream, **more: int) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="k", base_url=f"{upstream.url}/v1", **more)


@EVERY_VOICE
async def test_openai_reads_a_chat(voice: str) -> None:
    answer, read, written = said(voice)
    async with (
        RecordedUpstream() as upstream,
        openai_client(upstream) as client,
        client.chat.completions.stream(model=f"built-in:{voice}?tokens_per_s=0", **ASKED) as stream,
    ):
        completion = await stream.get_final_completion()
    message, usage = completion.choices[0].message, completion.usage
    assert (message.content or "") == answer.text
    found = [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []]
    assert found == calls(answer)
    assert completion.choices[0].finish_reason == ("tool_calls" if answer.calls else "stop")
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (read, written)


@EVERY_VOICE
async def test_openai_reads_a_response(voice: str) -> None:
    answer, read, written = said(voice)
    async with (
        RecordedUpstream() as upstream,
        openai_client(upstream) as client,
        client.responses.stream(model=f"built-in:{voice}?tokens_per_s=0", input="Well?") as stream,
    ):
        response = await stream.get_final_response()
    assert response.output_text == answer.text
    made = [item for item in response.output if item.type == "function_call"]
    assert [(item.name, json.loads(item.arguments)) for item in made] == calls(answer)
    thought = [item.summary[0].text for item in response.output if item.type == "reasoning"]
    assert "".join(thought) == answer.thought
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (read, written)


@EVERY_VOICE
async def test_anthropic_reads_a_message(voice: str) -> None:
    answer, read, written = said(voice)
    model = f"built-in:{voice}?tokens_per_s=0"
    async with (
        RecordedUpstream() as upstream,
        anthropic.AsyncAnthropic(api_key="k", base_url=upstream.url) as client,
        client.messages.stream(model=model, max_tokens=10_000, **ASKED) as stream,
    ):
        message = await stream.get_final_message()
    blocks = message.content
    assert "".join(block.text for block in blocks if block.type == "text") == answer.text
    thought = "".join(block.thinking for block in blocks if block.type == "thinking")
    assert thought == answer.thought
    made = [(block.name, block.input) for block in blocks if block.type == "tool_use"]
    assert made == calls(answer)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (read, written)


async def test_openai_continues_a_prompt() -> None:
    async with RecordedUpstream() as upstream, openai_client(upstream) as client:
        stream = await client.completions.create(
            model="built-in:granite?tokens_per_s=0", prompt="Well?", stream=True
        )
        text = [chunk.choices[0].text async for chunk in stream if chunk.choices]
    assert "".join(text) == built_in("granite").turns[0]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "AuthenticationError"), (404, "NotFoundError"), (429, "RateLimitError")],
)
async def test_an_error_status_is_raised_as_the_class_it_is(status: int, kind: str) -> None:
    async with RecordedUpstream() as upstream:
        model = f"built-in:chat?status={status}"
        async with openai_client(upstream, max_retries=0) as client:
            with pytest.raises(getattr(openai, kind), match="asked to answer"):
                await client.chat.completions.create(model=model, stream=True, **ASKED)
            with pytest.raises(getattr(openai, kind), match="asked to answer"):
                await client.responses.create(model=model, stream=True, input="Well?")
        async with anthropic.AsyncAnthropic(
            api_key="k", base_url=upstream.url, max_retries=0
        ) as other:
            with pytest.raises(getattr(anthropic, kind), match="asked to answer"):
                await other.messages.create(model=model, stream=True, max_tokens=1, **ASKED)


async def test_an_sdk_that_tries_again_is_answered_in_the_end() -> None:
    async with RecordedUpstream() as upstream, openai_client(upstream, max_retries=2) as client:
        model = "built-in:granite?tokens_per_s=0&fail_times=2&retry_after_s=0"
        async with client.chat.completions.stream(model=model, **ASKED) as stream:
            completion = await stream.get_final_completion()
        assert [entry["event"] for entry in upstream.log].count("refused") == 2
    assert completion.choices[0].message.content == built_in("granite").turns[0]


async def test_an_error_under_way_is_raised_with_its_words() -> None:
    model = "built-in:granite?tokens_per_s=0&error_after=6"
    async with RecordedUpstream() as upstream:
        async with openai_client(upstream) as client:
            chunks = await client.chat.completions.create(model=model, stream=True, **ASKED)
            with pytest.raises(openai.APIError, match="asked to fail here"):
                [chunk async for chunk in chunks]
            events = await client.responses.create(model=model, stream=True, input="Well?")
            last = [event async for event in events][-1]
            assert last.type == "error"
            assert last.message == "asked to fail here"
        async with anthropic.AsyncAnthropic(api_key="k", base_url=upstream.url) as other:
            raw = await other.messages.create(model=model, stream=True, max_tokens=999, **ASKED)
            with pytest.raises(anthropic.APIStatusError, match="asked to fail here"):
                [event async for event in raw]

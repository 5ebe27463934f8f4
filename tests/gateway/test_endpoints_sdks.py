"""The vendors' Python SDKs, unmodified: they stream, wait, resume, cancel, and raise what they
should."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anthropic
import openai
import pytest

from gateway.gateways import ASKED, TEXT, Running, gateway, model, until

MESSAGES = [{"role": "user", "content": ASKED}]
SLOW = model("tokens_per_s=0&stall_after=8&stall_s=60")


@asynccontextmanager
async def openai_sdk(running: Running, **more: object) -> AsyncGenerator[openai.AsyncOpenAI]:
    values = {"base_url": f"{running.url}/v1", "api_key": "sk-any", "max_retries": 0, **more}
    async with openai.AsyncOpenAI(**values) as client:
        yield client


@asynccontextmanager
async def anthropic_sdk(
    running: Running, **more: object
) -> AsyncGenerator[anthropic.AsyncAnthropic]:
    values = {"base_url": running.url, "api_key": "sk-any", "max_retries": 0, **more}
    async with anthropic.AsyncAnthropic(**values) as client:
        yield client


async def test_openai_chat_is_streamed_and_whole() -> None:
    async with gateway() as running, openai_sdk(running) as client:
        stream = await client.chat.completions.create(
            model=model(),
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(words) == TEXT
        assert chunks[-1].usage is not None
        whole = await client.chat.completions.create(model=model(), messages=MESSAGES)
        assert whole.choices[0].message.content == TEXT
        assert whole.usage == chunks[-1].usage
        assert whole._request_id == whole.id.removeprefix("chatcmpl-")


async def test_a_stream_has_no_usage_that_nobody_asked_for() -> None:
    async with gateway() as running, openai_sdk(running) as client:
        stream = await client.chat.completions.create(model=model(), messages=MESSAGES, stream=True)
        assert all(chunk.usage is None for chunk in [chunk async for chunk in stream])


async def test_openai_responses_are_streamed_read_again_and_deleted() -> None:
    async with gateway() as running, openai_sdk(running) as client:
        stream = await client.responses.create(model=model(), input=ASKED, stream=True)
        seen = [event async for event in stream]
        assert seen[-1].type == "response.completed"
        assert seen[-1].response.output_text == TEXT
        id = seen[-1].response.id
        read = await client.responses.retrieve(id)
        assert read.output_text == TEXT
        rest = await client.responses.retrieve(id, stream=True, starting_after=4)
        assert [event.sequence_number async for event in rest] == [*range(5, len(seen))]
        whole = await client.responses.create(model=model(), input=ASKED)
        assert whole.output_text == TEXT
        await client.responses.delete(id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(id)


async def test_an_openai_response_in_the_background_is_cancelled() -> None:
    async with gateway() as running, openai_sdk(running) as client:
        created = await client.responses.create(model=SLOW, input=ASKED, background=True)
        assert created.status == "in_progress"
        cancelled = await client.responses.cancel(created.id)
        assert cancelled.status == "cancelled"
        await running.provider.logged("gone")


async def test_anthropic_messages_are_streamed_and_whole() -> None:
    async with gateway() as running, anthropic_sdk(running) as client:
        async with client.messages.stream(
            model=model(), max_tokens=4096, messages=MESSAGES
        ) as stream:
            assert "".join([text async for text in stream.text_stream]) == TEXT
            streamed = await stream.get_final_message()
        whole = await client.messages.create(model=model(), max_tokens=4096, messages=MESSAGES)
        assert whole.content[0].text == TEXT
        assert whole.usage.output_tokens == streamed.usage.output_tokens > 0
        assert whole.stop_reason == "end_turn"
        assert whole._request_id == whole.id.removeprefix("msg_")


async def test_both_sdks_list_models() -> None:
    async with gateway() as running:
        async with openai_sdk(running) as client:
            assert [each.id async for each in client.models.list()] == ["sky-1"]
            assert (await client.models.retrieve("sky-1")).id == "sky-1"
        async with anthropic_sdk(running) as client:
            assert [each.id async for each in client.models.list()] == ["sky-1"]
            assert (await client.models.retrieve("sky-1")).display_name == "sky-1"


OPENAI_ERRORS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
}
ANTHROPIC_ERRORS = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
}


@pytest.mark.parametrize("stream", [True, False])
async def test_each_sdk_raises_its_own_error_for_the_provider_s(stream: bool) -> None:
    async with gateway() as running, openai_sdk(running) as ours, anthropic_sdk(running) as theirs:
        for status, error in OPENAI_ERRORS.items():
            failing = model(f"status={status}")
            with pytest.raises(error, match="asked to answer"):
                await ours.chat.completions.create(model=failing, messages=MESSAGES, stream=stream)
            with pytest.raises(error, match="asked to answer"):
                await ours.responses.create(model=failing, input=ASKED, stream=stream)
            with pytest.raises(ANTHROPIC_ERRORS[status], match="asked to answer"):
                await theirs.messages.create(
                    model=failing, max_tokens=9, messages=MESSAGES, stream=stream
                )


async def test_each_sdk_raises_for_what_breaks_in_mid_stream() -> None:
    broken = model("tokens_per_s=0&cut_after=9")
    async with gateway() as running:
        async with openai_sdk(running) as client:
            stream = await client.chat.completions.create(
                model=broken, messages=MESSAGES, stream=True
            )
            with pytest.raises(openai.APIError):
                [chunk async for chunk in stream]
            stream = await client.responses.create(model=broken, input=ASKED, stream=True)
            assert [event async for event in stream][-1].type == "response.failed"
        async with anthropic_sdk(running) as client:
            stream = await client.messages.create(
                model=broken, max_tokens=4096, messages=MESSAGES, stream=True
            )
            with pytest.raises(anthropic.APIStatusError):
                [event async for event in stream]


async def test_each_sdk_raises_for_an_unknown_model_and_a_wrong_key() -> None:
    async with gateway(keys={"alice": {"secret": "sk-alice"}}) as running:
        async with openai_sdk(running, api_key="sk-bob") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model=model(), messages=MESSAGES)
        async with anthropic_sdk(running, api_key="sk-bob") as client:
            with pytest.raises(anthropic.AuthenticationError):
                await client.messages.create(model=model(), max_tokens=9, messages=MESSAGES)
        async with openai_sdk(running, api_key="sk-alice") as client:
            with pytest.raises(openai.NotFoundError, match="nobody"):
                await client.chat.completions.create(model="nobody", messages=MESSAGES)
        async with anthropic_sdk(running, api_key="sk-alice") as client:
            with pytest.raises(anthropic.NotFoundError, match="nobody"):
                await client.messages.create(model="nobody", max_tokens=9, messages=MESSAGES)


async def test_an_sdk_tries_again_and_is_answered() -> None:
    async with gateway() as running, openai_sdk(running, max_retries=2) as client:
        moody = model("tokens_per_s=0&fail_times=1&status=503")
        whole = await client.chat.completions.create(model=moody, messages=MESSAGES)
        assert whole.choices[0].message.content == TEXT


async def test_an_sdk_that_closes_its_stream_does_not_cancel() -> None:
    async with gateway() as running, openai_sdk(running) as client:
        stream = await client.chat.completions.create(
            model=model("tokens_per_s=0&stall_after=8&stall_s=0.3"),
            messages=MESSAGES,
            stream=True,
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        await stream.close()
        answer = await running.answer()
        await until(lambda: answer.end is not None)
        assert answer.end == "complete"

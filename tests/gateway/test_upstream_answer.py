"""`answer()` gives a provider's tokens, and leaving it closes the provider's connection at once."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from penstock.core.errors import SettingInvalid, Unreachable, UpstreamError, UpstreamTruncated
from penstock.gateway.upstream import Upstream, answer
from penstock.llm.assemble import Assembler
from penstock.llm.events import Failure, Start, Text, TokenEvent
from penstock.testing.recordings import built_in
from penstock.testing.upstream import RecordedUpstream

KEY = "sk-secret-0123456789"
ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


@pytest.fixture
async def provider() -> AsyncIterator[RecordedUpstream]:
    async with RecordedUpstream() as provider:
        yield provider


def upstream(url: str, dialect: str = "openai-chat", **more: object) -> Upstream:
    knobs = more.pop("knobs", {"tokens_per_s": 0})
    fields = {
        "dialect": dialect,
        "base_url": f"{url}/v1" if dialect == "openai-chat" else url,
        "model": "built-in:granite",
        "api_key": KEY,
        "extra": {"penstock": knobs},
    }
    return Upstream(**(fields | more))


async def collect(target: Upstream, seen: list[TokenEvent] | None = None) -> list[TokenEvent]:
    seen = [] if seen is None else seen
    await drain(answer(target, ASK), seen)
    return seen


async def drain(events: AsyncIterator[TokenEvent], into: list[TokenEvent]) -> None:
    async for event in events:
        into.append(event)


@contextlib.asynccontextmanager
async def served(handler) -> AsyncIterator[str]:
    """A provider of one handler, for answers that no knob makes."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    app.router.add_post("/v1/messages", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("dialect", ["openai-chat", "anthropic-messages"])
@pytest.mark.parametrize("knobs", [{"tokens_per_s": 0}, {"tokens_per_s": 0, "split_seed": 5}])
async def test_an_answer_is_the_provider_s_text(
    provider: RecordedUpstream, dialect: str, knobs: dict
) -> None:
    assembler = Assembler()
    for event in await collect(upstream(provider.url, dialect, knobs=knobs)):
        assembler.receive_event(event)
    whole = assembler.answer()
    assert whole.text == built_in("granite").turns[0]
    assert not whole.is_truncated
    assert whole.usage is not None
    assert whole.usage.output_tokens > 100


@pytest.mark.parametrize("dialect", ["openai-chat", "anthropic-messages"])
async def test_a_request_is_written_as_its_dialect_wants_it(dialect: str) -> None:
    asked: list[tuple[dict, dict]] = []

    async def refuse(request: web.Request) -> web.Response:
        asked.append((dict(request.headers), await request.json()))
        return web.Response(status=500)

    async with served(refuse) as url:
        with pytest.raises(UpstreamError):
            await collect(upstream(url, dialect, extra={"temperature": 0}))
    headers, body = asked[0]
    assert body["stream"] is True
    assert body["temperature"] == 0
    assert headers["Accept-Encoding"] == "identity"
    if dialect == "openai-chat":
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert body["messages"] == ASK
        assert body["stream_options"] == {"include_usage": True}
    else:
        assert headers["x-api-key"] == KEY
        assert headers["anthropic-version"]
        assert body["system"] == "Be brief."
        assert body["messages"] == [
            {"role": "user", "content": [{"type": "text", "text": ASK[1]["content"]}]}
        ]
        assert body["max_tokens"] > 0


@pytest.mark.parametrize("cut", ["clean", "broken"])
async def test_a_truncated_answer_gives_its_failure_and_then_raises(
    provider: RecordedUpstream, cut: str
) -> None:
    seen: list[TokenEvent] = []
    knobs = {"tokens_per_s": 0, "cut_after": 5, "cut": cut}
    with pytest.raises(UpstreamTruncated):
        await collect(upstream(provider.url, knobs=knobs), seen)
    assert sum(isinstance(event, Text) for event in seen) == 4
    assert isinstance(seen[-1], Failure)
    assert seen[-1].code == "upstream-truncated"


async def test_an_error_in_the_stream_is_given_and_then_raised(
    provider: RecordedUpstream,
) -> None:
    seen: list[TokenEvent] = []
    knobs = {"tokens_per_s": 0, "error_after": 3}
    target = upstream(provider.url, "anthropic-messages", knobs=knobs)
    with pytest.raises(UpstreamError, match="asked to fail here") as caught:
        await collect(target, seen)
    assert caught.value.upstream_status == 529
    assert isinstance(seen[-1], Failure)


async def test_an_error_status_is_raised_with_the_provider_s_sentence(
    provider: RecordedUpstream,
) -> None:
    with pytest.raises(UpstreamError, match="429: asked to answer 429") as caught:
        await collect(upstream(provider.url, knobs={"status": 429}))
    assert caught.value.upstream_status == 429


async def test_the_key_is_in_no_message_and_no_repr() -> None:
    async def quote(request: web.Request) -> web.Response:
        message = f"wrong key {request.headers['Authorization']}\n"
        if b"stream-error" in await request.read():
            body = f'data: {{"error": {{"message": "wrong key {KEY}"}}}}\n\n'
            return web.Response(text=body, content_type="text/event-stream")
        return web.json_response({"error": {"message": message}}, status=401)

    async with served(quote) as url:
        for model in ("m", "stream-error"):
            seen: list[TokenEvent] = []
            target = upstream(url, model=model)
            with pytest.raises(UpstreamError, match=r"wrong key .*\*\*\*") as caught:
                await collect(target, seen)
            assert KEY not in f"{caught.value!r} {seen!r} {target!r}"
            assert caught.value.__cause__ is None
            assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(("status", "said"), [(200, "no stream"), (302, "302")])
async def test_what_is_no_stream_is_an_error(status: int, said: str) -> None:
    async def other(request: web.Request) -> web.Response:
        headers = {"Location": "http://127.0.0.1:1/elsewhere"} if status == 302 else {}
        return web.json_response({"choices": []}, status=status, headers=headers)

    async with served(other) as url:
        with pytest.raises(UpstreamError, match=said):
            await collect(upstream(url))


async def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://user:{KEY}@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable) as caught:
            await collect(upstream(url, api_key=""))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("knobs", "what"),
    [
        ({"first_token_s": 30}, "no token within 0.3 s"),
        ({"tokens_per_s": 0, "stall_after": 1, "stall_s": 30}, "no token within 0.3 s"),
        ({"tokens_per_s": 0, "stall_after": 4, "stall_s": 30}, "nothing more within 0.2 s"),
    ],
)
async def test_silence_is_bounded_before_and_between_tokens(
    provider: RecordedUpstream, knobs: dict, what: str
) -> None:
    target = upstream(
        provider.url, knobs=knobs, first_token_timeout_s=0.3, between_tokens_timeout_s=0.2
    )
    with pytest.raises(Unreachable, match=what):
        await collect(target)
    await asyncio.wait_for(provider.logged("gone"), 5)


async def test_a_slow_consumer_is_no_silence(provider: RecordedUpstream) -> None:
    knobs = {"tokens_per_s": 200, "cut_after": 60, "cut": "clean"}
    target = upstream(provider.url, knobs=knobs, between_tokens_timeout_s=0.25)
    events = answer(target, ASK)
    assert isinstance(await anext(events), Start)
    assert isinstance(await anext(events), Text)
    await asyncio.sleep(0.4)
    rest: list[TokenEvent] = []
    with pytest.raises(UpstreamTruncated):
        await drain(events, rest)
    assert sum(isinstance(event, Text) for event in rest) == 58


PLACES = {
    "before-the-head": {"first_token_s": 60},
    "before-the-first-token": {"tokens_per_s": 0, "stall_after": 1, "stall_s": 60},
    "mid-stream": {"tokens_per_s": 50},
    "in-a-stall": {"tokens_per_s": 0, "stall_after": 9, "stall_s": 60},
}


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared-session", "own-session"])
@pytest.mark.parametrize("place", PLACES)
async def test_cancelling_closes_the_provider_s_connection_within_a_second(
    provider: RecordedUpstream, place: str, is_shared: bool
) -> None:
    target = upstream(provider.url, knobs=PLACES[place])
    begun = asyncio.Event()

    async def consume(session: aiohttp.ClientSession | None) -> None:
        async for event in answer(target, ASK, session=session):
            if isinstance(event, Start if place == "before-the-first-token" else Text):
                begun.set()

    async with aiohttp.ClientSession() as shared:
        task = asyncio.create_task(consume(shared if is_shared else None))
        await provider.logged("start")
        if place != "before-the-head":
            await begun.wait()
        left = asyncio.get_running_loop().time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gone = await asyncio.wait_for(provider.logged("gone"), 5)
    assert gone["monotonic_s"] - left < 1.0
    assert gone["events_sent"] < gone["events"]


async def test_aclose_closes_the_provider_s_connection_within_a_second(
    provider: RecordedUpstream,
) -> None:
    events = answer(upstream(provider.url, knobs={"tokens_per_s": 50}), ASK)
    assert isinstance(await anext(events), Start)
    left = asyncio.get_running_loop().time()
    await events.aclose()
    gone = await asyncio.wait_for(provider.logged("gone"), 5)
    assert gone["monotonic_s"] - left < 1.0


async def test_cancelling_while_connecting_leaves_nothing_behind() -> None:
    """Where a full backlog answers no handshake, the call is still cancelled at once."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        target = upstream(f"http://127.0.0.1:{listener.getsockname()[1]}")
        task = asyncio.create_task(collect(target))
        done, _ = await asyncio.wait([task], timeout=0.1)
        assert not done
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1)
        assert task in done
        assert task.cancelled()
        slow = upstream(target.base_url.removesuffix("/v1"), connect_timeout_s=0.2)
        with pytest.raises(Unreachable, match=r"no connection within 0\.2 s"):
            await collect(slow)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dialect", "morse"), ("base_url", "ftp://x"), ("base_url", "x"), ("api_key", "a\nb")],
)
def test_a_setting_that_cannot_be_is_refused_without_being_shown(field: str, value: str) -> None:
    with pytest.raises(SettingInvalid, match=field):
        upstream("http://127.0.0.1:1", **{field: value})

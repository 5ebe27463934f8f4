"""The recorded upstream answers as a provider does, misbehaves on request, and writes it down."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest

from penstock.llm import openai_chat
from penstock.llm.events import Failure, Text, TokenEvent
from penstock.testing.asked import Asked
from penstock.testing.recordings import Recording, built_in, load
from penstock.testing.speech.dialects import find_speaker
from penstock.testing.upstream import Knobs, RecordedUpstream

CHAT = "/v1/chat/completions"


@pytest.fixture
async def upstream() -> AsyncIterator[RecordedUpstream]:
    async with RecordedUpstream() as upstream:
        yield upstream


async def post(url: str, path: str = CHAT, **body: object) -> tuple[int, bytes, bool]:
    """Status, body as far as it came, and whether the body ended as HTTP says it must."""
    async with aiohttp.ClientSession() as session, session.post(url + path, json=body) as response:
        data = bytearray()
        try:
            async for piece in response.content.iter_any():
                data += piece
        except aiohttp.ClientPayloadError:
            return response.status, bytes(data), False
        return response.status, bytes(data), True


def read(body: bytes) -> list[TokenEvent]:
    reader = openai_chat.Reader()
    reader.receive_data(body)
    reader.receive_eof()
    return reader.events()


@pytest.mark.parametrize("seed", [None, 7])
async def test_a_built_in_answer_arrives_byte_for_byte(
    upstream: RecordedUpstream, seed: int | None
) -> None:
    knobs = {"tokens_per_s": 0} | ({} if seed is None else {"split_seed": seed})
    got = await post(upstream.url, model="built-in:granite", penstock=knobs)
    expected = built_in("granite").recording("openai-chat")
    assert got == (200, expected.body, True)
    got = await post(upstream.url, "/v1/messages", model="built-in:granite", penstock=knobs)
    assert got == (200, built_in("granite").recording("anthropic-messages").body, True)


async def test_a_real_recording_is_chosen_by_index_and_by_digest(
    upstream: RecordedUpstream,
) -> None:
    found = load("openai-chat")
    if not found:
        pytest.skip("no recordings here: set PENSTOCK_RECORDINGS to a folder of .jsonl.gz files")
    knobs = {"tokens_per_s": 0}
    for name in ("3", found[3].sha256[:12]):
        got = await post(upstream.url, model=f"recorded:{name}", penstock=knobs)
        assert got == (200, found[3].body, True)


def choose(dialect: str, body: dict) -> Recording:
    """The answer on a machine without recordings."""
    return Asked.read(body).choose(find_speaker(dialect), lambda file: (), Knobs())


def test_the_same_question_gets_the_same_answer_and_a_voice_takes_its_next_turn() -> None:
    body = {"model": "any", "messages": [{"role": "user", "content": "Why?"}]}
    assert choose("openai-chat", body) == choose("openai-chat", body)
    spoken = [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
    second = choose("openai-chat", {"model": "built-in:aggressor", "messages": spoken})
    assert second.body == built_in("aggressor").recording("openai-chat", 1).body
    named = choose("openai-chat", {"model": "built-in:aggressor:3", "messages": spoken})
    assert named.body == built_in("aggressor").recording("openai-chat", 3).body


async def test_the_pace_is_what_was_asked_for(upstream: RecordedUpstream) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await post(upstream.url, model="built-in:chat", penstock={"tokens_per_s": 100, "cut_after": 41})
    assert 0.4 <= loop.time() - began < 2.0
    first = (await upstream.logged("first-byte"))["monotonic_s"]
    last = (await upstream.logged("finished"))["monotonic_s"]
    assert 0.4 <= last - first < 2.0


async def test_the_first_token_and_a_stall_wait_as_long_as_asked(
    upstream: RecordedUpstream,
) -> None:
    knobs = {"tokens_per_s": 0, "first_token_s": 0.2, "stall_after": 2, "stall_s": 0.3, "burst": 5}
    got = await post(upstream.url, model="built-in:granite", penstock=knobs)
    assert got[1] == built_in("granite").recording("openai-chat").body
    times = [(await upstream.logged(e))["monotonic_s"] for e in ("start", "first-byte", "finished")]
    assert times[1] - times[0] >= 0.19
    assert times[2] - times[1] >= 0.29


@pytest.mark.parametrize(("cut", "is_clean"), [("broken", False), ("clean", True)])
async def test_a_cut_body_ends_where_and_how_it_was_asked(
    upstream: RecordedUpstream, cut: str, is_clean: bool
) -> None:
    knobs = {"tokens_per_s": 0, "cut_after": 4, "cut": cut}
    status, body, ended = await post(upstream.url, model="built-in:chat", penstock=knobs)
    assert (status, ended) == (200, is_clean)
    assert body.count(b"\n\n") == 4
    assert read(body)[-1].code == "upstream-truncated"


async def test_an_error_comes_before_or_in_the_stream(upstream: RecordedUpstream) -> None:
    status, body, _ = await post(upstream.url, model="built-in:chat", penstock={"status": 429})
    assert status == 429
    assert json.loads(body)["error"]["message"]
    knobs = {"tokens_per_s": 0, "error_after": 3}
    status, body, _ = await post(upstream.url, model="built-in:chat", penstock=knobs)
    events = read(body)
    assert status == 200
    assert sum(isinstance(event, Text) for event in events) == 2
    assert isinstance(events[-1], Failure)
    assert events[-1].code == "overloaded_error"


@pytest.mark.parametrize(
    "body",
    [
        {"model": "built-in:nobody"},
        {"model": "recorded:zzzzzzzz"},
        {"penstock": {"nonsense": 1}},
        {"penstock": {"status": 200}},
        {"penstock": {"burst": -1}},
        {"penstock": {"cut": "gently"}},
        {"penstock": {"tokens_per_s": "nan"}},
        {"penstock": {"error": "politely"}},
        {"model": "built-in:chat?nonsense=1"},
        {"model": "built-in:chat?burst"},
    ],
)
async def test_a_request_that_asks_for_nonsense_is_told_so(
    upstream: RecordedUpstream, body: dict
) -> None:
    status, answer, _ = await post(upstream.url, **body)
    assert status == 400
    assert json.loads(answer)["error"]["message"]


async def test_knobs_can_stand_in_the_query(upstream: RecordedUpstream) -> None:
    query = f"{CHAT}?tokens_per_s=0&cut_after=2&cut=clean"
    _, body, ended = await post(upstream.url, query, model="built-in:chat")
    assert ended
    assert body.count(b"\n\n") == 2
    assert Knobs.read({"tokens_per_s": "1.5"}).tokens_per_s == 1.5


@pytest.mark.parametrize(
    "knobs", [{"first_token_s": 60}, {"stall_after": 3, "stall_s": 60}, {"tokens_per_s": 20}]
)
async def test_a_client_that_leaves_is_written_down_within_a_second(
    upstream: RecordedUpstream, knobs: dict
) -> None:
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        body = {"model": "built-in:chat", "penstock": knobs}
        asking = asyncio.create_task(session.post(upstream.url + CHAT, json=body))
        await upstream.logged("start")
        if "first_token_s" not in knobs:
            response = await asking
            await response.content.readany()
            response.close()
        asking.cancel()
        left = loop.time()
        gone = await asyncio.wait_for(upstream.logged("gone"), 5)
    assert gone["monotonic_s"] - left < 1.0
    assert gone["events_sent"] < gone["events"] == 1018
    assert (gone["events_sent"] == 0) == ("first_token_s" in knobs)


async def test_it_runs_as_a_process_and_logs_lines(tmp_path) -> None:
    log = tmp_path / "log.jsonl"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock.testing.upstream", "--port", "0", "--log", str(log)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))["port"]
        url = f"http://127.0.0.1:{port}"
        knobs = {"tokens_per_s": 0}
        status, body, _ = await post(url, model="built-in:magpie", penstock=knobs)
        assert (status, body) == (200, built_in("magpie").recording("openai-chat").body)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["event"] for entry in entries] == ["start", "first-byte", "finished"]
    assert entries[-1]["bytes_sent"] == len(body)

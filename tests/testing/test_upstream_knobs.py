"""Every knob does the same in every dialect, wherever the request names it."""

import asyncio
import json

import aiohttp
import pytest

from penstock.llm.events import MALFORMED, TRUNCATED, Failure, Text
from penstock.llm.reader import read_error
from penstock.testing.recordings import SPOKEN, built_in
from penstock.testing.speech.dialects import SPEAKERS
from penstock.testing.upstream import Knobs, RecordedUpstream
from testing.asking import PATHS, ask, assemble, limited, read

EVERY_DIALECT = pytest.mark.parametrize("dialect", SPOKEN)


def events_of(dialect: str, voice: str = "granite") -> tuple[bytes, ...]:
    return SPEAKERS[dialect].framing.split(built_in(voice).recording(dialect).body)


@EVERY_DIALECT
@pytest.mark.parametrize("place", ["model", "body", "header", "query"])
async def test_a_knob_can_stand_in_four_places(
    dialect: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = {"tokens_per_s": 0, "cut_after": 2, "cut": "clean"}
    query = "&".join(f"{name}={value}" for name, value in knobs.items())
    model = "built-in:granite" + (f"?{query}" if place == "model" else "")
    body = {"penstock": knobs} if place == "body" else {}
    headers = {"Penstock-Knobs": query} if place == "header" else {}
    if place == "query":
        path = PATHS[dialect]
        monkeypatch.setitem(PATHS, dialect, f"{path}{'&' if '?' in path else '?'}{query}")
    async with RecordedUpstream() as upstream:
        got = await ask(upstream.url, dialect, model, headers=headers, **body)
    assert got.is_whole
    assert got.body == b"".join(events_of(dialect)[:2])


@EVERY_DIALECT
@pytest.mark.parametrize("cut", ["broken", "clean"])
async def test_a_body_that_was_cut_is_truncated(dialect: str, cut: str) -> None:
    async with RecordedUpstream() as upstream:
        model = f"built-in:granite?tokens_per_s=0&cut_after=5&cut={cut}"
        got = await ask(upstream.url, dialect, model)
    assert got.is_whole == (cut == "clean")
    assert got.body == b"".join(events_of(dialect)[:5])
    last = read(dialect, got.body)[-1]
    assert isinstance(last, Failure)
    assert last.code == TRUNCATED


@EVERY_DIALECT
async def test_an_error_under_way_is_in_the_dialects_own_form(dialect: str) -> None:
    async with RecordedUpstream() as upstream:
        model = "built-in:granite?tokens_per_s=0&error_after=8&split_seed=3"
        got = await ask(upstream.url, dialect, model)
    events = read(dialect, got.body)
    assert isinstance(events[-1], Failure)
    assert events[-1].message == "asked to fail here"
    assert not events[-1].code.startswith("upstream-") or dialect == "ollama"
    assert any(isinstance(event, Text) for event in events)


@EVERY_DIALECT
async def test_garbage_under_way_is_no_answer(dialect: str) -> None:
    async with RecordedUpstream() as upstream:
        model = "built-in:granite?tokens_per_s=0&error_after=8&error=garbage"
        got = await ask(upstream.url, dialect, model)
    last = read(dialect, got.body)[-1]
    assert isinstance(last, Failure)
    # An event without its end is no event: then it is the end of the body that comes too early.
    assert last.code in (MALFORMED, TRUNCATED)


@EVERY_DIALECT
async def test_an_endless_event_goes_on_until_the_client_leaves(dialect: str) -> None:
    more = 1024 * 1024
    async with RecordedUpstream() as upstream, aiohttp.ClientSession() as session:
        path = PATHS[dialect].replace("{model}", "built-in:granite")
        knobs = {"tokens_per_s": 0, "error_after": 3, "error": "endless"}
        body = {"model": "built-in:granite", "penstock": knobs}
        async with session.post(upstream.url + path, json=body) as response:
            received = await response.content.readexactly(more)
            response.close()
        gone = await asyncio.wait_for(upstream.logged("gone"), 5)
    assert gone["events_sent"] == 3
    assert gone["bytes_sent"] >= more
    events = read(dialect, received)
    assert isinstance(events[-1], Failure)
    assert sum(isinstance(event, Failure) for event in events) == 1


@EVERY_DIALECT
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 529])
async def test_an_error_status_has_the_providers_own_body(dialect: str, status: int) -> None:
    async with RecordedUpstream() as upstream:
        model = f"built-in:granite?status={status}&retry_after_s=7"
        got = await ask(upstream.url, dialect, model)
        assert [entry["event"] for entry in upstream.log] == ["start", "refused"]
    assert got.status == status
    assert got.headers["Retry-After"] == "7"
    message, code, _ = read_error(json.loads(got.body))
    assert str(status) in message
    assert code
    assert ("x-amzn-ErrorType" in got.headers) == (dialect == "bedrock")


async def test_an_error_status_can_come_as_a_page_of_a_proxy() -> None:
    async with RecordedUpstream() as upstream:
        got = await ask(upstream.url, "gemini", "built-in:chat?status=502&error=garbage")
    assert got.status == 502
    assert got.headers["Content-Type"].startswith("text/html")


@EVERY_DIALECT
@pytest.mark.parametrize("how", ["", "&status=429", "&cut_after=0", "&error_after=1"])
async def test_only_the_first_requests_with_a_model_name_fail(dialect: str, how: str) -> None:
    async with RecordedUpstream() as upstream:
        model = f"built-in:granite?tokens_per_s=0&fail_times=2{how}"
        first = [await ask(upstream.url, dialect, model) for _ in range(2)]
        then = await ask(upstream.url, dialect, model)
        other = await ask(upstream.url, dialect, f"{model}&burst=2")
    whole = built_in("granite").recording(dialect).body
    assert then.body == whole
    assert all(got.body != whole for got in (*first, other))
    if how in ("", "&status=429"):
        assert {got.status for got in first} == {429 if how else 503}


@EVERY_DIALECT
async def test_the_pace_the_first_token_and_a_stall_are_as_asked(dialect: str) -> None:
    async with RecordedUpstream() as upstream:
        knobs = "first_token_s=0.1&tokens_per_s=100&stall_after=4&stall_s=0.1&cut_after=9"
        await ask(upstream.url, dialect, f"built-in:granite?{knobs}")
        steps = ("start", "first-byte", "finished")
        start, first, last = [(await upstream.logged(step))["monotonic_s"] for step in steps]
    assert 0.09 <= first - start < 2
    assert 0.16 <= last - first < 2


@pytest.mark.parametrize("early", [0, 1])
async def test_the_head_comes_with_the_first_event_or_at_once(early: int) -> None:
    async with RecordedUpstream() as upstream, aiohttp.ClientSession() as session:
        knobs = {"first_token_s": 60, "early_head": early}
        body = {"model": "built-in:chat", "penstock": knobs}
        asking = asyncio.create_task(session.post(upstream.url + PATHS["cohere"], json=body))
        await upstream.logged("start")
        done, _ = await asyncio.wait([asking], timeout=5 if early else 0.2)
        assert bool(done) == bool(early)
        asking.cancel()
        if done:
            (await asking).close()
        gone = await asyncio.wait_for(upstream.logged("gone"), 5)
        assert gone["events_sent"] == 0


@EVERY_DIALECT
async def test_a_client_that_leaves_is_written_down_at_once(dialect: str) -> None:
    loop = asyncio.get_running_loop()
    async with RecordedUpstream() as upstream:
        asking = asyncio.create_task(ask(upstream.url, dialect, "built-in:chat?tokens_per_s=50"))
        await upstream.logged("first-byte")
        left = loop.time()
        asking.cancel()
        gone = await asyncio.wait_for(upstream.logged("gone"), 5)
    assert gone["monotonic_s"] - left < 1.0
    assert gone["events_sent"] < gone["events"]


@EVERY_DIALECT
async def test_the_log_says_who_asked_and_never_with_what(dialect: str) -> None:
    async with RecordedUpstream() as upstream:
        model, secret = "built-in:granite?tokens_per_s=0", "sk-very-secret"
        headers = {"Authorization": f"Bearer {secret}", "X-Title": "whatever"}
        body = {"messages": [{"role": "user", "content": "my question"}]}
        await ask(upstream.url, dialect, model, headers=headers, **body, **limited(dialect, 7))
        await ask(upstream.url, dialect, model, penstock={"status": 500})
        text = json.dumps(list(upstream.log))
        finished, refused = await upstream.logged("finished"), upstream.log[-1]
    assert secret not in text
    assert "my question" not in text
    assert finished["dialect"] == dialect
    assert finished["model"] == model
    assert finished["max_output_tokens"] == 7
    assert finished["has_key"] is True
    assert {"authorization", "x-title", "host"} <= set(finished["headers"])
    assert finished["body_bytes"] > len(
        '{"messages": [{"role": "user", "content": "my question"}]}'
    )
    assert refused["event"] == "refused"
    assert refused["has_key"] is False
    assert refused["max_output_tokens"] is None


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "x-goog-api-key"])
async def test_a_key_is_seen_wherever_a_provider_wants_it(name: str) -> None:
    async with RecordedUpstream() as upstream:
        await ask(upstream.url, "gemini", "built-in:tool?tokens_per_s=0", headers={name: "k"})
        assert upstream.log[0]["has_key"] is True


@EVERY_DIALECT
@pytest.mark.parametrize("header", ["nonsense=1", "burst", "&&&", "=", "status=99"])
async def test_knobs_that_are_none_are_refused(dialect: str, header: str) -> None:
    async with RecordedUpstream() as upstream:
        got = await ask(upstream.url, dialect, "built-in:chat", headers={"Penstock-Knobs": header})
    assert got.status == 400
    assert read_error(json.loads(got.body))[0]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null", b'"a"'])
async def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    async with (
        RecordedUpstream() as upstream,
        aiohttp.ClientSession() as session,
        session.post(upstream.url + PATHS["ollama"], data=body) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]


def test_a_later_place_wins_and_the_defaults_are_harmless() -> None:
    assert Knobs.read({}) == Knobs()
    assert Knobs().after(10**6) == Knobs()
    assert assemble("cohere", built_in("tool").recording("cohere").body).failure is None

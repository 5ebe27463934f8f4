"""Our own answers, spoken in every dialect, are read as what they say."""

import json

import pytest

from penstock.llm.ask.dialects import WRITERS
from penstock.llm.dialects import find_dialect
from penstock.testing.recordings import SPECIAL_VOICES, SPOKEN, VOICES, built_in, load
from penstock.testing.speech.dialects import SPEAKERS
from penstock.testing.speech.framing import split_messages
from penstock.testing.speech.said import Answer, say, tokens
from penstock.testing.upstream import RecordedUpstream
from testing.asking import PATHS, ask, assemble, limited

EVERY_DIALECT = pytest.mark.parametrize("dialect", SPOKEN)
AT_ONCE = "?tokens_per_s=0"


def test_every_dialect_that_can_be_asked_is_spoken() -> None:
    assert set(WRITERS) <= set(SPOKEN) == set(PATHS)


def calls_of(answer: Answer) -> list[tuple[str, object]]:
    return [(call.name, json.loads(call.arguments)) for call in answer.calls]


@EVERY_DIALECT
@pytest.mark.parametrize("voice", [*SPECIAL_VOICES, "granite"])
async def test_an_answer_is_read_as_its_text_thought_calls_and_usage(
    dialect: str, voice: str
) -> None:
    async with RecordedUpstream() as upstream:
        got = await ask(upstream.url, dialect, f"built-in:{voice}{AT_ONCE}")
    assert (got.status, got.is_whole) == (200, True)
    assert got.headers["Content-Type"] == find_dialect(dialect).media_type
    said, answer = built_in(voice).answers[0], assemble(dialect, got.body)
    assert answer.text == said.text
    assert answer.stop is not None
    assert answer.failure is None
    if dialect != "openai-completions":  # a text goes on, and nobody thinks or calls
        assert answer.reasoning == said.thought
        read = [(call.name, json.loads(call.arguments)) for call in answer.tool_calls]
        assert read == calls_of(said)
        assert answer.stop.reason == ("tool_use" if said.calls else "stop")
    counted = say(said, model="m")
    assert answer.usage is not None
    assert answer.usage.input_tokens == counted.input_tokens
    assert answer.usage.output_tokens == counted.output_tokens


@EVERY_DIALECT
@pytest.mark.parametrize("voice", ["granite", "tool", "thought"])
@pytest.mark.parametrize("limit", [1, 5, 9, 12])
async def test_an_answer_ends_at_the_maximum_that_was_asked_for(
    dialect: str, voice: str, limit: int
) -> None:
    async with RecordedUpstream() as upstream:
        model = f"built-in:{voice}{AT_ONCE}"
        cut = await ask(upstream.url, dialect, model, **limited(dialect, limit))
        logged = upstream.log[-1]
        whole = await ask(upstream.url, dialect, f"{model}&obeys_limit=0", **limited(dialect, 1))
        ample = await ask(upstream.url, dialect, model, **limited(dialect, 10_000))
    answer = assemble(dialect, cut.body)
    assert answer.stop is not None
    assert answer.stop.reason == "length"
    assert answer.failure is None
    assert answer.usage is not None
    assert answer.usage.output_tokens == limit
    assert built_in(voice).answers[0].text.startswith(answer.text)
    assert len(tokens(answer.text)) + len(tokens(answer.reasoning)) <= limit
    assert logged["max_output_tokens"] == limit
    assert whole.body == ample.body
    assert assemble(dialect, ample.body).stop.reason != "length"


@EVERY_DIALECT
async def test_a_real_recording_comes_byte_for_byte_split_or_not(dialect: str) -> None:
    recordings = load(SPEAKERS[dialect].file)
    if not recordings:
        pytest.skip("no recordings here: set PENSTOCK_RECORDINGS to a folder of .jsonl.gz files")
    async with RecordedUpstream() as upstream:
        for index, recording in enumerate(recordings[:5]):
            model = f"recorded:{index}{AT_ONCE}"
            got = await ask(upstream.url, dialect, model, **limited(dialect, 1))
            assert got.body == recording.body
            name = f"recorded:{recording.sha256[:9]}{AT_ONCE}&split_seed={index}"
            assert (await ask(upstream.url, dialect, name)).body == recording.body


@EVERY_DIALECT
def test_the_events_of_a_body_are_the_body(dialect: str) -> None:
    split = SPEAKERS[dialect].framing.split
    for voice in (*SPECIAL_VOICES, "chat"):
        said = say(built_in(voice).answers[0], model="m")
        events = tuple(SPEAKERS[dialect].speak(said))
        assert split(b"".join(events)) == events
    assert split(b"") == ()
    for recording in load(SPEAKERS[dialect].file):
        assert b"".join(split(recording.body)) == recording.body
        assert split(recording.body[:-1])[-1] == split(recording.body)[-1][:-1]


def test_what_is_no_binary_message_stays_together() -> None:
    body = built_in("tool").recording("bedrock").body
    whole = split_messages(body)
    assert split_messages(body + b"\0\0\0\1nothing") == (*whole, b"\0\0\0\1nothing")
    assert split_messages(b"\0\0") == (b"\0\0",)


CONVERSATIONS = {
    "openai-chat": {
        "messages": [
            {"role": "user", "content": "?"},
            {"role": "assistant", "tool_calls": []},
            {"role": "tool", "content": "dry"},
        ]
    },
    "openai-responses": {
        "input": [
            {"role": "user", "content": "?"},
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": []},
            {"type": "function_call", "name": "get_weather"},
            {"type": "function_call_output", "output": "dry"},
        ]
    },
    "gemini": {
        "contents": [
            {"role": "user", "parts": [{"text": "?"}]},
            {"role": "model", "parts": [{"functionCall": {}}]},
            {"role": "user", "parts": [{"functionResponse": {}}]},
        ]
    },
}
CONVERSATIONS |= dict.fromkeys(
    ("anthropic-messages", "bedrock", "ollama", "cohere"), CONVERSATIONS["openai-chat"]
)


@pytest.mark.parametrize("dialect", CONVERSATIONS)
async def test_the_voice_that_calls_a_tool_speaks_when_it_has_the_result(dialect: str) -> None:
    async with RecordedUpstream() as upstream:
        model = f"built-in:tool{AT_ONCE}"
        got = await ask(upstream.url, dialect, model, **CONVERSATIONS[dialect])
    assert assemble(dialect, got.body).text == built_in("tool").turns[1]
    assert not assemble(dialect, got.body).tool_calls


@EVERY_DIALECT
async def test_any_other_model_gets_the_same_answer_for_the_same_question(
    dialect: str, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("PENSTOCK_RECORDINGS", str(tmp_path))
    texts = {built_in(voice).turns[0] for voice in VOICES}
    async with RecordedUpstream() as upstream:
        field = "input" if dialect == "openai-responses" else "prompt"
        body = {field: "Why?", "penstock": {"tokens_per_s": 0}}
        first = await ask(upstream.url, dialect, "any", **body)
        assert first.body == (await ask(upstream.url, dialect, "other", **body)).body
    assert assemble(dialect, first.body).text in texts


async def test_ollama_generates_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PATHS, "ollama", "/api/generate")
    async with RecordedUpstream() as upstream:
        got = await ask(upstream.url, "ollama", f"built-in:thought{AT_ONCE}", prompt="?")
    (said,) = built_in("thought").answers
    answer = assemble("ollama", got.body)
    assert (answer.reasoning, answer.text) == (said.thought, said.text)
    assert b'"response":' in got.body


@pytest.mark.parametrize("path", ["/", "/v1/embeddings", "/v1/models/m:generateContent"])
async def test_there_is_nothing_at_other_addresses(path: str) -> None:
    async with RecordedUpstream() as upstream:
        PATHS["nowhere"] = path
        try:
            assert (await ask(upstream.url, "nowhere", "m")).status == 404
        finally:
            del PATHS["nowhere"]
        assert not upstream.log


@pytest.mark.parametrize("before", ["", "/openai/deployments/m", "/api/v1", "/openai/v1"])
async def test_whatever_stands_before_the_address_does_not_matter(
    before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PATHS, "openai-chat", f"{before}/chat/completions")
    async with RecordedUpstream() as upstream:
        got = await ask(upstream.url, "openai-chat", f"built-in:granite{AT_ONCE}")
    assert assemble("openai-chat", got.body).text == built_in("granite").turns[0]

"""Recordings are found where they are, and our own streams are what their text says."""

import re
from pathlib import Path

import pytest

from penstock.llm import anthropic, openai_chat
from penstock.llm.assemble import Assembler
from penstock.llm.events import Text
from penstock.testing import recordings
from penstock.testing.recordings import DIALECTS, VOICES, built_in, render, split_events, tokens

READERS = {openai_chat.DIALECT: openai_chat.Reader, anthropic.DIALECT: anthropic.Reader}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", VOICES)
def test_a_built_in_stream_reads_back_as_its_text_with_usage(name: str, dialect: str) -> None:
    for turn, text in enumerate(built_in(name).turns):
        recording = built_in(name).recording(dialect, turn)
        reader, assembler = READERS[dialect](), Assembler()
        reader.receive_data(recording.body)
        events = reader.events()
        for event in events:
            assembler.receive_event(event)
        answer = assembler.answer()
        assert answer.text == text
        assert not answer.is_truncated
        assert answer.usage is not None
        assert (
            answer.usage.output_tokens
            == len(tokens(text))
            == sum(isinstance(event, Text) for event in events)
        )


@pytest.mark.parametrize("name", ["chat", "aggressor", "defender", "moderator"])
def test_the_long_voices_have_six_hundred_tokens_or_more(name: str) -> None:
    assert sum(len(tokens(turn)) for turn in built_in(name).turns) >= 600


def test_the_debate_has_as_many_turns_on_each_side() -> None:
    turns = {len(built_in(name).turns) for name in ("aggressor", "defender", "moderator")}
    assert turns == {4}


def test_the_chat_answer_holds_what_readers_trip_over() -> None:
    (text,) = built_in("chat").turns
    assert text.count("\u2028") == 1
    assert "```python\n" in text
    assert "🙂" in text
    assert re.search(r"[\u3040-\u9fff]", text)
    assert text.encode() in b"".join(piece.encode() for piece in tokens(text))


def test_events_split_from_a_body_are_the_body() -> None:
    wire = render(openai_chat.DIALECT, "a\n\nb", model="m")
    assert split_events(b"".join(wire)) == wire
    assert split_events(b"") == ()
    assert split_events(b"data: a\r\n\r\nrest") == (b"data: a\r\n\r\n", b"rest")


def test_an_unknown_voice_or_dialect_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LookupError, match="moderator"):
        built_in("nobody")
    with pytest.raises(LookupError, match="openai-chat"):
        render("morse", "a", model="m")


def test_the_folder_is_the_one_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_RECORDINGS", str(tmp_path))
    assert recordings.find_directory() == tmp_path
    assert recordings.load("openai-chat") == ()
    monkeypatch.setenv("PENSTOCK_RECORDINGS", str(tmp_path / "absent"))
    assert recordings.find_directory() is None


def test_real_recordings_carry_their_bytes() -> None:
    found = recordings.load("openai-chat")
    if not found:
        pytest.skip("no recordings here: set PENSTOCK_RECORDINGS to a folder of .jsonl.gz files")
    assert all(r.dialect == "openai-chat" and b"data:" in r.body for r in found)
    assert len({r.sha256 for r in found}) == len(found)

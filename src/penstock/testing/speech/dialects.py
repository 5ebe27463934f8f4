"""Every dialect that is spoken, by its name. A new one is a file of its own and a row here."""

from __future__ import annotations

from typing import Final

from penstock.testing.speech import (
    anthropic,
    bedrock,
    cohere,
    gemini,
    ollama,
    openai_chat,
    openai_responses,
)
from penstock.testing.speech.framing import BINARY, LINES, SSE
from penstock.testing.speech.speaker import Speaker

_ALL: Final = (
    Speaker(
        dialect="openai-chat",
        file="openai-chat",
        endpoint="/chat/completions",
        framing=SSE,
        speak=openai_chat.speak,
        refuse=openai_chat.refuse,
        fail=openai_chat.fail,
    ),
    Speaker(
        dialect="anthropic-messages",
        file="anthropic-messages",
        endpoint="/messages",
        framing=SSE,
        speak=anthropic.speak,
        refuse=anthropic.refuse,
        fail=anthropic.fail,
    ),
    Speaker(
        dialect="openai-responses",
        file="openai-responses",
        endpoint="/responses",
        framing=SSE,
        speak=openai_responses.speak,
        refuse=openai_chat.refuse,
        fail=openai_responses.fail,
    ),
    Speaker(
        dialect="openai-completions",
        file="openai-completions",
        endpoint="/completions",
        framing=SSE,
        speak=openai_chat.continue_text,
        refuse=openai_chat.refuse,
        fail=openai_chat.fail,
    ),
    Speaker(
        dialect="gemini",
        file="gemini",
        endpoint="/{model}:streamGenerateContent",
        framing=SSE,
        speak=gemini.speak,
        refuse=gemini.refuse,
        fail=gemini.fail,
    ),
    Speaker(
        dialect="bedrock",
        file="bedrock-eventstream",
        endpoint="/model/{model}/converse-stream",
        framing=BINARY,
        speak=bedrock.speak,
        refuse=bedrock.refuse,
        fail=bedrock.fail,
    ),
    Speaker(
        dialect="ollama",
        file="ollama-ndjson",
        endpoint="/api/chat",
        framing=LINES,
        speak=ollama.speak,
        refuse=ollama.refuse,
        fail=ollama.fail,
    ),
    Speaker(
        dialect="cohere",
        file="cohere",
        endpoint="/v2/chat",
        framing=SSE,
        speak=cohere.speak,
        refuse=cohere.refuse,
        fail=cohere.fail,
    ),
)

SPEAKERS: Final[dict[str, Speaker]] = {speaker.dialect: speaker for speaker in _ALL}
"""Every dialect by its name. Not to be changed."""

GENERATE: Final = Speaker(
    dialect="ollama",
    file="ollama-ndjson",
    endpoint="/api/generate",
    framing=LINES,
    speak=ollama.generate,
    refuse=ollama.refuse,
    fail=ollama.fail,
)
"""Ollama's dialect at its other address: the same reader reads it."""


def find_speaker(dialect: str) -> Speaker:
    """The dialect of this name.

    Raises:
        LookupError: there is none; the message names those there are.
    """
    speaker = SPEAKERS.get(dialect)
    if speaker is None:
        raise LookupError(f"no dialect {dialect[:64]!r} to write; there are {', '.join(SPEAKERS)}")
    return speaker

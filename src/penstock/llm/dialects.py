"""Every dialect by its name, and the reader that understands it.

The one place that knows all of them: configuration, upstreams and tests take names from here. A
new dialect is a file of its own and a row here. Most providers speak somebody else's dialect with
an accent; `ACCENTS` says whose, so that a provider's name is as good as its dialect's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock.llm import (
    anthropic,
    bedrock,
    cohere,
    gemini,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
    replicate,
    watsonx,
)
from penstock.llm.events import TokenReader

_SSE: Final = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One dialect.

    Attributes:
        name: as configuration spells it.
        media_type: what a body in this dialect is, without parameters.
        make_reader: a new reader, for one answer.
    """

    name: str
    media_type: str
    make_reader: Callable[[], TokenReader]


def _bedrock() -> TokenReader:
    natives: bedrock.Natives = {
        "messages": anthropic.Reader,
        "choices": openai_chat.Reader,
        "completions": openai_completions.Reader,
    }
    return bedrock.Reader(natives)


_ALL: Final = (
    Dialect(name=openai_chat.DIALECT, media_type=_SSE, make_reader=openai_chat.Reader),
    Dialect(name=openai_responses.DIALECT, media_type=_SSE, make_reader=openai_responses.Reader),
    Dialect(
        name=openai_completions.DIALECT, media_type=_SSE, make_reader=openai_completions.Reader
    ),
    Dialect(name=anthropic.DIALECT, media_type=_SSE, make_reader=anthropic.Reader),
    Dialect(name=gemini.DIALECT, media_type=_SSE, make_reader=gemini.Reader),
    Dialect(
        name=bedrock.DIALECT,
        media_type="application/vnd.amazon.eventstream",
        make_reader=_bedrock,
    ),
    Dialect(name=ollama.DIALECT, media_type="application/x-ndjson", make_reader=ollama.Reader),
    Dialect(name=cohere.DIALECT, media_type=_SSE, make_reader=cohere.Reader),
    Dialect(name=replicate.DIALECT, media_type=_SSE, make_reader=replicate.Reader),
    Dialect(name=watsonx.DIALECT, media_type=_SSE, make_reader=watsonx.Reader),
)

DIALECTS: Final[dict[str, Dialect]] = {dialect.name: dialect for dialect in _ALL}
"""Every dialect by its name. Not to be changed."""

ACCENTS: Final[dict[str, str]] = dict.fromkeys(
    (
        *("azure", "deepseek", "fireworks", "groq", "llama-cpp", "lm-studio", "mistral"),
        *("openrouter", "perplexity", "together", "vllm", "writer", "xai"),
    ),
    openai_chat.DIALECT,
)
"""Providers that speak another's dialect, and whose."""


def find_dialect(name: str) -> Dialect:
    """The dialect of this name, or the one that the provider of this name speaks.

    Raises:
        LookupError: there is none; the message names those there are.
    """
    dialect = DIALECTS.get(ACCENTS.get(name, name))
    if dialect is None:
        raise LookupError(f"no dialect {name[:64]!r}; there are {', '.join(DIALECTS)}")
    return dialect

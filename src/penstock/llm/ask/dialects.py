"""Every dialect of requests by its name: the reader where clients speak it, the writer where
providers do.

The one place that knows all of them, and the way in: `read_request` and `write_request`. A new
dialect is a file of its own and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from penstock.core.errors import RequestMalformed
from penstock.core.limits import MAX_DIALECT_HEADER_CHARACTERS, MAX_REQUEST_BYTES
from penstock.llm.ask.fields import parse_body
from penstock.llm.ask.read import agui, native, vercel
from penstock.llm.ask.read import anthropic as read_anthropic
from penstock.llm.ask.read import openai_chat as read_openai_chat
from penstock.llm.ask.read import openai_responses as read_openai_responses
from penstock.llm.ask.request import Request
from penstock.llm.ask.write import (
    anthropic,
    bedrock,
    cohere,
    gemini,
    ollama,
    openai_chat,
    openai_responses,
)
from penstock.llm.ask.written import Target, Write, Written
from penstock.llm.dialects import ACCENTS
from penstock.llm.events import Json

Read = Callable[[dict[str, Json]], Request]

READERS: Final[dict[str, Read]] = {
    read_openai_chat.DIALECT: read_openai_chat.read,
    read_openai_responses.DIALECT: read_openai_responses.read,
    read_anthropic.DIALECT: read_anthropic.read,
    vercel.DIALECT: vercel.read,
    agui.DIALECT: agui.read,
    native.DIALECT: native.read,
}
"""The reader of every dialect that clients speak. Not to be changed."""

WRITERS: Final[dict[str, Write]] = {
    openai_chat.DIALECT: openai_chat.write,
    openai_responses.DIALECT: openai_responses.write,
    anthropic.DIALECT: anthropic.write,
    gemini.DIALECT: gemini.write,
    bedrock.DIALECT: bedrock.write,
    ollama.DIALECT: ollama.write,
    cohere.DIALECT: cohere.write,
}
"""The writer of every dialect that providers speak. Not to be changed."""


_HEADERS: Final[dict[str, tuple[str, ...]]] = {
    read_anthropic.DIALECT: ("anthropic-version", "anthropic-beta"),
    read_openai_chat.DIALECT: ("openai-beta",),
    read_openai_responses.DIALECT: ("openai-beta",),
}
"""What clients say of their dialect in headers, by dialect, in lower case."""


def read_request(
    dialect: str,
    body: bytes | Mapping[str, Json],
    *,
    headers: Mapping[str, str] | None = None,
    max_bytes: int = MAX_REQUEST_BYTES,
) -> Request:
    """The request that a body in this dialect is.

    Costs what the body is long: about a millisecond for one of 60 KiB, and 150 for each MiB of one
    that was made to cost, so large ones are not for an event loop.

    `body` is as it came, or parsed already; then nothing counts its bytes. Of `headers`, whose
    names are in lower case, only those that belong to the dialect are looked at, and handed on to
    a provider that speaks it too.

    Raises:
        RequestMalformed: it is none; the error names the place and what is wrong there.
        LookupError: no client speaks a dialect of this name.
    """
    read = READERS.get(dialect)
    if read is None:
        raise LookupError(f"no dialect {dialect[:64]!r} to read; there are {', '.join(READERS)}")
    request = read(parse_body(body, max_bytes))
    said = {
        name: headers[name] for name in _HEADERS.get(dialect, ()) if headers and name in headers
    }
    for name, value in said.items():
        is_plain = value.isascii() and value.isprintable()
        if not is_plain or len(value) > MAX_DIALECT_HEADER_CHARACTERS:
            raise RequestMalformed(f"header {name}", "is no short line of ASCII")
    return replace(request, headers=said) if said else request


def write_request(request: Request, target: Target) -> Written:
    """The request as its target takes it: method, path, headers and body, without any secret.

    Raises:
        RequestInexpressible: it says what the target's dialect cannot; the error names it.
        LookupError: no provider's dialect, and no provider, has this name.
    """
    write = WRITERS.get(ACCENTS.get(target.dialect, target.dialect))
    if write is None:
        names = ", ".join(WRITERS)
        raise LookupError(f"no dialect {target.dialect[:64]!r} to write; there are {names}")
    return write(request, target)

"""One provider asked from Python: its answer as token events, which `hub.start` takes as they are.

One call, one connection, one generator. Leaving the generator by any door (its end, an error,
`aclose()`, the cancelling of its task) closes the connection to the provider at once, also before
the first token and while connecting: a provider goes on writing, and billing, for as long as
somebody seems to listen. The calls of a whole gateway are `calls.py`'s, which this is made of.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp

from penstock.core.errors import (
    PenstockError,
    SettingInvalid,
    Unreachable,
    UpstreamError,
    UpstreamTruncated,
)
from penstock.core.limits import BETWEEN_TOKENS_S, FIRST_TOKEN_S, UPSTREAM_CONNECT_S
from penstock.gateway.calls import Call, Calls
from penstock.gateway.config import UpstreamSettings
from penstock.gateway.refusals import TIMEOUT, UNREACHABLE
from penstock.llm import anthropic, openai_chat
from penstock.llm.ask.dialects import WRITERS, read_request
from penstock.llm.dialects import ACCENTS
from penstock.llm.events import TRUNCATED, Failure, Json, TokenEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Where to ask, and how long to wait.

    Attributes:
        dialect: one that `penstock.llm.ask` writes, or a provider with an accent of one.
        base_url: as the vendors' own SDKs take it; `credentials.py` has the table.
        model: the provider's name for it.
        api_key: "" where none is needed. Never shown in an error or in the value's `repr`.
        connect_timeout_s: until there is a connection, TLS included.
        first_token_timeout_s: from the request until something is said or thought. Pings, comments
            and the answer's head do not count. Reasoning models can take minutes.
        between_tokens_timeout_s: between two token events from then on. The time the caller takes
            for an event does not count.
        extra: further fields of the request's body; they win over ours.

    Raises:
        SettingInvalid: a value that cannot be one.
    """

    dialect: str
    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    connect_timeout_s: float = UPSTREAM_CONNECT_S
    first_token_timeout_s: float = FIRST_TOKEN_S
    between_tokens_timeout_s: float = BETWEEN_TOKENS_S
    extra: Mapping[str, Json] = field(default_factory=dict[str, Json])

    def __post_init__(self) -> None:
        if ACCENTS.get(self.dialect, self.dialect) not in WRITERS:
            raise SettingInvalid("dialect", f"is none of {', '.join((*WRITERS, *ACCENTS))}")
        if urlsplit(self.base_url).scheme not in ("http", "https"):
            raise SettingInvalid("base_url", "does not begin with http:// or https://")
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise SettingInvalid("api_key", "has characters that no header can carry")


def detect(environ: Mapping[str, str] = os.environ) -> Upstream | None:
    """The provider this machine is set up for, or None: OpenAI, then Anthropic, then Ollama.

    Reads `OPENAI_API_KEY`, `ANTHROPIC_API_KEY` and `OLLAMA_HOST`, and beside each the address and
    model where they are set (`OPENAI_BASE_URL`, `OPENAI_MODEL`, and so on). Calls nobody.

    Raises:
        SettingInvalid: one of them has a value that cannot be used.
    """

    def read(name: str, default: str = "") -> str:
        return environ.get(name, "").strip() or default

    if read("OPENAI_API_KEY"):
        return Upstream(
            dialect=openai_chat.DIALECT,
            base_url=read("OPENAI_BASE_URL", "https://api.openai.com/v1"),
            model=read("OPENAI_MODEL", "gpt-4o-mini"),
            api_key=read("OPENAI_API_KEY"),
        )
    if read("ANTHROPIC_API_KEY"):
        return Upstream(
            dialect=anthropic.DIALECT,
            base_url=read("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
            model=read("ANTHROPIC_MODEL", "claude-sonnet-4-5"),
            api_key=read("ANTHROPIC_API_KEY"),
        )
    if read("OLLAMA_HOST"):
        return Upstream(
            dialect=openai_chat.DIALECT,
            base_url=f"{_ollama_address(read('OLLAMA_HOST'))}/v1",
            model=read("OLLAMA_MODEL", "llama3.2"),
        )
    return None


def _ollama_address(host: str) -> str:
    """`OLLAMA_HOST` as Ollama's own client reads it: scheme and port may be missing."""
    has_scheme = "://" in host
    try:
        parts = urlsplit(host if has_scheme else f"http://{host}")
        port = parts.port
    except ValueError:
        raise SettingInvalid("OLLAMA_HOST", "is no host and port") from None
    if port is None:
        port = {"http": 80, "https": 443}.get(parts.scheme) if has_scheme else 11434
    name = parts.hostname or "127.0.0.1"
    if name in ("0.0.0.0", "::"):  # noqa: S104  # where it listens; this is where to call
        name = "127.0.0.1"
    name = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{name}:{port}{parts.path.rstrip('/')}"


async def answer(
    upstream: Upstream,
    messages: Sequence[Mapping[str, Json]],
    *,
    session: aiohttp.ClientSession | None = None,
) -> AsyncGenerator[TokenEvent, None]:
    """Asks, and gives the answer's token events as they arrive.

    An answer that is not whole never ends normally: its `Failure` is given as the last event, and
    then the error is raised, so that neither a reader of the events nor the owner of the generator
    takes it for complete. Reads no faster than it is iterated. Leave it early with `aclose()`
    (`contextlib.aclosing`) or by cancelling; both close the connection at once.

    `messages` are as OpenAI's chat completions have them, whatever the provider's dialect.
    `session` lends its connection pool; without one, the call has its own. Nothing is asked twice.

    Raises:
        RequestMalformed: `messages` are none.
        RequestInexpressible: they say what the provider's dialect cannot.
        Unreachable: no connection, or silence beyond one of the upstream's timeouts.
        UpstreamError: an error status, or an error in the stream.
        UpstreamTruncated: the body ended before its dialect's end.
    """
    said: dict[str, Json] = {"model": upstream.model, "stream": True}
    request = read_request(openai_chat.DIALECT, {**said, "messages": [dict(m) for m in messages]})
    connector = None if session is None else session.connector
    async with Calls(connector=connector) as calls:
        call = await calls.ask_once(request, _settings(upstream))
        try:
            while events := await call.read():
                for event in events:
                    yield event
        finally:
            call.abort()
        if call.failure is not None:
            raise _error(upstream, call, call.failure)


def _settings(upstream: Upstream) -> UpstreamSettings:
    return UpstreamSettings(
        name=upstream.model,
        dialect=upstream.dialect,
        base_url=upstream.base_url,
        api_key=upstream.api_key,
        connect_s=upstream.connect_timeout_s,
        first_token_s=upstream.first_token_timeout_s,
        between_tokens_s=upstream.between_tokens_timeout_s,
        retries=0,
        extra=upstream.extra,
    )


def _error(upstream: Upstream, call: Call, failure: Failure) -> PenstockError:
    if failure.code == TRUNCATED:
        return UpstreamTruncated(upstream.dialect)
    if failure.code in (UNREACHABLE, TIMEOUT):
        parts = urlsplit(upstream.base_url)
        # Without what could be a password: user information and the query.
        address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return Unreachable(address, failure.message)
    if call.has_content or failure.status is None:
        return UpstreamError(failure.message, failure.status)
    return UpstreamError(f"{failure.status}: {failure.message}", failure.status)

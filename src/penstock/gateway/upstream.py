"""Asks a model provider, and gives its answer as token events.

One call, one connection, one generator. Leaving the generator by any door (its end, an error,
`aclose()`, the cancelling of its task) closes the connection to the provider at once, also before
the first token and while connecting: a provider goes on writing, and billing, for as long as
somebody seems to listen. What the bytes mean is the dialect's reader's to say; here live the
request, the waiting, and what may be said about a failure. The API key is never part of that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from penstock.core.errors import (
    SettingInvalid,
    Unreachable,
    UpstreamError,
    UpstreamTruncated,
)
from penstock.core.limits import BETWEEN_TOKENS_S, FIRST_TOKEN_S, UPSTREAM_CONNECT_S
from penstock.llm import anthropic, openai_chat
from penstock.llm.events import (
    TRUNCATED,
    Failure,
    Json,
    Reasoning,
    Text,
    TokenEvent,
    TokenReader,
    ToolCall,
    ToolCallDelta,
    as_list,
    as_object,
    as_text,
    parse_object,
)

_READERS: Final[dict[str, Callable[[], TokenReader]]] = {
    openai_chat.DIALECT: openai_chat.Reader,
    anthropic.DIALECT: anthropic.Reader,
}

# The version of the request that is written here; the provider keeps old ones working.
_ANTHROPIC_VERSION: Final = "2023-06-01"

# Anthropic wants a limit in every request. Long enough for a long answer, and accepted by each of
# its current models; `extra={"max_tokens": …}` replaces it.
_ANTHROPIC_MAX_TOKENS: Final = 4096

# What is read of an error's body: its sentence is near the front.
_MAX_ERROR_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Where to ask, and how long to wait.

    Attributes:
        dialect: "openai-chat" or "anthropic-messages".
        base_url: as the vendors' own SDKs take it: with the version for OpenAI and its kin
            (`https://api.openai.com/v1`), without for Anthropic (`https://api.anthropic.com`).
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
        if self.dialect not in _READERS:
            raise SettingInvalid("dialect", f"is none of {', '.join(_READERS)}")
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

    `messages` are `{"role", "content"}` as OpenAI has them; for Anthropic the system messages are
    lifted out. `session` lends its connection pool; without one, the call has its own.

    Raises:
        Unreachable: no connection, or silence beyond one of the upstream's timeouts.
        UpstreamError: an error status, or an error in the stream.
        UpstreamTruncated: the body ended before its dialect's end.
    """
    call = _Call(upstream, aiohttp.ClientSession() if session is None else session)
    try:
        await call.open(messages)
        while events := await call.read():
            for event in events:
                yield event
        call.check()
    finally:
        call.abort()
        if session is None:
            await call.session.close()


class _Call:
    """One request and its answer, from the first byte to the last."""

    def __init__(self, upstream: Upstream, session: aiohttp.ClientSession) -> None:
        self._upstream = upstream
        self.session = session
        self._reader = _READERS[upstream.dialect]()
        self._response: aiohttp.ClientResponse | None = None
        self._failure: Failure | None = None
        self._deadline = 0.0
        self._has_token = False
        self._is_eof = False

    async def open(self, messages: Sequence[Mapping[str, Json]]) -> None:
        """Sends the request and takes the head of the answer."""
        upstream = self._upstream
        path, headers, body = _request(upstream, messages)
        self._deadline = asyncio.get_running_loop().time() + upstream.first_token_timeout_s
        try:
            async with asyncio.timeout_at(self._deadline):
                self._response = await self.session.post(
                    upstream.base_url.rstrip("/") + path,
                    json=body,
                    headers=headers,
                    # The waiting is measured here, in tokens; a redirect could carry the key away.
                    timeout=aiohttp.ClientTimeout(connect=upstream.connect_timeout_s),
                    allow_redirects=False,
                    raise_for_status=False,
                )
        # `from None`: the chain would hold the request's headers, and with them the key.
        except aiohttp.ConnectionTimeoutError:
            limit_s = upstream.connect_timeout_s
            raise self._unreachable(f"no connection within {limit_s:g} s") from None
        except TimeoutError:
            raise self._silent() from None
        except aiohttp.ClientError as error:
            raise self._unreachable(str(error) or type(error).__name__) from None
        is_stream = self._response.content_type != "application/json"
        if not 200 <= self._response.status < 300 or not is_stream:
            await self._refuse(self._response)

    async def read(self) -> list[TokenEvent]:
        """The next token events, at least one; none when there is nothing more."""
        if self._has_token:
            limit_s = self._upstream.between_tokens_timeout_s
            self._deadline = asyncio.get_running_loop().time() + limit_s
        while not (events := self._reader.events()):
            if self._is_eof or self._reader.is_ended:
                return []
            await self._receive()
        for place, event in enumerate(events):
            if isinstance(event, Failure):
                events[place] = self._failure = replace(event, message=self._safe(event.message))
            elif isinstance(event, Text | Reasoning | ToolCallDelta | ToolCall):
                self._has_token = True
        return events

    def check(self) -> None:
        """Raises what kept the answer from being whole."""
        failure = self._failure
        if failure is None:
            return
        if failure.code == TRUNCATED:
            raise UpstreamTruncated(self._upstream.dialect)
        raise UpstreamError(failure.message, failure.status)

    def abort(self) -> None:
        """Lets go of the connection: back to the pool after a whole body, else closed at once."""
        response = self._response
        if response is None:
            return  # none came; a request that is cancelled closes its own connection
        connection = response.connection
        if connection is not None and connection.transport is not None:
            # Not close(): what is still to be flushed or said goodbye to keeps the bill running.
            connection.transport.abort()
        response.close()

    async def _receive(self) -> None:
        response = self._response
        if response is None:
            return
        try:
            async with asyncio.timeout_at(self._deadline):
                data = await response.content.readany()
        except TimeoutError:
            raise self._silent() from None
        except (aiohttp.ClientError, ConnectionError):
            data = b""  # a broken body ends as a short one does: the reader knows what it lacks
        if data:
            self._reader.receive_data(data)
        else:
            self._is_eof = True
            self._reader.receive_eof()

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        """Raises an answer that is no stream, with the sentence the provider gave for it."""
        body = b""
        try:
            async with asyncio.timeout_at(self._deadline):
                while len(body) < _MAX_ERROR_BYTES and (data := await response.content.readany()):
                    body += data
        except (TimeoutError, aiohttp.ClientError, ConnectionError):
            pass  # the status says enough
        payload = parse_object(body.decode("utf-8", "replace")) or {}
        error = payload.get("error")
        sentence = as_text(as_object(error).get("message")) or as_text(error)
        sentence = sentence or as_text(payload.get("message")) or as_text(response.reason)
        if response.status < 300 and not error:
            sentence = "it answered JSON where a stream was asked for"
        raise UpstreamError(f"{response.status}: {self._safe(sentence)}", response.status)

    def _silent(self) -> Unreachable:
        if self._has_token:
            limit_s, what = self._upstream.between_tokens_timeout_s, "nothing more"
        else:
            limit_s, what = self._upstream.first_token_timeout_s, "no token"
        return self._unreachable(f"{what} within {limit_s:g} s")

    def _unreachable(self, reason: str) -> Unreachable:
        parts = urlsplit(self._upstream.base_url)
        # Without what could be a password: user information and the query.
        address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return Unreachable(address, self._safe(reason))

    def _safe(self, text: str) -> str:
        """`text` without the key (providers quote it back) and without control characters."""
        key = self._upstream.api_key
        text = text.replace(key, "***") if key else text
        return "".join(c if c.isprintable() else " " for c in text)


def _request(
    upstream: Upstream, messages: Sequence[Mapping[str, Json]]
) -> tuple[str, dict[str, str], dict[str, Json]]:
    """Path, headers and body of the request in the upstream's dialect."""
    # Compressed, a stream waits for the compressor's block to fill.
    headers = {"Accept": "text/event-stream, application/json", "Accept-Encoding": "identity"}
    rest: list[Json] = [dict(message) for message in messages]
    body: dict[str, Json] = {"model": upstream.model, "stream": True}
    if upstream.dialect == anthropic.DIALECT:
        headers["anthropic-version"] = _ANTHROPIC_VERSION
        if upstream.api_key:
            headers["x-api-key"] = upstream.api_key
        system = [_plain(m.get("content")) for m in messages if m.get("role") == "system"]
        body["messages"] = [m for m in rest if as_object(m).get("role") != "system"]
        body["max_tokens"] = _ANTHROPIC_MAX_TOKENS
        if system:
            body["system"] = "\n\n".join(system)
        return "/v1/messages", headers, {**body, **upstream.extra}
    if upstream.api_key:
        headers["Authorization"] = f"Bearer {upstream.api_key}"
    body["messages"] = rest
    body["stream_options"] = {"include_usage": True}
    return "/chat/completions", headers, {**body, **upstream.extra}


def _plain(content: Json) -> str:
    """A message's text, given as a string or as a list of text parts."""
    if isinstance(content, str):
        return content
    return "".join(as_text(as_object(part).get("text")) for part in as_list(content))

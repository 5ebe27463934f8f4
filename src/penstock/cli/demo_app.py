"""The demo's application: a page, three ways to start streams, and the server's own addresses.

Every answer goes the real way: an upstream is called over HTTP, its dialect read into token
events, those appended to a log that the hub owns, and the page reads the log like anybody else.
Nothing here serves bytes of a stream.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from importlib import resources
from importlib.metadata import version
from typing import Any, Final

import msgspec

from penstock.core.errors import (
    BodyMalformed,
    MethodNotAllowed,
    PenstockError,
    RouteNotFound,
    StreamNotFound,
)
from penstock.core.record import NewRecord
from penstock.gateway.upstream import Upstream, answer
from penstock.llm.events import Failure, Json, Text, TokenEvent, to_record
from penstock.server.app import ServerApp, check_request, send_text
from penstock.server.app import answer as answer_request
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.endpoints.publish import read_body
from penstock.server.hub import Hub
from penstock.server.stream import Stream
from penstock.wire import http

CONTENT_SECURITY_POLICY: Final = (
    b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
)
MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
MAX_PROMPT: Final = 4000
ROUNDS: Final = 4
BREATH_S: Final = 0.9
"""Pause between two speakers, so that a watcher sees who has the word."""
WAITING_EVENTS: Final = 64
"""Token events of the board that wait to be appended; then its models wait."""
FIRST_SPEECH: Final = "Open the debate."
TOPIC: Final = "Should an answer outlive the tab that asked for it?"
SPEAKERS: Final = {
    "Moderator": f"You moderate a debate: {TOPIC} Be brief and fair; ask one question each time.",
    "Aggressor": f"You debate: {TOPIC} You say no, sharply and in short sentences.",
    "Defender": f"You debate: {TOPIC} You say yes, calmly, with examples.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Who answers what: upstreams for the chat, for each speaker and for each column."""

    kind: str
    model: str
    chat: Upstream
    speakers: dict[str, Upstream]
    board: dict[str, tuple[Upstream, str]]

    @classmethod
    def real(cls, upstream: Upstream) -> Models:
        """One provider for everything; the board asks it in three characters."""
        kind = {"anthropic-messages": "anthropic"}.get(upstream.dialect, "openai")
        kind = kind if upstream.api_key else "ollama"
        characters = {
            "plain": "Answer in three plain paragraphs.",
            "sceptic": "Answer as a sceptic who doubts the question, in three short paragraphs.",
            "teacher": "Answer as a patient teacher with one example, in three short paragraphs.",
        }
        return cls(
            kind=kind,
            model=upstream.model,
            chat=upstream,
            speakers=dict.fromkeys(SPEAKERS, upstream),
            board={name: (upstream, words) for name, words in characters.items()},
        )

    @classmethod
    def recorded(cls, address: str, model: str, knobs: dict[str, float]) -> Models:
        """The recorded upstream: OpenAI's dialect for the chat, both for the rest."""
        pace: dict[str, Json] = {"penstock": dict[str, Json](knobs)}
        openai = Upstream(dialect="openai-chat", base_url=f"{address}/v1", model=model, extra=pace)
        anthropic = replace(openai, dialect="anthropic-messages", base_url=address)
        voices = {"granite": openai, "brook": anthropic, "magpie": openai}
        return cls(
            kind="recorded",
            model=model,
            chat=openai,
            speakers={
                name: replace(anthropic, model=f"built-in:{name.lower()}") for name in SPEAKERS
            },
            board={
                name: (_paced(replace(upstream, model=f"built-in:{name}"), place), "")
                for place, (name, upstream) in enumerate(voices.items())
            },
        )


def _paced(upstream: Upstream, place: int) -> Upstream:
    """Give the columns of the board different speeds: models have."""
    knobs = upstream.extra["penstock"]
    assert isinstance(knobs, dict)
    pace = knobs["tokens_per_s"]
    assert isinstance(pace, float)
    changed: dict[str, Json] = {**knobs, "tokens_per_s": pace * (1.0, 0.7, 1.5)[place]}
    return replace(upstream, extra={"penstock": changed})


class DemoApp:
    """The page and its three POST addresses; everything else is the server's."""

    def __init__(self, hub: Hub, models: Models) -> None:
        self._hub = hub
        self._models = models
        self._server = ServerApp(hub)
        self._web = resources.files("penstock") / "web"
        self._posts = {"/demo/chat": self._chat, "/demo/arena": self._arena}
        self._posts["/demo/board"] = self._board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope.get("path", "")
        is_page = path == "/" or path.startswith(("/assets/", "/demo/"))
        if scope["type"] == "http" and is_page:
            await answer_request(self._route, scope, receive, send)
        else:
            await self._server(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_request(self._hub, scope)
        path, method = scope["path"], scope["method"]
        post = self._posts.get(path)
        allowed = ("POST",) if post is not None else ("GET", "HEAD")
        if method not in allowed:
            raise MethodNotAllowed(method, ", ".join(allowed))
        if post is not None:
            stream, is_new = await post(_prompt(await self._body(scope, receive)))
            answer = {"stream": stream.name, "url": f"/v1{stream.path}"}
            await _send_json(send, 201 if is_new else 200, answer)
        elif path == "/demo/about":
            await _send_json(send, 200, self._about())
        else:
            await self._file(path, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        return await read_body(self._hub, http.by_name(scope["headers"]), receive)

    def _about(self) -> dict[str, Any]:
        return {
            "version": version("penstock"),
            "upstream": {"kind": self._models.kind, "model": self._models.model},
            "fast_path": self._hub.fast_path_active,
        }

    async def _file(self, path: str, send: Send) -> None:
        """Answer with a file of the page. Names are compared with what is there, not opened."""
        folder = self._web if path == "/" else self._web / "assets"
        name = "index.html" if path == "/" else path.removeprefix("/assets/")
        found = {entry.name: entry for entry in folder.iterdir() if entry.is_file()}
        if name not in found:
            raise RouteNotFound(path)
        body = await asyncio.to_thread(found[name].read_bytes)
        headers = [
            (b"content-type", MEDIA_TYPES[name.rpartition(".")[2]].encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-cache"),
            (b"content-security-policy", CONTENT_SECURITY_POLICY),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _chat(self, prompt: str) -> tuple[Stream, bool]:
        name = f"demo/chat/{secrets.token_urlsafe(8)}"
        asked = [_record("prompt", {"text": prompt})]
        source = chat_answer(self._models.chat, prompt)
        return await self._hub.start(name, source, opening=asked), True

    async def _board(self, prompt: str) -> tuple[Stream, bool]:
        name = f"demo/board/{secrets.token_urlsafe(8)}"
        asked = [_record("prompt", {"text": prompt})]
        source = board_answers(self._models.board, prompt)
        return await self._hub.start(name, source, opening=asked), True

    async def _arena(self, prompt: str) -> tuple[Stream, bool]:
        """Start the broadcast, or join the one that runs: one for all watchers."""
        name = "demo/arena"
        try:
            stream = await self._hub.get(name)
        except StreamNotFound:
            pass
        else:
            if stream.end is None:
                return stream, False
            await self._hub.delete(name)
        first = [_turn(0, next(iter(self._models.speakers)))]
        return await self._hub.start(name, debate(self._models.speakers), opening=first), True


async def chat_answer(upstream: Upstream, prompt: str) -> AsyncGenerator[NewRecord]:
    """One answer: the model's token events."""
    async with aclosing(answer(upstream, [{"role": "user", "content": prompt}])) as events:
        async for event in events:
            yield _event_record(event)


async def debate(speakers: dict[str, Upstream]) -> AsyncGenerator[NewRecord]:
    """Speakers in turn, each hearing what was said before."""
    said: list[tuple[str, str]] = []
    for turn in range(ROUNDS * len(speakers)):
        speaker = list(speakers)[turn % len(speakers)]
        if turn:  # the first is there before anybody is asked
            yield _turn(turn, speaker)
        words: list[str] = []
        messages = _heard(speaker, said)
        async with aclosing(answer(speakers[speaker], messages)) as events:
            async for event in events:
                if isinstance(event, Text):
                    words.append(event.text)
                yield _event_record(event, {"speaker": speaker}, key=speaker)
        said.append((speaker, "".join(words)))
        await asyncio.sleep(BREATH_S)


def _turn(turn: int, speaker: str) -> NewRecord:
    return _record("turn", {"speaker": speaker, "turn": turn})


def _heard(speaker: str, said: Sequence[tuple[str, str]]) -> list[dict[str, Json]]:
    """A debate as one speaker's conversation: its own words are the assistant's."""
    messages: list[dict[str, Json]] = [{"role": "system", "content": SPEAKERS[speaker]}]
    others: list[str] = []
    for name, words in said:
        if name != speaker:
            others.append(f"{name}: {words}")
            continue
        messages.append({"role": "user", "content": "\n\n".join(others) or FIRST_SPEECH})
        messages.append({"role": "assistant", "content": words})
        others = []
    messages.append({"role": "user", "content": "\n\n".join(others) or FIRST_SPEECH})
    return messages


async def board_answers(
    board: dict[str, tuple[Upstream, str]], prompt: str
) -> AsyncGenerator[NewRecord]:
    """Several models at once into one stream, each record with its model as the key."""
    waiting: asyncio.Queue[NewRecord | None] = asyncio.Queue(WAITING_EVENTS)

    async def ask(name: str, upstream: Upstream, character: str) -> None:
        try:
            async with aclosing(answer(upstream, _asked(prompt, character))) as events:
                async for event in events:
                    await waiting.put(_event_record(event, {"model": name}, key=name))
        except PenstockError as error:
            # One model's failure is its column's; the others go on.
            failure = Failure(message=error.sentence, code=error.code)
            await waiting.put(_event_record(failure, {"model": name}, key=name))
        await waiting.put(None)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(name, *asked)) for name, asked in board.items()]
        try:
            running = len(tasks)
            while running:
                record = await waiting.get()
                if record is None:
                    running -= 1
                else:
                    yield record
        finally:
            for task in tasks:
                task.cancel()


def _asked(prompt: str, character: str) -> list[dict[str, Json]]:
    system: list[dict[str, Json]] = [{"role": "system", "content": character}] if character else []
    return [*system, {"role": "user", "content": prompt}]


def _event_record(
    event: TokenEvent, more: dict[str, Json] | None = None, *, key: str = ""
) -> NewRecord:
    type_, fields = to_record(event)
    # What the page is told of whose words these are wins over the provider's own field.
    return _record(type_, {**fields, **(more or {})}, key=key)


def _record(type_: str, fields: dict[str, Json], *, key: str = "") -> NewRecord:
    return NewRecord(msgspec.json.encode(fields), type_, key)


def _prompt(body: bytes) -> str:
    """Read a POST's prompt; an address that needs none may be sent none."""
    if not body:
        return ""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise BodyMalformed(f"is no JSON object: {error}") from None
    prompt = fields.get("prompt", "")
    if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT:
        raise BodyMalformed(f"has a prompt that is no text of at most {MAX_PROMPT} characters")
    return prompt.strip()


async def _send_json(send: Send, status: int, body: dict[str, Any]) -> None:
    await send_text(send, status, msgspec.json.encode(body), "application/json")

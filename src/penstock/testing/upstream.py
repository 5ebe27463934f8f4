"""A server that answers as a model provider does, and misbehaves on request.

It speaks every dialect that `penstock.llm.ask` writes, at the address that the provider has it at,
whatever stands before that: `POST …/chat/completions`, `…/responses`, `…/completions`, `…/messages`
(Anthropic), `…/{model}:streamGenerateContent` (Gemini), `…/model/{model}/converse-stream`
(Bedrock), `…/api/chat` and `…/api/generate` (Ollama), `…/v2/chat` (Cohere). It always streams, from
a real recording where this machine has them and from our own text otherwise. `Knobs` say how it
comes: pace, bursts, stalls, cuts, errors, bytes split anywhere. It writes down when each request
began, when its first byte left, when it finished, and **the moment its client went away**, which is
how a test sees that a cancelled answer really stopped costing money. It never calls anybody.

As a process: `python -m penstock.testing.upstream --port 0 [--log FILE]` prints `{"port": N}` as
its first line and then, without `--log`, one JSON line for each entry of the log. In a test:
`async with RecordedUpstream() as upstream`, then `upstream.url` and `upstream.log`.

Which answer: model `recorded:<index or start of its sha256>` is that recording, `built-in:<voice>`
or `built-in:<voice>:<turn>` one of our own (without a turn, the conversation's own count of answers
so far), and any other model one chosen by the last user message, always the same for the same. Our
own end at the request's maximum of output tokens, and say so in the dialect's words. Before the
name can stand whose it is, `any/built-in:chat`, and behind it knobs, as in a query:
`built-in:chat?tokens_per_s=200&cut_after=9`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import random
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from penstock.llm.events import Json, as_json_text, parse_object
from penstock.testing.asked import Asked, find_endpoint
from penstock.testing.knobs import HEADER, Knobs, read_query
from penstock.testing.recordings import Recording, load
from penstock.testing.speech.speaker import Speaker

__all__ = ["MAX_LOG_ENTRIES", "Knobs", "RecordedUpstream", "main"]

# Enough for every test, and a bound where somebody leaves the demo running for a week.
MAX_LOG_ENTRIES: Final = 10_000

_MAX_BODY_BYTES: Final = 64 * 1024 * 1024

# Where providers want their key.
_KEY_HEADERS: Final = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})

# What providers have in the query themselves.
_THEIRS: Final = frozenset({"alt", "key", "api-version", "beta"})

# What a proxy in front of a provider says when the provider is down.
_PAGE: Final = "<html><head><title>Bad gateway</title></head><body>nginx</body></html>\n"

# No dialect, no UTF-8, and no message of any framing.
_GARBAGE: Final = b"\xff\xfe\x00garbage: {]\r\n\r\ndata: {]\n\n\x80"
_FILLING: Final = b"x" * 65536


class RecordedUpstream:
    """The server, in this process. Entering it binds a free port of 127.0.0.1; leaving closes it.

    Attributes:
        log: what happened, oldest first: dicts with `event` ("start", "first-byte", "finished",
            "refused", "gone"), `request` (from 1), `monotonic_s`, `wall_s`, `path`, `model`,
            `events_sent`, `events` (the answer's whole number), `bytes_sent`, and of the request
            `dialect`, `headers` (their names), `has_key`, `body_bytes` and `max_output_tokens`.
            "finished" is the whole answer or the cut or error that was asked for; "gone" is a
            client that left first.
    """

    def __init__(self, *, port: int = 0, on_entry: Callable[[str], None] | None = None) -> None:
        self.log: deque[dict[str, Json]] = deque(maxlen=MAX_LOG_ENTRIES)
        self.port = port
        self._on_entry = on_entry
        self._requests = 0
        self._news = asyncio.Event()
        self._load = functools.cache(load)
        # By model name, the requests of which only the first were to go wrong.
        self._asked: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None
        self._is_closing = False

    @property
    def url(self) -> str:
        """The server's address without a path: `http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post("/{path:.*}", self._answer)
        # With handler_cancellation the loss of the connection reaches an answer wherever it waits.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_closing = True
        if self._runner is not None:
            await self._runner.cleanup()

    async def logged(self, event: str, *, request: int = 1) -> dict[str, Json]:
        """Waits for a log entry and gives it. Cancelling gives up waiting, nothing else."""
        while True:
            for entry in self.log:
                if entry["event"] == event and entry["request"] == request:
                    return entry
            await self._news.wait()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        found = find_endpoint(request.path)
        if found is None:
            raise web.HTTPNotFound(text=f"no dialect is spoken at {request.path[:200]!r}")
        speaker, model = found
        self._requests += 1
        data = await request.read()
        about = _about(request, speaker, len(data))
        visit = _Visit(self._say, speaker, {"request": self._requests, **about})
        try:
            asked = Asked.read(_parse(data), model)
            visit.about |= {"model": asked.model, "max_output_tokens": asked.max_output_tokens}
            header = read_query(request.headers.get(HEADER, ""))
            knobs = Knobs.read({**asked.values, **header, **_own_query(request)})
            recording = asked.choose(speaker, self._load, knobs)
        except (ValueError, LookupError) as error:
            return visit.refuse(400, str(error))
        knobs = self._count(asked.model, knobs)
        if knobs.status is not None:
            visit.say("start")
            return visit.refuse(knobs.status, f"asked to answer {knobs.status}", knobs)
        return await visit.serve(request, recording, knobs)

    def _count(self, model: str, knobs: Knobs) -> Knobs:
        """The knobs of this request, where only some are to fail."""
        if knobs.fail_times is None:
            return knobs
        if len(self._asked) >= MAX_LOG_ENTRIES:
            self._asked.clear()
        changed = knobs.after(self._asked[model])
        self._asked[model] += 1
        return changed

    def _say(self, entry: dict[str, Json]) -> None:
        if self._is_closing and entry["event"] == "gone":
            return  # it was us who left
        self.log.append(entry)
        if self._on_entry is not None:
            self._on_entry(as_json_text(entry))
        self._news.set()
        self._news = asyncio.Event()


def _parse(data: bytes) -> dict[str, Json]:
    body = parse_object(data.decode("utf-8", "replace"))
    if body is None:
        raise ValueError("the body is not a JSON object")
    return body


def _about(request: web.Request, speaker: Speaker, size: int) -> dict[str, Json]:
    """What is written down of a request: never what a header or the body says."""
    names = sorted({name.lower() for name in request.headers})
    return {
        "path": request.path,
        "dialect": speaker.dialect,
        "model": "",
        "max_output_tokens": None,
        "headers": list[Json](names),
        "has_key": not _KEY_HEADERS.isdisjoint(names),
        "body_bytes": size,
    }


def _own_query(request: web.Request) -> dict[str, Json]:
    """The knobs in the request's query, beside what providers have there themselves."""
    return {name: value for name, value in request.query.items() if name not in _THEIRS}


class _Visit:
    """One request: how far its answer got, and what is written down of it."""

    def __init__(
        self, say: Callable[[dict[str, Json]], None], speaker: Speaker, about: dict[str, Json]
    ) -> None:
        self.about = about
        self._say, self._speaker = say, speaker
        self._events = self._events_sent = self._bytes_sent = 0

    def say(self, event: str) -> None:
        self._say(
            {
                "event": event,
                "monotonic_s": time.monotonic(),
                "wall_s": time.time(),
                "events_sent": self._events_sent,
                "events": self._events,
                "bytes_sent": self._bytes_sent,
                **self.about,
            }
        )

    def refuse(self, status: int, message: str, knobs: Knobs | None = None) -> web.Response:
        """An error before any stream, in the dialect's form."""
        self.say("refused")
        wait_s = knobs.retry_after_s if knobs else None
        headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
        if knobs is not None and knobs.error == "garbage":
            return web.Response(
                status=status, text=_PAGE, content_type="text/html", headers=headers
            )
        refusal = self._speaker.refuse(status, message)
        headers |= refusal.headers
        return web.json_response(refusal.body, status=status, headers=headers, dumps=json.dumps)

    async def serve(
        self, request: web.Request, recording: Recording, knobs: Knobs
    ) -> web.StreamResponse:
        """Streams the recording. Cancelled (the client left), it says so and how far it was."""
        events = self._speaker.framing.split(recording.body)
        self._events = len(events)
        self.say("start")
        try:
            response = await self._open(request, recording, knobs)
            await self._stream(response, events, knobs)
        except (asyncio.CancelledError, ConnectionError):
            if request.transport is None or request.transport.is_closing():
                self.say("gone")
            raise
        self.say("finished")
        if knobs.cut_after is not None and knobs.cut == "broken" and request.transport:
            # What was written is flushed; the last chunk, which would make it an end, never comes.
            request.transport.close()
        return response

    async def _open(
        self, request: web.Request, recording: Recording, knobs: Knobs
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=recording.status)
        response.headers["Content-Type"] = recording.content_type
        if knobs.early_head:
            await response.prepare(request)
            await asyncio.sleep(knobs.first_token_s)
        else:
            await asyncio.sleep(knobs.first_token_s)
            await response.prepare(request)
        return response

    async def _stream(
        self, response: web.StreamResponse, events: tuple[bytes, ...], knobs: Knobs
    ) -> None:
        limit = len(events) if knobs.cut_after is None else min(knobs.cut_after, len(events))
        if knobs.error_after is not None:
            limit = min(limit, knobs.error_after)
        splitter = _Splitter(knobs.split_seed)
        async for batch in _paced(events[:limit], knobs):
            for piece in splitter.split(b"".join(batch)):
                await self._write(response, piece)
            self._events_sent += len(batch)
        rest = splitter.rest()
        if knobs.error_after is not None:
            rest += self._error(knobs)
        if rest:
            await self._write(response, rest)
        while knobs.error_after is not None and knobs.error == "endless":
            await self._write(response, _FILLING)

    def _error(self, knobs: Knobs) -> bytes:
        """What goes wrong under way."""
        if knobs.error == "garbage":
            return _GARBAGE
        if knobs.error == "endless":
            return self._speaker.framing.opening
        return self._speaker.fail("asked to fail here", self._events_sent)

    async def _write(self, response: web.StreamResponse, piece: bytes) -> None:
        await response.write(piece)
        if not self._bytes_sent:
            self.say("first-byte")
        self._bytes_sent += len(piece)


async def _paced(events: tuple[bytes, ...], knobs: Knobs) -> AsyncIterator[tuple[bytes, ...]]:
    """The events in the groups and at the times that the knobs ask for."""
    loop = asyncio.get_running_loop()
    gap_s = knobs.burst / knobs.tokens_per_s if knobs.tokens_per_s else 0.0
    due = loop.time()
    step = max(knobs.burst, 1)
    for start in range(0, len(events), step):
        batch = events[start : start + step]
        # Due times add up, so that a late wake-up does not slow the whole answer.
        await asyncio.sleep(max(0.0, due - loop.time()))
        if knobs.stall_after is not None and start <= knobs.stall_after < start + len(batch):
            yield batch[: knobs.stall_after - start]
            await asyncio.sleep(knobs.stall_s)
            due = loop.time()
            batch = batch[knobs.stall_after - start :]
        yield batch
        due += gap_s


class _Splitter:
    """Cuts what is written at random bytes, across events too; without a seed, not at all."""

    def __init__(self, seed: int | None) -> None:
        # Not for secrets: the same seed must cut at the same places.
        self._random = None if seed is None else random.Random(seed)  # noqa: S311
        self._held = b""

    def split(self, data: bytes) -> list[bytes]:
        if self._random is None:
            return [data] if data else []
        data = self._held + data
        cuts = sorted(self._random.randrange(len(data) + 1) for _ in range(3))
        pieces = [data[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
        self._held = data[cuts[-1] :]
        return [piece for piece in pieces if piece]

    def rest(self) -> bytes:
        held, self._held = self._held, b""
        return held


async def _run(port: int, log: Path | None) -> None:
    with contextlib.ExitStack() as stack:
        out = sys.stdout if log is None else stack.enter_context(log.open("a", encoding="utf-8"))

        def write(line: str) -> None:
            out.write(f"{line}\n")
            out.flush()

        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with RecordedUpstream(port=port, on_entry=write) as upstream:
            sys.stdout.write(json.dumps({"port": upstream.port}) + "\n")
            sys.stdout.flush()
            await stop.wait()


def main() -> None:
    """Runs the server as a process until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m penstock.testing.upstream")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--log", type=Path, help="append the log here; default standard output")
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.port, arguments.log))


if __name__ == "__main__":
    main()

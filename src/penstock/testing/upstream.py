"""A server that answers as a model provider does, and misbehaves on request.

`POST /v1/chat/completions` and `POST /v1/messages` stream an answer in the dialect of the address,
from a real recording where this machine has them and from our own text otherwise. `Knobs` say how
it comes: pace, bursts, stalls, cuts, errors, bytes split anywhere. It writes down when each request
began, when its first byte left, when it finished, and **the moment its client went away**, which is
how a test sees that a cancelled answer really stopped costing money. It never calls anybody.

As a process: `python -m penstock.testing.upstream --port 0 [--log FILE]` prints `{"port": N}` as
its first line and then, without `--log`, one JSON line for each entry of the log. In a test:
`async with RecordedUpstream() as upstream`, then `upstream.url` and `upstream.log`.

Which answer: model `recorded:<index or start of its sha256>` is that recording, `built-in:<voice>`
or `built-in:<voice>:<turn>` one of our own (without a turn, the conversation's own count of answers
so far), and any other model one chosen by the last user message, always the same for the same.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from aiohttp import web

from penstock.llm import anthropic, openai_chat
from penstock.llm.events import Json, as_json_text, as_list, as_object, as_text, parse_object
from penstock.testing.recordings import (
    VOICES,
    Recording,
    built_in,
    load,
    render_error,
    split_events,
)

_ROUTES: Final = {
    "/v1/chat/completions": openai_chat.DIALECT,
    "/v1/messages": anthropic.DIALECT,
}

# Enough for every test, and a bound where somebody leaves the demo running for a week.
MAX_LOG_ENTRIES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """How an answer comes. A request names them in its JSON body's `penstock`, or in its query.

    Events are counted as they go over the wire, from 1, whatever they hold.

    Attributes:
        tokens_per_s: events a second; 0 is as fast as the connection takes them.
        burst: events that leave together; the pace stays.
        first_token_s: seconds before the response head and the first event.
        stall_after, stall_s: after so many events, a pause of so many seconds.
        cut_after, cut: after so many events the body ends, "broken" (the connection closes without
            the last chunk) or "clean" (it looks like an end).
        status: this error status instead of a stream.
        error_after: after so many events, an error in the dialect's own form, and the end.
        split_seed: writes are cut at random bytes, the same for the same seed.
    """

    tokens_per_s: float = 40.0
    burst: int = 1
    first_token_s: float = 0.0
    stall_after: int | None = None
    stall_s: float = 0.0
    cut_after: int | None = None
    cut: Literal["broken", "clean"] = "broken"
    status: int | None = None
    error_after: int | None = None
    split_seed: int | None = None

    @classmethod
    def read(cls, values: dict[str, Json]) -> Self:
        """The knobs named in `values`, numbers also as text.

        Raises:
            ValueError: there is no such knob, or its value is not one.
        """
        known = {field.name: str(field.type) for field in fields(cls)}
        read: dict[str, float | int | str] = {}
        for name, value in values.items():
            kind = known.get(name)
            if kind is None:
                raise ValueError(f"no knob {name[:64]!r}; there are {', '.join(known)}")
            read[name] = _read_knob(name, kind, value)
        return cls(**read)  # pyright: ignore[reportArgumentType]  # each checked above


def _read_knob(name: str, kind: str, value: Json) -> float | int | str:
    if name == "cut":
        if value not in ("broken", "clean"):
            raise ValueError("knob 'cut' is 'broken' or 'clean'")
        return str(value)
    try:
        number = float(str(value)) if kind == "float" else int(str(value))
    except ValueError:
        number = -1
    lowest, highest = (400, 599) if name == "status" else (0, 1e9)
    if not lowest <= number <= highest:
        raise ValueError(f"knob {name!r} needs a number from {lowest} to {highest:g}")
    return number


class RecordedUpstream:
    """The server, in this process. Entering it binds a free port of 127.0.0.1; leaving closes it.

    Attributes:
        log: what happened, oldest first: dicts with `event` ("start", "first-byte", "finished",
            "refused", "gone"), `request` (from 1), `monotonic_s`, `wall_s`, `path`, `model`,
            `events_sent`, `events` (the answer's whole number) and `bytes_sent`. "finished" is the
            whole answer or the cut or error that was asked for; "gone" is a client that left first.
    """

    def __init__(self, *, port: int = 0, on_entry: Callable[[str], None] | None = None) -> None:
        self.log: deque[dict[str, Json]] = deque(maxlen=MAX_LOG_ENTRIES)
        self.port = port
        self._on_entry = on_entry
        self._requests = 0
        self._news = asyncio.Event()
        self._recordings = {dialect: load(dialect) for dialect in _ROUTES.values()}
        self._runner: web.AppRunner | None = None
        self._is_closing = False

    @property
    def url(self) -> str:
        """The server's address without a path: `http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        for path in _ROUTES:
            app.router.add_post(path, self._answer)
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
        self._requests += 1
        dialect = _ROUTES[request.path]
        body = parse_object(await request.text()) or {}
        visit = _Visit(self._say, self._requests, request.path, as_text(body.get("model")))
        try:
            query: dict[str, Json] = {**request.query}
            knobs = Knobs.read({**as_object(body.get("penstock")), **query})
            recording = choose(dialect, body, self._recordings[dialect])
        except (ValueError, LookupError) as error:
            return visit.refuse(dialect, 400, str(error))
        if knobs.status is not None:
            visit.say("start")
            return visit.refuse(dialect, knobs.status, f"asked to answer {knobs.status}")
        return await visit.serve(request, recording, knobs)

    def _say(self, entry: dict[str, Json]) -> None:
        if self._is_closing and entry["event"] == "gone":
            return  # it was us who left
        self.log.append(entry)
        if self._on_entry is not None:
            self._on_entry(as_json_text(entry))
        self._news.set()
        self._news = asyncio.Event()


def choose(dialect: str, body: dict[str, Json], recordings: tuple[Recording, ...]) -> Recording:
    """The answer that a request gets; the rules are at the top of this file.

    Raises:
        LookupError: the model names a recording or voice that is not there.
    """
    kind, _, name = as_text(body.get("model")).partition(":")
    messages = [as_object(message) for message in as_list(body.get("messages"))]
    if kind == "built-in":
        voice, _, turn = name.partition(":")
        so_far = sum(message.get("role") == "assistant" for message in messages)
        return built_in(voice).recording(dialect, int(turn) if turn.isdecimal() else so_far)
    if kind == "recorded":
        index = int(name) if name.isdecimal() and len(name) < 6 else len(recordings)
        matches = [r for i, r in enumerate(recordings) if i == index or _begins(r.sha256, name)]
        if not matches:
            raise LookupError(f"no recording {name[:64]!r} of {dialect!r} on this machine")
        return matches[0]
    asked = [message.get("content") for message in messages if message.get("role") == "user"]
    digest = hashlib.sha256(as_json_text(asked[-1] if asked else None).encode()).digest()
    number = int.from_bytes(digest[:8])
    if recordings:
        return recordings[number % len(recordings)]
    return built_in(VOICES[number % len(VOICES)]).recording(dialect)


def _begins(sha256: str, name: str) -> bool:
    return len(name) >= 6 and sha256.startswith(name)


class _Visit:
    """One request: how far its answer got, and what is written down of it."""

    def __init__(
        self, say: Callable[[dict[str, Json]], None], number: int, path: str, model: str
    ) -> None:
        self._say, self._number, self._path, self._model = say, number, path, model
        self._events = self._events_sent = self._bytes_sent = 0

    def say(self, event: str) -> None:
        self._say(
            {
                "event": event,
                "request": self._number,
                "monotonic_s": time.monotonic(),
                "wall_s": time.time(),
                "path": self._path,
                "model": self._model,
                "events_sent": self._events_sent,
                "events": self._events,
                "bytes_sent": self._bytes_sent,
            }
        )

    def refuse(self, dialect: str, status: int, message: str) -> web.Response:
        """An error before any stream, in the dialect's form."""
        self.say("refused")
        error: dict[str, Json] = {"type": "api_error", "message": message}
        outer: dict[str, Json] = {"type": "error"} if dialect == anthropic.DIALECT else {}
        return web.json_response({**outer, "error": error}, status=status, dumps=json.dumps)

    async def serve(
        self, request: web.Request, recording: Recording, knobs: Knobs
    ) -> web.StreamResponse:
        """Streams the recording. Cancelled (the client left), it says so and how far it was."""
        events = split_events(recording.body)
        self._events = len(events)
        self.say("start")
        try:
            await asyncio.sleep(knobs.first_token_s)
            response = web.StreamResponse(status=recording.status)
            response.headers["Content-Type"] = recording.content_type
            await response.prepare(request)
            await self._stream(response, recording.dialect, events, knobs)
        except (asyncio.CancelledError, ConnectionError):
            if request.transport is None or request.transport.is_closing():
                self.say("gone")
            raise
        self.say("finished")
        if knobs.cut_after is not None and knobs.cut == "broken" and request.transport:
            # What was written is flushed; the last chunk, which would make it an end, never comes.
            request.transport.close()
        return response

    async def _stream(
        self,
        response: web.StreamResponse,
        dialect: str,
        events: tuple[bytes, ...],
        knobs: Knobs,
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
            rest += render_error(dialect, "asked to fail here", "overloaded_error")
        if rest:
            await self._write(response, rest)

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

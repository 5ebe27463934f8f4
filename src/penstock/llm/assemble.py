"""Putting pieces together: a provider's into token events, and token events into the answer.

`Composer` is what every dialect's reader writes into. It keeps the order that `events.py` promises
(one `Start`, one `Stop`, nothing after a `Failure`), numbers and assembles tool calls, and joins
characters that a provider cut in two. `Assembler` is the other end: token events in, the whole
`Answer` out. Neither knows a dialect's field names.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Final

from penstock.core.errors import UpstreamTruncated
from penstock.core.limits import MAX_EVENT_BYTES
from penstock.llm.events import (
    MALFORMED,
    TRUNCATED,
    Data,
    Failure,
    Json,
    Reasoning,
    Start,
    Stop,
    StopReason,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
)

# Enough for any sentence a provider writes, and little enough that a page of HTML, which proxies
# answer with, does not become a record.
MAX_MESSAGE_CHARACTERS: Final = 1000

# How deep a value that is passed through may nest before its inside becomes null. Real ones stay
# below 10; orjson writes 254 levels at most, and such a value must not fail in somebody's log.
MAX_DEPTH: Final = 100

# What one answer may leave unfinished, in bytes: the pieces of tool calls that were begun and not
# closed. As much as one event may have: a call that comes whole can be as long.
MAX_HELD_BYTES: Final = MAX_EVENT_BYTES

# What an open call, or anything else a reader must remember, costs beside its text. Measured with
# tracemalloc on CPython 3.11: 190 bytes for an empty call under its key, 340 in a reader's whole.
HELD_OVERHEAD_BYTES: Final = 256

# How many events may wait for a start. Real answers have two or three (a cached count, citations).
_MAX_EARLY: Final = 8

# Numbers beyond 64 bits are JSON, and yet most that read JSON refuse or round them.
_MAX_INTEGER: Final = 2**63 - 1


@dataclass(slots=True)
class _OpenCall:
    """A tool call that is still being written."""

    index: int
    id: str = ""
    name: str = ""
    # UTF-8, which grows in place: adding to a string each time costs the square of its length, and
    # a list of pieces costs fifteen times what they say.
    written: bytearray = field(default_factory=bytearray)
    # What the call counts in its composer.
    held: int = HELD_OVERHEAD_BYTES

    def write(self, arguments: str) -> None:
        self.written += arguments.encode("utf-8", "surrogatepass")

    def close(self) -> ToolCall:
        written = self.written.decode("utf-8", "surrogatepass")
        # A call without arguments is written as nothing at all by several providers.
        arguments = written if written.strip() else "{}"
        return ToolCall(
            index=self.index,
            id=self.id,
            name=self.name,
            arguments=arguments,
            arguments_valid=is_json(arguments),
        )


class Composer:
    """Takes one answer's pieces as a dialect has them, and gives token events in order.

    The largest thing it holds is what is unfinished: at most `MAX_HELD_BYTES`, then it fails.

    Attributes:
        has_started: a `Start` was given.
        has_stopped: a `Stop` was given; only `Data` and `Usage` are taken from then on.
        has_failed: a `Failure` was given; every later piece is dropped.
        call_count: tool calls begun so far.
    """

    __slots__ = (
        "_calls",
        "_early",
        "_events",
        "_halves",
        "_held",
        "_usage",
        "call_count",
        "has_failed",
        "has_started",
        "has_stopped",
    )

    def __init__(self) -> None:
        self.has_started = self.has_stopped = self.has_failed = False
        self.call_count = 0
        self._events: list[TokenEvent] = []
        # What came before the start, and waits for it.
        self._early: list[TokenEvent] = []
        self._calls: dict[int, _OpenCall] = {}
        self._halves: dict[str, str] = {}
        self._held = 0
        self._usage: Usage | None = None

    @property
    def last_usage(self) -> Usage | None:
        """The newest count that was given."""
        return self._usage

    def take(self) -> list[TokenEvent]:
        """The events since the last call, in order, each exactly once."""
        events, self._events = self._events, []
        return events

    def start(self, *, id: str = "", model: str = "", role: str = "") -> None:
        """The answer has begun; said again, it changes nothing."""
        if self.has_started or self.has_failed:
            return
        self.has_started = True
        id, model, role = well_formed(id), well_formed(model), well_formed(role)
        self._events.append(Start(id=id, model=model, role=role or "assistant"))
        self._events += self._early
        self._early.clear()

    def text(self, piece: str) -> None:
        """More of what the model says; nothing is no event."""
        if piece and not self.has_stopped and (piece := self._whole("text", piece)):
            self._give(Text(text=piece))

    def reasoning(self, piece: str) -> None:
        """More of what the model thinks; nothing is no event."""
        if piece and not self.has_stopped and (piece := self._whole("reasoning", piece)):
            self._give(Reasoning(text=piece))

    def data(self, kind: str, value: Json) -> None:
        """Passes `value` on. Before the answer's start it waits for that."""
        if not self.has_failed:
            self._give_early(Data(kind=well_formed(kind), value=_well_formed_value(value)))

    def call(self, key: int, *, id: str = "", name: str = "", arguments: str = "") -> None:
        """A piece of the tool call that the dialect knows as `key`, until that call is closed.

        An id or name said again is not given again; a name that goes on is joined.
        """
        if self.has_stopped or self.has_failed:
            return
        id, name = well_formed(id), well_formed(name)
        arguments = self._whole(f"call {key}", arguments) if arguments else ""
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _OpenCall(self.call_count)
            self.call_count += 1
            self.hold(call.held)
            is_news = True
        else:
            id = "" if call.id else id
            name = "" if name == call.name else name
            is_news = bool(id or name or arguments)
        if is_news:
            call.id += id
            call.name += name
            call.write(arguments)
            self._give(ToolCallDelta(index=call.index, id=id, name=name, arguments=arguments))
            size = len(id) + len(name) + len(arguments)
            call.held += size
            self.hold(size)

    def close_call(self, key: int) -> None:
        """The call known as `key` is whole; where none is open, nothing."""
        call = self._calls.pop(key, None)
        if call is not None:
            self._halves.pop(f"call {key}", None)
            self.hold(-call.held)
            self._give(call.close())

    def close_calls(self) -> None:
        """Every open call is whole."""
        for key in list(self._calls):
            self.close_call(key)

    def usage(self, usage: Usage) -> None:
        """The newest count; the same count again is no event."""
        if usage != self._usage and not self.has_failed:
            self._usage = usage
            self._give_early(usage)

    def stop(self, reason: StopReason, raw: str) -> None:
        """The model stopped: open calls are whole. Said again, it changes nothing."""
        if not self.has_stopped:
            self.close_calls()
            self.has_stopped = True
            self._give(Stop(reason=reason, raw=well_formed(raw)))

    def fail(self, message: str, code: str, status: int | None = None) -> None:
        """The answer went wrong; the first failure stands. Open calls stay unfinished."""
        if not self.has_failed:
            self.has_failed = True
            self._calls.clear()
            self._early.clear()
            message, code = well_formed(message)[:MAX_MESSAGE_CHARACTERS], well_formed(code)[:100]
            self._events.append(Failure(message=message, code=code, status=status))

    def truncate(self, dialect: str) -> None:
        """The body ended before the end that `dialect` requires."""
        self.fail(UpstreamTruncated(dialect).sentence, TRUNCATED)

    def hold(self, size: int) -> None:
        """Something of `size` bytes is unfinished; or, below 0, no longer. Too much is a failure.

        Readers that remember more than open calls count it here too, so that one bound holds.
        """
        self._held += size
        if self._held > MAX_HELD_BYTES:
            self.fail(f"more than {MAX_HELD_BYTES} bytes are begun and not finished", MALFORMED)

    def _give(self, event: TokenEvent) -> None:
        if not self.has_failed:
            if not self.has_started:
                self.start()
            self._events.append(event)

    def _give_early(self, event: Data | Usage) -> None:
        """Gives what may come before the start was read, and then waits for it."""
        if not self.has_started and len(self._early) >= _MAX_EARLY:
            self.start()
        (self._events if self.has_started else self._early).append(event)

    def _whole(self, channel: str, piece: str) -> str:
        """`piece` without half characters: a first half waits for the next piece of its channel.

        Providers that count UTF-16 units can cut an emoji between two events, each half a JSON
        escape of its own. A half whose other half never comes is U+FFFD, or, at the end, nothing.
        """
        if self._halves:
            piece = self._halves.pop(channel, "") + piece
        if piece.isascii():
            return piece
        if "\ud800" <= piece[-1] <= "\udbff":
            self._halves[channel] = piece[-1]
            piece = piece[:-1]
        return well_formed(piece)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer, or as much of one as came.

    `tool_calls` holds unfinished calls too, where the answer broke off. `usage` is the last count.
    """

    id: str
    model: str
    role: str
    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    data: tuple[Data, ...]
    usage: Usage | None
    stop: Stop | None
    failure: Failure | None

    @property
    def is_truncated(self) -> bool:
        """Whether the model's own end is missing: no `Stop`, or a `Failure`.

        An answer that met its length limit is whole in this sense; its `stop.reason` says so.
        """
        return self.stop is None or self.failure is not None


class Assembler:
    """Takes one answer's token events and gives the answer they make, at any time."""

    __slots__ = (
        "_calls",
        "_data",
        "_failure",
        "_open",
        "_reasoning",
        "_start",
        "_stop",
        "_text",
        "_usage",
    )

    def __init__(self) -> None:
        self._start = Start(id="", model="")
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._open: dict[int, _OpenCall] = {}
        self._calls: dict[int, ToolCall] = {}
        self._data: list[Data] = []
        self._usage: Usage | None = None
        self._stop: Stop | None = None
        self._failure: Failure | None = None

    def receive_event(self, event: TokenEvent) -> None:
        """Takes the next token event, in the order its reader gave them."""
        match event:
            case Text():
                self._text.append(event.text)
            case Reasoning():
                self._reasoning.append(event.text)
            case ToolCallDelta():
                call = self._open.setdefault(event.index, _OpenCall(event.index))
                call.id += event.id
                call.name += event.name
                call.write(event.arguments)
            case ToolCall():
                self._open.pop(event.index, None)
                self._calls[event.index] = event
            case Start():
                self._start = event
            case Data():
                self._data.append(event)
            case Usage():
                self._usage = event
            case Stop():
                self._stop = event
            case Failure():
                self._failure = event

    def answer(self) -> Answer:
        """The answer so far. Linear in its length."""
        calls = self._calls | {index: call.close() for index, call in self._open.items()}
        return Answer(
            id=self._start.id,
            model=self._start.model,
            role=self._start.role,
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            tool_calls=tuple(calls[index] for index in sorted(calls)),
            data=tuple(self._data),
            usage=self._usage,
            stop=self._stop,
            failure=self._failure,
        )


def is_json(text: str) -> bool:
    """Whether `text` is JSON by the standard, which knows no NaN and no Infinity."""
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def well_formed(text: str) -> str:
    """`text` as UTF-8 can carry it: halves that meet are joined, a lone one is U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _well_formed_value(value: Json, depth: int = MAX_DEPTH) -> Json:
    if not depth:
        return None
    match value:
        case str():
            return well_formed(value)
        case list():
            return [_well_formed_value(item, depth - 1) for item in value]
        case dict():
            items = value.items()
            return {well_formed(key): _well_formed_value(item, depth - 1) for key, item in items}
        case int() if not -_MAX_INTEGER <= value <= _MAX_INTEGER:
            return None
        case float() if not math.isfinite(value):  # Python reads 1e999 as infinity
            return None
        case _:
            return value

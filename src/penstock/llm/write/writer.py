"""What the writers of all dialects share: the protocol, what arrives as an argument, and the end.

A writer is fed one answer's token events, in the order of their records, and then the stream's end.
What it has to send after a record depends on the records up to it and on the `Envelope`, never on
when or how often it was asked. So every reader of a stream gets the same bytes, and one who joins
at record n is served by a new writer that was fed the records before it, their bytes thrown away.
The bytes are whole events: between two of them a body can be cut, or a comment put.

What a dialect calls its events and fields has no place here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Protocol

from penstock.core.record import EndReason
from penstock.llm.assemble import well_formed
from penstock.llm.events import (
    FAILED,
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

SSE: Final = "text/event-stream"
JSON: Final = "application/json"

HEARTBEAT: Final = b":\n"
"""A sign of life, before the first event or between two, which every client of every dialect skips.

A comment without the blank line that would end it: the SDKs of OpenAI take that for an event.
"""

# What a caller is told who asked for a whole answer that was cancelled meanwhile. nginx's number
# for a request whose client went away; no SDK tries such a request again, as it does after 5xx.
_CANCELLED_STATUS: Final = 499
_BAD_GATEWAY: Final = 502


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a dialect says around an answer and cannot be told from its events.

    Attributes:
        id: the answer's own, from which every id in a body is made. ASCII letters, digits, `_` and
            `-`: clients send parts of it back to providers, who take no others.
        created_at: when the answer began, in whole seconds since 1970.
        model: what the answer is said to come from; "" leaves that to the provider's own words.
    """

    id: str
    created_at: int
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A whole answer or an error outside of any stream, for one HTTP response."""

    status: int
    media_type: str
    data: bytes


class TokenWriter(Protocol):
    """What every dialect's writer is: token events of one answer in, bytes of a body out."""

    def receive_event(self, event: TokenEvent) -> None:
        """Takes the next token event, in the order of the records. After the end, nothing."""
        ...

    def write_text(self, piece: bytes) -> bytes | None:
        """The event of the next piece of text at once, instead of `receive_event` and
        `data_to_send`: nearly all of an answer. `piece` is the JSON string as it is on the wire,
        escaped and UTF-8, not the empty one. None where the piece has to be received."""
        ...

    def end(self, reason: EndReason) -> None:
        """Takes the end of the stream: the dialect's own end, or its error. Again, nothing.

        `complete` and `limit` are ends that the dialect has a word for; every other reason is told
        as the dialect tells of a failure, since clients take an early end for a success.
        """
        ...

    def data_to_send(self) -> bytes:
        """The bytes since the last call: whole events, or none."""
        ...


class DialectWriter:
    """The part of a writer that no dialect changes. See `TokenWriter` for the contract."""

    __slots__ = (
        "_envelope",
        "_failure",
        "_has_ended",
        "_has_started",
        "_model",
        "_out",
        "_stop",
        "_usage",
    )

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._model = envelope.model
        self._out: list[bytes] = []
        self._has_started = self._has_ended = False
        self._usage: Usage | None = None
        self._stop: Stop | None = None
        self._failure: Failure | None = None

    def data_to_send(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)

    def write_text(self, piece: bytes) -> bytes | None:
        """See `TokenWriter`. A dialect that has no such way gives None."""
        return None

    def receive_event(self, event: TokenEvent) -> None:
        if self._has_ended or self._failure is not None:
            return
        match event:
            case Start():
                self._model = self._envelope.model or event.model
                self._start_once()
            case Usage():
                self._usage = event
                self._receive_usage()
            case Failure():
                self._failure = event
            case Data():
                self._start_once()
                self._receive_data(event)
            case Stop():
                if self._stop is None:
                    self._start_once()
                    self._stop = event
                    self._receive_stop(event)
            case _:
                if self._stop is None:  # else more of what the model had finished
                    self._start_once()
                    self._receive_piece(event)

    def end(self, reason: EndReason) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        error = failure_of(reason, self._failure)
        self._start_once()
        if error is None:
            self._end_well(reason)
        else:
            self._end_badly(error)

    def _start_once(self) -> None:
        if not self._has_started:
            self._has_started = True
            self._write_start()

    def _write_start(self) -> None:
        """Begins the body. Called once, before everything else."""
        raise NotImplementedError

    def _receive_piece(self, piece: Text | Reasoning | ToolCallDelta | ToolCall) -> None:
        """More of the answer. Not called after a stop."""
        raise NotImplementedError

    def _receive_data(self, data: Data) -> None:
        """Something beside the text, also after the stop. Dropped where it has no place."""

    def _receive_usage(self) -> None:
        """There is a new count, perhaps before the start."""

    def _receive_stop(self, stop: Stop) -> None:
        """The model stopped. Its usage may still come."""

    def _end_well(self, reason: EndReason) -> None:
        """The stream ended `complete` or `limit`."""
        raise NotImplementedError

    def _end_badly(self, error: Failure) -> None:
        """The stream ended with what is not the whole answer."""
        raise NotImplementedError


def failure_of(reason: EndReason, failure: Failure | None) -> Failure | None:
    """What went wrong with an answer that ended so; None where nothing did.

    A failure among its events outranks the reason: nothing makes a failed answer whole.
    """
    if failure is not None:
        return failure
    match reason:
        case EndReason.COMPLETE | EndReason.LIMIT:
            return None
        case EndReason.CANCELLED:
            message, status = "the answer was cancelled; what came is not whole", _CANCELLED_STATUS
            return Failure(message=message, code=EndReason.CANCELLED, status=status)
        case EndReason.LOST:
            message = "whoever wrote the answer vanished; what came is not whole"
            return Failure(message=message, code=EndReason.LOST, status=_BAD_GATEWAY)
        case EndReason.FAILED:
            message = "the answer failed; what came is not whole"
            return Failure(message=message, code=FAILED, status=_BAD_GATEWAY)


def is_cancelled(error: Failure) -> bool:
    """Whether nothing went wrong but that somebody cancelled the answer."""
    return error.code == EndReason.CANCELLED


def stop_reason(stop: Stop | None, reason: EndReason) -> StopReason:
    """Why an answer that ended well stopped: the model's reason, or that it met a limit."""
    if stop is not None:
        return stop.reason
    return "length" if reason == EndReason.LIMIT else "other"


def call_id(envelope: Envelope, index: int, id: str) -> str:
    """A tool call's id, made where its provider gave none. It is the same in every dialect."""
    return id or f"call_{envelope.id}_{index}"


def known(counts: dict[str, int | None]) -> dict[str, Json]:
    """The counts that somebody counted."""
    return {name: count for name, count in counts.items() if count is not None}


def http_status(error: Failure) -> int:
    """The HTTP status that tells of an error: the provider's own, or that it is the provider's."""
    status = error.status or _BAD_GATEWAY
    return status if 400 <= status <= 599 else _BAD_GATEWAY


# `encode` of a plain `str` goes straight to C: 0.1 µs for a token, against 1.3 µs for `json.dumps`,
# which makes an encoder for each call that does not want its defaults.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# JSON leaves these as they are, and clients that cut a stream with a language's own notion of
# lines take them for line ends.
_LINE_ENDS: Final = {
    b"\xc2\x85": b"\\u0085",
    b"\xe2\x80\xa8": b"\\u2028",
    b"\xe2\x80\xa9": b"\\u2029",
}


def as_wire_json(value: Json) -> bytes:
    """`value` as JSON for the wire: one line for everybody, and UTF-8 whatever it holds."""
    text = _encode(value)
    if text.isascii():
        return text.encode()
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = well_formed(text).encode()
    for character, escape in _LINE_ENDS.items():
        data = data.replace(character, escape)
    return data


def sse_data(payload: dict[str, Json]) -> bytes:
    """An event without a name."""
    return b"data: %b\n\n" % as_wire_json(payload)


def sse_named(type: str, payload: dict[str, Json]) -> bytes:
    """An event whose name stands beside its JSON and in it. `type` is a dialect's own word."""
    return b"event: %b\ndata: %b\n\n" % (type.encode(), as_wire_json({"type": type, **payload}))

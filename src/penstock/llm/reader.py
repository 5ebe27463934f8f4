"""What the readers of all dialects share: a body's bytes to payloads, and how an answer goes wrong.

A dialect is one class in one file, on top of `SseReader`, `LineReader` or, where the framing is its
own, `DialectReader`. It says in `receive_payload` what one JSON object means, and writes that into
its composer. What holds for every provider lives here: an `error` in a payload is a `Failure`
whatever else the payload says, what is no JSON is `upstream-malformed`, and the end of the body
before the dialect's own end is `upstream-truncated`. No dialect's events, fields or words for a
stop may live here.

What a reader holds: the event that has not ended (`MAX_EVENT_BYTES`, plus what one read brought)
and what its composer calls unfinished (`MAX_HELD_BYTES`). Beside them stand a few numbers, and of
what a provider repeats in every chunk the last one.
"""

from __future__ import annotations

from typing import ClassVar, Final

from penstock.core.errors import EventTooLarge
from penstock.core.limits import MAX_EVENT_BYTES
from penstock.llm.assemble import Composer
from penstock.llm.events import (
    FAILED,
    MALFORMED,
    Json,
    TokenEvent,
    as_count,
    as_list,
    as_object,
    as_text,
    parse_object,
)
from penstock.wire.sse import Decoder, Event

# Where providers, their gateways and their web frameworks put the sentence of an error.
_MESSAGES: Final = ("message", "Message", "detail", "error_message", "msg", "error")
# And its name. "error" alone, which several give as the type, names nothing.
_CODES: Final = ("code", "type", "error_type", "status")
_STATUSES: Final = ("status_code", "status", "code", "http_code")

# What is kept of a body that may be one JSON object in the place of a stream: an error's sentence
# is near its front, and beyond this it is no error.
_MAX_PLAIN_BYTES: Final = 16 * 1024


class DialectReader:
    """The part of a reader that no framing changes. See `events.TokenReader` for the contract.

    `composer` joins this reader to another: a provider that wraps somebody else's dialect gives its
    payloads to that dialect's reader, and both write one answer.
    """

    __slots__ = ("_composer", "_is_done")

    dialect: ClassVar[str]

    def __init__(self, composer: Composer | None = None) -> None:
        self._composer = composer or Composer()
        self._is_done = False

    @property
    def is_ended(self) -> bool:
        return self._is_done or self._composer.has_failed

    def events(self) -> list[TokenEvent]:
        return self._composer.take()

    def receive_eof(self) -> None:
        if not self.is_ended:
            self._receive_end()

    def receive_object(self, type: str, payload: dict[str, Json]) -> None:
        """Takes one event of the body: its framing's type, "message" without one, and its JSON.

        A type inside the JSON is believed first: compatible servers leave the other one out.
        """
        if self._is_done or self._composer.has_failed:
            return
        named = as_text(payload.get("type"))
        try:
            if type == "error" or named == "error" or payload.get("error"):
                self._fail(payload)
            else:
                self._receive_payload(named or type, payload)
        except RecursionError:
            self._composer.fail("an event is nested too deeply", MALFORMED)

    def _receive_payload(self, type: str, payload: dict[str, Json]) -> None:
        """What an event that is no error means. This is the dialect."""
        raise NotImplementedError

    def _receive_end(self) -> None:
        """The body ended before the dialect did: whole only if the model had stopped.

        Right for dialects without an end of their own; others put theirs in its place.
        """
        if self._composer.has_stopped:
            self._is_done = True
        else:
            self._composer.truncate(self.dialect)

    def _receive_words(self, type: str, text: str) -> None:
        """Takes an event whose data is no JSON object, without white space around it."""
        if type == "error":
            self._fail(text)
        # Gateways that speak several dialects close each of them with the mark of one, and a ping
        # may come without data. Neither is an end.
        elif text not in ("", "[DONE]"):
            self._composer.fail("an event's data is not a JSON object", MALFORMED)

    def _fail(self, error: Json) -> None:
        """The provider says that the answer went wrong, in any shape."""
        self._composer.fail(*read_error(error))


class SseReader(DialectReader):
    """A reader of a dialect whose body is Server-Sent Events."""

    __slots__ = ("_decoder", "_plain")

    def __init__(self, composer: Composer | None = None) -> None:
        super().__init__(composer)
        self._decoder = Decoder()
        # The start of a body that may be JSON and no stream at all; None as soon as it is not.
        self._plain: bytearray | None = bytearray()

    def receive_data(self, data: bytes) -> None:
        if self.is_ended:
            return
        if self._plain is not None:
            self._keep_plain(data)
        too_large: EventTooLarge | None = None
        try:
            self._decoder.receive_data(data)
        except EventTooLarge as error:
            too_large = error
        for event in self._decoder.events():
            if self._is_done or self._composer.has_failed:
                return
            self._receive_event(event)
        if too_large is not None:
            self._composer.fail(too_large.sentence, MALFORMED)

    def receive_eof(self) -> None:
        if self.is_ended:
            return
        self._decoder.receive_eof()
        if self._plain and not self._composer.has_started:
            self._receive_plain(self._plain.decode("utf-8", "replace"))
        if not self.is_ended:
            self._receive_end()

    def _receive_event(self, event: Event) -> None:
        text = event.data.strip()
        payload = parse_object(text)
        if payload is None:
            self._receive_words(event.type, text)
        else:
            self.receive_object(event.type, payload)

    def _keep_plain(self, data: bytes) -> None:
        """Keeps the front of a body that begins as JSON does: no line of a stream begins so."""
        kept = self._plain
        if kept is None:
            return
        data = data if kept else data.lstrip()
        if kept or data[:1] in (b"{", b"["):
            kept += data[: _MAX_PLAIN_BYTES - len(kept)]
        elif data:
            self._plain = None

    def _receive_plain(self, text: str) -> None:
        """Takes a body that was JSON: an error under status 200, or an answer nobody streamed."""
        if text.startswith("["):
            text = text[1:].rpartition("]")[0]
        payload = parse_object(text)
        if payload is not None:
            message, code, status = read_error(payload)
            if message == NO_MESSAGE:
                message, code = "the body is one JSON object and no stream", MALFORMED
            self._composer.fail(message, code, status)


class LineReader(DialectReader):
    """A reader of a dialect whose body is NDJSON: one JSON object a line.

    The last line needs no line end: an object that lacks a byte is no object.
    """

    __slots__ = ("_tail",)

    def __init__(self, composer: Composer | None = None) -> None:
        super().__init__(composer)
        # The line that has not ended. It grows in place, so that a drip of bytes costs its sum.
        self._tail = bytearray()

    def receive_data(self, data: bytes) -> None:
        if self.is_ended:
            return
        *lines, rest = data.split(b"\n")
        for place, line in enumerate(lines):
            # Only the first can be the end of what was held.
            if place == 0 and self._tail:
                line, self._tail = bytes(self._tail) + line, bytearray()
            self._receive_line(line)
            if self.is_ended:
                return
        self._tail += rest
        if len(self._tail) > MAX_EVENT_BYTES:
            self._receive_line(bytes(self._tail))

    def receive_eof(self) -> None:
        if self.is_ended:
            return
        line, self._tail = bytes(self._tail), bytearray()
        # A line that was cut is left out, as the event of a stream is.
        if parse_object(line.decode("utf-8", "replace")) is not None:
            self._receive_line(line)
        if not self.is_ended:
            self._receive_end()

    def _receive_line(self, line: bytes) -> None:
        if len(line) > MAX_EVENT_BYTES:
            self._composer.fail(EventTooLarge(MAX_EVENT_BYTES).sentence, MALFORMED)
            return
        text = line.decode("utf-8-sig", "replace").strip()
        payload = parse_object(text)
        if payload is None:
            self._receive_words("message", text)
        else:
            self.receive_object("message", payload)


NO_MESSAGE: Final = "the provider gave no message"


def read_error(error: Json) -> tuple[str, str, int | None]:
    """Message, code and status of an error in any shape: a sentence, an object, a list of them.

    An object may wrap the error that counts; what that one lacks is looked for around it. The code
    is `upstream-failed` where the provider gave no word for it.
    """
    outer = fields = as_object(_first(error))
    while inner := as_object(_wrapped(fields)):
        fields = inner
    message = _first_text(fields, _MESSAGES) or _first_text(outer, _MESSAGES)
    message = message or as_text(_wrapped(fields)) or as_text(_first(error))
    code = _first_text(fields, _CODES) or _first_text(outer, ("code", "error_type"))
    status = first_status(fields, *_STATUSES) or first_status(outer, *_STATUSES)
    return message or NO_MESSAGE, code or FAILED, status


def _wrapped(fields: dict[str, Json]) -> Json:
    """What an error wraps: another one, a list of them, or a sentence."""
    return _first(fields.get("error") or fields.get("errors") or fields.get("detail"))


def _first(value: Json) -> Json:
    """The first of a list, or what is no list."""
    items = as_list(value)
    return items[0] if items else value


def _first_text(fields: dict[str, Json], names: tuple[str, ...]) -> str:
    texts = (as_text(fields.get(name)) for name in names)
    return next((text for text in texts if text and text != "error"), "")


def first_count(fields: dict[str, Json], *names: str) -> int | None:
    """The first of these fields that is a count."""
    counts = (as_count(fields.get(name)) for name in names)
    return next((count for count in counts if count is not None), None)


def first_status(fields: dict[str, Json], *names: str) -> int | None:
    """The first of these fields that is an HTTP status of an error, written as number or text."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        status = as_count(value)
        if status is not None and 400 <= status <= 599:
            return status
    return None

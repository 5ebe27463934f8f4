"""An append over HTTP, apart from what carries it: read from headers, judged, answered.

One request is one commit: a batch is stored whole or not at all. `Record-Type` and `Record-Key`
hold for every record of a request; `Stream-Closed: true` ends the stream with it; a producer's
stamp makes a retry harmless. `endpoints/publish.py` serves it under any ASGI server; `lane.py`
answers it below ASGI, with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from penstock.backends.interface import Appended
from penstock.core.cursor import offset_text
from penstock.core.errors import (
    BodyMalformed,
    ContentTypeConflict,
    PenstockError,
    QueryMalformed,
    RecordFieldMalformed,
    RecordTooLarge,
    StreamConflict,
    StreamEnded,
)
from penstock.core.producer import Stamp
from penstock.core.record import EndReason, NewRecord, checked
from penstock.server.payload import split_body
from penstock.server.problem import problem
from penstock.server.stream import Stream
from penstock.wire import durable, http

NO_STORE: Final[http.Headers] = [(b"cache-control", b"no-store"), *http.SECURITY_HEADERS]


class Append(NamedTuple):
    """What a POST to a stream asks for."""

    stamp: Stamp | None
    seq: str | None
    end: EndReason | None
    type: str
    key: str
    content_type: str | None

    @classmethod
    def of(cls, given: Mapping[bytes, bytes]) -> Append:
        """Read a request's headers. Raises QueryMalformed, RecordFieldMalformed."""
        return cls(
            durable.parse_stamp(given),
            http.text_of(given, b"stream-seq"),
            EndReason.COMPLETE if closes(given) else None,
            record_field(given, "type"),
            record_field(given, "key"),
            http.text_of(given, b"content-type"),
        )

    def records(self, stream: Stream, body: bytes) -> list[NewRecord]:
        """Turn the body into records. Raises StreamConflict for a stream that only its producer
        appends to, StreamEnded, BodyMalformed, ContentTypeConflict, RecordTooLarge,
        RecordTypeReserved, RecordFieldMalformed."""
        if stream.is_guarded:
            raise StreamConflict(stream.name, "owner")
        if not body:
            if self.end is None:
                raise BodyMalformed("is empty; send at least one record")
            return []
        end = stream.head.end
        if end is not None and self.stamp is None:
            raise StreamEnded(stream.name, end)  # before what is wrong with the body
        own = stream.config.content_type
        if not self.content_type:
            raise BodyMalformed("has no Content-Type; send the stream's")
        given = http.content_type(self.content_type, own)
        if given != own:
            raise ContentTypeConflict(given, own)
        limit = stream.hub.settings.max_record_bytes
        return to_records(split_body(body, own), self.type, self.key, limit)

    def answer(self, appended: Appended, *, is_new: bool) -> tuple[int, http.Headers]:
        """The status and headers that acknowledge it. With a stamp it is 200, and 204 for what
        was appended before."""
        epoch, position = appended.offset.epoch, appended.offset.position
        headers = [(b"stream-next-offset", offset_text(epoch, position).encode()), *NO_STORE]
        if appended.end is not None:
            headers += closed_headers(appended.end)
        if self.stamp is None:
            return 204, headers
        headers += [
            (b"producer-epoch", b"%d" % self.stamp.epoch),
            (b"producer-seq", b"%d" % appended.seq),
        ]
        if not is_new or appended.is_duplicate:
            return 204, headers
        return 200, [*headers, (b"content-length", b"0")]


def to_records(payloads: list[bytes], type: str, key: str, limit: int) -> list[NewRecord]:
    """Make records of payloads. Raises as `core.record.checked`."""
    if type or key:
        return [checked(payload, type, key, limit) for payload in payloads]
    for payload in payloads:
        if len(payload) > limit:
            raise RecordTooLarge(len(payload), limit)
    return [NewRecord(payload) for payload in payloads]


def closes(given: Mapping[bytes, bytes]) -> bool:
    """Whether a request ends its stream. Raises QueryMalformed."""
    value = http.text_of(given, b"stream-closed")
    if value is None or value.lower() == "false":
        return False
    if value.lower() != "true":
        raise QueryMalformed("stream-closed", value, "'true' or 'false'")
    return True


def closed_headers(end: EndReason) -> http.Headers:
    """What says that a stream has ended, and how."""
    return [(b"stream-closed", b"true"), (b"stream-end-reason", end.encode())]


def record_field(given: Mapping[bytes, bytes], field: str) -> str:
    """Read `Record-Type` or `Record-Key`, which are UTF-8; header values are bytes."""
    value = given.get(b"record-" + field.encode())
    if value is None:
        return ""
    try:
        return value.strip(b" \t").decode()
    except UnicodeDecodeError:
        raise RecordFieldMalformed(field, "is no UTF-8; encode it so") from None


def refusal(error: PenstockError, stream: Stream | None) -> tuple[int, http.Headers, bytes]:
    """What tells of a refused append: of an ended stream also where it ended."""
    if isinstance(error, StreamEnded) and stream is not None:
        return problem(error, [(b"stream-next-offset", str(stream.offset).encode())])
    return problem(error)

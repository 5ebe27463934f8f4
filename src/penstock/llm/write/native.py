"""Our own dialect: each token event as its record is, under the record's type, and a typed end.

What a stream's native representation shows of the same records, less the offsets, which only the
log knows: `event:` is the type and `data:` the payload that `events.to_record` writes, and
`event: end` names the reason. It is the one dialect that says everything the events say. As a whole
it is the answer with those payloads' names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from penstock.core.record import EndReason
from penstock.llm.assemble import Assembler
from penstock.llm.events import Json, TokenEvent, to_record
from penstock.llm.write.writer import JSON, Body, Envelope, as_wire_json, failure_of, http_status

DIALECT: Final = "native"


class Writer:
    """Writes one answer in this dialect. See `penstock.llm.write.writer.TokenWriter`."""

    __slots__ = ("_has_ended", "_out")

    def __init__(self, envelope: Envelope) -> None:
        self._out: list[bytes] = []
        self._has_ended = False

    def receive_event(self, event: TokenEvent) -> None:
        if not self._has_ended:
            self._write(*to_record(event))

    def write_text(self, piece: bytes) -> bytes | None:
        if self._has_ended or self._out:
            return None
        return b'event: text\ndata: {"text":%b}\n\n' % piece

    def end(self, reason: EndReason) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._write("end", {"reason": reason.value})

    def data_to_send(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)

    def _write(self, type: str, payload: dict[str, Json]) -> None:
        self._out.append(b"event: %b\ndata: %b\n\n" % (type.encode(), as_wire_json(payload)))


def write_whole(envelope: Envelope, events: Iterable[TokenEvent], reason: EndReason) -> Body:
    """The answer as one object, however it ended: `reason` and `failure` say how."""
    assembler = Assembler()
    for event in events:
        assembler.receive_event(event)
    answer = assembler.answer()
    error = failure_of(reason, answer.failure)
    body: dict[str, Json] = {
        "id": envelope.id,
        "created_at": envelope.created_at,
        "model": envelope.model or answer.model,
        "text": answer.text,
        "reasoning": answer.reasoning,
        "tool_calls": [to_record(call)[1] for call in answer.tool_calls],
        "data": [to_record(data)[1] for data in answer.data],
        "usage": answer.usage and to_record(answer.usage)[1],
        "stop": answer.stop and to_record(answer.stop)[1],
        "failure": error and to_record(error)[1],
        "reason": reason.value,
    }
    status = 200 if error is None else http_status(error)
    return Body(status=status, media_type=JSON, data=as_wire_json(body))

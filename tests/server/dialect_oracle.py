"""What readers of a stream in a dialect must get: one writer that is fed every record says it."""

from __future__ import annotations

import json
import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import pytest

from llm.test_token_writers import random_case
from penstock.core.cursor import Offset
from penstock.core.errors import BodyMalformed
from penstock.core.record import NewRecord, Record
from penstock.llm.events import TokenEvent, from_record, to_record
from penstock.llm.write.about import RECORD_TYPE, About
from penstock.llm.write.dialects import OUT_DIALECTS
from penstock.llm.write.writer import HEARTBEAT, as_wire_json
from penstock.server import dialects, view
from penstock.server.dialects import DialectKind, DialectView
from penstock.server.stream import Stream

ABOUT = About(id="0f5c2a9b", created_at=1_767_225_600, model="m", dialect="openai-chat")
KINDS = [
    *(DialectKind(name, has_ids) for name in OUT_DIALECTS for has_ids in (False, True)),
    *(DialectKind("openai-responses", starting_after=after) for after in (0, 4, 1000)),
]


def record_of(event: TokenEvent) -> NewRecord:
    type, payload = to_record(event)
    return NewRecord(as_wire_json(payload), type)


OPENING = ABOUT.to_record()
# What anybody may have put beside an answer's records, and no writer is to stumble over.
FOREIGN = [
    NewRecord(b'{"a":1}'),
    NewRecord(b'{"a":1}', "note"),
    NewRecord(b"[]", "text"),
    NewRecord(b'{"text":7}', "text"),
    NewRecord(b'{"index":-1}', "tool_delta"),
    NewRecord(b'{"text":"late"}', RECORD_TYPE),
    NewRecord(b'{"kind":"x","value":' + b"[" * 900 + b"]" * 900 + b"}", "data"),
    NewRecord(b"[" * 5000 + b"]" * 5000, "usage"),
]


class Oracle:
    """What one writer gives for each record of a stream, and for its end."""

    def __init__(self, stream: Stream, records: Sequence[Record]) -> None:
        self._stream = stream
        self._records = records

    def run_of(self, kind: DialectKind) -> list[tuple[int, bytes]]:
        """Each record's position and its run; the end's is one after the last."""
        writer = self._about().make_writer(kind.name, starting_after=kind.starting_after)
        runs: list[tuple[int, bytes]] = []
        for record in self._records:
            try:
                event = from_record(record.type, json.loads(record.payload))
            except (BodyMalformed, ValueError, RecursionError, AttributeError):
                runs.append((record.position, b""))
                continue
            if record.payload.count(b"[") < 128:
                writer.receive_event(event)
            place = str(Offset(self._stream.head.epoch, record.position))
            runs.append((record.position, _with_id(kind, writer.data_to_send(), place)))
        if self._stream.end is not None:
            writer.end(self._stream.end)
            last = _with_id(kind, writer.data_to_send(), self._stream.offset.end_id)
            runs.append((self._stream.head.tail + 1, last))
        return runs

    def _about(self) -> About:
        if self._records and self._records[0].payload == OPENING.payload:
            return ABOUT
        return dialects._about_nothing(self._stream.name, self._stream.head.epoch)

    def after(self, kind: DialectKind, place: int) -> bytes:
        """What a reader gets that begins at a place."""
        return b"".join(run for position, run in self.run_of(kind) if position > place)


def _with_id(kind: DialectKind, run: bytes, place: str) -> bytes:
    if not kind.has_ids or not run:
        return run
    events = run.split(b"\n\n")
    events[-2] = b"id: %b\n%b" % (place.encode(), events[-2])
    return b"\n\n".join(events)


def without_heartbeats(body: bytes) -> bytes:
    """A body without its heartbeats, which stand before the first event or between two."""
    pieces = body.split(HEARTBEAT)
    for piece in pieces[:-1]:
        assert piece == b"" or piece.endswith(b"\n\n"), body
    return b"".join(pieces)


def records_of(seed: int) -> list[NewRecord]:
    """An answer at random, with other things between its records."""
    draw = random.Random(seed)
    records = [record_of(event) for event in random_case(draw).events]
    for _ in range(draw.randrange(4)):
        records.insert(draw.randrange(len(records) + 1), draw.choice(FOREIGN))
    return [OPENING, *records] if draw.randrange(4) else records


@contextmanager
def small_steps(steps: int = 3, kept: int = 2, tail: int = 300) -> Generator[None]:
    """Have a few records be much, so that every way of reading is taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DialectView, "page_records", steps)
        patch.setattr(dialects, "KEPT_WRITERS", kept)
        patch.setattr(dialects, "WRITE_BYTES", tail)
        patch.setattr(view, "WRITE_BYTES", tail)
        yield

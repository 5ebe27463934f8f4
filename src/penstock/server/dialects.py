"""Dialect views: a stream of token events as the body that a client's SDK reads.

What a dialect sends after a record depends on all records before it, so nothing can be written from
the middle of a log: a writer is fed from the first record on. What readers share is therefore the
writer too. The live one is at the place of all level readers. Others are kept at a few places where
somebody may go on, and from the nearest of those a new place is reached by feeding, without showing
anything; from the very beginning where there is none. Writes that were made of older records are
kept for who comes the same way next. However a reader came to a place, the bytes from there on are
the same: one run of whole events for each record, maybe none.

Records that are no token events are passed over, the opening one too, which says what is to be
written around the events (`llm/write/about.py`); a stream that has none is written as well.

A body that has to stop before its stream has ended says so in its dialect's own error: clients take
an early end for a success. Our own dialect has words for it, and needs nothing of what came before.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from penstock.core.cursor import (
    END_MARK,
    EPOCH_ORIGIN_S,
    Offset,
    offset_prefix,
    position_text,
)
from penstock.core.errors import (
    BodyMalformed,
    Draining,
    OffsetGone,
    PenstockError,
    StreamGone,
    StreamNotFound,
    WorldError,
)
from penstock.core.limits import RECORD_OVERHEAD_BYTES, WRITE_BYTES
from penstock.core.log import Head
from penstock.core.record import EndReason, Record
from penstock.core.subscription import GapReason
from penstock.llm.events import (
    Failure,
    Start,
    Usage,
)
from penstock.llm.write import native as own
from penstock.llm.write.about import RECORD_TYPE, About
from penstock.llm.write.dialects import find_out_dialect
from penstock.llm.write.writer import HEARTBEAT, TokenWriter
from penstock.server.token_records import event_of, is_deep, plain_text
from penstock.server.view import SLICE_PAYLOAD_BYTES, Loading, ReadNow, Slice, View, slice_end
from penstock.telemetry.hooks import Hooks
from penstock.wire import native

MAX_DIALECTS: Final = 16
"""Kinds of dialect views a stream has at once: each has a writer fed and bytes made of its own. All
dialects are six, with and without ids; the rest are readers who begin after an event of theirs."""

PAGE_RECORDS: Final = 512
"""Records that are fed in one go: two milliseconds."""

KEPT_WRITERS: Final = 16
"""Writers kept beside the live one. One that repeats its answer at the end holds all of it."""

_LEAVING: Final = "this server goes away before the answer has ended; ask for the answer again"
_GONE: Final = "what follows of the answer is kept no longer"
_UNREADABLE: Final = "what follows of the answer cannot be read now; ask for it again"
# Makes a writer begin; one waits for the usage, since its start says what the prompt cost.
_STARTED: Final = (Start(id="", model=""), Usage(input_tokens=0, output_tokens=0))
_SHOWN_AT: Final = 2  # the first record that is shown, as long as nobody knows: after the opening


@dataclass(frozen=True, slots=True)
class DialectKind:
    """One way to show a stream in a dialect.

    Attributes:
        name: the dialect's, one of `llm.write.dialects.OUT_DIALECTS`.
        has_ids: whether the last event of each record has the offset after it as its id.
        starting_after: of openai-responses, the sequence number of the last event the reader has.
    """

    name: str
    has_ids: bool = False
    starting_after: int | None = None


class Scribe:
    """A writer of one stream in one dialect, and the position it was fed up to."""

    __slots__ = ("_form", "_writer", "position")

    def __init__(self, form: DialectForm, position: int) -> None:
        self._form = form
        self._writer: TokenWriter | None = None
        self.position = position

    def write(self, record: Record) -> bytes:
        """Take the record that follows; gives its run of events."""
        writer = self._writer
        if writer is None:
            writer = self._writer = self._form.make_writer(record)
        position = self.position = record.position
        if record.type == "text" and (piece := plain_text(record.payload)) is not None:
            run = writer.write_text(piece)
            if run is not None:
                return self._form.shown(run, position)
        event = event_of(record)
        if event is None:
            return b""
        writer.receive_event(event)
        return self._form.shown(writer.data_to_send(), position)

    def end(self, reason: EndReason) -> bytes:
        """Take the end; gives its run of events. Nothing can be written after it."""
        writer = self._writer
        if writer is None:
            writer = self._form.make_writer(None)
        writer.end(reason)
        return writer.data_to_send()


class Scribes:
    """The scribes of one view: `live` is where level readers are, the others at a few more places.

    Above `KEPT_WRITERS` of those, the one that was left longest ago goes.
    """

    __slots__ = ("_form", "_kept", "live")

    def __init__(self, form: DialectForm) -> None:
        self._form = form
        self._kept: OrderedDict[int, Scribe] = OrderedDict()
        self.live: Scribe | None = None

    def nearest(self, after: int) -> int:
        """The position from which records must be read to write what follows `after`."""
        if not self._form.has_state:
            return after
        places = [place for place in self._kept if place <= after]
        if self.live is not None and self.live.position <= after:
            places.append(self.live.position)
        return max(places, default=0)

    def take(self, after: int) -> Scribe:
        """Take away the scribe nearest to `after`, or make one that has been fed nothing."""
        place = self.nearest(after)
        live = self.live
        if live is not None and live.position == place:
            self.live = None
            return live
        return self._kept.pop(place, None) or Scribe(self._form, place)

    def keep(self, scribe: Scribe) -> None:
        """Keep a scribe at its place."""
        self._kept[scribe.position] = scribe
        self._kept.move_to_end(scribe.position)
        if len(self._kept) > KEPT_WRITERS:
            self._kept.popitem(last=False)

    def go_live(self, position: int) -> bool:
        """Have the scribe at a position be the live one; False where there is none."""
        live = self.live
        if live is not None and live.position == position:
            return True
        if self.nearest(position) != position:
            return False
        self.live = self.take(position)
        if live is not None:
            self.keep(live)
        return True


class DialectForm:
    """One dialect that a client's SDK reads. `has_state`: bytes depend on the records before."""

    is_batched = is_merged = False
    ends_at_gap = True
    has_state = True

    def __init__(self, kind: DialectKind, name: str, epoch: int) -> None:
        self._kind = kind
        self._prefix = offset_prefix(epoch).encode()
        self._about = _about_nothing(name, epoch)
        self._end: bytes | None = None
        self._shown_at: int | None = None
        self.scribes = Scribes(self)

    @property
    def has_end(self) -> bool:
        """Whether the end's bytes are made."""
        return self._end is not None

    def make_writer(self, first: Record | None) -> TokenWriter:
        """A writer that is to be fed from the first record on; None: there is none."""
        if first is not None and first.type == RECORD_TYPE and not is_deep(first.payload):
            with suppress(BodyMalformed):  # anybody may have written it
                self._about = About.from_record(first)
        kind = self._kind
        return self._about.make_writer(kind.name, starting_after=kind.starting_after)

    def shown(self, run: bytes, position: int) -> bytes:
        """A record's run of events, as it goes out."""
        if not run:
            return run
        if self._shown_at is None or position < self._shown_at:
            self._shown_at = position
        return self._with_id(run, position_text(position)) if self._kind.has_ids else run

    def _with_id(self, run: bytes, place: str) -> bytes:
        # In the last event alone: who comes back with it has seen all of the record's.
        last = run.rfind(b"\n\n", 0, -2)
        last = 0 if last < 0 else last + 2
        return b"%bid: %b%b\n%b" % (run[:last], self._prefix, place.encode(), run[last:])

    def events(self, records: Sequence[Record], after: int) -> list[bytes] | None:
        live = self.scribes.live
        assert live is not None, "nobody is level before the live writer is"
        assert live.position == after, "it was fed what level readers were shown"
        return [live.write(record) for record in records]

    def joined(self, records: Sequence[Record], tail: int) -> bytes:
        raise NotImplementedError  # older records are made by `DialectView`, with a place

    def greeting(self, head: Head) -> bytes:
        return b""

    def gap(self, asked: str, resume: Offset, reason: GapReason, place: int) -> bytes:
        return self._error(_GONE, OffsetGone, place)

    def end(self, tail: Offset, reason: str) -> bytes:
        if self._end is None:
            run = self.scribes.take(tail.position).end(EndReason(reason))
            place = position_text(tail.position) + END_MARK
            self._end = self._with_id(run, place) if run and self._kind.has_ids else run
        return self._end

    def drain(self, retry_ms: int, place: int) -> bytes:
        return self._error(_LEAVING, Draining, place)

    def broken(self, place: int) -> bytes:
        return self._error(_UNREADABLE, WorldError, place)

    def heartbeat(self, tail: Offset, *, is_visible: bool) -> bytes:
        return HEARTBEAT

    def _error(self, sentence: str, kind: type[PenstockError], place: int) -> bytes:
        """An error for a reader at a place. One that has had the start gets no second one."""
        writer = self._about.make_writer(self._kind.name)
        shown_at = _SHOWN_AT if self._shown_at is None else self._shown_at
        if self._kind.starting_after is not None or place >= shown_at:
            for event in _STARTED:
                writer.receive_event(event)
                if writer.data_to_send():
                    break
        writer.receive_event(Failure(message=sentence, code=kind.code, status=kind.status))
        writer.end(EndReason.FAILED)
        return writer.data_to_send()


class OwnForm(DialectForm):
    """Our own dialect, whose events are one a record, and whose readers know gaps and drains."""

    ends_at_gap = False
    has_state = False

    def gap(self, asked: str, resume: Offset, reason: GapReason, place: int) -> bytes:
        return native.gap_event(asked, resume, reason)

    def drain(self, retry_ms: int, place: int) -> bytes:
        return native.drain_event(retry_ms)

    def broken(self, place: int) -> bytes:
        return b""


def make_form(kind: DialectKind, name: str, epoch: int) -> DialectForm:
    """The form of a stream in a dialect. Raises LookupError where there is none of this name."""
    make = OwnForm if find_out_dialect(kind.name).name == own.DIALECT else DialectForm
    return make(kind, name, epoch)


class DialectView(View):
    """One stream in one dialect."""

    __slots__ = ("_dialect", "_pieces", "_pieces_size", "_scribes")

    page_records = PAGE_RECORDS

    def __init__(
        self,
        head: Head,
        form: DialectForm,
        read_now: ReadNow | None,
        *,
        tail_bytes: int,
        hooks: Hooks,
        now: float,
    ) -> None:
        # A reader that a flush only wakes is always a little behind, and must find that here.
        tail_bytes = max(tail_bytes, WRITE_BYTES)
        super().__init__(head, form, read_now, tail_bytes=tail_bytes, hooks=hooks, now=now)
        self._dialect, self._scribes = form, form.scribes
        # Writes of older records, by the position they begin after; at most `tail_bytes`.
        self._pieces: OrderedDict[int, Slice] = OrderedDict()
        self._pieces_size = 0

    def slice(self, after: int, before: int, *, is_live: bool = False) -> Slice | None:
        if after >= self._start:
            return self._from_tail(after, before)
        piece = self._pieces.get(after)
        if piece is not None:
            self._pieces.move_to_end(after)
            return piece
        return self._make_now(after)

    def make_ready(self, position: int) -> bool:
        if self.head.end is not None and self._dialect.has_end:
            return True
        if self._scribes.go_live(position):
            return True
        return self._make_now(position) is not None and self._scribes.go_live(position)

    def loading(self, after: int) -> Loading:
        return _Feeding(self, after, self._scribes.take(after))

    def made(self, after: int, piece: Slice, scribe: Scribe) -> None:
        """Keep what was made of older records, and who made it, for who comes next."""
        self._scribes.keep(scribe)
        if piece.position == after or after in self._pieces:
            return
        self._pieces[after] = piece
        self._pieces_size += len(piece.body) + RECORD_OVERHEAD_BYTES
        while self._pieces_size > self._tail_bytes:
            _, oldest = self._pieces.popitem(last=False)
            self._pieces_size -= len(oldest.body) + RECORD_OVERHEAD_BYTES

    def _from_tail(self, after: int, before: int) -> Slice:
        first = bisect_right(self._positions, after, self._first)
        last = bisect_right(self._positions, before, first)
        stop = slice_end(self._events, first, last)
        position = before if stop == last else self._positions[stop - 1]
        return Slice(b"".join(self._events[first:stop]), position, stop - first)

    def _make_now(self, after: int) -> Slice | None:
        """Make what follows a position of what lies in memory, where that is little work."""
        place = self._scribes.nearest(after)
        is_far = after - place > self.page_records or place < self.head.earliest
        if self._read_now is None or is_far:
            return None
        try:
            records = self._read_now(place, self.page_records, SLICE_PAYLOAD_BYTES)
        except (StreamNotFound, StreamGone):
            return None
        feeding = _Feeding(self, after, self._scribes.take(after))
        piece = feeding.receive(records)
        if piece is None:
            self._scribes.keep(feeding.scribe)
        return piece

    def _remember(self, events: list[bytes], records: list[Record], size: int) -> None:
        if b"" in events:  # what shows nothing needs no place
            shown = [pair for pair in zip(events, records, strict=True) if pair[0]]
            events, records = [pair[0] for pair in shown], [pair[1] for pair in shown]
        super()._remember(events, records, size)


class _Feeding(Loading):
    """A scribe on its way to a place, and the write that follows there."""

    __slots__ = ("_to", "scribe")

    def __init__(self, view: DialectView, after: int, scribe: Scribe) -> None:
        super().__init__(view, after, scribe.position)
        self._to = view
        self.scribe = scribe

    def receive(self, records: Sequence[Record]) -> Slice | None:
        after, before, scribe = self.after, self._to.flushed, self.scribe
        runs: list[bytes] = []
        size = 0
        for record in records:
            if record.position > before:
                break
            run = scribe.write(record)
            if run and record.position > after:
                runs.append(run)
                size += len(run)
                # Half, since the next run may be long, and cannot be taken back.
                if size >= WRITE_BYTES // 2:
                    break
        self.place = scribe.position
        if self.place < after or self.place == after < before:
            return None
        piece = Slice(b"".join(runs), self.place, len(runs))
        self._to.made(after, piece, scribe)
        return piece


def _about_nothing(name: str, epoch: int) -> About:
    """What is said around the events of a stream that does not say it: the same for everybody."""
    digest = hashlib.sha256(b"%d:%b" % (epoch, name.encode("utf-8", "surrogatepass")))
    return About(id=digest.hexdigest()[:32], created_at=EPOCH_ORIGIN_S + epoch)

"""Answers in parts, one after the other: for dialects that open, fill and close what they show.

Providers write tool calls side by side, and text while a call is not closed; most clients follow
one part at a time. So parts stand in a queue here, and only its head is on the wire: it is filled
as its pieces come, while pieces of others wait behind it. A text ends where anything else begins.
A tool call ends when it is whole; or, since many providers close their calls only at the very end,
when another part begins and its arguments are a JSON object already. So hardly anything ever waits.

What waits is bounded: above `MAX_HELD_BYTES` the head is closed as it stands, and what comes of it
later is dropped. A call goes on the wire with the first of its arguments, since its name may come
in pieces. What a part looks like, and what becomes of `Data`, is the dialect's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

from penstock.core.record import EndReason
from penstock.llm.assemble import HELD_OVERHEAD_BYTES, MAX_HELD_BYTES
from penstock.llm.events import (
    Data,
    Failure,
    Reasoning,
    Stop,
    Text,
    ToolCall,
    ToolCallDelta,
    parse_object,
)
from penstock.llm.write.writer import DialectWriter, Envelope, as_wire_json, call_id, stop_reason

# What is said about a text before there is any; more than this, and an empty one is opened for it.
_MAX_UNATTACHED: Final = 100

PartKind = Literal["text", "reasoning", "call", "data"]

Ending = Literal["whole", "cut", "broken"]
"""How a part ended: whole; cut by a limit, and the answer ends well; or broken off, and an error
follows."""


@dataclass(slots=True)
class Part:
    """A part of the answer. `number` counts those on the wire from 0; -1 is not there yet."""

    kind: PartKind
    number: int = -1
    # Of a tool call.
    index: int = -1
    call_id: str = ""
    name: str = ""
    # Of a tool call all that was written; of a text what waits.
    pieces: list[str] = field(default_factory=list[str])
    data: Data | None = None
    is_closed: bool = False
    # What it counts while it waits.
    held: int = HELD_OVERHEAD_BYTES

    @property
    def text(self) -> str:
        """The pieces as one."""
        return "".join(self.pieces)


class PartsWriter(DialectWriter):
    """A writer whose dialect says what a part looks like, and what becomes of things beside it."""

    __slots__ = ("_calls", "_count", "_held", "_parts", "_shown", "_unattached")

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(envelope)
        self._parts: deque[Part] = deque()
        # The calls that are not closed, by index, and the indices of all there were.
        self._calls: dict[int, Part] = {}
        self._shown: set[int] = set()
        self._unattached: list[Data] = []
        self._count = 0
        self._held = 0

    def _open(self, part: Part) -> None:
        """Puts a part on the wire, whose `number` is now known."""
        raise NotImplementedError

    def _write(self, part: Part, piece: str) -> None:
        """Shows more of the part on the wire."""
        raise NotImplementedError

    def _close(self, part: Part, ending: Ending) -> None:
        """Ends the part on the wire."""
        raise NotImplementedError

    def _write_data(self, data: Data) -> None:
        """Shows something beside the text, or gives it to `_attach`. `_head` may be open."""

    def _write_citation(self, part: Part, data: Data) -> None:
        """Shows what was given to `_attach` as something about the text on the wire."""

    def _attach(self, data: Data) -> None:
        """Lets `data` be shown with the text on the wire, or else with the next one."""
        if self._head is not None and self._head.kind == "text":
            self._write_citation(self._head, data)
            return
        self._unattached.append(data)
        if len(self._unattached) >= _MAX_UNATTACHED:
            self._show_unattached()

    def _show_unattached(self) -> None:
        """Shows an empty text, for what is said about a text that is not there."""
        self._end_head()
        self._parts.appendleft(Part("text", held=0))
        self._show(self._parts[0])
        self._pop("whole")

    @property
    def _head(self) -> Part | None:
        """The part on the wire."""
        return self._parts[0] if self._parts and self._parts[0].number >= 0 else None

    def _end_head(self) -> None:
        """Closes the part on the wire, for a dialect that has to show something of its own."""
        if self._head is not None:
            self._pop("whole")

    def _next_number(self) -> int:
        self._count += 1
        return self._count - 1

    def _receive_piece(self, piece: Text | Reasoning | ToolCallDelta | ToolCall) -> None:
        match piece:
            case Text(text=text):
                self._say("text", text)
            case Reasoning(text=text):
                self._say("reasoning", text)
            case ToolCallDelta():
                self._receive_delta(piece)
            case ToolCall():
                self._receive_call(piece)

    def _say(self, kind: PartKind, text: str) -> None:
        part = self._parts[-1] if self._parts else None
        if part is None or part.kind != kind or part.is_closed:
            part = self._add(Part(kind))
        self._fill(part, text)

    def _receive_delta(self, delta: ToolCallDelta) -> None:
        call = self._calls.get(delta.index)
        if call is None:
            if delta.index in self._shown:  # it was whole, or had to make way
                return
            call = self._add_call(delta.index)
        if call.number < 0:
            call.call_id = call.call_id or delta.id
            call.name += delta.name
        if delta.arguments:
            self._fill(call, delta.arguments)

    def _receive_call(self, whole: ToolCall) -> None:
        call = self._calls.get(whole.index)
        if call is None:
            if whole.index in self._shown:
                return
            call = self._add_call(whole.index)
        if call.number < 0:
            call.call_id, call.name = whole.id, whole.name
        written = call.text
        # White space is no arguments: then the whole says "{}".
        rest = whole.arguments[len(written) :] if written.strip() else whole.arguments
        if rest:
            self._fill(call, rest)
        call.is_closed = True
        self._advance()

    def _add_call(self, index: int) -> Part:
        call = self._calls[index] = self._add(Part("call", index=index))
        self._shown.add(index)
        return call

    def _receive_data(self, data: Data) -> None:
        if self._calls or len(self._parts) > 1:
            size = len(as_wire_json(data.value))
            self._add(Part("data", data=data, is_closed=True, held=HELD_OVERHEAD_BYTES + size))
            self._advance()
        else:
            self._write_data(data)

    def _add(self, part: Part) -> Part:
        """Puts a part behind those there are; the head ends, if it can."""
        if len(self._parts) == 1:
            head = self._parts[0]
            if head.kind != "call" or parse_object(head.text) is not None:
                head.is_closed = True
                self._advance()
        self._parts.append(part)
        self._hold(part.held)
        return part

    def _fill(self, part: Part, piece: str) -> None:
        if part is self._parts[0] and part.number >= 0:
            if part.kind == "call":
                part.pieces.append(piece)
            self._write(part, piece)
        else:
            part.pieces.append(piece)
            part.held += len(piece)
            self._hold(len(piece))
            self._advance()

    def _hold(self, size: int) -> None:
        self._held += size
        while self._held > MAX_HELD_BYTES and len(self._parts) > 1:
            self._parts[0].is_closed = True
            self._advance()

    def _advance(self) -> None:
        """Puts on the wire what can be, and ends what is over."""
        while self._parts:
            head = self._parts[0]
            if head.number < 0 and (head.pieces or head.is_closed):
                self._show(head)
            if not head.is_closed:
                break
            self._pop("whole")

    def _show(self, part: Part) -> None:
        self._held -= part.held
        if part.data is not None:
            return
        part.number = self._next_number()
        if part.kind == "call":
            part.call_id = call_id(self._envelope, part.index, part.call_id)
        self._open(part)
        if part.kind == "text" and self._unattached:
            unattached, self._unattached = self._unattached, []
            for data in unattached:
                self._write_citation(part, data)
        if text := part.text:
            self._write(part, text)
        if part.kind != "call":
            part.pieces.clear()

    def _pop(self, ending: Ending) -> None:
        part = self._parts.popleft()
        self._calls.pop(part.index, None)
        if part.data is not None:
            self._write_data(part.data)
        else:
            self._close(part, ending)

    def _receive_stop(self, stop: Stop) -> None:
        # The last text stays open for what is yet said about it: sources may come after the stop.
        while len(self._parts) > 1 or (self._parts and self._parts[0].kind == "call"):
            self._end_first("cut" if stop.reason == "length" else "whole")

    def _end_first(self, ending: Ending) -> None:
        """Shows and ends the first part; as `ending` says, where it was not whole."""
        first = self._parts[0]
        if first.number < 0:
            self._show(first)
        self._pop("whole" if first.is_closed else ending)

    def _end_parts(self, ending: Ending) -> None:
        while self._parts:
            self._end_first(ending)
        if self._unattached and ending != "broken":
            self._show_unattached()

    def _end_well(self, reason: EndReason) -> None:
        self._end_parts("cut" if stop_reason(self._stop, reason) == "length" else "whole")
        self._finish(reason)

    def _end_badly(self, error: Failure) -> None:
        self._end_parts("broken")
        self._fail(error)

    def _finish(self, reason: EndReason) -> None:
        """Ends the body well, when every part is closed."""
        raise NotImplementedError

    def _fail(self, error: Failure) -> None:
        """Ends the body with an error, when every part is closed."""
        raise NotImplementedError

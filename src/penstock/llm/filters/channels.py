"""What filters that look into text share: text held back, and everything else kept in its place.

An answer is several streams of characters: what the model says, what it thinks, and the arguments
of each tool call. Each is a channel with a scanner of its own, so nothing is ever matched across
two of them. A scanner may hold the end of its channel back, undecided. What comes after that in
other channels, or is no text at all, waits behind it, so that the order of the answer is kept.

Two bounds hold. A scanner holds back at most twice its longest match. Behind it wait at most
`MAX_WAITING` characters (64 counted for each event besides): beyond that what waits goes ahead, and
nothing waits any more for those undecided characters, which come later than they were said. They
are never shown undecided.

The end decides. At a `Stop` the answer is whole, and what is held is what it would be in a text
that ends there. Where the answer was broken off (a `Stop` for its length or by the provider's
filter, a `Failure`, `flush`) the rest of a match may be missing, so what may be the front of one is
left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol, TypeAlias, get_args

from penstock.core.errors import SettingInvalid
from penstock.llm.assemble import is_json
from penstock.llm.events import (
    Data,
    Failure,
    Json,
    Reasoning,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
)

Channel = Literal["text", "reasoning", "arguments"]
CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)

MAX_WAITING: Final = 64 * 1024
"""Characters that may wait behind undecided ones: what a screen shows in a minute, and little
beside what a tool call may have."""

_EVENT_SIZE: Final = 64

# The reasons with which somebody other than the model ended the answer.
_BREAKS: Final = frozenset({"length", "content_filter"})

Decision: TypeAlias = tuple[int, str]
"""So many characters of a channel, and what is shown for them. As many as shown are themselves."""

_Key: TypeAlias = str | int  # "text", "reasoning", or the index of a tool call


class Scanner(Protocol):
    """One channel's characters in, what is shown of them out."""

    @property
    def is_holding(self) -> bool:
        """Whether characters are undecided."""
        ...

    def receive(self, text: str) -> list[Decision]:
        """Takes the next characters. Decisions come in order and cover every character once."""
        ...

    def end(self, *, is_broken: bool) -> list[Decision]:
        """Decides everything held: as a text that ends here, or one whose rest is missing."""
        ...


@dataclass(slots=True)
class _Slot:
    """A place in the answer where a channel has characters: `left` of them are undecided."""

    key: _Key
    left: int
    # A tool call's first piece says what is called; that is shown without waiting.
    head: ToolCallDelta | None = None
    shown: list[str] = field(default_factory=list[str])

    def take(self) -> list[TokenEvent]:
        """What is decided and not given yet, as an event of its kind."""
        text = "".join(self.shown)
        self.shown.clear()
        head, self.head = self.head, None
        if isinstance(self.key, int):
            if head is not None:
                return [replace(head, arguments=text)]
            return [ToolCallDelta(index=self.key, arguments=text)] if text else []
        if not text:
            return []
        return [Text(text=text) if self.key == "text" else Reasoning(text=text)]


class TextFilter:
    """The part of a filter that no kind of looking changes. See `chain.Filter` for the contract.

    A subclass says in `_make_scanner` how a channel's characters are decided, and may say in
    `_change` what it does to other events.
    """

    __slots__ = ("_channels", "_late", "_open", "_queue", "_scanners", "_waiting")

    def __init__(self, channels: Collection[Channel]) -> None:
        unknown = [channel for channel in channels if channel not in CHANNELS]
        if unknown or not channels:
            raise SettingInvalid("channels", f"is {sorted(channels)}; choose of {CHANNELS}")
        self._channels = frozenset(channels)
        self._scanners: dict[_Key, Scanner] = {}
        # What was received and not given, in the answer's order; the first is always undecided.
        self._queue: deque[_Slot | TokenEvent] = deque()
        # Each channel's slots with undecided characters, in order.
        self._open: dict[_Key, deque[_Slot]] = {}
        self._waiting = 0
        # Undecided characters that the rest went ahead of, a slot for each channel.
        self._late: dict[_Key, _Slot] = {}

    def receive_event(self, event: TokenEvent) -> list[TokenEvent]:
        match event:
            case Text(text=text) if "text" in self._channels:
                return self._receive_text("text", text, event)
            case Reasoning(text=text) if "reasoning" in self._channels:
                return self._receive_text("reasoning", text, event)
            case ToolCallDelta(arguments=text) if "arguments" in self._channels:
                return self._receive_text(event.index, text, event)
            case ToolCall() if "arguments" in self._channels:
                self._decide_end(event.index, is_broken=False)
                return self._receive_other(self._change_call(event))
            case Stop():
                return [*self._end(is_broken=event.reason in _BREAKS), event]
            case Failure():
                return [*self._end(is_broken=True), self._change(event)]
            case _:
                return self._receive_other(self._change(event))

    def flush(self) -> list[TokenEvent]:
        return self._end(is_broken=True)

    def _make_scanner(self) -> Scanner:
        """A new channel's scanner."""
        raise NotImplementedError

    def _change(self, event: TokenEvent) -> TokenEvent:
        """What is given in the place of an event that is no characters of a channel."""
        return event

    def _whole(self, text: str) -> str:
        """What is shown of a text that is all there is."""
        scanner = self._make_scanner()
        decided = scanner.receive(text) + scanner.end(is_broken=False)
        return "".join(shown for _, shown in decided)

    def _receive_text(self, key: _Key, text: str, event: TokenEvent) -> list[TokenEvent]:
        if not text:
            return self._receive_other(event)
        scanner = self._scanners.get(key)
        if scanner is None:
            scanner = self._scanners[key] = self._make_scanner()
        was_holding = scanner.is_holding
        decided = scanner.receive(text)
        # Most of a text begins nothing, and goes through as it came.
        if not self._queue and not was_holding and decided == [(len(text), text)]:
            return [event]
        self._add_slot(key, len(text), event)
        self._decide(key, decided)
        return self._take()

    def _receive_other(self, event: TokenEvent) -> list[TokenEvent]:
        if not self._queue:
            return [event]
        self._queue.append(event)
        self._waiting += _EVENT_SIZE + _size(event)
        return self._take()

    def _add_slot(self, key: _Key, count: int, event: TokenEvent) -> None:
        head = event if isinstance(event, ToolCallDelta) and (event.id or event.name) else None
        late = self._late.get(key)
        if late is not None and head is None:
            late.left += count
            return
        last = self._queue[-1] if self._queue else None
        if isinstance(last, _Slot) and last.key == key and last.left and head is None:
            last.left += count
        else:
            slot = _Slot(key, count, head)
            self._queue.append(slot)
            self._open.setdefault(key, deque()).append(slot)
            self._waiting += _EVENT_SIZE
        self._waiting += count

    def _decide(self, key: _Key, decided: list[Decision]) -> None:
        """Writes decisions into the slots whose characters they are about."""
        slots = self._open.get(key, deque())
        for count, shown in decided:
            is_itself = count == len(shown)
            while count:
                slot = slots[0]
                here = min(count, slot.left)
                slot.shown.append(shown[:here] if is_itself else shown)
                shown = shown[here:] if is_itself else ""
                slot.left -= here
                count -= here
                if not slot.left:
                    slots.popleft()

    def _decide_end(self, key: _Key, *, is_broken: bool) -> None:
        scanner = self._scanners.pop(key, None)
        if scanner is not None:
            self._decide(key, scanner.end(is_broken=is_broken))
        self._open.pop(key, None)

    def _take(self) -> list[TokenEvent]:
        """What nothing undecided stands before."""
        given: list[TokenEvent] = []
        for key, late in list(self._late.items()):
            given += late.take()
            if not late.left:
                del self._late[key]
        queue = self._queue
        while queue:
            first = queue[0]
            if isinstance(first, _Slot):
                given += first.take()
                if first.left:
                    break
            else:
                given.append(first)
            queue.popleft()
        if len(queue) < 2:
            self._waiting = 0
        elif self._waiting > MAX_WAITING:
            given += self._go_ahead()
        return given

    def _go_ahead(self) -> list[TokenEvent]:
        """Everything but the undecided characters, which stay."""
        given: list[TokenEvent] = []
        for item in self._queue:
            if not isinstance(item, _Slot):
                given.append(item)
                continue
            given += item.take()
            if item.left:
                late = self._late.setdefault(item.key, _Slot(item.key, 0))
                late.left += item.left
        self._open = {key: deque([late]) for key, late in self._late.items()}
        self._queue.clear()
        self._waiting = 0
        return given

    def _end(self, *, is_broken: bool) -> list[TokenEvent]:
        for key in list(self._scanners):
            self._decide_end(key, is_broken=is_broken)
        return self._take()

    def _change_call(self, call: ToolCall) -> ToolCall:
        arguments = self._whole(call.arguments)
        if arguments == call.arguments:
            return call
        return replace(call, arguments=arguments, arguments_valid=is_json(arguments))


def _size(event: TokenEvent) -> int:
    """About how many characters an event has that waits."""
    match event:
        case Text(text=text) | Reasoning(text=text):
            return len(text)
        case ToolCallDelta(arguments=text) | ToolCall(arguments=text):
            return len(text)
        case Data(value=value):
            return _json_size(value)
        case _:
            return 0


def _json_size(value: Json) -> int:
    match value:
        case str():
            return len(value)
        case list():
            return sum(map(_json_size, value))
        case dict():
            return sum(len(key) + _json_size(item) for key, item in value.items())
        case _:
            return 1

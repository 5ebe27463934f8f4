"""A filter, and filters in a row: token events in, those a reader may see out.

A filter takes one event and gives none, one or several. It keeps the order that `events.py`
promises, holds back a bounded amount, costs time that grows with the text alone, and belongs to one
answer. `Chain` passes each event through its filters in their order, and holds the order of kinds
at its end whatever a filter of somebody else's does.

A plain function of one event is a filter too: it is called for each `Text`, `Reasoning`,
`ToolCallDelta`, `ToolCall` and `Data`, and returns what stands in its place: an event, several, or
None for nothing. It may end the answer by returning a `Stop` or a `Failure`. What it raises goes
through the chain to whoever runs the answer, and the answer fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeAlias

from penstock.core.errors import SettingInvalid
from penstock.llm.events import (
    Data,
    Failure,
    Reasoning,
    Start,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
)


class Filter(Protocol):
    """What stands between an answer and its readers."""

    def receive_event(self, event: TokenEvent) -> list[TokenEvent]:
        """Takes the next event and gives what may be shown now.

        At a `Stop` or `Failure` everything held is decided, and given before it. A filter that ends
        the answer itself gives a `Stop` or `Failure` that it did not receive.
        """
        ...

    def flush(self) -> list[TokenEvent]:
        """Gives what may be shown of what is held: the answer is broken off without an end.

        What could be the front of something hidden may not.
        """
        ...


EventFunction: TypeAlias = Callable[[TokenEvent], TokenEvent | Iterable[TokenEvent] | None]

_CONTENT: Final = (Text, Reasoning, ToolCallDelta, ToolCall, Data)
_END: Final = (Stop, Failure)


class Each:
    """A plain function as a filter. See the module."""

    __slots__ = ("_function",)

    def __init__(self, function: EventFunction) -> None:
        self._function = function

    def receive_event(self, event: TokenEvent) -> list[TokenEvent]:
        if not isinstance(event, _CONTENT):
            return [event]
        given = self._function(event)
        if given is None:
            return []
        events = given if isinstance(given, Iterable) else [given]
        return [event for event in map(self._checked, events) if not _is_empty(event)]

    def flush(self) -> list[TokenEvent]:
        return []

    def _checked(self, event: object) -> TokenEvent:
        if not isinstance(event, (*_CONTENT, *_END)):
            reason = f"gave a {type(event).__name__}; give content, a Stop, a Failure or None"
            raise SettingInvalid(f"filter {getattr(self._function, '__name__', '')}", reason)
        return event


class Chain:
    """Filters in a row, for one answer. Without filters every event comes out as it was."""

    __slots__ = ("_filters", "_has_failed", "_has_received_end", "_has_started", "_has_stopped")

    def __init__(self, filters: Sequence[Filter | EventFunction] = ()) -> None:
        self._filters: tuple[Filter, ...] = tuple(
            Each(one) if callable(one) else one for one in filters
        )
        self._has_started = self._has_stopped = self._has_failed = False
        self._has_received_end = False

    @property
    def is_plain(self) -> bool:
        """Whether it has no filters: what an answer says comes out as it went in."""
        return not self._filters

    @property
    def is_ended(self) -> bool:
        """Whether a filter ended the answer: its upstream can be aborted.

        Only `Usage` is taken from then on, and after a `Failure` nothing.
        """
        return (self._has_stopped or self._has_failed) and not self._has_received_end

    def receive_event(self, event: TokenEvent) -> list[TokenEvent]:
        """Takes the answer's next event and gives what its readers may see now, in order."""
        # Nearly every event is a piece of text on its way through no filter at all.
        if type(event) is Text and not (self._filters or self._has_stopped or self._has_failed):
            return [event]
        if self.is_ended:
            return [event] if isinstance(event, Usage) and not self._has_failed else []
        if isinstance(event, _END):
            self._has_received_end = True
        return self._run(0, [event])

    def flush(self) -> list[TokenEvent]:
        """The answer is broken off: what may be shown of what the filters hold.

        For a cancel. An answer that is cut off at a limit gets a `Stop` instead, which does this.
        """
        given: list[TokenEvent] = []
        if not self.is_ended:
            for place, one in enumerate(self._filters):
                given += self._run(place + 1, one.flush())
        return given

    def _run(self, place: int, events: list[TokenEvent]) -> list[TokenEvent]:
        """Passes events through the filters from `place` on."""
        for one in self._filters[place:]:
            if len(events) == 1:
                events = one.receive_event(events[0])
            elif events:
                events = [given for event in events for given in one.receive_event(event)]
        return [event for event in events if self._admit(event)]

    def _admit(self, event: TokenEvent) -> bool:
        """Whether an event may come at this place of an answer."""
        is_open = not (self._has_stopped or self._has_failed)
        if isinstance(event, _CONTENT):
            return is_open or (isinstance(event, Data) and self._may_follow)
        if isinstance(event, Start):
            is_first, self._has_started = not self._has_started, True
            return is_first and is_open
        if isinstance(event, Stop):
            self._has_stopped = True
            return is_open
        if isinstance(event, Failure):
            is_first, self._has_failed = not self._has_failed, True
            return is_first
        return not self._has_failed

    @property
    def _may_follow(self) -> bool:
        """Whether data may still come, after the model's own stop."""
        return self._has_received_end and not self._has_failed


def _is_empty(event: TokenEvent) -> bool:
    return isinstance(event, Text | Reasoning) and not event.text

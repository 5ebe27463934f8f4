"""Stopping at given sequences, as providers do where they can: the answer ends before them.

The sequence that is whole first stops the answer; of those that end together, the longest. Nothing
of it is shown. The run of events ends with a `Stop` whose reason is "stop" and whose `raw` is the
sequence; the provider can then be left, since nothing more of its answer is taken but its count.
Only what the model says is looked into: what it thinks and calls is not what the caller reads on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from penstock.core.errors import SettingInvalid
from penstock.llm.events import Stop, TokenEvent, Usage
from penstock.llm.filters.automaton import Automaton
from penstock.llm.filters.channels import Decision, Scanner, TextFilter
from penstock.llm.filters.pattern import literal

MAX_SEQUENCES: Final = 64
"""Sequences of one answer: a caller names them, and each is looked for in every character."""


class StopSequences(TextFilter):
    """Ends the answer where one of the sequences is."""

    __slots__ = ("_automaton", "_found")

    def __init__(self, automaton: Automaton) -> None:
        super().__init__(["text"])
        self._automaton = automaton
        self._found: _Stopping | None = None

    def receive_event(self, event: TokenEvent) -> list[TokenEvent]:
        if self._found is not None:
            return [event] if isinstance(event, Usage) else []
        return super().receive_event(event)

    def _make_scanner(self) -> Scanner:
        return _Stopping(self._automaton)

    def _take(self) -> list[TokenEvent]:
        scanner = self._scanners.get("text")
        if not isinstance(scanner, _Stopping) or not scanner.sequence:
            return super()._take()
        self._found, self._waiting = scanner, 0
        given = super()._take()
        # What waits behind the sequence was said after it began. Its count is still worth having.
        given += [event for event in self._queue if isinstance(event, Usage)]
        self._queue.clear()
        return [*given, Stop(reason="stop", raw=scanner.sequence)]


def stop_automaton(sequences: Iterable[str]) -> Automaton:
    """What `StopSequences` looks for.

    Raises:
        SettingInvalid: there are none, too many, or one is empty or too long.
    """
    chosen = list(sequences)
    if len(chosen) > MAX_SEQUENCES:
        raise SettingInvalid("sequences", f"are {len(chosen)}; name at most {MAX_SEQUENCES}")
    return Automaton(map(literal, chosen))


class _Stopping:
    """One channel. What is held may be the front of a sequence; nothing is decided after one.

    Attributes:
        sequence: the one that was found, "" before.
    """

    __slots__ = ("_automaton", "_chars", "_state", "sequence")

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._chars: list[str] = []
        self._state = 0
        self.sequence = ""

    @property
    def is_holding(self) -> bool:
        return bool(self._chars)

    def receive(self, text: str) -> list[Decision]:
        decided: list[Decision] = []
        place = 0
        while place < len(text) and not self.sequence:
            if not self._chars:
                found = self._automaton.find_first(text, place)
                found = len(text) if found < 0 else found
                if found > place:
                    decided.append((found - place, text[place:found]))
                place = found
            if place < len(text):
                decided += self._receive_char(text[place])
                place += 1
        return decided

    def end(self, *, is_broken: bool) -> list[Decision]:
        count = len(self._chars)
        if not is_broken:
            return self._release(count)
        start = self._automaton.start_of_unfinished(self._chars, self._state)
        return [*self._release(start), (count - start, "")]

    def _receive_char(self, char: str) -> list[Decision]:
        automaton = self._automaton
        self._state = automaton.step(self._state, char)
        self._chars.append(char)
        if self._state & automaton.last:
            start = automaton.start_of_match(self._chars)
            self.sequence = "".join(self._chars[start:])
            return self._release(start)
        if not self._state:
            return self._release(len(self._chars))
        if len(self._chars) >= 2 * automaton.longest:
            return self._release(len(self._chars) - automaton.longest)
        return []

    def _release(self, count: int) -> list[Decision]:
        decided = [(count, "".join(self._chars[:count]))] if count else []
        del self._chars[:count]
        return decided

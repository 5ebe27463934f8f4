"""What the server and the gateway call when something happens. Does nothing by default.

Implement `Hooks` (subclass it and override what you want) to send the same facts elsewhere. The
methods are called in the event loop, some of them once per append or once per write pass: they
must be quick and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is counted only when somebody asks: the state of the hub now."""

    readers_fast: int
    readers_portable: int
    polls: int
    streams_running: int
    streams_ended: int
    streams_in_use: int
    stored_bytes: int
    commits: int
    lag_max: int
    lagging: int
    fast_path_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The places at one upstream: how many are used, and how many answers wait for one."""

    used: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFigures:
    """What one answer of a gateway came to. Times are in seconds, from its start.

    Attributes:
        model: as the caller asked for it.
        upstream: who answered, by its name in the configuration; "" where nobody did.
        end: complete, cancelled, failed, limit or lost.
        cut_by: the limit that ended it: output_tokens, total_tokens or money; "" where none did.
        is_estimate: the provider did not count the output to its end.
        money_units: what it cost, in 10⁻¹² of the currency; None where nobody knows.
        first_token_s, total_s: None where it did not come so far.
    """

    model: str
    upstream: str
    end: str
    cut_by: str
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cached_tokens: int
    is_estimate: bool
    money_units: int | None
    first_token_s: float | None
    total_s: float | None


class Hooks:
    """Does nothing. Times are in seconds."""

    def attach(self, snapshot: Callable[[], Snapshot]) -> None:
        """Take the way to ask for gauges; called once, when a hub starts to use these hooks."""

    def appended(self, records: int, size: int) -> None:
        """Records were committed to one stream; `size` is their payloads' bytes."""

    def delivered(self, records: int, size: int) -> None:
        """Bytes were handed to transports, and the records in them, summed over the readers."""

    def first_record(self, seconds: float) -> None:
        """A hub's producer gave its first record that long after its start."""

    def record_gap(self, seconds: float) -> None:
        """A hub's producer appended that long after its last append."""

    def first_event(self, seconds: float) -> None:
        """A reader got its first record that long after its request."""

    def resumed(self, outcome: str) -> None:
        """A reader came back with an id: exact, gap, lost or ended."""

    def gap(self, reason: str) -> None:
        """A reader was told of a gap."""

    def stream_ended(self, reason: str) -> None:
        """A stream ended."""

    def reader_ended(self, reason: str) -> None:
        """A reader left: ended, gone, drained, aged, stalled or refused."""

    # what a gateway calls

    def attach_places(self, places: Callable[[], Mapping[str, Places]]) -> None:
        """Take the way to ask for the places at each upstream; called when a gateway opens."""

    def answer_started(self) -> None:
        """An answer has what it asked for of its budgets. `answer_ended` follows, once."""

    def budget_refused(self, budget: str, limit: str) -> None:
        """An answer was refused: the budget (answer, user, key or all) leaves nothing of that."""

    def upstream_attempted(self, upstream: str, kind: str, outcome: str) -> None:
        """A provider was asked: first, as a retry or as a fallback; it answered or failed."""

    def first_token(self, upstream: str, model: str, waited_s: float, added_s: float) -> None:
        """The first thing that the model wrote is committed: that long after the answer's start,
        and that long after it came in."""

    def answer_ended(self, figures: AnswerFigures) -> None:
        """An answer is over and charged."""

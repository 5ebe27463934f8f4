"""What the server calls when something happens. Does nothing by default.

Implement `Hooks` (subclass it and override what you want) to send the same facts elsewhere. The
methods are called in the event loop, some of them once per append or once per write pass: they
must be quick and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable
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

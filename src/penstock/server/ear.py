"""An ear: how a stream hears its log without being kept in memory by it.

A backend holds whoever listens. A stream that nobody reads, feeds or holds must be able to go, so
what the backend holds is this, and this holds the stream weakly.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.core.log import Head
from penstock.core.record import Record

if TYPE_CHECKING:
    from penstock.server.stream import Stream


class Ear:
    """Passes on to a stream what its log says, as long as there is the stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = weakref.ref(stream)

    def committed(self, records: Sequence[Record], head: Head) -> None:
        stream = self._stream()
        if stream is not None:
            stream.committed(records, head)

    def trimmed(self, head: Head) -> None:
        stream = self._stream()
        if stream is not None:
            stream.trimmed(head)

    def ended(self, head: Head) -> None:
        stream = self._stream()
        if stream is not None:
            stream.ended(head)

    def deleted(self) -> None:
        stream = self._stream()
        if stream is not None:
            stream.deleted()

    def restarted(self, head: Head) -> None:
        stream = self._stream()
        if stream is not None:
            stream.restarted(head)

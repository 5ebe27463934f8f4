"""Backends by their addresses: the one place that knows which there are.

A backend's module is imported when its address is used: what it needs may be an extra.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.backends.interface import Backend
from penstock.backends.memory import MemoryBackend
from penstock.server.config import SQLITE, Settings


def make_backend(settings: Settings, clock: Callable[[], float]) -> Backend:
    """Make the backend that the settings name; it is opened later, by the hub that uses it."""
    max_streams, max_bytes = settings.max_streams, settings.max_store_bytes
    if settings.backend.startswith(SQLITE):
        from penstock.backends.sqlite import SqliteBackend

        path = settings.backend.removeprefix(SQLITE)
        return SqliteBackend(
            path,
            durability=settings.durability,
            max_streams=max_streams,
            max_bytes=max_bytes,
        )
    return MemoryBackend(
        clock=clock, wall_clock=time.time, max_streams=max_streams, max_bytes=max_bytes
    )

"""Signals in somebody else's server: drain first, then let its own handlers do what they do.

An ASGI server that is told to stop waits for its responses, and a stream's response does not end:
stock uvicorn waits for ever. Its lifespan shutdown comes after that wait, so it cannot start the
drain. What can is the signal: the handlers that are installed when the application starts are
kept and called after the hub was told to drain.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.server.hub import Hub


@contextmanager
def drain_on_signals(hub: Hub) -> Generator[None]:
    """Have SIGINT and SIGTERM drain the hub, then go to the handlers that were there.

    Does nothing outside the main thread, where Python takes no signals. The handlers found are
    put back at the end, unless somebody replaced ours meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(lambda: hub.spawn(hub.drain()))
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler is signal.SIG_DFL:
            # Nobody else listens: after the drain, do what would have been done at once.
            loop.call_soon_threadsafe(loop.call_later, hub.settings.drain_s, _default, number)

    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is handle and handler is not None:
                signal.signal(number, handler)


def _default(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)

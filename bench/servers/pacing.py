"""The publisher of the two Python servers: the payload, and when the next ones are due.

The rule is the same in every server of the benchmark. A tick comes `rate` times a second, at most
a thousand times; it publishes what is due by the clock and has not been published, at most fifty
events, so that a late wake-up is made up for and the full rate is offered.
"""

import asyncio
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

CATCH_UP_PER_TICK = 50
SHORTEST_TICK_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the runner asks of a server, from the environment."""

    rate: float
    payload_bytes: int
    total: int
    prefill: int
    log_bytes: int
    streams: int
    """0: one stream for everybody; else so many, each with its own publisher and `rate`."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read `BENCH_*`; what is not set has the value of the smallest scenario."""
        get = os.environ.get
        return cls(
            rate=float(get("BENCH_RATE", "30")),
            payload_bytes=int(get("BENCH_PAYLOAD_BYTES", "80")),
            total=int(get("BENCH_TOTAL", "0")),
            prefill=int(get("BENCH_PREFILL", "0")),
            log_bytes=int(get("BENCH_LOG_BYTES", str(16 << 20))),
            streams=int(get("BENCH_STREAMS", "0")),
        )


def payload(index: int, size: int) -> bytes:
    """The JSON object of one event, exactly `size` bytes long."""
    head = b'{"t":%d,"i":%d,"d":"' % (time.monotonic_ns(), index)
    return head + b"x" * (size - 2 - len(head)) + b'"}'


def start_signal() -> asyncio.Event:
    """An event that SIGUSR2 sets: everybody is connected, publish."""
    started = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, started.set)
    return started


async def publish(settings: Settings, emit: Callable[[int], None]) -> None:
    """Wait for SIGUSR2, then call `emit` with each running number when it is due.

    Ends after `settings.total` events, or never when that is 0. Cancelling it stops publishing.
    """
    await start_signal().wait()
    begun = time.monotonic()
    period = max(1 / settings.rate, SHORTEST_TICK_S)
    published, wake = 0, begun
    while not settings.total or published < settings.total:
        wake = max(wake + period, time.monotonic())
        await asyncio.sleep(wake - time.monotonic())
        due = int((time.monotonic() - begun) * settings.rate + 0.5)
        due = min(due, published + CATCH_UP_PER_TICK, settings.total or due)
        while published < due:
            emit(published)
            published += 1


def listen() -> socket.socket:
    """A listening socket on a free loopback port; the descriptor limit is raised on the way."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    return listener


def announce(port: int) -> None:
    """Say that the server is ready, with its port and pid, in one JSON line."""
    print(json.dumps({"port": port, "pid": os.getpid()}))
    sys.stdout.flush()

"""Penstock as `penstock serve` runs it, metrics on, with the publisher in the server's own loop.

Its ids are offsets, and these grow with the log from seven characters to ten. The payload is
longer by what the id is shorter, so that every event has the length that it has everywhere else;
the benchmark's sequence check compares.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator

from bench.servers import pacing
from penstock import Hub
from penstock.server.config import make_settings
from penstock.server.serve import make_server, run

ID_CHARACTERS = 10
BEFORE_POSITION = 6  # characters of an offset: five of the epoch, one that counts the digits
BASE = 62
PREFILL_TURN = 1000  # records between two turns of the loop


class Publisher:
    """One stream that everybody reads, or many with a producer each."""

    def __init__(self, hub: Hub, settings: pacing.Settings) -> None:
        self._hub = hub
        self._settings = settings
        self._task: asyncio.Task[None] | None = None

    def start(self, address: str) -> None:
        """Begin, now that the server listens at `address`."""
        port = int(address.rpartition(":")[2])
        publish = self._many(port) if self._settings.streams else self._one(port)
        self._task = asyncio.create_task(publish)

    async def _one(self, port: int) -> None:
        stream = await self._hub.create("bench", content_type="application/json")
        for index in range(self._settings.prefill):
            stream.append_nowait(self._payload(index))
            if index % PREFILL_TURN == 0:
                await asyncio.sleep(0)
        pacing.announce(port)
        await pacing.publish(
            self._settings,
            lambda index: stream.append_nowait(self._payload(index)),
        )

    async def _many(self, port: int) -> None:
        started = pacing.start_signal()
        for number in range(self._settings.streams):
            await self._hub.start(f"bench/{number}", self._source(number, started))
        pacing.announce(port)

    async def _source(self, number: int, started: asyncio.Event) -> AsyncIterator[bytes]:
        """What feeds one of many streams, as a model would: a generator that the hub runs."""
        await started.wait()
        period = 1 / self._settings.rate
        await asyncio.sleep(period * number / self._settings.streams)  # not all at one moment
        for index in itertools.count():
            await asyncio.sleep(period)
            yield self._payload(index)

    def _payload(self, index: int) -> bytes:
        # In memory positions are dense and begin with 1.
        digits = 1
        while index + 1 >= BASE**digits:
            digits += 1
        shorter = ID_CHARACTERS - BEFORE_POSITION - digits
        return pacing.payload(index, self._settings.payload_bytes + shorter)


def main() -> None:
    """Serve until a signal."""
    asked = pacing.Settings.from_environment()
    settings = make_settings(port=0, retain_bytes=asked.log_bytes, log_level="warning")
    hub = Hub(settings=settings)
    run(make_server(settings, hub=hub), on_ready=Publisher(hub, asked).start)


if __name__ == "__main__":
    main()

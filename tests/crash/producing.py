"""`penstock serve` whose hub feeds streams of its own.

`python -m crash.producing PREFIX --port P --backend B`: the streams `PREFIX/0`, `PREFIX/1`, …
count; some come to their end, the others go on until the process is gone. Settings are those of
`penstock serve`.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator

from crash.payloads import payload
from penstock import Hub
from penstock.core.record import NewRecord
from penstock.server.config import load_settings
from penstock.server.serve import make_server, run

STREAMS = 4
LENGTHS = (60, 10_000_000)
"""Records of even and of odd streams."""
EVERY_S = 0.02


async def count(name: str, length: int) -> AsyncGenerator[NewRecord]:
    """Yield what a writer of this name writes."""
    for number in range(length):
        yield NewRecord(payload(name, number, "application/json"))
        await asyncio.sleep(EVERY_S)


async def feed(hub: Hub, prefix: str) -> None:
    for place in range(STREAMS):
        name = f"{prefix}/{place}"
        await hub.start(name, count(name, LENGTHS[place % len(LENGTHS)]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("prefix")
    parser.add_argument("--port", type=int)
    parser.add_argument("--backend")
    options = parser.parse_args()
    settings = load_settings({"port": options.port, "backend": options.backend})
    hub = Hub(settings.backend, settings=settings)

    def ready(address: str) -> None:
        hub.spawn(feed(hub, options.prefix))
        print(f"penstock serves at {address}", flush=True)

    run(make_server(settings, hub=hub), on_ready=ready)


if __name__ == "__main__":
    main()

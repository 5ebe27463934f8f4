"""Penstock as `penstock serve --backend …` runs it, metrics on; written to and read over HTTP only.

`BENCH_BACKEND` is `memory` or `sqlite`, the latter in a file in the folder `BENCH_FOLDER`;
`BENCH_DURABILITY` is the setting of that name. Limits are high enough that nothing is dropped: the
other side keeps everything.
"""

import os

from bench.servers import pacing
from penstock.server.config import make_settings
from penstock.server.serve import make_server, run

LIMITS = {
    "max_streams": 20_000,
    "max_store_bytes": 8 << 30,
    "retain_records": 10_000_000,
    "retain_bytes": 4 << 30,
}


def main() -> None:
    """Serve until a signal."""
    in_file = os.environ["BENCH_BACKEND"] == "sqlite"
    settings = make_settings(
        port=0,
        backend=f"sqlite:///{os.environ['BENCH_FOLDER']}/streams.db" if in_file else "memory://",
        durability=os.environ.get("BENCH_DURABILITY", "process"),
        log_level="warning",
        **LIMITS,
    )
    run(make_server(settings), on_ready=lambda address: pacing.announce(_port(address)))


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


if __name__ == "__main__":
    main()

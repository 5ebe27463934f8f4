"""Penstock as `penstock serve` runs it. Its file has one upstream, which may have more answers at a
time than by default; nothing else is set.

`BENCH_UPSTREAM` is the upstream's address; `BENCH_BACKEND` is `memory` or `sqlite`, the latter in
a file in the folder `BENCH_FOLDER`.
"""

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import TextIO

from bench.servers import pacing
from penstock.cli.main import main as penstock

CONFIGURATION = """
backend = "{backend}"
port = 0
log_level = "warning"

[upstreams.provider]
dialect = "openai-chat"
base_url = "{upstream}/v1"
api_key = "sk-upstream"
max_concurrent = 1024
"""


class Ready(io.StringIO):
    """Takes what the command prints, and says in this benchmark's words that it serves."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out

    def write(self, text: str) -> int:
        if found := re.search(r"serves at \S+:(\d+)", text):
            with contextlib.redirect_stdout(self._out):
                pacing.announce(int(found.group(1)))
        return len(text)


def main() -> None:
    """Serve until a signal."""
    folder = os.environ["BENCH_FOLDER"]
    in_file = os.environ["BENCH_BACKEND"] == "sqlite"
    backend = f"sqlite:///{folder}/answers.db" if in_file else "memory://"
    file = Path(folder) / "penstock.toml"
    file.write_text(CONFIGURATION.format(backend=backend, upstream=os.environ["BENCH_UPSTREAM"]))
    sys.argv = ["penstock", "serve", "--config", str(file)]
    with contextlib.redirect_stdout(Ready(sys.stdout)):
        penstock()


if __name__ == "__main__":
    main()

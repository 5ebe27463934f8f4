"""Kills a server in the middle of a checkpoint: `lurker.py INDEX PID DELAY_S`.

A checkpoint is over in milliseconds, so somebody has to lie in wait who does nothing else. The
index of the write-ahead log says how many frames are in the file, and how many the checkpoint
that runs means to bring there (sqlite.org/walformat.html, 2.2.2). Prints a line when it is on its
guard, and leaves with 1 when nothing came. It imports little, so as to be there soon.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time

BACKFILLED = slice(96, 100)
BACKFILL_ATTEMPTED = slice(128, 132)
PATIENCE_S = 20.0


def main(index: str, pid: int, delay_s: float) -> int:
    with open(index, "rb") as file:
        seen = mmap.mmap(file.fileno(), 136, prot=mmap.PROT_READ)
    before = seen[BACKFILL_ATTEMPTED]
    print("on guard", flush=True)
    give_up = time.monotonic() + PATIENCE_S
    while seen[BACKFILL_ATTEMPTED] in (before, seen[BACKFILLED]):
        if time.monotonic() > give_up:
            return 1
    kill_at = time.perf_counter() + delay_s
    while time.perf_counter() < kill_at:
        pass
    os.kill(pid, signal.SIGKILL)
    is_half_done = seen[BACKFILL_ATTEMPTED] != seen[BACKFILLED]
    print("half done" if is_half_done else "done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))

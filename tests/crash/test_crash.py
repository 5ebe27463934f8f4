"""A killed server has everything that it acknowledged and showed: a few rounds of `make crash`.

And the crash test itself is not blind: what it is to notice, it does.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from crash.crash import Crash, Wrong

LOAD_S = (0.1, 0.7)
BACK = {"lost of acknowledged", "taken back from a reader"}


@pytest.mark.slow
@pytest.mark.parametrize(("durability", "rounds"), [("process", 3), ("disk", 1), ("eager", 1)])
async def test_nothing_acknowledged_or_shown_is_lost_by_a_kill(
    tmp_path: Path, durability: str, rounds: int
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    crash = Crash(tmp_path, seed, durability, LOAD_S)
    await crash.run(rounds)
    assert not crash.ledger.faults
    assert crash.ledger.counts["appends acknowledged"]
    assert crash.ledger.counts["records shown"]


class PutBack(Crash):
    """A run whose store is replaced, at the second restart, by what it was at the first."""

    async def _start(self) -> None:
        kept = self.path.parent / "kept"
        if not kept.exists():
            kept.mkdir()
            for path in self.path.parent.glob("streams.db*"):
                shutil.copy(path, kept)
        else:
            for path in kept.iterdir():
                shutil.copy(path, self.path.parent)
        await super()._start()


async def faults_of(crash: Crash) -> set[str]:
    with pytest.raises(BaseExceptionGroup) as caught:
        await crash.run(2)
    wrong, other = caught.value.split(Wrong)
    assert wrong is not None
    assert other is None
    return {fault.kind for fault in crash.ledger.faults}


async def test_a_store_that_forgets_is_noticed(tmp_path: Path) -> None:
    crash = PutBack(tmp_path, 1, "process", LOAD_S)
    assert await faults_of(crash) >= BACK


async def test_a_server_that_shows_records_before_their_commit_is_noticed(tmp_path: Path) -> None:
    crash = Crash(tmp_path, 1, "process", LOAD_S)
    crash.served.settings["PENSTOCK_DURABILITY"] = "eager"
    assert "wrong epoch" in await faults_of(crash)

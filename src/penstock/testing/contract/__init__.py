"""The contract of a backend, as tests: run it on yours.

    from penstock.testing.contract import Bounds, BackendContract, Clock

    class TestMine(BackendContract):
        can_restart = True

        def make(self, directory: Path, clock: Clock, bounds: Bounds) -> Backend:
            return MyBackend(directory / "logs", wall_clock=clock)

Needs pytest and Hypothesis. Each claim is a test of its own name; one that asks for a capability
the backend does not have is skipped, and says which. `oracle` then drives the backend at random
beside `core.log.Log`, which says what must come of it.

Here is what the claims need from a backend's author; the claims are in the modules beside this,
by what they are about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar

import pytest

from penstock.backends.interface import Backend
from penstock.testing.contract import (
    appending,
    creating,
    forking,
    keeping,
    producing,
    reading,
    watching,
)
from penstock.testing.contract.oracle import run_oracle
from penstock.testing.contract.place import Bounds, Clock, Place

__all__ = ["BackendContract", "Bounds", "Clock"]

Claim = Callable[[Place], Awaitable[None]]
CLAIMS: list[Claim] = [
    claim
    for module in (creating, appending, producing, reading, watching, forking, keeping)
    for claim in module.CLAIMS
]


def _name(claim: Claim) -> str:
    return getattr(claim, "__name__", repr(claim))


class BackendContract:
    """Derive a class whose name begins with `Test`, and say how to make a backend.

    `can_restart`: a backend that was closed, and made again for the same directory, has what was
    committed. `has_bounds`: `make` heeds its bounds. `examples`: how many random stories the
    oracle tells.
    """

    can_restart: ClassVar[bool] = False
    has_bounds: ClassVar[bool] = True
    examples: ClassVar[int] = 30

    def make(self, directory: Path, clock: Clock, bounds: Bounds) -> Backend:
        """Make a backend that lies in a directory (or does not care), whose time is `clock()`, in
        seconds since 1970. It is opened and closed by the claims, where it can be."""
        raise NotImplementedError

    @pytest.mark.parametrize("claim", CLAIMS, ids=_name)
    def test_claim(self, claim: Claim, tmp_path: Path) -> None:
        place = Place(self.make, tmp_path, self.can_restart, self.has_bounds)

        async def run() -> None:
            async with place:
                await claim(place)

        asyncio.run(run())

    def test_it_does_what_the_log_does(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Whatever is asked of it in whatever order: the same records, the same refusals."""

        def place() -> Place:
            directory = tmp_path_factory.mktemp("oracle")
            return Place(self.make, directory, self.can_restart, self.has_bounds)

        run_oracle(place, self.examples)

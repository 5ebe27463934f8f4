"""`penstock backup`: a consistent copy of a store, while a server uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.core.errors import SettingInvalid
from penstock.server.config import SQLITE


def backup(
    store: Annotated[str, typer.Argument(help="The store: sqlite:///path.")],
    target: Annotated[Path, typer.Argument(help="The file to write; it must not be there.")],
) -> None:
    """Copy a store to a new file, consistent at one moment, while a server goes on using it.

    The copy is checked, and appears under its name when it is whole.
    """
    if not store.startswith(SQLITE) or store == SQLITE:
        raise SettingInvalid("store", f"is {store!r}; only sqlite:///path can be copied")
    from penstock.backends.sqlite.backup import backup as copy

    copy(store.removeprefix(SQLITE), str(target))
    print(f"{target} is a copy of {store.removeprefix(SQLITE)}")

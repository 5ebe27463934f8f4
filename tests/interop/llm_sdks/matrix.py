"""Prints the whole matrix: every dialect in, every dialect out, every client that is installed.

`PYTHONPATH=tests python -m interop.llm_sdks.matrix`. The plain clients come first, each under its
dialect's name, then the vendors' own SDKs. `tests/llm/test_matrix.py` and
`tests/interop/test_llm_sdks.py` hold every cell to what is printed here when all is well.
"""

from __future__ import annotations

import asyncio

from interop.llm_sdks.clients import CLIENTS, PROGRAMS, Client, as_shown, running, show
from llm.matrix import INS, Cell, cases, compare, plain_cells, table
from running_programs import Program


async def cells(name: str, started: Program) -> list[Cell]:
    """What the clients of a running program show of every recording, in every dialect."""
    mine = [client for client in CLIENTS if client.program == name]
    return [await _cell(started, client, dialect) for dialect in INS for client in mine]


async def _cell(started: Program, client: Client, dialect: str) -> Cell:
    # Only the newest types know every field.
    more = {"validate": True} if client.program == "newest" else {}
    bodies = [case.written(client.dialect) for case in cases(dialect)]
    shown = [await show(started, client, body, **more) for body in bodies]
    cell = compare(dialect, client.name, client.dialect, shown)
    wrong = ((at, as_shown(must, client), does) for at, must, does in cell.wrong)
    return cell._replace(wrong=tuple(one for one in wrong if one[1] != one[2]))


async def main() -> None:
    found = [cell for dialect in INS for cell in plain_cells(dialect)]
    print(table(found))
    for name in PROGRAMS:
        async with running(name) as started:
            print(f"\n{table(await cells(name, started))}")


if __name__ == "__main__":
    asyncio.run(main())

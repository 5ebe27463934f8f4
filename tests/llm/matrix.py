"""Every dialect in, every dialect out: the recordings read, written, and read by another's client.

`python -m llm.matrix` in this folder's parent prints how many recordings of each dialect come out
equal in each client: text, reasoning, tool calls, usage and end. Plain clients are always there;
with `--sdks`, the vendors' own SDKs read too. The tests run the same.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from llm.plain_clients import CLIENTS, ENVELOPE, Shown, expected
from llm.reading import answer, read
from penstock.core.record import EndReason
from penstock.llm.assemble import Answer
from penstock.llm.dialects import DIALECTS
from penstock.llm.events import TokenEvent
from penstock.llm.write.dialects import find_out_dialect
from penstock.testing.recordings import load

# The file a dialect's recordings lie in, where it is called otherwise; and one that is another's.
FILES = {"bedrock": "bedrock-eventstream", "ollama": "ollama-ndjson"}
INS = (*DIALECTS, "writer")


class Case(NamedTuple):
    """A recording, as its dialect's reader reads it."""

    dialect: str
    sha256: str
    events: tuple[TokenEvent, ...]
    answer: Answer

    @property
    def reason(self) -> EndReason:
        return EndReason.FAILED if self.answer.failure else EndReason.COMPLETE

    def written(self, dialect: str) -> bytes:
        """The answer's body in this dialect."""
        return write(dialect, self.events, self.reason)


class Cell(NamedTuple):
    """A dialect in, a client that reads what was written, and what it showed wrongly."""

    dialect: str
    client: str
    count: int
    wrong: tuple[tuple[str, Shown, Shown], ...]


def write(dialect: str, events: tuple[TokenEvent, ...], reason: EndReason) -> bytes:
    """A whole body."""
    writer = find_out_dialect(dialect).make_writer(ENVELOPE)
    for event in events:
        writer.receive_event(event)
    writer.end(reason)
    return writer.data_to_send()


@functools.cache
def cases(dialect: str) -> tuple[Case, ...]:
    """The recordings of a dialect; none where this machine has none."""
    found: list[Case] = []
    for recording in load(FILES.get(dialect, dialect)):
        events = tuple(read(dialect, recording.body))
        found.append(Case(dialect, recording.sha256[:12], events, answer(events)))
    return tuple(found)


def compare(dialect: str, client: str, out: str, shown: list[Shown]) -> Cell:
    """What a client of the dialect `out` showed of a dialect's recordings, beside what it must."""
    pairs = [
        (case.sha256, expected(case.answer, out), one)
        for case, one in zip(cases(dialect), shown, strict=True)
    ]
    return Cell(dialect, client, len(pairs), tuple(pair for pair in pairs if pair[1] != pair[2]))


def plain_cells(dialect: str) -> Iterator[Cell]:
    """A row of the matrix, read by the plain clients."""
    for out, client in CLIENTS.items():
        shown = [client(case.written(out)) for case in cases(dialect)]
        yield compare(dialect, out, out, shown)


def table(cells: list[Cell]) -> str:
    """The matrix as text: rows are dialects in, columns clients, cells equal of all."""
    clients = list(dict.fromkeys(cell.client for cell in cells))
    rows = [["", *clients]]
    for dialect in dict.fromkeys(cell.dialect for cell in cells):
        mine = {cell.client: cell for cell in cells if cell.dialect == dialect}
        equal = [f"{c.count - len(c.wrong)}/{c.count}" for c in (mine[name] for name in clients)]
        rows.append([dialect, *equal])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    print(table([cell for dialect in INS for cell in plain_cells(dialect)]))

"""`penstock usage`: what answers have used, from a server or from its store."""

from __future__ import annotations

import asyncio
import csv
import math
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Final
from urllib.parse import urlencode

import msgspec
import typer

from penstock.cli.usage_sums import Answer, Cell, Row, read_answer, sum_by, time_of
from penstock.client._lines import read_lines
from penstock.core.errors import SettingInvalid
from penstock.gateway.keeping import USAGE
from penstock.gateway.moments import read_moment
from penstock.gateway.usage import lines_of
from penstock.server.config import SQLITE

DEFAULT_URL: Final = "http://127.0.0.1:4437"


class By(StrEnum):
    """What to add up by."""

    USER = "user"
    KEY = "key"
    MODEL = "model"
    DAY = "day"


def usage(
    url: Annotated[str | None, typer.Option(help="The server to ask, on its own machine.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="Read this store instead, sqlite:///path; also one in use.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Answers that began then or later: 2026-11-21, a time, or 24h ago."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Answers that began before that.")] = None,
    by: Annotated[By | None, typer.Option(help="Add up by user, key, model or day (UTC).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON each.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Print what answers have used: a line each, or sums.

    Money is exact, in the currency of the configured prices.
    """
    if url is not None and backend is not None:
        raise typer.BadParameter("a server or a store, not both", param_hint="--backend")
    if as_json and as_csv:
        raise typer.BadParameter("one format, not both", param_hint="--csv")
    since_s, until_s = _moment("--since", since, -math.inf), _moment("--until", until, math.inf)
    if backend is not None:
        lines = _from_store(backend, since_s, until_s)
    else:
        lines = read_lines(_address(url or DEFAULT_URL, since_s, until_s))
    answers = asyncio.run(_read(lines))
    if by is None:
        _print([_row(answer) for answer in answers], None, as_json=as_json, as_csv=as_csv)
    else:
        rows, total = sum_by(answers, by.value)
        _print(rows, total, as_json=as_json, as_csv=as_csv)


def _moment(option: str, text: str | None, otherwise: float) -> float:
    if text is None:
        return otherwise
    try:
        return read_moment(text, time.time())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _address(url: str, since_s: float, until_s: float) -> str:
    ends = {"since": since_s, "until": until_s}
    query = urlencode({name: f"{at:.6f}" for name, at in ends.items() if math.isfinite(at)})
    return f"{url.rstrip('/')}/v1/usage{'?' if query else ''}{query}"


async def _from_store(backend: str, since_s: float, until_s: float) -> AsyncGenerator[bytes]:
    if not backend.startswith(SQLITE) or backend == SQLITE:
        raise SettingInvalid(
            "backend", f"is {backend!r}; only sqlite:///path can be read, or ask a server by --url"
        )
    from penstock.backends.sqlite.excerpt import read_stream

    is_first = True
    async for records in read_stream(backend.removeprefix(SQLITE), USAGE):
        is_cut = is_first and records[0].position > 1
        is_first = False
        for line in lines_of(records, since_s, until_s, is_cut=is_cut).splitlines():
            yield line


async def _read(lines: AsyncGenerator[bytes]) -> list[Answer]:
    """The answers of these lines. What is none is told of, not passed over in silence."""
    answers: list[Answer] = []
    unread = 0
    async for line in lines:
        if line.startswith(b'{"kept_since_s"'):
            print("penstock: earlier answers are not kept any more", file=sys.stderr)
            continue
        try:
            answers.append(read_answer(line))
        except ValueError:
            unread += 1
    if unread:
        print(f"penstock: {unread} lines are no usage records", file=sys.stderr)
    return answers


def _row(answer: Answer) -> Row:
    return {"started": time_of(answer), **msgspec.to_builtins(answer)}


def _print(rows: Sequence[Row], total: Row | None, *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        for row in rows:
            sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
    elif as_csv:
        _print_csv(rows)
    else:
        _print_table(rows if total is None else [*rows, total], is_sum=total is not None)


def _print_csv(rows: Sequence[Row]) -> None:
    """Comma-separated values. A text that a spreadsheet would run as a formula is marked as text:
    callers choose the names of models."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
    for row in rows:
        writer.writerow([_csv_cell(cell) for cell in row.values()])


def _csv_cell(cell: Cell) -> Cell:
    is_formula = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if is_formula else cell


_SHOWN: Final = (
    *("started", "user", "key", "model", "upstream", "end", "input_tokens", "output_tokens"),
    *("money", "first_token_s", "total_s", "request"),
)


def _print_table(rows: Sequence[Row], *, is_sum: bool) -> None:
    names = list(rows[0]) if is_sum else list(_SHOWN)
    header = [name.removesuffix("_tokens").removesuffix("_s").replace("_", " ") for name in names]
    cells = [[_shown(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    numbers = [isinstance(rows[0][name], int | float) if rows else False for name in names]
    for line in (header, *cells):
        print(_line(line, widths, numbers))


def _line(cells: Iterable[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    columns = [
        cell.rjust(width) if is_number else cell.ljust(width)
        for cell, width, is_number in zip(cells, widths, numbers, strict=True)
    ]
    return "  ".join(columns).rstrip()


def _shown(cell: Cell) -> str:
    if cell is None or cell == "":
        return "-"
    if isinstance(cell, float):
        return f"{cell:.3f}"
    # A name may hold what moves a terminal's cursor.
    return "".join(letter if letter.isprintable() else "?" for letter in str(cell))

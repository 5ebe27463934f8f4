"""`penstock tail`: read a stream as it grows, across reconnects."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import msgspec
import typer

from penstock.client import Event, connect


def tail(
    url: Annotated[str, typer.Argument(help="The stream's address, or any SSE endpoint.")],
    after: Annotated[
        str, typer.Option(help="Begin after this offset; '-1' the beginning, 'now' the tail.")
    ] = "",
    header: Annotated[
        list[str] | None, typer.Option(help="A header to send, 'Name: value'. Repeatable.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Show offsets and types.")] = False,
    max_attempts: Annotated[
        int | None, typer.Option(help="Give up after so many tries without an event.")
    ] = None,
) -> None:
    """Print what a stream holds and what comes, one event a line, until it ends.

    How it ended is said on standard error; the status is 0 only for `complete`.
    """
    headers = dict(_pair(line) for line in header or ())
    reason = asyncio.run(_tail(url, after, headers, ids, max_attempts))
    print(f"-- end: {reason or 'nothing more'}", file=sys.stderr)
    if reason not in ("complete", None):
        raise typer.Exit(1)


async def _tail(
    url: str, after: str, headers: dict[str, str], ids: bool, max_attempts: int | None
) -> str | None:
    reader = connect(url, last_event_id=after, headers=headers, max_attempts=max_attempts)
    async with reader as events:
        async for event in events:
            print(_line(event, ids), flush=True)
        return events.end_reason


def _line(event: Event, ids: bool) -> str:
    # One event a line: what was several lines of data is told apart from several events.
    data = event.data if "\n" not in event.data else msgspec.json.encode(event.data).decode()
    return f"{event.id}\t{event.type}\t{data}" if ids else data


def _pair(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise typer.BadParameter(f"{line!r} is no header; write 'Name: value'")
    return name.strip(), value.strip()

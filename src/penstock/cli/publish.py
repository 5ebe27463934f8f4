"""`penstock publish`: append to a stream, from the command line or from standard input."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated

import msgspec
import typer

from penstock.client import publish as send
from penstock.core.errors import BodyMalformed


def publish(
    url: Annotated[str, typer.Argument(help="The stream's address, http://…/v1/stream/NAME.")],
    payload: Annotated[
        str | None, typer.Argument(help="What to append; '-' or nothing reads standard input.")
    ] = None,
    content_type: Annotated[
        str, typer.Option(help="What it is; of JSON, an array is a batch.")
    ] = "application/json",
    type_: Annotated[str, typer.Option("--type", help="The records' type.")] = "",
    key: Annotated[str, typer.Option(help="The records' key.")] = "",
    string: Annotated[
        bool, typer.Option("--string", help="Append the text as one JSON string.")
    ] = False,
    create: Annotated[bool, typer.Option(help="Create the stream where it is not there.")] = True,
    close: Annotated[bool, typer.Option(help="End the stream with it.")] = False,
) -> None:
    """Append one record or a batch, and print the offset after it."""
    # An argument is whatever bytes the shell passed; `fsencode` gives them back as they were.
    text = sys.stdin.buffer.read() if payload in (None, "-") else os.fsencode(payload)
    body = _as_string(text) if string else text
    offset = asyncio.run(
        send(
            url,
            body,
            content_type=content_type,
            type=type_,
            key=key,
            create=create,
            close=close,
        )
    )
    print(offset)


def _as_string(text: bytes) -> bytes:
    try:
        return msgspec.json.encode(text.decode())
    except UnicodeDecodeError:
        raise BodyMalformed("is no UTF-8, so it is no JSON string") from None

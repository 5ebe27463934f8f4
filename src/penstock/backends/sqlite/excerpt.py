"""What a store holds of one stream, read without opening the store: beside a server that uses it,
or when none does. Nothing of the file is changed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from penstock.backends.sqlite.courtesy import Courtesy
from penstock.backends.sqlite.reader import Reader
from penstock.backends.sqlite.schema import check_format, check_place, connect, failure
from penstock.core.errors import StoreFailed
from penstock.core.record import Record

SLICE_RECORDS: Final = 1_000
SLICE_BYTES: Final = 1024 * 1024


async def read_stream(path: str, name: str) -> AsyncGenerator[Sequence[Record]]:
    """Give the records of a stream, oldest first, several at a time; none where it is not there.

    Raises StoreFailed, StoreForeign, StoreDamaged.
    """
    await asyncio.to_thread(_check, path)
    reader = Reader(path, Courtesy(asyncio.get_running_loop()))
    try:
        place = 0
        while found := await reader.read(name, place, SLICE_RECORDS, SLICE_BYTES):
            if not found.records:
                return
            yield found.records
            place = found.records[-1].position
    finally:
        await asyncio.to_thread(reader.close)


def _check(path: str) -> None:
    check_place(path)
    if not Path(path).is_file():
        raise StoreFailed(path, "there is no store")
    try:
        with closing(connect(path, mode="ro")) as connection:
            check_format(path, connection)
    except sqlite3.Error as error:
        raise failure(path, error) from None

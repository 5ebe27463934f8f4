"""A listener of a stream in a file hears its end, whatever comes while it asks how far that is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.backends.interface import StreamConfig
from penstock.backends.sqlite.operations import Ended
from penstock.backends.sqlite.watch import SqliteWatch
from penstock.core.log import Head
from penstock.core.record import EndReason, Record

OPEN = Head(epoch=1, earliest=0, tail=1, records=1, bytes=1)


class Slow:
    """A store that answers when it is told to."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    async def head(self, name: str) -> tuple[Head, StreamConfig]:
        await self.may_answer.wait()
        return OPEN, StreamConfig()

    async def read(
        self, name: str, after: int, max_records: int, max_bytes: int
    ) -> Sequence[Record]:
        return [Record(1, b"1")]


class Heard:
    """A listener that keeps what it heard."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def committed(self, records: Sequence[Record], head: Head) -> None:
        self.said += [record.position for record in records]

    def trimmed(self, head: Head) -> None:
        raise AssertionError

    def ended(self, head: Head) -> None:
        self.said.append(head.end)

    def deleted(self) -> None:
        raise AssertionError

    def restarted(self, head: Head) -> None:
        raise AssertionError


async def test_an_end_that_comes_while_the_head_is_asked_for_is_told() -> None:
    store, heard = Slow(), Heard()
    watch = SqliteWatch("a", 0, heard, store, lambda _: None)
    await asyncio.sleep(0)  # it asks
    watch.hear(Ended("a", OPEN._replace(end=EndReason.COMPLETE)))
    store.may_answer.set()
    async with asyncio.timeout(5):
        while len(heard.said) < 2:
            await asyncio.sleep(0)
    assert heard.said == [1, EndReason.COMPLETE]
    watch.cancel()


async def test_an_end_is_told_at_once_to_who_is_level() -> None:
    store, heard = Slow(), Heard()
    watch = SqliteWatch("a", 1, heard, store, lambda _: None)
    watch.hear(Ended("a", OPEN._replace(end=EndReason.COMPLETE)))
    assert heard.said == [EndReason.COMPLETE]
    store.may_answer.set()
    watch.cancel()

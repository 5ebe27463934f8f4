"""The inspection after a restart: everything that the server has, read whole and compared with the
ledger. The load rests meanwhile; the readers go on, and must all come level.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Sequence
from typing import Final

from crash.asking import Line, offset_of, path_of
from crash.ledger import Ledger, Log
from crash.payloads import BINARY, TEXT, body, origin
from crash.readers import Readers
from crash.served import Served
from crash.writers import Producer
from penstock.core.cursor import Offset, parse_event_id, parse_offset
from penstock.wire.sse import Decoder
from raw_http import Answer, connect

LEVEL_S: Final = 20.0
STEP_S: Final = 0.01
AT_ONCE: Final = 8
GONE_CHECKED: Final = 12


class Inspection:
    """Looks at all of it. `retain_records` and `retain_bytes` are the server's."""

    def __init__(
        self,
        ledger: Ledger,
        served: Served,
        readers: Readers,
        retain_records: int,
        retain_bytes: int,
    ) -> None:
        self._ledger, self._served, self._readers = ledger, served, readers
        self._retain_records, self._retain_bytes = retain_records, retain_bytes

    async def run(self, producers: Sequence[Producer], deleted: Sequence[Log]) -> None:
        """Inspect every log, every producer, and the names that are deleted."""
        doors = asyncio.Semaphore(AT_ONCE)

        async def behind_door(log: Log) -> None:
            async with doors:
                await self._log(log)

        async with asyncio.TaskGroup() as group:
            for log in list(self._ledger.logs):
                group.create_task(behind_door(log))
        async with asyncio.TaskGroup() as group:
            for producer in producers:
                group.create_task(producer.check())
        living = {log.name for log in self._ledger.logs}
        gone = {log.name: log for log in deleted if log.name not in living}  # the last life of each
        for log in list(gone.values())[-GONE_CHECKED:]:
            await self._gone(log)

    async def _log(self, log: Log) -> None:
        line = Line(self._served)
        try:
            head, _ = await line.insist("HEAD", path_of(log.name))
            if head.status == 404 and log.waits and not log.records:
                self._ledger.logs.remove(log)  # killed before it was made
                log.is_deleting = True
                return
            if head.status != 200:
                log.fault("lost of acknowledged", f"HEAD of it: {head.status}")
                return
            tail = offset_of(head)
            self._compare_end(log, head)
            earliest, read = await self._read(log, tail)
            log.compare(tail.epoch, earliest, tail.position, read)
            self._compare_retention(log, earliest, tail.position, read)
            await self._catch_up(line, log, Offset(tail.epoch, earliest), tail, read)
            await self._come_level(log, tail)
        finally:
            await line.hang_up()

    async def _read(self, log: Log, tail: Offset) -> tuple[int, list[bytes]]:
        """Read a log from its earliest record to its tail, with the offset of each."""
        read: list[bytes] = []
        earliest, position, epoch = 0, 0, tail.epoch
        decoder = Decoder()
        async with connect(self._served.port) as connection:
            await connection.send("GET", path_of(log.name), {"Accept": "text/event-stream"})
            answer = await connection.head()
            if answer.status != 200:
                log.fault("wrong answer", f"reading it: {answer.status}")
            while position < tail.position and (data := await connection.piece()):
                decoder.receive_data(data)
                for event in decoder.events():
                    offset, _ = parse_event_id(event.last_event_id)
                    if event.type == "gap":
                        earliest = parse_offset(json.loads(event.data)["to"]).position
                    elif event.type != "end":
                        if offset != Offset(epoch, position + 1):
                            log.fault("reordered", f"{offset} follows {position} of {epoch}")
                        read.append(self._record(log, event.data.encode(), event.type))
                    position = offset.position
        return earliest, read

    def _record(self, log: Log, data: bytes, type_: str) -> bytes:
        record = b64decode(data) if log.content_type == BINARY else data
        whose = origin(record)
        writer = log.writers.get(whose[0]) if whose else None
        if writer is not None and (writer.type or "message") != type_:
            log.fault("made up", f"{writer.name}'s record has the type {type_!r}")
        return record

    async def _catch_up(
        self, line: Line, log: Log, after: Offset, tail: Offset, read: Sequence[bytes]
    ) -> None:
        """Read the same by the protocol: it must be the same."""
        parts: list[bytes] = []
        at = after
        while at != tail:
            answer, _ = await line.insist("GET", f"{path_of(log.name)}?offset={at}")
            if answer.status != 200 or offset_of(answer) == at:
                log.fault("wrong answer", f"catching up at {at}: {answer}")
                return
            parts.append(answer.body)
            at = offset_of(answer)
        content = b"".join(parts)
        if log.content_type not in (TEXT, BINARY):
            content = content.replace(b"][", b",") or b"[]"
        if content != body(list(read), log.content_type):
            log.fault("wrong answer", f"catching up after {after} is not what its events are")

    def _compare_end(self, log: Log, head: Answer) -> None:
        reasons = head.all("stream-end-reason")
        if reasons:
            log.ended(reasons[0], "the inspection", is_acked=False)
        elif log.end is not None:
            log.fault("wrong end", f"it is open, and it ended: {log.end!r}")
        elif log.waits:
            log.fault("wrong end", "its producer is gone, and it is open")

    def _compare_retention(self, log: Log, earliest: int, tail: int, read: Sequence[bytes]) -> None:
        """Nothing goes before there is a reason."""
        if not earliest or log.fork is not None:
            return
        size = sum(len(record) for record in read)
        if len(read) < self._retain_records and size < self._retain_bytes - 64 * 1024:
            log.fault(
                "lost of acknowledged", f"{earliest} of {tail} records are gone, {size} bytes left"
            )

    async def _come_level(self, log: Log, tail: Offset) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + LEVEL_S
        late = self._readers.of(log)
        while late := [reader for reader in late if not reader.is_level(tail)]:
            if loop.time() > give_up:
                places = ", ".join(f"{reader.name} at {reader.place}" for reader in late)
                log.fault("reader left behind", f"the tail is {tail}, and {places}")
                return
            await asyncio.sleep(STEP_S)

    async def _gone(self, log: Log) -> None:
        """A deleted log is gone, in every way to ask for it."""
        line = Line(self._served)
        try:
            for method in ("GET", "HEAD", "DELETE"):
                answer, _ = await line.insist(method, path_of(log.name))
                expected = (410, 409) if log.is_held else (404,)
                if answer.status not in expected:
                    log.fault("wrong life", f"{method} of a deleted log: {answer.status}")
        finally:
            await line.hang_up()

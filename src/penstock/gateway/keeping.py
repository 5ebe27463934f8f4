"""Where the books are kept: what each account spent and each answer holds as the backend's
documents, and a record of each answer in the stream `__penstock/usage`.

One write is under way at a time, and what comes meanwhile shares the next, so that fifty answers
that begin at once cost two commits. Documents are put before others are deleted: a crash in between
counts an answer twice rather than never.

Usage records that the store does not take wait for the next write. At most `limits.USAGE_WAITING`
of them do; beyond that the oldest are forgotten here, and are in the log alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final, TypeAlias

from penstock.backends.interface import Documents
from penstock.core.errors import PenstockError, StoreDamaged, StreamGone, StreamNotFound
from penstock.core.limits import STORES_AT_ONCE, USAGE_BYTES, USAGE_RECORDS, USAGE_WAITING
from penstock.core.log import Retention
from penstock.core.record import NewRecord
from penstock.llm.events import Json, parse_object
from penstock.llm.write.writer import as_wire_json
from penstock.server.hub import Hub
from penstock.server.stream import Stream

logger = logging.getLogger("penstock")

BUDGET: Final = "budget"
"""The kind of the documents."""
USAGE: Final = "__penstock/usage"
"""The stream of the usage records. No address leads to a name that begins with two underscores."""
RECORD_TYPE: Final = "usage"
RETENTION: Final = Retention(max_records=USAGE_RECORDS, max_bytes=USAGE_BYTES)
_APPENDED_AT_ONCE: Final = 256

Changes: TypeAlias = Mapping[str, Mapping[str, Json] | None]


class Keeper:
    """Stores what changed. `changes` gives it, by the documents' names; None is one to delete."""

    def __init__(self, hub: Hub, changes: Callable[[], Changes]) -> None:
        self._hub = hub
        self._changes = changes
        backend = hub.backend
        self._documents = backend if isinstance(backend, Documents) else None
        self._puts: dict[str, bytes] = {}
        # Documents to delete: those that may go now, and those whose going must come after puts.
        self._gone: dict[str, None] = {}
        self._going: dict[str, None] = {}
        self._records: deque[NewRecord] = deque(maxlen=USAGE_WAITING)
        self._is_refused = False  # by the store; said once
        self._next: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> list[dict[str, Json]]:
        """Every document there is. Raises StoreDamaged, StoreFailed."""
        if self._documents is None:
            return []
        found: list[dict[str, Json]] = []
        for name, body in (await self._documents.load_documents(BUDGET)).items():
            document = parse_object(body.decode("utf-8", "replace"))
            if document is None:
                raise StoreDamaged(f"{BUDGET} {name}", "it is no JSON object")
            found.append(document)
        return found

    def note(self, record: Mapping[str, Json]) -> None:
        """Keep a usage record with the next write."""
        self._records.append(NewRecord(as_wire_json(dict(record)), RECORD_TYPE))

    async def store(self) -> None:
        """Store everything until now; returns when it is committed.

        Cancelled, it is stored nevertheless. Raises what the backend raises for the documents;
        then they are stored with the next write that succeeds.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        waiting = self._next
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="penstock:books")
        await asyncio.shield(waiting)

    async def close(self) -> None:
        """Store what waits, where the backend still takes it."""
        try:
            await self.store()
        except PenstockError as error:
            logger.warning("the books could not be stored: %s", error.sentence)
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        """Write while anybody waits for it, or something is left to write."""
        while True:
            waiting, self._next = self._next, None
            try:
                await self._write()
            except Exception as error:  # noqa: BLE001 the task's outermost edge: who waits is told
                _fail(waiting, error)
                has_more = False
            else:
                if waiting is not None:
                    waiting.set_result(None)
                has_more = bool(self._gone or (self._records and not self._is_refused))
            if self._next is None and not has_more:
                return

    async def _write(self) -> None:
        self._take()
        puts, gone, going = dict(self._puts), dict.fromkeys(self._gone), dict(self._going)
        works = (self._append(), self._store({**gone, **puts}))
        # All of it, whatever comes of one: what is under way still must not be begun anew.
        for result in await asyncio.gather(*works, return_exceptions=True):
            if result is not None:
                raise result
        for name, body in puts.items():
            if self._puts.get(name) is body:
                del self._puts[name]
        for name in gone:
            self._gone.pop(name, None)
        for name in going:
            # Unless it was put anew meanwhile.
            if name in self._going:
                del self._going[name]
                self._gone[name] = None

    def _take(self) -> None:
        for name, document in self._changes().items():
            if document is None:
                self._puts.pop(name, None)
                self._going[name] = None
            else:
                self._puts[name] = as_wire_json(dict(document))
                self._going.pop(name, None)
                self._gone.pop(name, None)

    async def _store(self, bodies: Mapping[str, bytes | None]) -> None:
        """Store documents side by side; raises when nothing is under way any more."""
        store = self._documents
        if store is None:
            return
        todo = list(bodies.items())
        for start in range(0, len(todo), STORES_AT_ONCE):
            some = todo[start : start + STORES_AT_ONCE]
            works = [store.store_document(BUDGET, name, body) for name, body in some]
            for result in await asyncio.gather(*works, return_exceptions=True):
                if result is not None:
                    raise result

    async def _append(self) -> None:
        """Append usage records; those that the store does not take wait. Raises nothing of the
        store's: what an answer may use does not depend on it."""
        records = list(islice(self._records, _APPENDED_AT_ONCE))
        if not records:
            return
        try:
            await (await self._stream()).append_batch(records)
        except PenstockError as error:
            if not self._is_refused:
                logger.error("usage records wait, since they cannot be stored: %s", error.sentence)
            self._is_refused = True
            return
        self._is_refused = False
        for record in records:
            # Those that were too many meanwhile are gone already.
            if self._records and self._records[0] is record:
                self._records.popleft()

    async def _stream(self) -> Stream:
        try:
            return await self._hub.get(USAGE)
        except (StreamNotFound, StreamGone):
            return await self._hub.create(USAGE, retention=RETENTION)


def _fail(waiting: asyncio.Future[None] | None, error: Exception) -> None:
    if waiting is None:
        logger.warning("the books could not be stored: %s", error)
        return
    waiting.set_exception(error)
    waiting.exception()  # whoever waited may be gone

"""What the load does: long-lived logs, and lanes in which logs are made, closed, forked, deleted
and made again. Each lane is a task that takes one turn after the other, as long as the run lasts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine

from crash.asking import Line, offset_of, path_of
from crash.ledger import Ledger, Log
from crash.payloads import BINARY, JSON, TEXT, body
from crash.readers import Readers
from crash.served import Served
from crash.writers import Load, Plain, Producer, Sequenced
from penstock.core.cursor import Offset
from raw_http import Answer

FLOOD_BYTES = 512 * 1024


class Lanes:
    """Everything that writes. `producers` are those whose numbers can be checked."""

    def __init__(
        self,
        ledger: Ledger,
        served: Served,
        load: Load,
        readers: Readers,
        group: asyncio.TaskGroup,
        random_: random.Random,
    ) -> None:
        self.ledger, self.served, self.load, self.readers = ledger, served, load, readers
        self.random, self._group = random_, group
        self.producers: list[Producer] = []
        self.deleted: list[Log] = []
        self._steady: list[Log] = []
        self._epochs: dict[str, int] = {}  # of names, when they were last deleted

    def start(self) -> None:
        """Begin them all."""
        for place in range(2):
            self._run(self._steady_lane(f"steady/{place}", JSON, "ppp"))
        self._run(self._steady_lane("mixed", JSON, "paas"))
        self._run(self._steady_lane("text", TEXT, "pa"))
        self._run(self._steady_lane("binary", BINARY, "pa"))
        for place in range(2):
            self._run(self._closing_lane(f"closing/{place}"))
        self._run(self._fork_lane("fork"))
        self._run(self._held_lane("held"))

    def _run(self, lane: Coroutine[object, object, None]) -> None:
        self._group.create_task(lane)

    # what a lane is made of

    async def create(self, name: str, content_type: str = JSON, opening: int = 0) -> Log:
        """Make a log; it is followed by somebody, mostly."""
        async with self.load.turn(is_append=bool(opening)):
            log = self.ledger.log(name, content_type)
            writer = log.writer(f"{name}/{log.life}/opening")
            records = writer.take(opening, content_type)
            content = body(records, content_type) if records else b""
            answer, _ = await self._insist(
                "PUT", path_of(name), {"Content-Type": content_type}, content
            )
            if answer.status not in (200, 201):
                log.fault("wrong answer", f"PUT: {answer.status} {answer.body[:200]!r}")
            offset = offset_of(answer)
            self._begin(log, offset)
            if offset.position != len(records):
                log.fault("wrong answer", f"made with {len(records)} records, and is at {offset}")
            log.acked(writer, records, Offset(offset.epoch, len(records)), -1)
            self.ledger.counts["logs made"] += 1
        return log

    def _begin(self, log: Log, offset: Offset) -> None:
        """Note the epoch of a log that was made: later than that of any before it."""
        log.begins(offset)
        before = self._epochs.get(log.name, 0)
        if offset.epoch <= before:
            log.fault("wrong epoch", f"made again in {offset.epoch}, and it was in {before}")

    async def _insist(
        self, method: str, target: str, headers: dict[str, str] | None = None, content: bytes = b""
    ) -> tuple[Answer, bool]:
        line = Line(self.served)
        try:
            return await line.insist(method, target, headers, content)
        finally:
            await line.hang_up()

    def producer(self, log: Log, place: int) -> Producer:
        name = f"{log.name}/{log.life}/p{place}"
        producer = Producer(log, Line(self.served), name, self.random)
        self.producers.append(producer)
        return producer

    async def delete(self, log: Log) -> None:
        """Delete a log, whatever it takes."""
        async with self.load.turn(is_append=False):
            log.is_deleting = True
            log.may_end |= {"cancelled", "lost"}
            answer, may_be_heard = await self._insist("DELETE", path_of(log.name))
            if answer.status != 204 and not (answer.status in (404, 410) and may_be_heard):
                log.fault("wrong life", f"DELETE: {answer.status} {answer.body[:200]!r}")
            log.is_deleted = True
            self.ledger.counts["logs deleted"] += 1
            self._epochs[log.name] = log.epoch
            self.deleted.append(log)
            self.ledger.logs.remove(log)
            self.producers = [one for one in self.producers if one.log is not log]

    # the lanes

    async def _steady_lane(self, name: str, content_type: str, writers: str) -> None:
        """One log that lives as long as the run, read in every way."""
        log = await self.create(name, content_type, opening=1)
        self._steady.append(log)
        self.readers.follow(log, 4)
        kinds = {"a": Plain, "s": Sequenced}
        async with asyncio.TaskGroup() as group:
            for place, letter in enumerate(writers):
                one = self.producer(log, place) if letter == "p" else None
                if one is None:
                    writer_name = f"{name}/{letter}{place}"
                    one = kinds[letter](log, Line(self.served), writer_name, self.random)
                group.create_task(self._repeat(one.step))

    async def _repeat(self, step: Callable[[], Awaitable[object]]) -> None:
        while True:
            async with self.load.turn():
                await step()

    async def _closing_lane(self, name: str) -> None:
        """Logs that end: with their last append, after it, or under somebody's hands."""
        while True:
            content_type, opening = self.random.choice((JSON, TEXT)), self.random.choice((0, 1))
            log = await self.create(name, content_type, opening)
            self.readers.follow(log, self.random.randint(0, 2))
            first, second = self.producer(log, 0), self.producer(log, 1)
            for _ in range(self.random.randint(0, 30)):
                async with self.load.turn():
                    await self.random.choice((first, second)).step()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._close(log, first))
                group.create_task(self._once(second.step))
            await self._linger()
            await self.delete(log)

    async def _once(self, step: Callable[[], Awaitable[object]]) -> None:
        async with self.load.turn():
            await step()

    async def _close(self, log: Log, producer: Producer) -> None:
        way = self.random.randrange(3)
        async with self.load.turn():
            log.may_end.add("complete")
            if way < 2:
                await producer.step(closes=True, is_empty=way == 1)
            else:
                closing = {"Stream-Closed": "true"}
                answer, _ = await self._insist("POST", path_of(log.name), closing)
                if answer.status != 204:
                    log.fault("wrong end", f"closing: {answer.status} {answer.body[:200]!r}")
                log.ended(answer["stream-end-reason"], "who closed it", is_acked=True)
        self.ledger.counts["logs closed"] += 1

    async def _linger(self) -> None:
        """Leave things as they are for a while, over a restart as a rule."""
        for _ in range(self.random.randint(0, 12)):
            async with self.load.turn(is_append=False):
                await asyncio.sleep(0.05)

    async def _fork_lane(self, name: str) -> None:
        """Forks of the long-lived logs, with records of their own."""
        while True:
            async with self.load.turn(is_append=False):
                await asyncio.sleep(0.1)
            if self._steady:
                log = await self._fork(name, self.random.choice(self._steady))
                if log is not None:
                    await self._use_fork(log)
                    await self.delete(log)

    async def _fork(self, name: str, source: Log) -> Log | None:
        """Fork a log at a place that is known of it; None when there is no such place any more."""
        async with self.load.turn():
            log = self.ledger.log(name, source.content_type)
            low = max(source.earliest, source.tail - 300)
            at = self.random.randint(low, source.tail)
            sub = self.random.choice((0, 0, 1, 2)) if source.content_type == JSON else 0
            sub = min(sub, source.tail - at)
            headers = {
                "Stream-Forked-From": path_of(source.name),
                "Stream-Fork-Offset": str(Offset(source.epoch, at)),
            }
            if sub:
                headers["Stream-Fork-Sub-Offset"] = str(sub)
            answer, _ = await self._insist("PUT", path_of(name), headers)
            if answer.status in (200, 201):
                self._note_fork(log, source, at + sub, answer)
                return log
            if not (self.ledger.is_eager and answer.status in (400, 410)):
                log.fault("wrong answer", f"fork of {source.name} at {at}+{sub}: {answer}")
            self.ledger.logs.remove(log)
            # With an epoch that is over nobody can say whether it was made: it goes.
            await self._insist("DELETE", path_of(name))
        return None

    def _note_fork(self, log: Log, source: Log, base: int, answer: Answer) -> None:
        offset = offset_of(answer)
        if offset.position != base:
            log.fault("wrong answer", f"forked at {base}, and is at {offset}")
        self._begin(log, offset)
        log.fork, log.acked_tail, log.earliest = (source, base), base, 0
        self.ledger.counts["forks made"] += 1

    async def _use_fork(self, log: Log) -> None:
        self.readers.follow(log, 1)
        producer = self.producer(log, 0)
        for _ in range(self.random.randint(1, 25)):
            async with self.load.turn():
                await producer.step()

    async def _held_lane(self, name: str) -> None:
        """A source that is deleted under its fork, and made again when the fork is gone too."""
        while True:
            source = await self.create(name, JSON, opening=5)
            producer = self.producer(source, 0)
            for _ in range(self.random.randint(0, 5)):
                async with self.load.turn():
                    await producer.step()
            fork = await self._fork(f"{name}/fork", source)
            await self.delete(source)
            if fork is not None:
                source.is_held = True
                await self._use_fork(fork)
                await self._refuse_held(source)
                await self.delete(fork)
                source.is_held = False

    async def _refuse_held(self, source: Log) -> None:
        """A name that forks hold cannot be made again."""
        async with self.load.turn(is_append=False):
            headers = {"Content-Type": JSON}
            answer, _ = await self._insist("PUT", path_of(source.name), headers, b"")
            if answer.status != 409:
                source.fault("wrong life", f"made again under its fork: {answer.status}")

    # beside the lanes

    async def flood(self, log: Log) -> None:
        """Append much, until it is cancelled: what fills the write-ahead log."""
        line = Line(self.served)
        writer = Plain(log, line, f"{log.name}/{len(log.writers)}", self.random)
        while True:
            await self.served.up.wait()
            floor = log.acked_tail
            records = writer.writer.take(4_000, JSON)
            answer = await line.ask(
                "POST", path_of(log.name), writer.headers(), body(records, JSON)
            )
            if answer is None:
                writer.writer.note(len(records), "unknown")
                return
            if answer.status != 204:
                writer.wrong(answer, "a large append")
                return
            writer.took(records, answer, floor)

"""Readers of the crash test: each follows one log, in one of the ways there are, over every
restart, and writes down what it was shown and where. None of them ever begins again by itself.
"""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64decode
from typing import Final

from crash.asking import AGAIN_S, Line, offset_of, path_of
from crash.ledger import Log, Piece
from crash.payloads import BINARY
from crash.served import Served
from penstock.core.cursor import Offset, parse_offset
from penstock.wire.sse import Decoder, Event
from raw_http import Answer, BodyCut, connect

POLL_S: Final = 0.05


class Reader:
    """One reader of one log. `is_over` once it was told the end, or that there is no such log."""

    kind = ""

    def __init__(self, log: Log, served: Served, random_: random.Random) -> None:
        self.log, self.served, self.random = log, served, random_
        self.place: Offset | None = None
        self.is_over = False
        self.name = f"{self.kind} reader"

    async def run(self) -> None:
        """Read until it is over; comes back at its place whenever it is cut."""
        while not self.is_over:
            await self.served.up.wait()
            try:
                await self.read()
            except TimeoutError:
                raise AssertionError(f"{self.name} of {self.log.name}: silence") from None
            except (OSError, BodyCut, asyncio.IncompleteReadError):
                self.log.ledger.counts["readers cut and come back"] += 1
            await asyncio.sleep(self.random.uniform(0, 2 * AGAIN_S))

    async def read(self) -> None:
        """Read from `place` until there is nothing more to be had from this connection."""
        raise NotImplementedError

    def is_level(self, tail: Offset) -> bool:
        # Nothing tells a native reader of an empty log where it is.
        return self.is_over or self.place == tail or not (self.place or tail.position)

    def begin_again(self, answer: Answer) -> None:
        """Take a 410: what follows the place is no longer kept, or of an epoch that is over."""
        earliest = parse_offset(answer["stream-earliest-offset"])
        self.pass_over(earliest)

    def pass_over(self, to: Offset) -> None:
        """Take what a gap says. In another epoch everything begins again."""
        ledger, place = self.log.ledger, self.place or Offset(to.epoch, 0)
        if to.epoch == place.epoch:
            ledger.counts["gaps: trimmed"] += 1
            self.log.passed_over.append((self.name, place.position, to.position))
        elif ledger.is_eager:
            ledger.counts["gaps: a later epoch"] += 1
        elif self.log.is_deleting:
            self.is_over = True  # another life of the name
            return
        if place.epoch > to.epoch:
            self.log.fault("wrong epoch", f"{self.name} at {place} was sent to {to}")
        self.log.begins(to)
        self.place = to

    def refused(self, answer: Answer) -> None:
        """Take an answer that is no log: it is over, if somebody deletes it."""
        if answer.status in (404, 410) and self.log.is_deleting:
            self.is_over = True
        elif answer.status == 404 and self.log.waits and self.place is None:
            pass  # it is on its way
        elif answer.status != 503:
            kind = "lost of acknowledged" if answer.status == 404 else "wrong answer"
            said = f"{answer.status} {answer.body[:200]!r}"
            self.log.fault(kind, f"{self.name} at {self.place}: {said}")

    def told_end(self, reason: str) -> None:
        """Take the end of the log."""
        self.log.ledger.counts["ends shown"] += 1
        self.is_over = True
        if not (reason == "lost" and self.log.is_deleting):
            self.log.ended(reason, self.name, is_acked=False)


class NativeReader(Reader):
    """Native events, resumed by `Last-Event-ID`, as an `EventSource` does."""

    kind = "native"

    async def read(self) -> None:
        headers = {"Accept": "text/event-stream"}
        if self.place is not None:
            headers["Last-Event-ID"] = str(self.place)
        async with connect(self.served.port) as connection:
            await connection.send("GET", path_of(self.log.name), headers)
            answer = await connection.head()
            if answer.status != 200:
                self.refused(Answer(answer.status, answer.headers, await connection.body()))
                return
            decoder = Decoder()
            while not self.is_over and (data := await connection.piece()):
                decoder.receive_data(data)
                events = list(decoder.events())
                if events:
                    self.log.ledger.shown(self.log, len(events))
                for event in events:
                    self._take(event)
                    if self.is_over:
                        return

    def _take(self, event: Event) -> None:
        if event.type == "end":
            self.told_end(json.loads(event.data)["reason"])
        elif event.type == "gap":
            told = json.loads(event.data)
            if told["reason"] == "ahead":
                self.log.fault("taken back from a reader", f"{self.name} was told: {event.data}")
            self.pass_over(parse_offset(told["to"]))
        elif event.type != "drain":
            self._record(event)

    def _record(self, event: Event) -> None:
        offset = parse_offset(event.last_event_id)
        before = self.place or Offset(offset.epoch, 0)
        if offset != Offset(before.epoch, before.position + 1):
            kind = "duplicated" if offset <= before else "reordered"
            self.log.fault(kind, f"{self.name} was shown {offset} after {before}")
        record = event.data.encode()
        if self.log.content_type == BINARY:
            record = b64decode(record)
        self.place = offset
        self.log.know(offset, record, self.name)


class BatchReader(Reader):
    """What the protocol's three ways have in common: bodies of several records."""

    def target(self, live: str = "") -> str:
        if self.place is None:
            # From where it is known to begin, so that what is read can be placed.
            epoch, earliest = self.log.epoch, self.log.earliest
            self.place = Offset(epoch, earliest) if epoch else None
        live = f"&live={live}" if live else ""
        return f"{path_of(self.log.name)}?offset={self.place or -1}{live}"

    def take(self, content: bytes, until: Offset) -> None:
        """Note a body, and move to where it ends."""
        after = self.place or Offset(until.epoch, 0)
        self.log.begins(until)
        if until.epoch != after.epoch or until.position < after.position:
            self.log.fault("wrong epoch", f"{self.name} went from {after} to {until}")
        if until != after:
            piece = Piece(self.name, until.epoch, after.position, until.position, content)
            self.log.pieces.append(piece)
            self.log.ledger.shown(self.log, until.position - after.position)
        self.place = until

    def take_answer(self, answer: Answer) -> None:
        """Note what an answer that ends holds."""
        if answer.status == 410 and answer.code == "offset-gone":
            self.begin_again(answer)
        elif answer.status == 200:
            self.take(answer.body, offset_of(answer))
        elif answer.status != 204:
            self.refused(answer)
            return
        if answer.all("stream-closed"):
            self.told_end(answer["stream-end-reason"])


class SseReader(BatchReader):
    """`live=sse`: a `data` event and a `control` event in turn."""

    kind = "live=sse"

    async def read(self) -> None:
        target = self.target("sse")
        async with connect(self.served.port) as connection:
            await connection.send("GET", target)
            answer = await connection.head()
            if answer.status != 200:
                whole = Answer(answer.status, answer.headers, await connection.body())
                self.take_answer(whole)
                return
            decoder = Decoder()
            while not self.is_over and (data := await connection.piece()):
                decoder.receive_data(data)
                for event in decoder.events():
                    self._take(event)

    def _take(self, event: Event) -> None:
        if event.type == "data":
            content = event.data.encode()
            if self.log.content_type == BINARY:
                content = b64decode(content)
            self.take(content, parse_offset(event.last_event_id))
            return
        told = json.loads(event.data)
        until = parse_offset(told["streamNextOffset"])
        if self.place is not None and until != self.place:
            self.log.fault("wrong answer", f"{self.name} at {self.place} is told {event.data}")
        self.place = until
        if told.get("streamClosed"):
            self.told_end(told["streamEndReason"])


class PollReader(BatchReader):
    """`live=long-poll`, over one connection as long as it lasts."""

    kind = "long-poll"
    live = "long-poll"
    pause_s = 0.0

    async def read(self) -> None:
        line = Line(self.served)
        try:
            while not self.is_over:
                answer = await line.ask("GET", self.target(self.live))
                if answer is None:
                    raise BodyCut
                self.take_answer(answer)
                if answer.status not in (200, 204):
                    return
                await asyncio.sleep(self.pause_s)
        finally:
            await line.hang_up()


class CatchUpReader(PollReader):
    """Reads what is there, again and again."""

    kind = "catch-up"
    live = ""
    pause_s = POLL_S


READERS: Final = (NativeReader, SseReader, PollReader, CatchUpReader)


class Readers:
    """Everybody who reads, each in a task of the group."""

    def __init__(self, served: Served, group: asyncio.TaskGroup, random_: random.Random) -> None:
        self._served, self._group, self._random = served, group, random_
        self._reading: list[Reader] = []

    def follow(self, log: Log, count: int = 1) -> None:
        """Have a log followed in so many ways, drawn from all; four are each of them."""
        for kind in self._random.sample(READERS, count):
            reader = kind(log, self._served, self._random)
            self._reading.append(reader)
            self._group.create_task(reader.run())

    def of(self, log: Log) -> list[Reader]:
        """Who reads a log, those who are done not counted."""
        self._reading = [reader for reader in self._reading if not reader.is_over]
        return [reader for reader in self._reading if reader.log is log]

"""The load: who appends to the logs of the crash test, at an even rate, and never twice.

A `Producer` is idempotent and asks again until it is answered, over restarts. A `Plain` writer has
no way to do that, so what it is not told of may be there or not. A `Sequenced` one has
`Stream-Seq`. All of them write down what became of each request.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from crash.asking import Line, offset_of, path_of
from crash.ledger import Log
from crash.payloads import JSON, body
from crash.served import Served
from raw_http import Answer

CUT: Final = 0.02
"""How many of a producer's requests lose their connection before the answer."""


class Load:
    """Turns to append, so many a second, while the gate is open."""

    def __init__(self, served: Served, rate: float) -> None:
        self._served, self._every_s = served, 1 / rate
        self._open = asyncio.Event()
        self._idle = asyncio.Event()
        self._busy = 0
        self._next = 0.0

    @asynccontextmanager
    async def turn(self, *, is_append: bool = True) -> AsyncGenerator[None]:
        """Wait for the gate, and for a turn; what is begun then is finished, whatever it takes."""
        loop = asyncio.get_running_loop()
        while True:
            await self._open.wait()
            await self._served.up.wait()
            if not self._open.is_set():
                continue  # it was shut while there was no server
            now = loop.time()
            if not is_append:
                break
            if self._next <= now:
                self._next = max(self._next + self._every_s, now - 10 * self._every_s)
                break
            await asyncio.sleep(self._next - now)
        self._busy += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    def open(self) -> None:
        self._open.set()

    async def settle(self) -> None:
        """Let nothing more begin, and wait until what was begun has its answer."""
        self._open.clear()
        while self._busy:
            await self._idle.wait()


class Writing:
    """What all writers do: take records, send them, say what is wrong with an answer."""

    def __init__(self, log: Log, line: Line, name: str, random_: random.Random) -> None:
        self.log, self.line, self.random = log, line, random_
        self.writer = log.writer(name, random_.choice(("", "token")))

    @property
    def counts(self) -> dict[str, int]:
        return self.log.ledger.counts

    def take(self, most: int = 8) -> list[bytes]:
        """The next records: one, or of a JSON log a batch."""
        count = 1
        if self.log.content_type == JSON and self.random.random() < 0.3:
            count = self.random.randint(2, most)
        return self.writer.take(count, self.log.content_type)

    def headers(self, **more: str) -> dict[str, str]:
        own = {"Content-Type": self.log.content_type}
        if self.writer.type:
            own["Record-Type"] = self.writer.type
        return own | {name.replace("_", "-"): value for name, value in more.items()}

    def took(self, records: Sequence[bytes], answer: Answer, floor: int) -> None:
        """Note an append that was acknowledged for the first time."""
        self.log.acked(self.writer, records, offset_of(answer), floor)
        self.counts["appends acknowledged"] += 1
        self.counts["records acknowledged"] += len(records)

    def wrong(self, answer: Answer, what: str, kind: str = "wrong answer") -> None:
        said = f"{answer.status} {answer.body[:200]!r}"
        self.log.fault(kind, f"{self.writer.name}, {what}: {said}")

    def is_ended(self, answer: Answer) -> bool:
        """Whether it was refused because the log has ended, as somebody wanted."""
        return answer.status == 409 and "stream-closed" in answer and bool(self.log.may_end)


class Plain(Writing):
    """Appends without any mark: asks once."""

    async def step(self) -> None:
        records = self.take()
        floor = self.log.acked_tail
        content = body(records, self.log.content_type)
        answer = await self.line.ask("POST", path_of(self.log.name), self.headers(), content)
        if answer is None:
            self.counts["appends without an answer"] += 1
            self.writer.note(len(records), "unknown")
        elif answer.status == 204:
            self.took(records, answer, floor)
        else:
            self.writer.note(len(records), "refused")
            if answer.status != 503:
                self.wrong(answer, "an append")


class Sequenced(Writing):
    """Appends with a rising `Stream-Seq`: asked again, what is there already is refused."""

    async def step(self) -> None:
        records = self.take()
        floor = self.log.acked_tail
        headers = self.headers(Stream_Seq=f"{self.writer.next:012}")
        content = body(records, self.log.content_type)
        path = path_of(self.log.name)
        answer, may_be_heard = await self.line.insist("POST", path, headers, content)
        if answer.status == 204:
            self.took(records, answer, floor)
        elif answer.status == 409 and answer.code == "sequence-conflict" and may_be_heard:
            self.counts["retries that were there"] += 1
            self.writer.note(len(records), "acked")
        else:
            self.wrong(answer, "Stream-Seq", "producer's sequence")


class Producer(Writing):
    """An idempotent producer: id, epoch and sequence number, asked again until answered."""

    def __init__(self, log: Log, line: Line, name: str, random_: random.Random) -> None:
        super().__init__(log, line, name, random_)
        self.epoch = 0
        self.seq = -1
        self._last: tuple[dict[str, str], bytes] | None = None

    async def step(self, *, closes: bool = False, is_empty: bool = False) -> bool:
        """Append the next, and close the log with it where told; False when it has ended."""
        self._advance()
        records = [] if is_empty else self.take()
        floor = self.log.acked_tail
        headers = self._stamped(self.epoch, self.seq)
        if closes:
            headers["Stream-Closed"] = "true"
            self.log.may_end.add("complete")
        content = body(records, self.log.content_type) if records else b""
        self._last = headers, content
        path = path_of(self.log.name)
        is_cut = self.random.random() < CUT
        if is_cut:
            await self.line.cut("POST", path, headers, content)
        answer, may_be_heard = await self.line.insist("POST", path, headers, content)
        may_be_heard = may_be_heard or is_cut
        return self._judge(answer, records, floor, may_be_heard=may_be_heard, closes=closes)

    def _advance(self) -> None:
        if self.seq >= 0 and self.random.random() < 0.01:
            self.epoch, self.seq = self.epoch + 1, 0
        else:
            self.seq += 1

    def _stamped(self, epoch: int, seq: int) -> dict[str, str]:
        return self.headers(
            Producer_Id=self.writer.name, Producer_Epoch=str(epoch), Producer_Seq=str(seq)
        )

    def _judge(
        self,
        answer: Answer,
        records: list[bytes],
        floor: int,
        *,
        may_be_heard: bool,
        closes: bool,
    ) -> bool:
        if answer.status == 200:
            self.took(records, answer, floor)
        elif answer.status == 204 and (may_be_heard or not records):
            self.counts["retries that were there"] += may_be_heard
            self.writer.note(len(records), "acked")
        elif self.is_ended(answer):
            self.writer.note(len(records), "refused")
            self._last = None
            return False
        else:
            kind = "duplicated" if answer.status == 204 else "producer's sequence"
            self.wrong(answer, f"epoch {self.epoch}, number {self.seq}", kind)
            return False
        if answer["producer-seq"] != str(self.seq):
            self.wrong(answer, f"number {self.seq}, told {answer['producer-seq']}")
        if closes:
            if answer.all("stream-closed") != ["true"]:
                self.wrong(answer, "closing", "wrong end")
            self.log.ended(answer["stream-end-reason"], self.writer.name, is_acked=True)
        return True

    async def check(self) -> None:
        """See that the log remembers this producer: the last again is a duplicate, one too far is
        a gap, an earlier epoch is fenced off."""
        if self._last is None:
            return
        headers, content = self._last
        path = path_of(self.log.name)
        again, _ = await self.line.insist("POST", path, headers, content)
        if again.status != 204 or again["producer-seq"] != str(self.seq):
            self.wrong(again, f"the last again, {self.seq}", "producer's sequence")
        if self.log.end is not None:
            return
        records = body([b'"never"'], JSON) if self.log.content_type == JSON else b"never"
        gap, _ = await self.line.insist(
            "POST", path, self._stamped(self.epoch, self.seq + 2), records
        )
        if gap.status != 409 or gap.all("producer-expected-seq") != [str(self.seq + 1)]:
            self.wrong(gap, f"two after {self.seq}", "producer's sequence")
        if self.epoch:
            ghost, _ = await self.line.insist(
                "POST", path, self._stamped(self.epoch - 1, self.seq + 1), records
            )
            if ghost.status != 403:
                self.wrong(ghost, f"epoch {self.epoch - 1} after {self.epoch}")

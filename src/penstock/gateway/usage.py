"""The books: what answers may use, what they used, and the record of each.

An answer reserves before it starts, takes more while it runs, and is settled when it is over; the
arithmetic is `llm/budget_ledger.py`'s, and what is stored `keeping.py`'s. What an answer holds is
stored before it begins: a server that is killed finds it spent when it starts again.

A usage record goes three ways, none of which carries a word of prompt or answer: a line of the log,
the metrics, and the stream that `penstock usage` reads.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol
from urllib.parse import quote

import msgspec

from penstock.backends.interface import Documents
from penstock.core.errors import (
    BodyMalformed,
    PenstockError,
    StoreDamaged,
    StreamGone,
    StreamNotFound,
)
from penstock.core.gateway_errors import BudgetExhausted, PriceUnknown
from penstock.core.limits import TOLD_OUTPUT_TOKENS
from penstock.core.record import Record
from penstock.gateway.config import GatewayConfig
from penstock.gateway.figures import figures_of
from penstock.gateway.keeping import USAGE, Keeper
from penstock.llm.budget import Amounts, Ask, Hold, Limits, Refusal, day_end_s, day_of
from penstock.llm.budget_ledger import Ledger
from penstock.llm.events import Usage
from penstock.llm.meter import Counts
from penstock.llm.meter_prices import Money, Price
from penstock.llm.meter_record import UsageRecord
from penstock.llm.write.writer import as_wire_json
from penstock.server.hub import Hub

logger = logging.getLogger("penstock")

NO_LIMITS: Final = Limits()
_SLICE_RECORDS: Final = 1_000
_SLICE_BYTES: Final = 1024 * 1024


class Charged(Protocol):
    """Who pays for an answer: the name of a key, and a user; "" where there is none."""

    @property
    def key(self) -> str: ...

    @property
    def user(self) -> str: ...


class Books:
    """What the answers of one gateway may use, and used. Use it between `open` and `close`.

    Who has no key, or no user, shares one account with everybody else who has none.
    """

    def __init__(
        self, hub: Hub, config: GatewayConfig, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` gives seconds since 1970."""
        self._hub = hub
        self._budgets = config.budgets
        self._clock = clock
        # What only an answer's own budget limits is no matter for the next process.
        has_accounts = any(
            one != NO_LIMITS for one in (self._budgets.user, self._budgets.key, self._budgets.all)
        )
        self._is_stored = has_accounts and isinstance(hub.backend, Documents)
        self._ledger = Ledger(is_written=self._is_stored)
        self._keeper = Keeper(hub, lambda: self._ledger.changes())
        self._day = 0
        # The accounts of each answer that is not settled, with their limits.
        self._running: dict[str, Mapping[str, Limits]] = {}

    @property
    def running(self) -> int:
        """Answers that are not settled."""
        return len(self._running)

    async def open(self) -> None:
        """Read what was stored; what answers held that nobody settled is spent.

        Raises StoreDamaged, StoreFailed.
        """
        documents = await self._keeper.load() if self._is_stored else []
        if documents:
            try:
                self._ledger = Ledger.restore(documents)
            except BodyMalformed as error:
                raise StoreDamaged("budget documents", error.reason) from None
        self._roll_over()
        await self._store()

    async def close(self) -> None:
        """Store what waits."""
        await self._keeper.close()

    async def reserve(
        self,
        id: str,
        *,
        caller: Charged,
        model: str,
        price: Price | None,
        ask_output: int | None,
        input_tokens: int,
    ) -> Hold | None:
        """Hold what an answer may use, for good once this returns; None where nothing limits it.

        `ask_output` is the caller's own maximum; None holds a little, and `extend` more. Every
        answer that was let through is settled, once. Cancelled, it holds nothing.

        Raises:
            BudgetExhausted: a budget leaves not even one token.
            PriceUnknown: a budget of money, and nobody knows what the model costs.
            StoreFull: there are too many accounts.
            StoreFailed, DiskFull: it could not be stored.
        """
        budgets = self._accounts(caller)
        own = self._budgets.answer
        if not budgets and own == NO_LIMITS:
            self._running[id] = budgets
            self._hub.hooks.answer_started()
            return None
        if price is None and any(one.money is not None for one in (own, *budgets.values())):
            raise PriceUnknown(model)
        self._roll_over()
        output = self._budgets.reserve_output_tokens if ask_output is None else ask_output
        ask = Ask(input_tokens=input_tokens, output_tokens=output, price=price)
        hold = self._ledger.reserve(id, ask, budgets, own, day=self._today())
        if isinstance(hold, Refusal):
            raise self._refused(hold)
        self._running[id] = budgets
        try:
            await self._store()
        except BaseException:
            self._forget(id, Amounts())
            raise
        self._hub.hooks.answer_started()
        return hold

    def told(self, hold: Hold, asked: int | None) -> int | None:
        """The maximum that a provider is told; None is none.

        What the caller asked for, as far as it was granted. Where it named none, all that is left,
        unless that is more than some model may be told; then the meter alone sees to it.
        """
        if asked is not None:
            return hold.granted.output_tokens
        left = self._left(hold)
        most = max(TOLD_OUTPUT_TOKENS, self._budgets.reserve_output_tokens)
        return left if left is not None and left <= most else None

    async def extend(self, id: str, used: Amounts | None = None) -> Hold | None:
        """Hold more for an answer that met what it holds; None where there is no more.

        `used` is what it has used until now, where that is known: the next hold is beyond it.
        Raises StoreFailed, DiskFull.
        """
        hold, budgets = self._ledger.hold(id), self._running.get(id)
        if hold is None or budgets is None:
            return None
        used = used or Amounts()
        read = max(hold.granted.input_tokens, used.total_tokens - used.output_tokens)
        written = max(hold.granted.output_tokens, used.output_tokens)
        more = written + self._budgets.reserve_output_tokens
        ask = replace(hold.granted, input_tokens=read, output_tokens=more)
        extended = self._ledger.extend(id, ask, budgets, self._budgets.answer)
        if isinstance(extended, Refusal) or extended is hold:
            return None
        await self._store()
        return extended

    async def settle(self, record: UsageRecord) -> None:
        """The answer is over: charge it, and say so everywhere. Once; again does nothing.

        Cancelled, it is charged and stored nevertheless. What the store refuses is stored later.
        """
        if record.request not in self._running:
            return
        record = _charged(record)
        self._forget(record.request, record.counts.amounts)
        self._hub.hooks.answer_ended(figures_of(record))
        fields = record.to_json()
        logger.info("answer %s", as_wire_json(fields).decode())
        self._keeper.note(fields)
        try:
            await self._keeper.store()
        except PenstockError as error:
            # The end of an answer is no place to fail: what was charged is kept, and stored later.
            logger.error("what answer %s used is not stored: %s", record.request, error.sentence)

    def spent(self, account: str) -> Amounts:
        """What an account (`user:…`, `key:…`, `all`) has spent today."""
        return self._ledger.spent(account, day=self._today())

    async def _store(self) -> None:
        if self._is_stored:
            await self._keeper.store()

    def _forget(self, id: str, spent: Amounts) -> None:
        del self._running[id]
        self._ledger.settle(id, spent)

    def _accounts(self, caller: Charged) -> dict[str, Limits]:
        budgets = self._budgets
        named = {
            f"user:{_plain(caller.user)}": budgets.user,
            f"key:{_plain(caller.key)}": budgets.key,
            "all": budgets.all,
        }
        return {account: limits for account, limits in named.items() if limits != NO_LIMITS}

    def _refused(self, refusal: Refusal) -> BudgetExhausted:
        budget = refusal.account.partition(":")[0] or "answer"
        self._hub.hooks.budget_refused(budget, refusal.limit)
        left_s = day_end_s(refusal.day, self._budgets.utc_offset_s) - self._clock()
        # What is too large for an answer's own budget is so tomorrow too.
        retry_after_s = max(1, math.ceil(left_s)) if refusal.account else 0
        return BudgetExhausted(refusal.account, refusal.limit, retry_after_s)

    def _left(self, hold: Hold) -> int | None:
        """The output tokens that all budgets leave to an answer, what it holds among them."""
        limits = [self._budgets.answer]
        for account, all in self._running[hold.id].items():
            left = self._ledger.left(account, all, day=hold.day)
            limits.append(left.minus(Amounts() - hold.amounts))
        ask = hold.granted
        counts = [one.max_output(ask.input_tokens, ask.price)[0] for one in limits]
        return min((count for count in counts if count is not None), default=None)

    def _today(self) -> int:
        return day_of(self._clock(), self._budgets.utc_offset_s)

    def _roll_over(self) -> None:
        """Let go of accounts that are over. The last day stays: a clock can be set back."""
        today = self._today()
        if today > self._day:
            self._day = today
            self._ledger.forget_before(today - 1)


async def lines(
    hub: Hub, since_s: float = -math.inf, until_s: float = math.inf
) -> AsyncGenerator[bytes]:
    """The usage records of answers that began in `[since_s, until_s)`, as lines of JSON, in the
    order in which the answers ended; several lines a piece.

    Where earlier records are not kept any more, the first line is `{"kept_since_s": …}`: when the
    first answer that is kept began. Raises what the backend raises.
    """
    try:
        head, _ = await hub.backend.head(USAGE)
    except (StreamNotFound, StreamGone):
        return
    place, is_first = head.earliest, head.earliest > 0
    while place < head.tail:
        records = await hub.backend.read(USAGE, place, _SLICE_RECORDS, _SLICE_BYTES)
        if not records:
            return
        place = records[-1].position
        piece = lines_of(records, since_s, until_s, is_cut=is_first)
        is_first = False
        if piece:
            yield piece
        await asyncio.sleep(0)  # a store in memory reads without waiting


def lines_of(
    records: Sequence[Record], since_s: float, until_s: float, *, is_cut: bool = False
) -> bytes:
    """Those of these records that began in that time, a line each; `is_cut` as `lines` says."""
    found: list[bytes] = []
    for record in records:
        started_s = _decode_started(record.payload).started_s
        if is_cut and since_s < started_s:
            found.append(msgspec.json.encode({"kept_since_s": started_s}) + b"\n")
        is_cut = False
        if since_s <= started_s < until_s:
            found.append(record.payload + b"\n")
    return b"".join(found)


class _Started(msgspec.Struct):
    started_s: float


_decode_started = msgspec.json.Decoder(_Started).decode


def _charged(record: UsageRecord) -> UsageRecord:
    """The record as it is charged: an answer that failed before its model wrote anything, and that
    nobody counted, costs nothing."""
    counts = record.counts
    if record.end == "failed" and counts.is_estimate and not counts.usage.output_tokens:
        money = None if counts.money is None else Money()
        usage = Usage(input_tokens=0, output_tokens=0, partial=True)
        counts = Counts(usage=usage, money=money, is_estimate=True)
    return replace(record, counts=counts)


def _plain(name: str) -> str:
    """A name as part of an account's: what no document can be called is written in its bytes."""
    if name.isprintable() and "%" not in name:
        return name
    return quote(name, errors="surrogatepass")

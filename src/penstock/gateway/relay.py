"""A relay: one answer on its way from its provider into its stream.

The stream's producer. It asks, reads what the provider sends in the pieces in which it comes,
counts it, has it filtered, and gives the records of each piece together, so that a piece costs one
step and one commit however many tokens it brings. It ends the answer for one of five reasons, and
whatever the reason, the provider's connection is gone and the answer is on its account before the
relay is. No word of the prompt or the answer is logged here.

Read `answers.py` first.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeAlias, runtime_checkable

from penstock.core.errors import PenstockError
from penstock.core.limits import MAX_ANSWER_BYTES, MAX_ANSWER_RECORDS, MAX_RECORD_BYTES
from penstock.core.record import Batch, EndReason, NewRecord
from penstock.gateway.records import in_pieces, record_of
from penstock.llm.budget import LimitName
from penstock.llm.events import TRUNCATED, Failure, Stop, Text, TokenEvent, Usage
from penstock.llm.filters.chain import Chain
from penstock.llm.meter import CUT, WRITTEN, Counts, Meter

logger = logging.getLogger("penstock")

ENDLESS: Final = "upstream-endless"
FILTER_FAILED: Final = "filter-failed"

# The opening record, and what is said at an end, have their place in a stream's bound too.
_MOST_RECORDS: Final = MAX_ANSWER_RECORDS - 64

# So far from these, what comes in one piece of a body is within every bound.
_FEW: Final = 16 * 1024
_FAR_BYTES: Final = MAX_ANSWER_BYTES - 8 * _FEW
_FAR_RECORDS: Final = _MOST_RECORDS - _FEW

Commit: TypeAlias = Callable[[Sequence[NewRecord]], bool]
"""Commits records at once, or says that it cannot, and then nothing is done."""


class Answering(Protocol):
    """A provider that answers: what `calls.Call` is."""

    @property
    def upstream(self) -> str: ...

    @property
    def model(self) -> str: ...

    async def read(self) -> Sequence[TokenEvent]:
        """The next events; none when there is nothing more."""
        ...

    def abort(self) -> None:
        """Close the connection, now."""
        ...


@runtime_checkable
class Pushing(Answering, Protocol):
    """A provider whose events need no task to be read."""

    def push_to(self, sink: Callable[[list[TokenEvent]], bool]) -> None:
        """Give events away as they come while `read` waits, where `sink` takes them."""
        ...


class Figures(Protocol):
    """Who is told what an answer came to."""

    async def more(self) -> bool:
        """The answer met what it holds of its budgets; whether the meter's limits were raised."""
        ...

    def first_token(self, upstream: str, model: str, waited_s: float, added_s: float) -> None:
        """The first thing the model wrote is committed: after how long, and how much of it ours.
        Called once, or never."""
        ...

    async def settled(self, relay: Relay) -> None:
        """The answer is over. Called once."""
        ...


class Relay:
    """The producer of one answer's stream: an asynchronous iterator of `Batch`.

    Attributes:
        meter: what was used until now; its limits may be raised while the answer runs.
        end: how the answer ended, None while it runs.
        cut_by: the limit that ended it.
        upstream, model: who answers, "" until somebody does.
        first_token_s, total_s: from the start, by `clock`.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[Answering]],
        chain: Chain,
        meter: Meter,
        figures: Figures,
        *,
        is_lowered: Callable[[str], bool],
        clock: Callable[[], float],
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        """`is_lowered` says of an upstream whether it was told a lower maximum than the caller
        asked for, for a budget's sake, so that its own end for length is the budget's."""
        self.meter = meter
        self.end: EndReason | None = None
        self.cut_by: LimitName | None = None
        self.upstream = self.model = ""
        self.first_token_s: float | None = None
        self.total_s: float | None = None
        self._ask, self._chain, self._figures = ask, chain, figures
        self._is_lowered = is_lowered
        self._clock = clock
        self._max_record_bytes = max_record_bytes
        self._started_at = clock()
        self._call: Answering | None = None
        self._commit: Commit | None = None
        # What was read and not looked at yet, and the records that were made and not given yet.
        self._events: Iterator[TokenEvent] = iter(())
        self._records: list[NewRecord] = []
        self._record_count = self._byte_count = 0
        # When the first token came, until it is committed, and whether there are records of any.
        self._received_at: float | None = None
        self._has_shown = False
        self._has_stopped = self._has_failed = self._has_final_usage = False
        self._has_given_end = self._is_closed = False

    def __aiter__(self) -> Relay:
        return self

    async def __anext__(self) -> Batch:
        if self._has_given_end:
            raise StopAsyncIteration
        self._note_first_token()
        end: EndReason | None = None
        while end is None and self.end is None and not self._records:
            try:
                end = await self._step()
            except PenstockError as error:
                end = self._fail(error.sentence, error.code, error.status)
        if self.end is not None:
            # Somebody else ended it, and took what there was. If the store did not, it does now.
            self._records, end = [], self.end
        self.end, self._has_given_end = end, end is not None
        return Batch(self._take(), end)

    def push_to(self, commit: Commit) -> None:
        """Have records committed by this, as they come, while the iterator waits for them."""
        self._commit = commit

    async def aclose(self) -> None:
        """Let go of the provider, and settle the account. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._call_off()
        self.end = self.end or EndReason.FAILED
        self.total_s = self._clock() - self._started_at
        if self._has_given_end:
            self._note_first_token()
        await self._figures.settled(self)

    def last_words(self, reason: EndReason) -> Sequence[NewRecord]:
        """What is committed with an end that somebody else gives the answer: what was not given
        yet, and what was used. The provider is let go of at once."""
        if self.end is not None:
            return []
        self.end = reason
        self._received_at = None
        self._call_off()
        self._flush()
        self._put_usage()
        return self._take()

    def counts(self) -> Counts:
        """What was used until now."""
        return self.meter.counts()

    async def _step(self) -> EndReason | None:
        """Read once, and make records of what came; gives the end where it came too."""
        if self._call is None:
            self._call = call = await self._ask()
            self.upstream, self.model = call.upstream, call.model
            if self.end is not None:
                return None
            if isinstance(call, Pushing) and self._chain.is_plain:
                call.push_to(self._receive_now)
        events = await self._call.read()
        if self.end is not None or self._records:  # those that could not be committed at once
            return None
        if not events:
            return self._finish()
        self._events = iter(events)
        for event in self._events:
            if self.meter.receive_event(event) is not None:
                has_more = await self._figures.more()
                if self.end is not None:
                    return None
                if not has_more:
                    return self._cut()
            if self.first_token_s is None and isinstance(event, WRITTEN):
                self._received_at = self._clock()
                self.first_token_s = self._received_at - self._started_at
            end = self._show(event)
            if end is not None:
                return end
        return None

    def _receive_now(self, events: list[TokenEvent]) -> bool:
        """Deal with what came while `_step` waits, if that is text on its way through: no filter,
        far from every limit. All else is `_step`'s."""
        commit, size = self._commit, 0
        for event in events:
            if type(event) is not Text:
                return False
            size += len(event.text)
        is_room = self._byte_count < _FAR_BYTES and self._record_count < _FAR_RECORDS
        is_quick = commit is not None and self.end is None and self.first_token_s is not None
        if not (is_quick and is_room and size < _FEW and self.meter.is_far(len(events), size)):
            return False
        assert commit is not None
        self._note_first_token()
        records: list[NewRecord] = []
        for event in events:
            self.meter.receive_event(event)
            # Without filters, as the chain would give it.
            record = record_of(event)
            self._byte_count += len(record.payload)
            records.append(record)
        self._record_count += len(records)
        if commit(records):
            return True
        self._records = records
        return False

    def _show(self, event: TokenEvent) -> EndReason | None:
        """Make records of what may be seen of an event; gives the end where the answer has one."""
        try:
            shown = self._chain.receive_event(event)
        except Exception as error:  # noqa: BLE001 a filter of the operator's own can raise anything
            return self._filter_failed(error)
        for one in shown:
            if not self._put(one):
                return self._end_too_long()
        if self._has_failed:
            self._call_off()
            return EndReason.FAILED
        return self._end_well() if self._chain.is_ended else None

    def _put(self, event: TokenEvent) -> bool:
        """Make records of an event; says whether there is room for it."""
        if isinstance(event, WRITTEN):
            self._has_shown = True
        elif isinstance(event, Stop):
            self._has_stopped = True
            if event.reason == "length" and self.cut_by is None and self._is_lowered(self.upstream):
                self.cut_by = "output_tokens"
        elif isinstance(event, Failure):
            self._put_usage()  # nothing follows a failure
            self._has_failed = True
        elif isinstance(event, Usage):
            self._has_final_usage = not event.partial
        record = record_of(event)
        size = len(record.payload)
        if size > self._max_record_bytes:
            pieces = in_pieces(event)
            return bool(pieces) and all(map(self._put, pieces))
        self._records.append(record)
        self._record_count += 1
        self._byte_count += size
        return self._byte_count <= MAX_ANSWER_BYTES and self._record_count <= _MOST_RECORDS

    def _take(self) -> list[NewRecord]:
        records, self._records = self._records, []
        return records

    def _finish(self) -> EndReason:
        """The provider has nothing more."""
        if self._has_stopped:
            return self._end_well()
        return self._fail("the provider ended without an end", TRUNCATED, 502)

    def _end_well(self) -> EndReason:
        """The answer's own end: the model's or a filter's."""
        self._call_off()
        self._put_usage()
        return EndReason.COMPLETE if self.cut_by is None else EndReason.LIMIT

    def _cut(self) -> EndReason:
        """A budget has no more: the answer ends as the model's own maximum would end it."""
        self.cut_by = self.meter.cut_by
        self._call_off()
        end = self._show(CUT)
        if end is None:
            self._put_usage()
        return EndReason.LIMIT if end is None else end

    def _fail(self, message: str, code: str, status: int) -> EndReason:
        self._call_off()
        self._flush()
        self._put(Failure(message=message, code=code, status=status))
        return EndReason.FAILED

    def _end_too_long(self) -> EndReason:
        """Neither what a filter holds nor the rest is worth having any more."""
        self._call_off()
        most, event_most = MAX_ANSWER_BYTES, self._max_record_bytes
        message = f"the answer has more than {most} bytes, or an event of it more than {event_most}"
        self._put(Failure(message=message, code=ENDLESS, status=502))
        return EndReason.FAILED

    def _filter_failed(self, error: Exception) -> EndReason:
        # What it says may be the answer's words: its kind alone is logged. What the other filters
        # hold is not asked for: it comes after what this one should have shown.
        logger.error("a filter failed with %s; its answer ends here", type(error).__name__)
        self._chain = Chain()
        return self._fail("a filter failed", FILTER_FAILED, 500)

    def _flush(self) -> None:
        """Make records of what may be seen of what the filters hold."""
        try:
            held = self._chain.flush()
        except Exception as error:  # noqa: BLE001 as in `_show`
            logger.error("a filter failed with %s at its answer's end", type(error).__name__)
            return
        for event in held:
            self._put(event)

    def _put_usage(self) -> None:
        """Say what was used, where the provider did not say it to the end."""
        # What was read and is not shown was written all the same, and is paid.
        for event in self._events:
            self.meter.receive_event(event)
        if self._call is None or self._has_final_usage:
            return
        counts = self.meter.counts()
        self._put(replace(counts.usage, partial=counts.is_estimate))
        self._has_final_usage = True

    def _call_off(self) -> None:
        if self._call is not None:
            self._call.abort()

    def _note_first_token(self) -> None:
        """What was given before is committed now."""
        if self._received_at is None or self.first_token_s is None or not self._has_shown:
            return
        added_s = self._clock() - self._received_at
        self._received_at = None
        self._figures.first_token(self.upstream, self.model, self.first_token_s, added_s)

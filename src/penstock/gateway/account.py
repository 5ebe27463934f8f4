"""One answer's account: who asked for it, about how much it reads, and what it came to.

What may be used and what was, the books know; what comes and goes, the relay. This is what stands
between the two, for one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from penstock.gateway.relay import Relay
from penstock.gateway.usage import Books
from penstock.llm.ask.request import (
    CallPart,
    Part,
    Request,
    ResultPart,
    TextPart,
    ThoughtPart,
)
from penstock.llm.events import as_json_text
from penstock.llm.meter import Meter
from penstock.llm.meter_estimate import estimate_tokens
from penstock.llm.meter_prices import matches
from penstock.llm.meter_record import Timing, UsageRecord
from penstock.telemetry.hooks import Hooks

MAX_USER: Final = 200
"""Longest user that a usage record names, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    Attributes:
        key: the name of the key in the configuration; "" where it has none.
        credential: a keyed hash of what was presented, to tell callers apart; never the credential.
        user: whom the key belongs to; "" where the configuration does not say.
        models: patterns of the models the key may ask.
    """

    key: str = ""
    credential: str = field(default="", repr=False)
    user: str = ""
    models: tuple[str, ...] = ("*",)

    def may_ask(self, model: str) -> bool:
        """Whether the key is for this model."""
        return any(matches(pattern, model) for pattern in self.models)


class Account:
    """One answer's account: between its relay and the books."""

    def __init__(
        self,
        books: Books,
        hooks: Hooks,
        id: str,
        model: str,
        caller: Caller,
        meter: Meter,
        told: int | None,
        started_s: float,
        *,
        on_over: Callable[[], None],
    ) -> None:
        """`told` is the maximum that the provider is told; `started_s` is since 1970. `on_over` is
        called when the answer is over."""
        self.meter, self.told = meter, told
        self._books, self._hooks = books, hooks
        self._id, self._model, self._caller = id, model, caller
        self._started_s = started_s
        self._on_over = on_over

    async def more(self) -> bool:
        hold = await self._books.extend(self._id, self.meter.counts().amounts)
        if hold is None:
            return False
        self.meter.limits = hold.limits
        return self.meter.cut_by is None

    def first_token(self, upstream: str, model: str, waited_s: float, added_s: float) -> None:
        self._hooks.first_token(upstream, model, waited_s, added_s)

    async def settled(self, relay: Relay) -> None:
        self._on_over()
        record = UsageRecord(
            request=self._id,
            user=self._caller.user,
            key=self._caller.key,
            model=self._model,
            upstream=relay.upstream,
            end=str(relay.end),
            counts=relay.counts(),
            timing=Timing(
                started_s=self._started_s,
                first_token_s=relay.first_token_s,
                total_s=relay.total_s,
            ),
            cut_by=relay.cut_by,
        )
        await self._books.settle(record)


def estimate_input(request: Request) -> int:
    """About how many tokens a request is to read: its texts, calls, results and tools. Pictures and
    documents are counted by nobody until the provider does."""
    texts = [text for message in request.messages for text in _texts(message.parts)]
    for tool in request.tools:
        texts += [tool.name, tool.description, as_json_text(tool.schema)]
    return sum(map(estimate_tokens, texts))


def _texts(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        match part:
            case TextPart(text=text) | ThoughtPart(text=text):
                yield text
            case CallPart(name=name, arguments=arguments):
                yield name + arguments
            case ResultPart(content=content):
                yield from _texts(content)
            case _:
                pass

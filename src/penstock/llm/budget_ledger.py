"""The ledger: what each account spent in a day, and what answers that still run hold.

An account is anything with a budget of its own: a user, a key, everybody together; one answer may
be charged to several. An answer reserves before it starts and settles when it ends, and in between
it holds the most that its input and the granted output can cost.

So long as every provider keeps to the maximum it is given and counts no more input than was
estimated, what is spent and held never exceeds a limit, however many answers run at once. Where a
provider does not, the account is overspent by the difference, once for each answer that was
running, and grants nothing more that day.

Days and names arrive as arguments. Whoever has the ledger writes its documents; it is one object
for one writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from penstock.core.errors import BodyMalformed, StoreFull
from penstock.llm.budget import Amounts, Ask, Hold, Limits, Refusal
from penstock.llm.events import Json, as_count, as_list, as_object, as_text
from penstock.llm.meter_prices import Money

MAX_ACCOUNTS: Final = 100_000
"""Accounts of a ledger over all its days, about 1 KB each; above it nobody new is granted anything.
A name that a caller may choose freely is no account: it could be another in each request."""

_NOTHING: Final = Amounts()

# The key of what a document is about: an account in a day, or the id of an answer that holds.
_Key = tuple[int, str] | str


@dataclass(slots=True)
class _Account:
    spent: Amounts = _NOTHING
    held: Amounts = _NOTHING
    holds: int = 0


class Ledger:
    """What each account spent and holds, by day. See the module.

    `is_written` says that somebody asks for its `changes`; else they are not kept.
    """

    __slots__ = ("_accounts", "_changed", "_holds", "_is_written", "_max_accounts")

    def __init__(self, *, is_written: bool = False, max_accounts: int = MAX_ACCOUNTS) -> None:
        self._is_written, self._max_accounts = is_written, max_accounts
        self._accounts: dict[tuple[int, str], _Account] = {}
        self._holds: dict[str, Hold] = {}
        # Names of documents that are not as they were when `changes` was last asked.
        self._changed: dict[str, _Key] = {}

    def reserve(
        self, id: str, ask: Ask, budgets: Mapping[str, Limits], own: Limits, *, day: int
    ) -> Hold | Refusal:
        """Holds what an answer may use, out of each account's budget for the day.

        `own` is the answer's own budget. Less than asked is granted where less is left, and nothing
        where not even one output token is.

        Raises:
            ValueError: an answer of this id holds something already.
            StoreFull: there would be too many accounts.
        """
        if id in self._holds:
            raise ValueError(f"answer {id!r} holds something already")
        granted = self._grant(ask, budgets, own, day)
        if isinstance(granted, Refusal):
            return granted
        new = sum((day, account) not in self._accounts for account in budgets)
        if new and len(self._accounts) + new > self._max_accounts:
            raise StoreFull("budget accounts", self._max_accounts)
        limits = _limits_of(granted, [own, *budgets.values()])
        accounts = tuple(budgets)
        self._put(Hold(id=id, day=day, accounts=accounts, granted=granted, limits=limits))
        return self._holds[id]

    def extend(
        self, id: str, ask: Ask, budgets: Mapping[str, Limits], own: Limits
    ) -> Hold | Refusal:
        """Holds `ask` in the place of what an answer held so far, or as much of it as is left.

        For answers that reserve little and go on while there is more. What they hold they keep,
        also where they are refused.

        Raises:
            LookupError: no such answer holds anything.
        """
        hold = self._holds[id]
        charged = {name: budgets[name] for name in hold.accounts}
        self._drop(hold)
        granted = self._grant(ask, charged, own, hold.day)
        if isinstance(granted, Refusal) or granted.output_tokens <= hold.granted.output_tokens:
            self._put(hold)
        else:
            limits = _limits_of(granted, [own, *charged.values()])
            self._put(replace(hold, granted=granted, limits=limits))
        return granted if isinstance(granted, Refusal) else self._holds[id]

    def settle(self, id: str, spent: Amounts) -> None:
        """The answer has ended, and used this much; what it held is free again.

        Nothing where it holds nothing (any more): an answer is charged once.
        """
        hold = self._holds.get(id)
        if hold is None:
            return
        self._drop(hold)
        for account in hold.accounts:
            self._accounts[hold.day, account].spent += spent

    def left(self, account: str, limits: Limits, *, day: int) -> Limits:
        """What an account has left that day: its limits without what is spent and held."""
        kept = self._accounts.get((day, account))
        return limits if kept is None else limits.minus(kept.spent + kept.held)

    def spent(self, account: str, *, day: int) -> Amounts:
        """What an account has spent that day."""
        kept = self._accounts.get((day, account))
        return Amounts() if kept is None else kept.spent

    def hold(self, id: str) -> Hold | None:
        """What an answer holds."""
        return self._holds.get(id)

    def forget_before(self, day: int) -> None:
        """Drops the accounts of earlier days, but for those an answer still holds something of."""
        for key in [key for key, kept in self._accounts.items() if key[0] < day and not kept.holds]:
            del self._accounts[key]
            self._touch(key)

    def _grant(
        self, ask: Ask, budgets: Mapping[str, Limits], own: Limits, day: int
    ) -> Ask | Refusal:
        granted = ask.output_tokens
        limits = [(name, self.left(name, all, day=day)) for name, all in budgets.items()]
        for account, left in [("", own), *limits]:
            most, limit = left.max_output(ask.input_tokens, ask.price)
            if most is not None and most < 1:
                return Refusal(account=account, limit=limit, day=day)
            granted = granted if most is None else min(granted, most)
        return replace(ask, output_tokens=granted)

    def _put(self, hold: Hold) -> None:
        self._holds[hold.id] = hold
        self._touch(hold.id)
        for account in hold.accounts:
            kept = self._account(hold.day, account)
            kept.held += hold.amounts
            kept.holds += 1
            self._touch((hold.day, account))

    def _drop(self, hold: Hold) -> None:
        del self._holds[hold.id]
        self._touch(hold.id)
        for account in hold.accounts:
            kept = self._accounts[hold.day, account]
            kept.held -= hold.amounts
            kept.holds -= 1
            self._touch((hold.day, account))

    def _touch(self, key: _Key) -> None:
        if self._is_written:
            self._changed[_name_of(key)] = key

    def documents(self) -> dict[str, dict[str, Json]]:
        """The whole ledger as JSON objects by name, for `restore`."""
        keys: list[_Key] = [*self._accounts, *self._holds]
        written = {_name_of(key): self._document(key) for key in keys}
        return {name: document for name, document in written.items() if document is not None}

    def changes(self) -> dict[str, dict[str, Json] | None]:
        """The documents that changed since this was last asked, by name; None is one to delete.

        Written together, in one step, they are the ledger as it is now.
        """
        changed, self._changed = self._changed, {}
        return {name: self._document(key) for name, key in changed.items()}

    def _document(self, key: _Key) -> dict[str, Json] | None:
        if isinstance(key, str):
            hold = self._holds.get(key)
            return None if hold is None else _hold_document(hold)
        kept = self._accounts.get(key)
        if kept is None:
            return None
        return {"account": key[1], "day": key[0], "spent": kept.spent.to_json()}

    @classmethod
    def restore(
        cls, documents: Iterable[Mapping[str, Json]], *, max_accounts: int = MAX_ACCOUNTS
    ) -> Ledger:
        """The ledger that wrote these documents, after whoever ran its answers has died.

        What those answers held counts as spent: nobody knows any more what they used, and it was
        that at most. `changes` then says so too.

        Raises:
            BodyMalformed: a document is none of a ledger's.
        """
        ledger = cls(is_written=True, max_accounts=max_accounts)
        for document in documents:
            ledger._read(document)
        return ledger

    def _read(self, document: Mapping[str, Json]) -> None:
        day = as_count(document.get("day"))
        if day is None:
            raise BodyMalformed("of a ledger's document has no usable 'day'")
        if "held" not in document:
            spent = _read_amounts(document.get("spent"))
            # Of two documents the hold may have come first.
            self._account(day, as_text(document.get("account"))).spent += spent
            return
        held = _read_amounts(document["held"])
        self._touch(as_text(document.get("id")))
        for account in map(as_text, as_list(document.get("accounts"))):
            self._account(day, account).spent += held
            self._touch((day, account))

    def _account(self, day: int, name: str) -> _Account:
        return self._accounts.setdefault((day, name), _Account())


def _name_of(key: _Key) -> str:
    return f"hold/{key}" if isinstance(key, str) else f"account/{key[0]}/{key[1]}"


def _limits_of(granted: Ask, limits: list[Limits]) -> Limits:
    """What is held, where somebody limits it."""
    held = granted.amounts()
    limits_total = any(one.total_tokens is not None for one in limits)
    limits_money = any(one.money is not None for one in limits)
    return Limits(
        output_tokens=held.output_tokens,
        total_tokens=held.total_tokens if limits_total else None,
        money=held.money if limits_money else None,
    )


def _hold_document(hold: Hold) -> dict[str, Json]:
    document: dict[str, Json] = {"id": hold.id, "day": hold.day, "accounts": [*hold.accounts]}
    return {**document, "held": hold.amounts.to_json()}


def _read_amounts(value: Json) -> Amounts:
    fields = as_object(value)
    output = as_count(fields.get("output_tokens"))
    total = as_count(fields.get("total_tokens"))
    try:
        money = Money.read(as_text(fields.get("money")))
    except ValueError:
        money = None
    if output is None or total is None or money is None:
        raise BodyMalformed("of a ledger's document has no usable amounts")
    return Amounts(output_tokens=output, total_tokens=total, money=money)

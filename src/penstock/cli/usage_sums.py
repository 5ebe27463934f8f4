"""Usage records as rows: one an answer, or one for all that have something in common.

Values and arithmetic. Money is added up exactly; what has no price is counted, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec

from penstock.llm.meter_prices import Money

Cell: TypeAlias = str | int | float | bool | None
Row: TypeAlias = dict[str, Cell]


class Answer(msgspec.Struct, kw_only=True, frozen=True):
    """A usage record, as `UsageRecord.to_json` writes it."""

    request: str
    user: str
    key: str
    model: str
    upstream: str
    end: str
    cut_by: str | None
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    is_estimate: bool
    money: str | None
    started_s: float
    first_token_s: float | None
    total_s: float | None


BY: Final[Mapping[str, Callable[[Answer], str]]] = {
    "user": lambda answer: answer.user,
    "key": lambda answer: answer.key,
    "model": lambda answer: answer.model,
    "day": lambda answer: time_of(answer)[:10],
}
"""What can be summed by. Days are those of UTC."""


@dataclass(slots=True)
class Sum:
    """What answers have used together."""

    answers: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    estimates: int = 0
    money: Money = Money()  # noqa: RUF009 it is frozen
    unpriced: int = 0

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        self.answers += 1
        self.input_tokens += answer.input_tokens
        self.output_tokens += answer.output_tokens
        self.reasoning_tokens += answer.reasoning_tokens or 0
        self.cached_tokens += answer.cached_tokens or 0
        self.cache_write_tokens += answer.cache_write_tokens or 0
        self.estimates += answer.is_estimate
        if answer.money is None:
            self.unpriced += 1
        else:
            self.money += Money.read(answer.money)

    def row(self, name: str, value: str) -> Row:
        """It as a row; `estimates` and `unpriced` are numbers of answers."""
        return {
            name: value,
            "answers": self.answers,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cached_tokens": self.cached_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "estimates": self.estimates,
            "money": str(self.money),
            "unpriced": self.unpriced,
        }


def read_answer(line: bytes) -> Answer:
    """The record of a line. Raises ValueError where it is none."""
    answer = msgspec.json.decode(line, type=Answer)
    if answer.money is not None:
        Money.read(answer.money)
    return answer


def sum_by(answers: Iterable[Answer], name: str) -> tuple[list[Row], Row]:
    """A row for each value of `name`, in the order of the values, and one for all."""
    sums: dict[str, Sum] = {}
    total = Sum()
    for answer in answers:
        sums.setdefault(BY[name](answer), Sum()).add(answer)
        total.add(answer)
    rows = [sums[value].row(name, value) for value in sorted(sums)]
    return rows, total.row(name, "total")


def time_of(answer: Answer) -> str:
    """When an answer began, in UTC; what is no time of this world stays a number."""
    try:
        moment = datetime.fromtimestamp(answer.started_s, UTC)
    except (ValueError, OverflowError, OSError):
        return str(answer.started_s)
    return moment.isoformat(" ", "seconds").removesuffix("+00:00")

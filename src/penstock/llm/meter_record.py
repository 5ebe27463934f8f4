"""What is kept of an answer for its bill: who asked, what answered, what it used and how long.

A value for logs, metrics and exports. It holds no word of the prompt or the answer, and `key` names
a credential without being one.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.llm.budget import LimitName
from penstock.llm.events import Json
from penstock.llm.meter import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When an answer began and how long it took, in seconds. None is not known, or did not happen.

    Attributes:
        started_s: since 1970, by the clock of the machine.
        first_token_s: from there to the first thing the model wrote.
        total_s: from there to the end.
    """

    started_s: float
    first_token_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """One answer, as it is charged.

    Attributes:
        request: the answer's id; a record said twice is one answer.
        user: whom it was for, "" where nobody said.
        key: the name of the credential, never the credential.
        model: as the caller asked for it.
        upstream: who answered, by its name in configuration.
        end: how its stream ended: complete, cancelled, failed, limit, lost.
        cut_by: the limit that ended it, where one did.
    """

    request: str
    user: str
    key: str
    model: str
    upstream: str
    end: str
    counts: Counts
    timing: Timing
    cut_by: LimitName | None = None

    def to_json(self) -> dict[str, Json]:
        """One flat object, the same fields always, None where nobody knows."""
        usage, money, timing = self.counts.usage, self.counts.money, self.timing
        return {
            "request": self.request,
            "user": self.user,
            "key": self.key,
            "model": self.model,
            "upstream": self.upstream,
            "end": self.end,
            "cut_by": self.cut_by,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "is_estimate": self.counts.is_estimate,
            "money": None if money is None else str(money),
            "started_s": timing.started_s,
            "first_token_s": timing.first_token_s,
            "total_s": timing.total_s,
        }

"""How much a model is to think: from a word to tokens, and back.

Some providers take a word, some a number of tokens. The figures are ours, between the least that
any takes (1,024, Anthropic's) and what the vendors' own guides call much (32,768).
"""

from __future__ import annotations

from typing import Final

from penstock.llm.ask.request import Effort, Thinking

LEAST_BUDGET: Final = 1_024

DEFAULT_BUDGET: Final = 8_192
"""What a model that may think as long as it likes is reckoned to need; "medium"."""

_BUDGETS: Final[tuple[tuple[Effort, int], ...]] = (
    ("none", 0),
    ("minimal", LEAST_BUDGET),
    ("low", 2_048),
    ("medium", 8_192),
    ("high", 16_384),
    ("xhigh", 24_576),
    ("max", 32_768),
)


def budget_of(thinking: Thinking) -> int:
    """The tokens it may think for: 0 is none, -1 as many as it likes."""
    if thinking.budget_tokens is not None:
        return thinking.budget_tokens
    return dict(_BUDGETS)[thinking.effort] if thinking.effort else -1


def effort_of(thinking: Thinking) -> Effort | None:
    """The word for it: the smallest whose tokens suffice; None leaves it to the provider."""
    tokens = thinking.budget_tokens
    if thinking.effort is not None or tokens is None or tokens < 0:
        return thinking.effort
    words: list[Effort] = [word for word, budget in _BUDGETS if budget >= tokens]
    return words[0] if words else "max"

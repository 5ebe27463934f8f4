"""What Claude takes and refuses, whichever provider runs it: Anthropic and Bedrock share it.

How much to think is told by a budget of tokens up to version 4.5 of the models and by a word from
4.6 on (4.6 takes both, 4.7 refuses the budget); each is made from the other by `thinking.py`. A
model whose name says no version is told the one that the client said. Whoever thinks refuses a
temperature other than 1, `top_k`, a `top_p` below 0.95, and being told which tool to call. From
version 4.7 on there is no sampling to be told, except a temperature of 1; versions 4.1 to 4.6 take
one of temperature and `top_p`. Temperatures end at 1, and a stop sequence must have something in it
other than white space. What is refused is refused by name.

Sources: the provider's pages on extended and adaptive thinking and on what is new in Claude 4.7,
and the messages of its errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from penstock.llm.ask.request import Request, Thinking
from penstock.llm.ask.thinking import DEFAULT_BUDGET, LEAST_BUDGET, budget_of, effort_of
from penstock.llm.ask.written import Border
from penstock.llm.events import Json

_VERSION: Final = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2}))?(?!\d)")

_LAST_WITH_BUDGETS: Final = (4, 5)
_FIRST_WITH_ONE_OF_TWO: Final = (4, 1)
_FIRST_WITHOUT_SAMPLING: Final = (4, 7)
_LEAST_TOP_P_THINKING: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is written for one request; None of each is not written.

    `room` is how many tokens the thinking may need on top of the answer.
    """

    thinking: dict[str, Json] | None = None
    effort: str | None = None
    room: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()


def settings_of(request: Request, model: str, border: Border) -> Settings:
    """How the model of this name is told what is asked."""
    version = _version_of(model)
    thinking, effort = _thinking(request.thinking, version)
    is_thinking = thinking is not None and thinking["type"] != "disabled"
    choice = request.tool_choice
    if is_thinking and choice is not None and choice.mode in ("required", "named"):
        border.refuse("tool_choice")
    temperature = _temperature(request, version, border, is_thinking=is_thinking)
    stop = request.stop
    if not all(text.strip() for text in stop):
        border.refuse("stop")
        stop = tuple(text for text in stop if text.strip())
    return Settings(
        thinking=thinking,
        effort=effort,
        room=_room(request.thinking) if is_thinking else 0,
        temperature=temperature,
        top_p=_top_p(request, version, border, temperature, is_thinking=is_thinking),
        top_k=_top_k(request, version, border, is_thinking=is_thinking),
        stop=stop,
    )


def fit_thinking(thinking: dict[str, Json], limit: int) -> dict[str, Json] | None:
    """Thinking whose budget leaves room for an answer of `limit` tokens; None where none does."""
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or budget < limit:
        return thinking
    if limit <= LEAST_BUDGET:
        return None
    return {**thinking, "budget_tokens": max(limit // 2, LEAST_BUDGET)}


def _version_of(model: str) -> tuple[int, int] | None:
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _room(thinking: Thinking | None) -> int:
    budget = budget_of(thinking) if thinking else 0
    return DEFAULT_BUDGET if budget < 0 else max(budget, LEAST_BUDGET)


def _thinking(
    thinking: Thinking | None, version: tuple[int, int] | None
) -> tuple[dict[str, Json] | None, str | None]:
    if thinking is None:
        return None, None
    if budget_of(thinking) == 0:
        return {"type": "disabled"}, None
    takes_budget = thinking.budget_tokens not in (None, -1)
    if version is not None:
        takes_budget = version <= _LAST_WITH_BUDGETS
    if takes_budget:
        return {"type": "enabled", "budget_tokens": _room(thinking)}, None
    effort = effort_of(thinking)
    return {"type": "adaptive"}, "low" if effort == "minimal" else effort


def _temperature(
    request: Request, version: tuple[int, int] | None, border: Border, *, is_thinking: bool
) -> float | None:
    temperature = request.sampling.temperature
    if temperature is None or temperature == 1:
        return temperature
    if temperature > 1 or is_thinking or not _has_sampling(version):
        border.refuse("temperature")
        return None
    return temperature


def _top_p(
    request: Request,
    version: tuple[int, int] | None,
    border: Border,
    temperature: float | None,
    *,
    is_thinking: bool,
) -> float | None:
    top_p = request.sampling.top_p
    if top_p is None or top_p == 1:  # 1 is what holds without it
        return None
    is_second = False
    if temperature is not None and version is not None:
        is_second = version >= _FIRST_WITH_ONE_OF_TWO
    is_low = is_thinking and top_p < _LEAST_TOP_P_THINKING
    if is_second or is_low or not _has_sampling(version):
        border.refuse("top_p")
        return None
    return top_p


def _top_k(
    request: Request, version: tuple[int, int] | None, border: Border, *, is_thinking: bool
) -> int | None:
    top_k = request.sampling.top_k
    if top_k is not None and (is_thinking or not _has_sampling(version)):
        border.refuse("top_k")
        return None
    return top_k


def _has_sampling(version: tuple[int, int] | None) -> bool:
    return version is None or version < _FIRST_WITHOUT_SAMPLING

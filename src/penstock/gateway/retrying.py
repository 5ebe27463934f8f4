"""When a provider that failed is asked again, and when another is asked in its place.

Only ever before the first content: what was shown cannot be taken back, and must not be paid twice.
Three outcomes, by what the provider says:

| what | same provider again | the next one |
|---|---|---|
| no connection, a cut body, 408, 409, 424 (Bedrock), 425, 429, 5xx, an error first | yes | yes |
| no token in time, a body that is no stream, 501, 505, a quota used up | no | yes |
| 401, 402, 403, 404 and redirects: this gateway's own key, account, model or address | no | yes |
| any other 4xx: what the caller asked is wrong, and would be anywhere | no | no |

A provider that knows better says so with `x-should-retry` (OpenAI, Anthropic).
"""

from __future__ import annotations

import random
from typing import Final

from penstock.core.limits import RETRY_AFTER_MAX_S, UPSTREAM_RETRY_BASE_S, UPSTREAM_RETRY_CAP_S
from penstock.gateway.refusals import TIMEOUT
from penstock.llm.events import MALFORMED, Failure

_PASSING: Final = frozenset({408, 409, 424, 425, 429})
_LASTING: Final = frozenset({501, 505})
_OURS: Final = frozenset({401, 402, 403, 404})
# Under a status that says "later", these say "not today".
_USED_UP: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
# In a stream an error has a word and no status.
_CALLERS: Final = frozenset({"invalid_request_error", "context_length_exceeded", "invalid_prompt"})


def may_ask_again(failure: Failure, hint: str = "") -> bool:
    """Whether the same provider may do better in a moment. `hint` is its `x-should-retry`."""
    if hint in ("true", "false"):
        return hint == "true"
    if failure.code in (TIMEOUT, MALFORMED) or failure.code in _USED_UP:
        return False
    status = failure.status
    if status is None:
        return failure.code not in _CALLERS
    return status in _PASSING or (status >= 500 and status not in _LASTING)


def may_ask_another(failure: Failure) -> bool:
    """Whether another provider may do better."""
    status = failure.status
    if status is None:
        return failure.code not in _CALLERS
    return not 400 <= status < 500 or status in _PASSING or status in _OURS


def wait_s(tries: int, retry_after_s: float | None) -> float | None:
    """How long to wait before the try after so many, at least 1; None where that is too long.

    Full jitter: anything from nothing to a ceiling that doubles. What the provider asks for comes
    on top of that, so that those it sent away together do not come back together.
    """
    ceiling = min(UPSTREAM_RETRY_CAP_S, UPSTREAM_RETRY_BASE_S * 2 ** (tries - 1))
    jitter = random.uniform(0, ceiling)  # noqa: S311  # spreads load, keeps no secret
    if retry_after_s is None:
        return jitter
    return None if retry_after_s > RETRY_AFTER_MAX_S else retry_after_s + jitter

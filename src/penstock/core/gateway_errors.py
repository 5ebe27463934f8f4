"""What the gateway can refuse a caller, or fail in. Drawn in `errors.py`, as every error is."""

from __future__ import annotations

from penstock.core.errors import CallerError, WorldError


class ModelUnknown(CallerError):
    code, status = "model-unknown", 404

    def __init__(self, model: str) -> None:
        super().__init__(f"no upstream here serves the model {model[:200]!r}")
        self.model = model


class KeyRefused(CallerError):
    code, status = "key-refused", 401

    def __init__(self) -> None:
        super().__init__("the API key is none of this server's; send one that is in its [keys]")


class PriceUnknown(CallerError):
    code, status = "price-unknown", 400

    def __init__(self, model: str) -> None:
        super().__init__(
            f"the model {model[:200]!r} has no price, and a budget of money needs one; add it to "
            "[prices]"
        )
        self.model = model


class IdempotencyMismatch(CallerError):
    code, status = "idempotency-mismatch", 422

    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key came with another request before; use a new key for a new request"
        )


class BudgetExhausted(CallerError):
    """A budget leaves nothing. `account` is whose it is, "" for the answer's own."""

    code, status = "budget-exhausted", 429

    def __init__(self, account: str, limit: str, retry_after_s: int) -> None:
        super().__init__(
            f"the budget of {limit} of {account[:200]!r} is used up; there is more in "
            f"{retry_after_s} s"
            if account
            else f"the request is above an answer's budget of {limit}; ask for less"
        )
        self.account, self.limit, self.retry_after_s = account, limit, retry_after_s


class UpstreamBusy(WorldError):
    code, status = "upstream-busy", 503

    def __init__(self, upstream: str) -> None:
        super().__init__(f"upstream {upstream[:80]!r} is busy and its queue is full; try again")
        self.upstream = upstream

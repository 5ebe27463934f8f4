"""A request as one upstream is asked it: in its dialect, with what its settings add."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from penstock.gateway.config import UpstreamSettings
from penstock.llm.ask.dialects import write_request
from penstock.llm.ask.request import Request
from penstock.llm.ask.written import Target, Written


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request as one upstream is asked it. The same for each try."""

    settings: UpstreamSettings
    model: str
    written: Written = field(repr=False)
    body: bytes = field(repr=False)

    @classmethod
    def write(
        cls, request: Request, settings: UpstreamSettings, max_output_tokens: int | None
    ) -> Question:
        """The request in the upstream's dialect.

        Raises:
            RequestInexpressible: it says what the upstream's dialect cannot.
        """
        limits = [n for n in (max_output_tokens, settings.max_output_tokens) if n is not None]
        model = settings.rename.get(request.model, request.model)
        target = Target(
            dialect=settings.dialect,
            model=model,
            max_output_tokens=min(limits, default=None),
            may_drop=settings.may_drop,
        )
        written = write_request(request, target)
        if settings.extra:
            written = replace(written, body={**written.body, **settings.extra})
        return cls(settings=settings, model=model, written=written, body=written.data())

"""The models that can be asked for, in the shape of whichever SDK asks.

Only names: patterns say which models an upstream takes, not which there are. When a model was made
and by whom nobody told us, and the SDKs need some value there.
"""

from __future__ import annotations

from typing import Final

from penstock.core.gateway_errors import ModelUnknown
from penstock.gateway.endpoints.exchange import Exchange
from penstock.llm.events import Json
from penstock.llm.write import anthropic

_OWNER: Final = "penstock"
_LONG_AGO: Final = "1970-01-01T00:00:00Z"


async def list_models(exchange: Exchange) -> None:
    """GET: every model that the caller may ask for by name."""
    models = exchange.answers.models(exchange.caller())
    data = [_model(exchange, name) for name in models]
    if _is_anthropic(exchange):
        ends: dict[str, Json] = {
            "first_id": models[0] if models else None,
            "last_id": models[-1] if models else None,
        }
        await exchange.respond_json({"data": data, "has_more": False, **ends})
    else:
        await exchange.respond_json({"object": "list", "data": data})


async def retrieve(exchange: Exchange) -> None:
    """GET: one model, also one that only a pattern names. Raises ModelUnknown."""
    caller = exchange.caller()
    name = exchange.name
    if not (caller.may_ask(name) and exchange.answers.config.upstreams_for(name)):
        raise ModelUnknown(name)
    await exchange.respond_json(_model(exchange, name))


def _is_anthropic(exchange: Exchange) -> bool:
    return exchange.dialect.name == anthropic.DIALECT


def _model(exchange: Exchange, name: str) -> dict[str, Json]:
    if _is_anthropic(exchange):
        return {"type": "model", "id": name, "display_name": name, "created_at": _LONG_AGO}
    return {"id": name, "object": "model", "created": 0, "owned_by": _OWNER}

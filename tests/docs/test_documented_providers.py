"""The page of providers: each configuration asks at the address that is named beside it, and what
a dialect can be told is what its writer says of it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from docs.documents import ROOT, Block, blocks, read, table
from penstock.core.errors import RequestInexpressible
from penstock.gateway.config import UpstreamSettings, read_config
from penstock.gateway.credentials import url_of
from penstock.llm.ask.dialects import WRITERS, read_request, write_request
from penstock.llm.ask.written import Target
from penstock.llm.dialects import ACCENTS, DIALECTS

PAGE = "docs/build/providers.md"
ADDRESSES = dict(table(PAGE, "Upstream", "Asked at"))

# Whoever's model it is, since some dialects are told more of some models.
MODELS = {"gemini": "gemini-2.5-flash", "bedrock": "anthropic.claude-haiku-4-5-20251001-v1:0"}

_TOOL = {"name": "f", "schema": {"type": "object"}}
_PICTURE = {"type": "image", "url": "https://example.com/a.png"}
_FILE = {"type": "file", "data": "aGk=", "media_type": "application/pdf", "name": "a"}


def _saying(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


SAID: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.9},
    "top_k": {"top_k": 5},
    "seed": {"seed": 1},
    "penalties other than 0": {"presence_penalty": 0.5, "frequency_penalty": 0.5},
    "stop sequences": {"stop": ["a"]},
    "more than five of them": {"stop": ["a", "b", "c", "d", "e", "f"]},
    "any JSON": {"format": {"kind": "json"}},
    "JSON by a schema": {"format": {"kind": "schema", "schema": {"type": "object"}}},
    "tools": {"tools": [_TOOL]},
    "a tool that must be called": {"tools": [_TOOL], "tool_choice": "required"},
    "which tool must be called": {"tools": [_TOOL], "tool_choice": {"name": "f"}},
    "that none may be": {"tools": [_TOOL], "tool_choice": "none"},
    "one call at a time": {"tools": [_TOOL], "parallel_tool_calls": False},
    "how much to think": {"thinking": {"effort": "low"}},
    "a picture": _saying({"type": "image", "data": "aGk=", "media_type": "image/png"}),
    "a picture's address": _saying(_PICTURE),
    "a PDF": _saying(_FILE),
    "a PDF's address": _saying({"type": "file", "url": "https://example.com/a.pdf"}),
    "whom it is for (`user`)": {"user": "u"},
    "notes (`metadata`)": {"metadata": {"a": "b"}},
}
"""A request for each row of the page's table, in our own dialect."""

COLUMNS = (*WRITERS, "mistral")


def upstreams(block: Block) -> dict[str, UpstreamSettings]:
    environment = dict.fromkeys(re.findall(r"env:(\w+)", block.text), "value")
    config = read_config(tomllib.loads(block.text), environment=environment)
    assert config is not None
    return dict(config.upstreams)


CONFIGURED = {
    name: upstream
    for block in blocks(ROOT / PAGE, "toml")
    for name, upstream in upstreams(block).items()
}


@pytest.mark.parametrize("name", CONFIGURED)
def test_an_upstream_is_asked_at_the_address_that_is_named(name: str) -> None:
    settings = CONFIGURED[name]
    (model,) = settings.rename.values() or ["MODEL"]
    written = write_request(
        read_request("native", _saying({"type": "text", "text": "Why?"}) | {"model": "any"}),
        Target(dialect=settings.dialect, model=model),
    )
    assert ADDRESSES[name] == str(url_of(settings, written))


def test_every_address_is_of_an_upstream_on_the_page() -> None:
    assert set(ADDRESSES) == set(CONFIGURED)


def test_every_dialect_and_accent_is_on_the_page() -> None:
    page = read(PAGE)
    shown = {upstream.dialect for upstream in CONFIGURED.values()}
    assert set(WRITERS) <= shown
    for name in (*DIALECTS, *ACCENTS):
        assert f"`{name}`" in page or name in shown, name


def test_what_can_be_said_to_a_provider_is_what_the_table_says() -> None:
    rows = table(PAGE, "Said", *COLUMNS)
    documented = {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in rows}
    asked = {name.replace("`", ""): fields for name, fields in SAID.items()}
    assert documented == {
        name: {dialect: outcome(fields, dialect) for dialect in COLUMNS}
        for name, fields in asked.items()
    }


def outcome(fields: Mapping[str, Any], dialect: str) -> str:
    """What becomes of what a request says beside its question."""
    question = {"model": "any", "messages": [{"role": "user", "content": "Why?"}]}
    request = read_request("native", json.dumps({**question, **fields}).encode())
    model = MODELS.get(dialect, "claude-haiku-4-5" if dialect == "anthropic-messages" else "m")
    try:
        written = write_request(request, Target(dialect=dialect, model=model))
    except RequestInexpressible:
        return "refused"
    return "left out" if written.left_out else "yes"

"""The gateway's tables and keys, its filters, its metrics' bounds: as documented, so coded.

Every TOML block in the documentation is a configuration that is taken.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from docs.documents import PAGES, Block, blocks, read, table
from penstock.gateway.config import read_config
from penstock.gateway.tables import (
    BudgetsTable,
    GatewayTable,
    KeyTable,
    LimitsTable,
    Table,
    UpstreamTable,
)
from penstock.llm.ask.dialects import WRITERS
from penstock.llm.dialects import ACCENTS
from penstock.llm.filters.redact import SECRETS
from penstock.llm.filters.strip import CONTROL_TOKENS
from penstock.llm.filters.table import FILTERS
from penstock.llm.meter_prices import Price
from penstock.server.config import GATEWAY_TABLES, make_settings
from penstock.telemetry.names import METRICS, SECONDS

PAGE = "docs/operate/gateway-configuration.md"
TABLES: dict[str, type[Table]] = {
    "[gateway]": GatewayTable,
    "[upstreams.NAME]": UpstreamTable,
    "[budgets]": BudgetsTable,
    "[budgets.answer]": LimitsTable,
    "[keys.NAME]": KeyTable,
}
WRITTEN = {"day_starts_at": "+00:00"}
"""Defaults that stand in the file as something else than what they become."""


def sections() -> dict[str, str]:
    """The page's sections by the first table that their heading names."""
    parts = re.split(r"^## `(\[+[^`]*\]+)`.*$", read(PAGE), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def shown_default(name: str, field: Any) -> str:
    if field.is_required():
        return "required"
    default = WRITTEN.get(name, field.get_default(call_default_factory=True))
    if isinstance(default, list):
        return ", ".join(default) or "none"
    is_nothing = default in (None, "", {}) or isinstance(default, Table)
    return "none" if is_nothing else str(default)


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_of_a_table_is_documented(heading: str) -> None:
    rows = [
        [cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")]
        for line in sections()[heading].splitlines()
        if line.startswith("| `")
    ]
    assert {key: (default, meaning) for key, _, default, meaning in rows} == {
        name: (shown_default(name, field), field.description)
        for name, field in TABLES[heading].model_fields.items()
    }


def test_every_table_is_documented() -> None:
    documented = {re.split(r"[.\]]", heading.lstrip("["))[0] for heading in sections()}
    assert documented == set(GATEWAY_TABLES)
    for heading in re.findall(r"^## (.*)$", read(PAGE), re.MULTILINE):
        assert re.fullmatch(r"(`\[[^`]+\]`(, )?)+", heading)


def test_every_dialect_kind_of_token_and_filter_is_documented() -> None:
    page = read(PAGE)
    for name in (*WRITERS, *ACCENTS, *Price.__slots__):
        assert f"`{name}`" in page, name
    rows = table("docs/build/filters.md", "kind", "Options (default)", "What it does")
    assert [kind for kind, _, _ in rows] == list(FILTERS)
    filters = read("docs/build/filters.md")
    for name in (*SECRETS, *CONTROL_TOKENS):
        assert f"`{name}`" in filters or f'"{name}"' in filters, name


def test_the_buckets_that_a_metric_has_of_its_own_are_documented() -> None:
    rows = table("docs/reference/metrics.md", "Buckets of", "Bounds")
    assert {name: bounds.split(", ") for name, bounds in rows} == {
        metric.name: [str(bound) for bound in metric.buckets]
        for metric in METRICS
        if metric.buckets and metric.buckets != SECONDS
    }


def test_the_values_that_labels_can_have_are_documented() -> None:
    page = "docs/reference/metrics.md"
    rows = table(page, "Label", "In", "Known values") + table(page, "Label", "Of", "Values")
    documented = {(label, of): values.split(", ") for label, of, values in rows}
    for metric in METRICS:
        name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        for label, values in metric.values.items():
            assert documented[label, name] == [value or "empty" for value in values]


CONFIGURATIONS = [block for page in PAGES for block in blocks(page, "toml")]


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=lambda block: block.where)
def test_a_configuration_that_a_page_shows_is_taken(block: Block) -> None:
    tables: dict[str, Any] = tomllib.loads(block.text)
    if not set(tables) & set(GATEWAY_TABLES):
        make_settings(**tables)
        return
    tables.setdefault("upstreams", {"a": {"dialect": "ollama", "base_url": "http://127.0.0.1:1"}})
    variables = dict.fromkeys(re.findall(r"env:(\w+)", block.text), "value")
    for number, name in enumerate(variables):
        variables[name] = f"value-{number}"
    make_settings(**{name: tables[name] for name in tables if name not in GATEWAY_TABLES})
    assert read_config(tables, environment=variables) is not None

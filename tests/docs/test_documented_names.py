"""Settings, metrics, errors, addresses, signatures, options, rules, rooms: as documented, so coded.

Each reference page is compared in both directions with the one place in the code that it is about.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import os
import re
import tomllib
from typing import Any, get_args

import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

import penstock
from docs.documents import PAGES, named, read, table
from penstock.cli.main import app as command_line
from penstock.llm import events
from penstock.llm.events import TokenEvent
from penstock.server import app
from penstock.server.config import ENVIRONMENT_PREFIX, Settings
from penstock.telemetry.names import METRICS, SECONDS
from penstock.telemetry.prometheus import PrometheusHooks
from penstock.testing.recordings import VOICES
from penstock.testing.upstream import Knobs

PYPROJECT: dict[str, Any] = tomllib.loads(read("pyproject.toml"))
TEST_VARIABLES = {"PENSTOCK_STRICT", "PENSTOCK_RECORDINGS"}


# settings


def shown_default(value: object) -> str:
    """A setting's default as the page writes it."""
    if isinstance(value, tuple):
        return ", ".join(value) or "empty"
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def test_every_setting_is_documented_with_its_default_and_description() -> None:
    rows = table("docs/reference/configuration.md", "Setting", "Kind", "Default", "Description")
    documented = {name: (default, sentence) for name, _, default, sentence in rows}
    assert documented == {
        name: (shown_default(field.default), field.description)
        for name, field in Settings.model_fields.items()
    }


def test_every_variable_in_the_documentation_is_a_setting() -> None:
    known = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.model_fields} | TEST_VARIABLES
    for page in PAGES:
        text = page.read_text("utf-8")
        assert set(re.findall(r"\bPENSTOCK_[A-Z_]*[A-Z]\b", text)) <= known | {"PENSTOCK_NAME"}, (
            named(page)
        )


# metrics


def exported(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def test_every_metric_is_documented_with_its_kind_labels_and_meaning() -> None:
    rows = table("docs/reference/metrics.md", "Metric", "Kind", "Labels", "Meaning")
    assert rows == [
        [
            exported(metric.name, metric.kind),
            metric.kind,
            ", ".join(metric.labels) or "none",
            metric.sentence,
        ]
        for metric in METRICS
    ]


def test_every_metric_that_a_page_names_is_exported() -> None:
    known = {exported(metric.name, metric.kind) for metric in METRICS}
    for page in PAGES:
        text = re.sub(r"^```python.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
        used = set(re.findall(r"\bpenstock_[a-z_]+[a-z]\b", text)) - {"penstock_server"}
        assert used <= known, named(page)


def test_the_values_of_labels_are_those_that_are_exported() -> None:
    hooks = penstock.Hub().hooks
    assert isinstance(hooks, PrometheusHooks)
    text = hooks.text().decode()
    values: dict[tuple[str, str], dict[str, None]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for label in sample.labels.keys() - {"le"}:
                values.setdefault((label, sample.name), {})[sample.labels[label]] = None
    rows = table("docs/reference/metrics.md", "Label", "Of", "Values")
    found = {key: list(ordered) for key, ordered in values.items()}
    assert {(label, of): names.split(", ") for label, of, names in rows} == found


def test_the_buckets_are_documented() -> None:
    line = re.search(
        r"Buckets of the histograms, in seconds: (.*)\.", read("docs/reference/metrics.md")
    )
    assert line is not None
    assert line[1].replace("`", "").split(", ") == [str(bound) for bound in SECONDS]


# errors


def test_every_error_is_documented_with_its_status_and_sentence() -> None:
    errors = tomllib.loads(read("spec/errors.toml"))["error"]
    rows = table("docs/reference/errors.md", "Code", "Class", "Status", "Again", "Sentence")
    assert rows == [
        [
            error["code"],
            error["class"],
            str(error["status"]),
            "yes" if error["retry"] else "no",
            error["sentence"],
        ]
        for error in errors
    ]


# addresses


def test_every_address_is_documented_with_its_methods() -> None:
    rows = table("docs/reference/http.md", "Address", "Methods")
    assert {address: methods.split(", ") for address, methods in rows} == {
        "/stream/{name}": list(app.STREAM),
        "/cancel/{name}": list(app.CANCEL),
        "/streams": list(app.LIST),
        "/streams/{name}": list(app.INSPECT),
    }


# signatures


def headings() -> list[str]:
    return re.findall(r"^### `(.*)`$", read("docs/reference/python.md"), re.MULTILINE)


def resolve(name: str) -> Any:
    """The object of a dotted name, below `penstock` unless it begins with it."""
    parts = name.removeprefix("penstock.").split(".")
    found: Any = penstock
    module = "penstock"
    for part in parts:
        if not hasattr(found, part):
            importlib.import_module(f"{module}.{part}")
        found, module = getattr(found, part), f"{module}.{part}"
    return found


def shown_signature(callable_: Any) -> str:
    """A signature without types, its defaults as a reader would write them."""
    parts: list[str] = []
    is_keyword_only = False
    for parameter in inspect.signature(callable_).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword_only:
            is_keyword_only = True
            parts.append("*")
        mark = {parameter.VAR_KEYWORD: "**", parameter.VAR_POSITIONAL: "*"}.get(parameter.kind, "")
        default = parameter.default
        shown = "" if default is parameter.empty else f"={shown_value(default)}"
        parts.append(f"{mark}{parameter.name}{shown}")
    return f"({', '.join(parts)})"


def shown_value(value: object) -> str:
    if value is os.environ:
        return "os.environ"
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if type(value).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":  # a dataclass's field(default_factory)
        return "{}"
    return value.__name__ if callable(value) else repr(value)


@pytest.mark.parametrize("heading", headings(), ids=lambda heading: heading.partition("(")[0])
def test_a_documented_name_has_the_signature_that_is_shown(heading: str) -> None:
    name, bracket, _ = heading.partition("(")
    found = resolve(name)
    if bracket:
        assert heading == name + shown_signature(found)


def test_every_public_name_is_documented() -> None:
    documented = {heading.partition("(")[0] for heading in headings()}
    assert set(penstock.__all__) <= documented


# options


def test_every_command_and_option_is_documented() -> None:
    page = read("docs/reference/cli.md")
    sections = re.split(r"^## `penstock (\w+)`$", page, flags=re.MULTILINE)[1:]
    documented = {
        name: set(re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", text, re.MULTILINE))
        for name, text in zip(sections[::2], sections[1::2], strict=True)
    }
    root: Any = typer.main.get_command(command_line)
    assert documented == {
        name: {shown_parameter(p) for p in command.params if not getattr(p, "hidden", False)}
        for name, command in root.commands.items()
    }


def shown_parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


# rules


RULES = re.findall(r"^- \*\*P-(\d+)\.(\d+)\*\* (.*)$", read("spec/PROTOCOL.md"), re.MULTILINE)


def test_a_rules_number_is_unique_and_in_its_section() -> None:
    numbers = [(int(section), int(rule)) for section, rule, _ in RULES]
    assert numbers == sorted(set(numbers))
    for part in re.split(r"^## (?=\d)", read("spec/PROTOCOL.md"), flags=re.MULTILINE)[1:]:
        section = part.partition(".")[0]
        assert set(re.findall(r"^- \*\*P-(\d+)\.", part, re.MULTILINE)) == {section}


def test_every_line_of_the_protocol_that_looks_like_a_rule_is_one() -> None:
    lines = [line for line in read("spec/PROTOCOL.md").splitlines() if line.startswith("- ")]
    assert len(lines) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"P-{rule[0]}.{rule[1]}")
def test_a_rule_is_one_sentence_that_binds(rule: tuple[str, str, str]) -> None:
    text = rule[2]
    assert re.search(r"\b(MUST|SHOULD)\b", text)
    assert text.endswith(".")
    assert not re.search(r"\. [A-Z]", text)


# the house, the version


def test_the_readmes_house_is_the_import_contract() -> None:
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    (rooms,) = [found for found in contracts if found.get("containers") == ["penstock"]]
    picture = re.search(
        r"^## The house\n+```\n(.*?)```", read("README.md"), re.MULTILINE | re.DOTALL
    )
    assert picture is not None
    drawn = [re.split(r" {2,}", line)[0] for line in picture[1].splitlines()]
    assert drawn == rooms["layers"]


def test_the_changelog_has_this_version() -> None:
    assert f"## [{PYPROJECT['project']['version']}]" in read("CHANGELOG.md")


def test_every_make_target_is_documented_and_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", read("Makefile"), re.MULTILINE))
    documented = {command for command, _ in table("CONTRIBUTING.md", "Command", "What it does")}
    assert documented == {f"make {target}" for target in targets - {"help"}}
    for page in PAGES:
        used = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text("utf-8")))
        assert used <= targets, named(page)


# models


def test_every_type_of_a_token_event_is_documented() -> None:
    answer: list[TokenEvent] = [
        events.Start(id="", model=""),
        events.Text(text="a"),
        events.Reasoning(text="a"),
        events.ToolCallDelta(index=0),
        events.ToolCall(index=0, id="", name="", arguments="{}", arguments_valid=True),
        events.Data(kind="", value=None),
        events.Usage(input_tokens=0, output_tokens=0),
        events.Stop(reason="stop", raw=""),
        events.Failure(message="", code=""),
    ]
    assert {type(event) for event in answer} == set(get_args(TokenEvent))
    rows = table("docs/start/first-llm-stream.md", "Record type", "Payload", "When")
    assert {name for name, _, _ in rows} == {events.to_record(event)[0] for event in answer}


def test_every_knob_of_the_recorded_upstream_is_documented() -> None:
    rows = table("docs/build/testing-with-recorded-upstream.md", "Knob", "Default", "Meaning")
    documented: dict[str, str] = {}
    for names, defaults, _ in rows:
        documented |= zip(names.split(", "), defaults.split(", "), strict=True)
    assert documented == {
        field.name: "none" if field.default is None else f"{field.default}".removesuffix(".0")
        for field in dataclasses.fields(Knobs)
    }


def test_every_voice_is_documented() -> None:
    page = read("docs/build/testing-with-recorded-upstream.md")
    assert all(f"`{voice}`" in page for voice in VOICES)

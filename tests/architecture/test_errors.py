"""`spec/errors.toml` and the error classes say the same, and each class is drawn once."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from penstock.core import errors, gateway_errors
from penstock.core.errors import CallerError, PeerError, PenstockError, WorldError
from penstock.core.resume import RETRIABLE

SPEC = Path(__file__).parents[2] / "spec" / "errors.toml"
ROWS: list[dict[str, Any]] = tomllib.loads(SPEC.read_text(encoding="utf-8"))["error"]
CLASSES: dict[str, type[PenstockError]] = {
    name: value
    for name, value in [*vars(errors).items(), *vars(gateway_errors).items()]
    if isinstance(value, type) and issubclass(value, PenstockError)
}
FORKS = (CallerError, PeerError, WorldError)
LEAVES = {name: cls for name, cls in CLASSES.items() if cls not in (PenstockError, *FORKS)}

# One plain value of each kind that an error may carry, by how its signature spells the kind.
SAMPLES: dict[str, Any] = {"str": "word", "int": 7, "float": 7.5, "int | None": 7}


EVERY_ROW = [pytest.param(row, id=row["code"]) for row in ROWS]
LIVE_ROWS = [pytest.param(row, id=row["code"]) for row in ROWS if not row.get("retired")]


def sample(cls: type[PenstockError]) -> tuple[PenstockError, dict[str, Any]]:
    """Make an error of a class from plain values; returns it and what it was made of."""
    parameters = list(inspect.signature(cls).parameters.values())
    values = {parameter.name: SAMPLES[parameter.annotation] for parameter in parameters}
    return cls(**values), values


def test_every_class_has_a_row_and_every_row_a_class() -> None:
    live = [row["class"] for row in ROWS if not row.get("retired")]
    assert sorted(live) == sorted(CLASSES)


def test_codes_are_unique_among_all_that_ever_were() -> None:
    codes = [row["code"] for row in ROWS]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("row", EVERY_ROW)
def test_a_row_has_every_field_and_no_other(row: dict[str, Any]) -> None:
    assert set(row) - {"retired"} == {"code", "class", "status", "retry", "sentence"}
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", row["code"])
    assert isinstance(row["retry"], bool)


@pytest.mark.parametrize("row", LIVE_ROWS)
def test_a_class_has_the_code_status_and_sentence_of_its_row(row: dict[str, Any]) -> None:
    cls = CLASSES[row["class"]]
    error, values = sample(cls)
    assert (cls.code, cls.status) == (row["code"], row["status"])
    assert str(error) == error.sentence == row["sentence"].format(**values)


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_a_leaf_carries_what_it_was_made_of(name: str) -> None:
    error, values = sample(LEAVES[name])
    assert {key: getattr(error, key) for key in values} == values


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_a_leaf_hangs_on_one_fork_with_a_status_that_fits_it(name: str) -> None:
    cls = LEAVES[name]
    (fork,) = cls.__bases__
    assert fork in FORKS
    if fork is CallerError:
        assert 400 <= cls.status < 500
    if fork is PeerError:
        # The peer is the upstream (502) or whoever sent a request head (a 4xx).
        assert cls.status == 502 or 400 <= cls.status < 500


@pytest.mark.parametrize("row", LIVE_ROWS)
def test_a_retry_is_promised_only_where_our_own_client_would_try_again(row: dict[str, Any]) -> None:
    if row["retry"]:
        assert row["status"] >= 500 or row["status"] in RETRIABLE
    if issubclass(CLASSES[row["class"]], CallerError):
        assert not row["retry"]


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_a_sentence_is_one_line_in_lower_case_without_a_full_stop(name: str) -> None:
    sentence = sample(LEAVES[name])[0].sentence
    assert sentence.isprintable()
    assert sentence[0].islower() or not sentence[0].isalpha()
    assert not sentence.endswith(".")


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_a_sentence_stays_short_and_on_one_line_whatever_it_quotes(name: str) -> None:
    """What an outsider sent may be quoted; it must not flood a log."""
    cls = LEAVES[name]
    parameters = inspect.signature(cls).parameters.values()
    quoted_from_outside = {"text", "value", "type", "origin", "host", "path", "method", "given"}
    values = {
        parameter.name: "\r\n" * 10_000
        if parameter.name in quoted_from_outside
        else SAMPLES[parameter.annotation]
        for parameter in parameters
    }
    sentence = cls(**values).sentence
    assert len(sentence) < 1500
    assert sentence.isprintable()


def test_the_drawing_at_the_top_of_the_file_shows_every_class_under_its_fork() -> None:
    drawing = (errors.__doc__ or "").split("\n\n")[1]
    drawn: dict[str, str] = {}
    fork = ""
    for branch, name in re.findall(r"^([ │├└─]*)(\w+)", drawing, re.MULTILINE):
        if CLASSES.get(name) in FORKS:
            fork = name
            drawn[name] = "PenstockError"
        elif branch.strip():
            drawn[name] = fork
    expected = {name: cls.__bases__[0].__name__ for name, cls in CLASSES.items()}
    del expected["PenstockError"]
    assert drawn == expected

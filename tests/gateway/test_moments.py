"""Moments are read as people write them, and what is none is refused with an example."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import QueryMalformed
from penstock.gateway.moments import read_moment, read_range

NOW_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400),
        ("1970-01-02T01:00:00", 90_000),
        ("1970-01-02 01:00:00", 90_000),
        ("1970-01-02T01:00:00Z", 90_000),
        ("1970-01-02T01:00:00+01:00", 86_400),
        ("1700000000", 1_700_000_000),
        ("1700000000.25", 1_700_000_000.25),
        ("90s", NOW_S - 90),
        ("30m", NOW_S - 1_800),
        ("24h", NOW_S - 86_400),
        ("7d", NOW_S - 7 * 86_400),
        ("2w", NOW_S - 14 * 86_400),
    ],
)
def test_a_moment_is_what_it_says(text: str, seconds: float) -> None:
    assert read_moment(text, NOW_S) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "2026", "2026-13-01", "2026-02-30", "1h30m", "-1h", "h", "9999999d"),
        *("inf", "nan", "1e9", "-5", "12:00", "\u0661\u0667\u0660\u0660\u0660\u0660", "24 h"),
    ],
)
def test_what_is_no_moment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="2026-11-21"):
        read_moment(text, NOW_S)


def test_a_range_is_open_where_nothing_is_said() -> None:
    assert read_range({}, NOW_S) == (-math.inf, math.inf)
    assert read_range({"since": "24h", "until": "1700000000", "x": "y"}, NOW_S) == (
        NOW_S - 86_400,
        1_700_000_000,
    )
    for name in ("since", "until"):
        with pytest.raises(QueryMalformed) as caught:
            read_range({name: "soon"}, NOW_S)
        assert caught.value.parameter == name


@settings(deadline=None, print_blob=True)
@given(st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC)))  # noqa: DTZ001
def test_what_python_writes_is_read_back(moment: datetime) -> None:
    assert read_moment(moment.isoformat(), NOW_S) == moment.timestamp()


@settings(deadline=None, print_blob=True)
@given(st.text(max_size=30) | st.from_regex(r"[0-9:T+Z .-]{1,30}", fullmatch=True))
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    try:
        assert math.isfinite(read_moment(text, NOW_S))
    except ValueError as error:
        assert "is no moment" in str(error)  # noqa: PT017

"""Moments as people write them: a day, a moment of it, seconds since 1970, or how long ago."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from penstock.core.errors import QueryMalformed

EXPECTED: Final = "2026-11-21, 2026-11-21T10:00:00Z, seconds since 1970, or 30m, 24h, 7d ago"
_AGO: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SECONDS: Final = re.compile(r"[0-9]{5,12}(\.[0-9]{1,9})?")


def read_moment(text: str, now_s: float) -> float:
    """The moment that `text` says, in seconds since 1970. Without an offset it is in UTC.

    Raises:
        ValueError: it says none; the message has examples.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_s - int(ago[1]) * _UNITS[ago[2]]
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text) if text.isascii() and len(text) >= 10 else None
    except ValueError:
        moment = None
    if moment is None:
        raise ValueError(f"{text[:40]!r} is no moment; write {EXPECTED}")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def read_range(query: Mapping[str, str], now_s: float) -> tuple[float, float]:
    """From and until when, by the parameters `since` and `until`; infinite where not said.

    Raises:
        QueryMalformed: one of them is no moment.
    """
    ends = {"since": -math.inf, "until": math.inf}
    for name in ends:
        text = query.get(name, "")
        if text:
            try:
                ends[name] = read_moment(text, now_s)
            except ValueError:
                raise QueryMalformed(name, text, EXPECTED) from None
    return ends["since"], ends["until"]

"""The cost of writing grows with the answer, never with its square, however badly it is mixed.

The claims measure as `tests/growth` does: processor time at n and at 2n, the best of several runs.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from growth.test_sse_growth import assert_linear
from llm.matrix import write
from llm.writing import START, TOOLS, call, delta
from penstock.core.record import EndReason
from penstock.llm.events import Data, Reasoning, Text, TokenEvent
from penstock.llm.write.dialects import OUT_DIALECTS

SOURCE = Data(kind="citation", value={"url": "https://a.test/"})
WHOLE = '{"a":1}'


def text_by_text(n: int) -> list[TokenEvent]:
    return [Text(text="a"), Reasoning(text="b")] * n


def open_at_once(n: int) -> list[TokenEvent]:
    """Calls that are all begun before any goes on, and closed at the very end."""
    begun: list[TokenEvent] = [delta(i, f"call_{i}", "f", '{"a":') for i in range(n)]
    return [
        *(*begun, *(delta(i, arguments="1}") for i in range(n))),
        *(call(i, f"call_{i}", "f", WHOLE) for i in range(n)),
    ]


def one_in_pieces(n: int) -> list[TokenEvent]:
    return [delta(0, "call_a", "f", '{"a":"'), *[delta(0, arguments="x")] * n]


def behind_an_open_call(n: int) -> list[TokenEvent]:
    waiting: list[TokenEvent] = [SOURCE, Text(text="a"), Reasoning(text="b")]
    return [delta(0, "call_a", "f", '{"a":'), *waiting * n, call(0, "call_a", "f", WHOLE)]


def sources_alone(n: int) -> list[TokenEvent]:
    return [SOURCE] * n


@pytest.mark.parametrize("dialect", OUT_DIALECTS)
@pytest.mark.parametrize(
    "mixed", [text_by_text, open_at_once, one_in_pieces, behind_an_open_call, sources_alone]
)
def test_an_answer_twice_as_long_costs_twice_as_much(
    mixed: Callable[[int], list[TokenEvent]], dialect: str
) -> None:
    def at(n: int) -> Callable[[], object]:
        given = (START, *mixed(n), TOOLS)
        return lambda: write(dialect, given, EndReason.COMPLETE)

    assert_linear(at, 600)

"""Patterns mean what they say, and none is slow."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.core.errors import SubscriptionInvalid
from penstock.server.subscriptions.glob import Glob


@pytest.mark.parametrize(
    ("pattern", "meant", "not_meant"),
    [
        ("events/*", ["events/a", "events/*"], ["events", "events/a/b", "Events/a", "xevents/a"]),
        ("*", ["a"], ["a/b"]),
        ("**", ["a", "a/b", "a/b/c"], []),
        ("a/**", ["a", "a/b", "a/b/c"], ["b", "b/a", "ab"]),
        ("**/a", ["a", "b/a", "b/c/a"], ["a/b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b", "a/b/b"], ["a", "b", "a/b/c"]),
        ("a/**/**/b", ["a/b", "a/x/b"], ["a"]),
        ("a/*/b", ["a/x/b"], ["a/b", "a/x/y/b"]),
        ("**/a/**/a", ["a/a", "a/x/a", "x/a/y/a"], ["a", "x/a"]),
        ("a/%2A/b", ["a/*/b"], ["a/x/b", "a/%2A/b"]),
        ("a/%2a%2a", ["a/**"], ["a/b"]),
        ("a.b/(c)", ["a.b/(c)"], ["axb/c", "a.b/c"]),
    ],
)
def test_a_pattern_means_these_names(pattern: str, meant: list[str], not_meant: list[str]) -> None:
    glob = Glob(pattern)
    assert [name for name in meant if not glob.matches(name)] == []
    assert [name for name in not_meant if glob.matches(name)] == []


@pytest.mark.parametrize(
    "pattern",
    ["", "/", "a//b", "a/../b", ".", "a/chat-*", "a/***", "__ds/x", "a\n", "x" * 513, "\ud800"],
)
def test_a_pattern_that_no_name_can_match_is_refused(pattern: str) -> None:
    with pytest.raises(SubscriptionInvalid):
        Glob(pattern)


def oracle(pattern: list[str], name: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(oracle(pattern[1:], name[n:]) for n in range(len(name) + 1))
    return bool(name) and pattern[0] in ("*", name[0]) and oracle(pattern[1:], name[1:])


@given(
    st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=8),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=10),
)
@example(["**", "a", "**"], ["a"])
def test_matching_agrees_with_trying_everything(pattern: list[str], name: list[str]) -> None:
    assert Glob("/".join(pattern)).matches("/".join(name)) == oracle(pattern, name)


def test_the_worst_pattern_costs_what_any_other_of_its_length_does() -> None:
    """A matcher that backtracks takes longer than the universe here."""
    worst = Glob("/".join(["**/a"] * 80 + ["b"]))
    plain = Glob("/".join(["x"] * 160))
    name = "/".join(["a"] * 256)

    def cost(glob: Glob) -> float:
        rounds: list[float] = []
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(50):
                glob.matches(name)
            rounds.append(time.perf_counter() - began)
        return min(rounds)

    assert not worst.matches(name)
    # The plain one gives up at the first segment: 256 steps against one.
    assert cost(worst) < 2000 * cost(plain)

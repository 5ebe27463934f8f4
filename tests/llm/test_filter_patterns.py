"""Patterns are a subset of regular expressions with a known longest match and a linear cost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import SettingInvalid
from penstock.llm.filters.automaton import Automaton
from penstock.llm.filters.pattern import MAX_MATCH, MAX_POSITIONS, lengths, literal, parse

UNDERSTOOD = [
    "abc",
    r"a\.b\\",
    r"\x41\u2581",
    "[a-c_]{2}",
    "[^x]y",
    r"[]a]",
    r"[\w.-]{1,3}",
    r"\d{2,3}\s",
    ".b",
    "(ab|c)d",
    "(?:ab){2,3}c",
    "((a|b){2}c?){1,2}d",
    "a?b?c",
    "(a?){0,3}b",
    "(a?b?){1,2}c",
    "(ab?|c){0,2}d",
    "(|a)b",
    "<[|｜]x[|｜]>",
    "-{2}",
]
OPEN = ["ab+", "a[bc]*", "x[ab]{2,}", "a+", "x|a+", "(x|ab+)"]
REFUSED = {
    "": "characters",
    "a" * 5000: "characters",
    "a+b": "without end",
    "(ab)+": "without end",
    "(a+)?": "without end",
    "(a+){2}": "without end",
    "^a": "means nothing",
    "a$": "means nothing",
    r"\bword\b": "not understood",
    r"(a)\1": "not understood",
    "(?=a)b": "only (?:",
    "(?P<n>a)": "only (?:",
    "a+?": "lazy",
    "a{2}{3}": "repeats a repeat",
    "a{,3}": "no repeat",
    "a{3,2}": "repeats nothing",
    "a{0}": "repeats nothing",
    "a?": "where nothing is",
    "a{0,3}|b": "where nothing is",
    "a*": "where nothing is",
    "(a": "without its )",
    "a)": "without its (",
    "[a": "without its ]",
    "[z-a]": "class",
    "*a": "means nothing",
    "a{2000}": "can match 2000",
    "(a{1000}){1000}": "too large",
    "(" * 20 + "a" + ")" * 20: "deeper",
    "\\": "not understood",
    r"\x4": "hexadecimal",
}


@pytest.mark.parametrize("pattern", REFUSED, ids=[repr(p[:20]) for p in REFUSED])
def test_what_is_not_in_the_subset_is_refused_and_the_sentence_says_why(pattern: str) -> None:
    with pytest.raises(SettingInvalid, match=re.escape(REFUSED[pattern])):
        parse(pattern)


@pytest.mark.parametrize("pattern", OPEN)
def test_an_open_repeat_is_refused_where_it_may_not_be(pattern: str) -> None:
    parse(pattern)
    with pytest.raises(SettingInvalid):
        parse(pattern, may_be_open=False)


def test_patterns_that_are_too_large_together_are_refused() -> None:
    with pytest.raises(SettingInvalid, match="together"):
        Automaton(["a" * 1000] * (MAX_POSITIONS // 1000 + 1))
    with pytest.raises(SettingInvalid, match="empty"):
        Automaton([])


def test_the_longest_match_is_known() -> None:
    assert lengths(parse("(ab|c){2,3}d?")) == (2, 7)
    assert lengths(parse("a[bc]{3,}")) == (4, 4)
    assert Automaton(["a" * MAX_MATCH, "b"]).longest == MAX_MATCH


def ends(automaton: Automaton, text: str) -> set[tuple[int, int]]:
    """The longest match that ends at each place, as the automaton says."""
    state = 0
    found: set[tuple[int, int]] = set()
    for place, char in enumerate(text, 1):
        state = automaton.step(state, char)
        if state & automaton.last:
            found.add((automaton.start_of_match(text[:place]), place))
    return found


def ends_by_re(patterns: list[str], text: str) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for end in range(1, len(text) + 1):
        starts = [s for s in range(end) for p in patterns if re.fullmatch(p, text[s:end])]
        if starts:
            found.add((min(starts), end))
    return found


@given(
    st.lists(st.sampled_from(UNDERSTOOD + OPEN), min_size=1, max_size=3),
    st.text("abcdxy12 .]_-<>|｜A▁\\", max_size=14),
)
def test_matches_are_those_that_re_finds(patterns: list[str], text: str) -> None:
    assert ends(Automaton(patterns), text) == ends_by_re(patterns, text)


@given(
    st.recursive(
        st.sampled_from(["a", "b", "c", "[ab]", "."]),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
            st.tuples(inner, st.sampled_from(["?", "{2}", "{0,2}", "{1,3}"])).map(
                lambda two: f"({two[0]}){two[1]}"
            ),
        ),
        max_leaves=6,
    ),
    st.text("abc", max_size=9),
)
def test_patterns_of_any_shape_match_as_re_does(pattern: str, text: str) -> None:
    if re.fullmatch(pattern, ""):
        with pytest.raises(SettingInvalid):
            Automaton([pattern])
    else:
        assert ends(Automaton([pattern]), text) == ends_by_re([pattern], text)


@given(st.text(min_size=1, max_size=30))
def test_a_literal_matches_itself_and_nothing_else(text: str) -> None:
    automaton = Automaton([literal(text)])
    assert automaton.longest == len(text)
    assert (0, len(text)) in ends(automaton, text)


def test_case_is_ignored_where_asked() -> None:
    assert ends(Automaton(["aB[c-d]"], ignore_case=True), "AbD") == {(0, 3)}
    assert ends(Automaton(["aB[c-d]"]), "AbD") == set()

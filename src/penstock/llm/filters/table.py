"""Filters by the names that configuration gives them, and a chain of what it says.

Settings are a list of objects, as TOML's `[[filters]]` gives them: each names its `kind` and may
set that kind's options. They are read once, and every mistake in them is found then; what is looked
for is shared by all answers, and each answer gets filters of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from penstock.core.errors import SettingInvalid
from penstock.llm.events import Json
from penstock.llm.filters.chain import Chain, EventFunction, Filter
from penstock.llm.filters.channels import CHANNELS, Channel
from penstock.llm.filters.redact import REPLACEMENT, Redact, redact_automaton
from penstock.llm.filters.stops import StopSequences, stop_automaton
from penstock.llm.filters.strip import DEFAULT_FAMILIES, Strip, strip_automaton
from penstock.llm.filters.tool_calls import WholeToolCalls
from penstock.llm.filters.white_space import NormalizeWhiteSpace

MakeFilter: TypeAlias = Callable[[], Filter | EventFunction]
"""Makes a filter for one answer. A function that keeps nothing may be returned as it is."""


def read_filters(
    settings: Sequence[Mapping[str, Json]], functions: Mapping[str, EventFunction] | None = None
) -> Callable[[], Chain]:
    """What makes a chain for each answer, from settings; `functions` are the caller's own, by name.

    Raises:
        SettingInvalid: a filter is not known, or an option of it is not, or cannot be what it is.
    """
    makers = [
        _read_filter(_Options(f"filters[{place}]", options), functions or {})
        for place, options in enumerate(settings)
    ]
    return lambda: Chain([make() for make in makers])


def _read_filter(options: _Options, functions: Mapping[str, EventFunction]) -> MakeFilter:
    kind = options.text("kind", "")
    if kind in functions:
        function = functions[kind]
        options.check()
        return lambda: function
    read = FILTERS.get(kind)
    if read is None:
        known = ", ".join([*FILTERS, *functions])
        raise SettingInvalid(f"{options.place}.kind", f"is {kind[:64]!r}; there are {known}")
    make = read(options)
    options.check()
    # What a filter itself refuses is found here, not with the first answer.
    make()
    return make


def _read_strip(options: _Options) -> MakeFilter:
    families = options.texts("families", DEFAULT_FAMILIES)
    automaton = strip_automaton(families, options.texts("patterns", ()))
    channels = options.channels(("text", "reasoning"))
    return lambda: Strip(automaton, channels)


def _read_redact(options: _Options) -> MakeFilter:
    automaton = redact_automaton(
        options.texts("patterns", ()),
        options.texts("presets", ()),
        ignore_case=options.flag("ignore_case"),
    )
    channels = options.channels(CHANNELS)
    replacement = options.text("replacement", REPLACEMENT)
    return lambda: Redact(automaton, channels, replacement)


def _read_stops(options: _Options) -> MakeFilter:
    automaton = stop_automaton(options.texts("sequences", ()))
    return lambda: StopSequences(automaton)


def _read_white_space(options: _Options) -> MakeFilter:
    most = options.count("max_empty_lines", 1)
    trim_lines = options.flag("trim_lines")
    return lambda: NormalizeWhiteSpace(max_empty_lines=most, trim_lines=trim_lines)


def _read_tool_calls(_options: _Options) -> MakeFilter:
    return WholeToolCalls


FILTERS: Final[Mapping[str, Callable[[_Options], MakeFilter]]] = {
    "strip": _read_strip,
    "redact": _read_redact,
    "stop": _read_stops,
    "white-space": _read_white_space,
    "whole-tool-calls": _read_tool_calls,
}
"""What reads a filter's options, by the filter's kind. Not to be changed."""


class _Options:
    """One filter's settings, read strictly: what is not asked for is a mistake."""

    __slots__ = ("_asked", "_options", "place")

    def __init__(self, place: str, options: Mapping[str, Json]) -> None:
        self.place, self._options = place, options
        self._asked: set[str] = set()

    def text(self, name: str, default: str) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self._unusable(name, "a string")
        return value

    def texts(self, name: str, default: Sequence[str]) -> list[str]:
        value = self._get(name, list(default))
        texts = value if isinstance(value, list) else [None]
        chosen = [text for text in texts if isinstance(text, str)]
        if len(chosen) != len(texts):
            raise self._unusable(name, "a list of strings")
        return chosen

    def count(self, name: str, default: int) -> int:
        value = self._get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._unusable(name, "a whole number")
        return value

    def flag(self, name: str) -> bool:
        value = self._get(name, False)
        if not isinstance(value, bool):
            raise self._unusable(name, "true or false")
        return value

    def channels(self, default: Sequence[Channel]) -> list[Channel]:
        named = self.texts("channels", default)
        if any(name not in CHANNELS for name in named) or not named:
            raise self._unusable("channels", f"a list of {', '.join(CHANNELS)}")
        return [channel for channel in CHANNELS if channel in named]

    def check(self) -> None:
        """Every option that was given was asked for."""
        unknown = sorted(set(self._options) - self._asked)
        if unknown:
            known = ", ".join(sorted(self._asked))
            raise SettingInvalid(f"{self.place}.{unknown[0]}", f"is no option; there are {known}")

    def _get(self, name: str, default: Json) -> Json:
        self._asked.add(name)
        return self._options.get(name, default)

    def _unusable(self, name: str, expected: str) -> SettingInvalid:
        return SettingInvalid(f"{self.place}.{name}", f"must be {expected}")

"""Hiding what patterns describe: keys, addresses, names, before they are shown, logged or kept.

Every character that belongs to any match of any pattern is hidden, matches that overlap or touch
are hidden as one, and one replacement stands for all of them. That is the same wherever the text
was cut into events. A character is held back while it may belong to a match that is not whole.

It also reads what is no running text: the arguments of tool calls, the strings inside data parts,
and the message of a failure, which can quote a key.

Not seen: what is spelled in another way than the pattern says (in base64, with JSON escapes, with a
space between each letter), and what follows the longest match. Give a repeat room, or leave it open
at the pattern's end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from penstock.core.errors import SettingInvalid
from penstock.llm.events import Data, Failure, Json, TokenEvent
from penstock.llm.filters.automaton import Automaton
from penstock.llm.filters.channels import CHANNELS, Channel, Decision, Scanner, TextFilter

REPLACEMENT: Final = "[redacted]"

SECRETS: Final[Mapping[str, tuple[str, ...]]] = {
    "api-keys": (
        r"sk-[\w-]{20,}",  # OpenAI, Anthropic, OpenRouter, DeepSeek
        r"(AKIA|ASIA)[A-Z0-9]{16}",  # AWS
        r"AIza[\w-]{35}",  # Google
        r"gh[pousr]_[A-Za-z0-9]{36,}",  # GitHub
        r"github_pat_[A-Za-z0-9_]{22,}",
        r"glpat-[\w-]{20,}",  # GitLab
        r"xox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
        r"(gsk|hf|r8|npm)_[A-Za-z0-9]{30,}",  # Groq, Hugging Face, Replicate, npm
        r"eyJ[\w-]{10}[\w.=-]+",  # a JSON Web Token
        r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[A-Za-z0-9+/=\s]+",
    ),
    "emails": (r"[\w.%+-]{1,64}@([A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}",),
    "card-numbers": (r"\d{4}([ -]?\d{4}){2}[ -]?\d{1,7}", r"3[47]\d{2}[ -]?\d{6}[ -]?\d{5}"),
}
"""Patterns of what is often redacted, by name. Not to be changed."""


class Redact(TextFilter):
    """Shows a replacement for what patterns describe.

    Raises:
        SettingInvalid: the replacement is empty (what closes up could be a secret again), longer
            than 64 characters, or could not stand in a JSON string as it is.
    """

    __slots__ = ("_automaton", "_replacement")

    def __init__(
        self,
        automaton: Automaton,
        channels: Collection[Channel] = CHANNELS,
        replacement: str = REPLACEMENT,
    ) -> None:
        super().__init__(channels)
        is_plain = replacement.isprintable() and not set(replacement) & {'"', "\\"}
        if not is_plain or not 1 <= len(replacement) <= 64:
            reason = "must be 1 to 64 printable characters without quote or backslash"
            raise SettingInvalid("replacement", reason)
        self._automaton, self._replacement = automaton, replacement

    def _make_scanner(self) -> Scanner:
        return _Redacting(self._automaton, self._replacement)

    def _change(self, event: TokenEvent) -> TokenEvent:
        match event:
            case Data(value=value):
                changed = self._change_value(value)
                return event if changed == value else replace(event, value=changed)
            case Failure(message=message):
                changed = self._whole(message)
                return event if changed == message else replace(event, message=changed)
            case _:
                return event

    def _change_value(self, value: Json) -> Json:
        match value:
            case str():
                return self._whole(value)
            case list():
                return [self._change_value(item) for item in value]
            case dict():
                return {self._whole(k): self._change_value(item) for k, item in value.items()}
            case _:
                return value


def redact_automaton(
    patterns: Iterable[str] = (), presets: Iterable[str] = (), *, ignore_case: bool = False
) -> Automaton:
    """What `Redact` looks for: these patterns, and those of `SECRETS` with these names.

    Raises:
        SettingInvalid: there is no such preset, or a pattern is not understood.
    """
    chosen: list[str] = []
    for preset in presets:
        if preset not in SECRETS:
            known = ", ".join(SECRETS)
            raise SettingInvalid("presets", f"names {preset[:64]!r}; there are {known}")
        chosen += SECRETS[preset]
    return Automaton([*chosen, *patterns], ignore_case=ignore_case)


class _Redacting:
    """One channel. A character is hidden when some position is both reached by a match's front, as
    the forward states say, and left towards a match's end, as a pass backwards says."""

    __slots__ = ("_automaton", "_chars", "_has_match", "_is_hiding", "_replacement", "_states")

    def __init__(self, automaton: Automaton, replacement: str) -> None:
        self._automaton, self._replacement = automaton, replacement
        self._chars: list[str] = []
        # One more than the characters: the first is the state before them.
        self._states: list[int] = [0]
        self._has_match = False
        # Whether the last character given was hidden: what touches it needs no new replacement.
        self._is_hiding = False

    @property
    def is_holding(self) -> bool:
        return bool(self._chars)

    def receive(self, text: str) -> list[Decision]:
        decided: list[Decision] = []
        place = 0
        while place < len(text):
            if not self._chars and not self._states[-1]:
                found = self._automaton.find_first(text, place)
                found = len(text) if found < 0 else found
                if found > place:
                    decided.append((found - place, text[place:found]))
                    self._is_hiding = False
                place = found
            if place < len(text):
                decided += self._receive_char(text[place])
                place += 1
        return decided

    def end(self, *, is_broken: bool) -> list[Decision]:
        if not is_broken:
            return self._decide(len(self._chars))
        start = self._automaton.start_of_unfinished(self._chars, self._states[-1])
        rest = len(self._chars) - start
        decided = self._decide(start)
        self._chars.clear()
        self._states = [0]
        return [*decided, (rest, "")]

    def _receive_char(self, char: str) -> list[Decision]:
        automaton = self._automaton
        state = automaton.step(self._states[-1], char)
        self._chars.append(char)
        self._states.append(state)
        self._has_match = self._has_match or bool(state & automaton.last)
        # Matches that are whole are decided, also where more of an open repeat may come.
        if not state & automaton.unfinished:
            return self._decide(len(self._chars))
        if len(self._chars) >= 2 * automaton.longest:
            return self._decide(len(self._chars) - automaton.longest)
        return []

    def _decide(self, count: int) -> list[Decision]:
        """Decides the first `count` of what is held."""
        chars = self._chars[:count]
        hidden = self._find_hidden()[:count] if self._has_match else [False] * count
        del self._chars[:count], self._states[:count]
        self._has_match = any(state & self._automaton.last for state in self._states[1:])
        decided: list[Decision] = []
        for start, end in _runs(hidden):
            if hidden[start]:
                # The mark stands for one character, so that it is never mistaken for itself.
                decided.append((1, "" if self._is_hiding else self._replacement))
                decided.append((end - start - 1, ""))
            else:
                decided.append((end - start, "".join(chars[start:end])))
            self._is_hiding = hidden[start]
        return [one for one in decided if one[0]]

    def _find_hidden(self) -> list[bool]:
        """Which characters of those held belong to a match, as far as there are whole ones."""
        automaton = self._automaton
        hidden: list[bool] = []
        state = 0
        for char, forward in zip(reversed(self._chars), reversed(self._states), strict=False):
            state = (automaton.step_back(state, char) | automaton.end_at(char)) & forward
            hidden.append(bool(state))
        hidden.reverse()
        return hidden


def _runs(flags: list[bool]) -> Iterator[tuple[int, int]]:
    """Where each run of equal flags begins and ends."""
    start = 0
    for place in range(1, len(flags) + 1):
        if place == len(flags) or flags[place] != flags[start]:
            yield start, place
            start = place

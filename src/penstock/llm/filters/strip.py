"""Taking control tokens out: what a model's template is made of, and no reader should see.

Models end turns and open roles with tokens that have a spelling, and a server with another
template, or a model that was tuned on another, lets them through as text. `CONTROL_TOKENS` has the
spellings by family; patterns of one's own may stand beside or instead of them. What is taken out
closes up, and what then makes a token is taken out too, so the text given never contains one:
`<|im_<|pad|>end|>` leaves nothing.

Where two could be taken, the one that is whole first is, and of those that end together the
longest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from penstock.core.errors import SettingInvalid
from penstock.llm.filters.automaton import Automaton
from penstock.llm.filters.channels import Channel, Decision, Scanner, TextFilter

CONTROL_TOKENS: Final[Mapping[str, tuple[str, ...]]] = {
    # ChatML, Llama 3 and 4, Qwen, Phi, Granite, GLM, Kimi, Command, gpt-oss.
    "bars": (r"<\|[\w.:/@#-]{1,64}\|>",),
    # The same with full-width bars and U+2581 for spaces, and the tags of its tool calls.
    "deepseek": (r"<｜[\w▁.:/-]{1,64}｜>", r"</?｜DSML｜[^<>]{0,256}>"),
    "gemma": (r"<(start|end)_of_(turn|image)>", r"<(bos|eos|pad|unk|mask)>"),
    # These are also what people write: <s> is a tag of HTML, [INST] a word in brackets.
    "llama2": (r"</?s>", r"\[/?INST\]", r"<</?SYS>>"),
    "mistral": (
        r"</?s>",
        r"\[/?(INST|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CONTENT|SYSTEM_PROMPT)\]",
        r"\[(TOOL_CALLS|ARGS|CALL_ID)\]",
    ),
}
"""Patterns of control tokens by the family that writes them. Not to be changed."""

DEFAULT_FAMILIES: Final = ("bars", "deepseek", "gemma")
"""The families whose tokens nobody writes for another reason."""


class Strip(TextFilter):
    """Takes out what patterns describe. What may be one is held back while it is written."""

    __slots__ = ("_automaton",)

    def __init__(self, automaton: Automaton, channels: Collection[Channel]) -> None:
        super().__init__(channels)
        self._automaton = automaton

    def _make_scanner(self) -> Scanner:
        return _Stripping(self._automaton)


def strip_automaton(
    families: Iterable[str] = DEFAULT_FAMILIES, patterns: Iterable[str] = ()
) -> Automaton:
    """What `Strip` looks for: the tokens of these families, and these patterns.

    Raises:
        SettingInvalid: there is no such family, or a pattern is not understood or has an open
            repeat: such a thing would be taken out before its end.
    """
    chosen: list[str] = []
    for family in families:
        if family not in CONTROL_TOKENS:
            known = ", ".join(CONTROL_TOKENS)
            raise SettingInvalid("families", f"names {family[:64]!r}; there are {known}")
        chosen += CONTROL_TOKENS[family]
    return Automaton([*dict.fromkeys([*chosen, *patterns])], may_be_open=False)


class _Stripping:
    """One channel. What is held is a stack: a match takes its characters off the top, and the state
    is then that of the character below, as if they had never come."""

    __slots__ = ("_automaton", "_chars", "_counts", "_states")

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._chars: list[str] = []
        self._states: list[int] = []
        # How many characters each stands for: itself, and those taken out after it.
        self._counts: list[int] = []

    @property
    def is_holding(self) -> bool:
        return bool(self._chars)

    def receive(self, text: str) -> list[Decision]:
        decided: list[Decision] = []
        place = 0
        while place < len(text):
            if not self._chars:
                found = self._automaton.find_first(text, place)
                found = len(text) if found < 0 else found
                if found > place:
                    decided.append((found - place, text[place:found]))
                place = found
            if place < len(text):
                decided += self._receive_char(text[place])
                place += 1
        return decided

    def end(self, *, is_broken: bool) -> list[Decision]:
        if not is_broken or not self._chars:
            return self._release(len(self._chars))
        # All of it: the front of one token, behind it that of another, which would be taken out.
        decided: list[Decision] = [(sum(self._counts), "")]
        self._pop(0)
        return decided

    def _receive_char(self, char: str) -> list[Decision]:
        state = self._automaton.step(self._states[-1] if self._states else 0, char)
        self._chars.append(char)
        self._states.append(state)
        self._counts.append(1)
        if state & self._automaton.last:
            return self._take_out(self._automaton.start_of_match(self._chars))
        if not state:
            return self._release(len(self._chars))
        if len(self._chars) >= 2 * self._automaton.longest:
            return self._release(len(self._chars) - self._automaton.longest)
        return []

    def _take_out(self, start: int) -> list[Decision]:
        count = sum(self._counts[start:])
        self._pop(start)
        if not start:
            return [(count, "")]
        self._counts[-1] += count
        return []

    def _release(self, count: int) -> list[Decision]:
        """Gives the first `count` of what is held."""
        if sum(self._counts[:count]) == count:
            decided = [(count, "".join(self._chars[:count]))] if count else []
        else:
            decided = list(zip(self._counts[:count], self._chars[:count], strict=True))
        del self._chars[:count], self._states[:count], self._counts[:count]
        return decided

    def _pop(self, start: int) -> None:
        del self._chars[start:], self._states[start:], self._counts[start:]

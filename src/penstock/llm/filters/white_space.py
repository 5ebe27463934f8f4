"""Tidying white space, without touching what has meaning: indentation and the space between words.

In what the model says and in what it thinks:

- line ends are "\\n" (CR LF, CR, NEL and the Unicode separators U+2028 and U+2029 become one);
- no-break spaces (U+00A0, U+2007, U+202F) are spaces;
- lines that hold only spaces or tabs are empty, and more than `max_empty_lines` of them in a row
  become that many;
- white space before the first and after the last character is gone;
- a run of more than 256 spaces or tabs becomes 256: models that loop write them without end;
- with `trim_lines`, spaces and tabs before a line end are gone. Markdown's hard breaks are two.

White space is given with the character that follows it, so nothing else waits for it; at the end of
the answer there is no such character, and it is gone.
"""

from __future__ import annotations

import re
from typing import Final

from penstock.core.errors import SettingInvalid
from penstock.llm.events import Reasoning, Text, TokenEvent

_MAX_BLANKS: Final = 256
_MAX_EMPTY_LINES: Final = 16

_BREAK: Final = "\n\r\x85\u2028\u2029"
_BLANK: Final = " \t\xa0\u2007\u202f"
_NO_BREAK: Final = str.maketrans("\xa0\u2007\u202f", "   ")
_PIECES: Final = re.compile(f"([{_BREAK}])|([{_BLANK}]+)|([^{_BREAK}{_BLANK}]+)")


class NormalizeWhiteSpace:
    """Tidies the white space of text and of reasoning, each for itself. See the module."""

    __slots__ = ("_max_breaks", "_runs", "_trim_lines")

    def __init__(self, *, max_empty_lines: int = 1, trim_lines: bool = False) -> None:
        if not 0 <= max_empty_lines <= _MAX_EMPTY_LINES:
            reason = f"is {max_empty_lines}; choose 0 to {_MAX_EMPTY_LINES}"
            raise SettingInvalid("max_empty_lines", reason)
        self._max_breaks, self._trim_lines = max_empty_lines + 1, trim_lines
        self._runs: dict[type[TokenEvent], _Run] = {Text: _Run(), Reasoning: _Run()}

    def receive_event(self, event: TokenEvent) -> list[TokenEvent]:
        match event:
            case Text(text=text):
                tidy = self._tidy(self._runs[Text], text)
                return [Text(text=tidy)] if tidy else []
            case Reasoning(text=text):
                tidy = self._tidy(self._runs[Reasoning], text)
                return [Reasoning(text=tidy)] if tidy else []
            case _:
                return [event]

    def flush(self) -> list[TokenEvent]:
        return []

    def _tidy(self, run: _Run, text: str) -> str:
        written: list[str] = []
        for found in _PIECES.finditer(text):
            line_end, blanks, words = found.groups()
            if words:
                written.append(run.take(self._max_breaks, trim_lines=self._trim_lines))
                written.append(words)
            elif line_end:
                run.add_break(line_end)
            else:
                run.add_blanks(blanks)
        return "".join(written)


class _Run:
    """White space that was read, and is given with what follows it. What it holds is bounded."""

    __slots__ = ("_after", "_before", "_breaks", "_has_begun", "_is_after_cr")

    def __init__(self) -> None:
        self._has_begun = self._is_after_cr = False
        self._clear()

    def _clear(self) -> None:
        # The spaces before the first line end, the number of line ends, the spaces after the last.
        self._before, self._breaks, self._after = "", 0, ""

    def add_break(self, char: str) -> None:
        if char != "\n" or not self._is_after_cr:
            self._breaks += 1
            self._after = ""
        self._is_after_cr = char == "\r"

    def add_blanks(self, blanks: str) -> None:
        self._is_after_cr = False
        blanks = blanks.translate(_NO_BREAK)
        if self._breaks:
            self._after = (self._after + blanks)[:_MAX_BLANKS]
        else:
            self._before = (self._before + blanks)[:_MAX_BLANKS]

    def take(self, max_breaks: int, *, trim_lines: bool) -> str:
        """The run, tidied; a character follows it."""
        before = "" if trim_lines and self._breaks else self._before
        text = before + "\n" * min(self._breaks, max_breaks) + self._after
        text = text if self._has_begun else ""
        self._has_begun, self._is_after_cr = True, False
        self._clear()
        return text

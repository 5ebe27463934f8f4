"""What our own streams say: texts of some length, and short answers that hold one thing each.

`VOICES` are prose, a file each under `streams/`, for demos and for load. `SPECIAL_VOICES` are for
tests: a thought before the text, a tool called, two called at once, and characters that readers
trip over. Only words here; `speech/` writes them in a dialect.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from penstock.testing.speech.said import Answer, Call

VOICES: Final = ("aggressor", "brook", "chat", "defender", "granite", "magpie", "moderator")
"""Our own streams: `chat` is one long answer; `aggressor`, `defender` and `moderator` hold a debate
in turns; `brook`, `granite` and `magpie` answer one question in three characters."""

# The line between two turns of a voice.
_TURN: Final = "----\n"

_WEATHER: Final = Call(name="get_weather", arguments='{"city": "Zürich", "days": 3}')
_TIME: Final = Call(name="get_time", arguments='{"zone": "Europe/Zurich"}')
_FORECAST: Final = Answer(text="It stays dry for three days, and the clock says noon.")

# Everything that some client, proxy or language takes for something else: line ends that JSON does
# not escape, characters outside the first plane, joined and combined ones, right-to-left text, a
# byte order mark, a line that looks like a field of a stream, and one that looks like its end.
_UNICODE: Final = (
    "Grüße, Ωμέγα, 你好, こんにちは, שלום, مرحبا. "
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇭 𝄞 e\u0301 \u2028 \u2029 \u0085 \ufeff \u00a0 \u200b end.\r\n"
    "data: not a field\n\nevent: neither\n\ndata: [DONE]\n\n"
    'a "quoted" \\ backslash, a tab\t, and \u001b an escape.'
)

_SPECIAL: Final[dict[str, tuple[Answer, ...]]] = {
    "thought": (
        Answer(
            thought="They ask for a sum. Nine and eight are seventeen, so it is odd.",
            text="Seventeen, which is odd.",
        ),
    ),
    "tool": (Answer(text="I look it up.", calls=(_WEATHER,)), _FORECAST),
    "tools": (Answer(calls=(_WEATHER, _TIME)), _FORECAST),
    "unicode": (Answer(text=_UNICODE),),
}

SPECIAL_VOICES: Final = tuple(_SPECIAL)
"""Answers that hold one thing each: `thought`, `tool` and `tools` (which answer in words when they
are asked again), `unicode`."""


def answers_of(name: str) -> tuple[Answer, ...]:
    """What a voice says, turn by turn.

    Raises:
        LookupError: there is no such voice; the message names those there are.
    """
    if name in _SPECIAL:
        return _SPECIAL[name]
    if name not in VOICES:
        known = ", ".join((*VOICES, *SPECIAL_VOICES))
        raise LookupError(f"no built-in stream {name[:64]!r}; there are {known}")
    file = resources.files("penstock.testing") / "streams" / f"{name}.txt"
    # A checkout may have CRLF; what is sent, and its digest, is the same everywhere.
    text = file.read_bytes().decode().replace("\r\n", "\n")
    return tuple(Answer(text=turn.rstrip("\n")) for turn in text.split(_TURN))

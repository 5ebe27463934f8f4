"""Provider streams to play back: real ones where this machine has them, and our own everywhere.

Real streams are files beside the checkout, never part of it. Our own are what a voice says
(`voices.py`), written out in a dialect on the fly (`speech/`): words and parts of words, one event
each, as a provider sends them. Only bytes are made here; time, errors and cuts are `upstream.py`'s.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.llm import anthropic, openai_chat
from penstock.llm.events import as_count, as_text, parse_object
from penstock.testing.speech.dialects import SPEAKERS, find_speaker
from penstock.testing.speech.framing import split_events
from penstock.testing.speech.said import Answer, say, tokens
from penstock.testing.speech.speaker import Speaker
from penstock.testing.voices import SPECIAL_VOICES, VOICES, answers_of

__all__ = [
    "DIALECTS",
    "SPECIAL_VOICES",
    "SPOKEN",
    "VOICES",
    "Recording",
    "Voice",
    "built_in",
    "find_directory",
    "load",
    "render",
    "split_events",
    "tokens",
]

SPOKEN: Final = tuple(SPEAKERS)
"""Every dialect that our own streams are written in."""

DIALECTS: Final = (openai_chat.DIALECT, anthropic.DIALECT)
"""The two of them that clients know without a gateway between: demos are held in these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One answer as it came over the wire. `body` carries no timing and no chunk boundaries."""

    sha256: str
    dialect: str
    host: str
    endpoint: str
    model: str
    status: int
    content_type: str
    body: bytes


def find_directory() -> Path | None:
    """The folder of real recordings, or None where this machine has none.

    `PENSTOCK_RECORDINGS` names it; else it is `shared/recordings` beside the checkout or beside any
    folder above the current one.
    """
    named = os.environ.get("PENSTOCK_RECORDINGS")
    if named:
        return Path(named) if Path(named).is_dir() else None
    starts = (*Path(__file__).resolve().parents, *(Path.cwd() / "here").parents)
    candidates = (start / "shared" / "recordings" for start in starts)
    return next((path for path in candidates if path.is_dir()), None)


def load(dialect: str) -> tuple[Recording, ...]:
    """Every real recording of a dialect, in the file's order; none where there is no file."""
    directory = find_directory()
    path = directory / f"{dialect}.jsonl.gz" if directory else None
    if path is None or not path.is_file():
        return ()
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        return tuple(_read(line) for line in lines)


def _read(line: str) -> Recording:
    fields = parse_object(line) or {}
    body = as_text(fields.get("body"))
    is_binary = fields.get("encoding") == "base64"
    return Recording(
        sha256=as_text(fields.get("sha256")),
        dialect=as_text(fields.get("dialect")),
        host=as_text(fields.get("host")),
        endpoint=as_text(fields.get("endpoint")),
        model=as_text(fields.get("model")),
        status=as_count(fields.get("status")) or 200,
        content_type=as_text(fields.get("content_type")),
        body=base64.b64decode(body) if is_binary else body.encode(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One of our own streams: a speaker and what it says, turn by turn."""

    name: str
    answers: tuple[Answer, ...]

    @property
    def turns(self) -> tuple[str, ...]:
        """The texts alone."""
        return tuple(answer.text for answer in self.answers)

    def recording(self, dialect: str, turn: int = 0, *, limit: int | None = None) -> Recording:
        """What a provider of this dialect would have sent. Turns past the last begin again.

        `limit` cuts it after so many tokens, as the provider does that was given a maximum.

        Raises:
            LookupError: the dialect is not one of `SPOKEN`.
        """
        return self.spoken(find_speaker(dialect), turn, limit=limit)

    def spoken(self, speaker: Speaker, turn: int, *, limit: int | None = None) -> Recording:
        """The same, for one who knows the dialect already."""
        model = f"built-in:{self.name}"
        said = say(self.answers[turn % len(self.answers)], model=model, limit=limit)
        body = b"".join(speaker.speak(said))
        return Recording(
            sha256=hashlib.sha256(body).hexdigest(),
            dialect=speaker.dialect,
            host="127.0.0.1",
            endpoint=speaker.endpoint.replace("{model}", model),
            model=model,
            status=200,
            content_type=speaker.framing.media_type,
            body=body,
        )


def built_in(name: str) -> Voice:
    """One of our own streams by its name.

    Raises:
        LookupError: there is no such voice; the message names those there are.
    """
    return Voice(name=name, answers=answers_of(name))


def render(dialect: str, text: str, *, model: str, input_tokens: int = 24) -> tuple[bytes, ...]:
    """`text` as a provider of this dialect streams it, usage at the end: one item an event.

    Raises:
        LookupError: the dialect is not one of `SPOKEN`.
    """
    said = say(Answer(text=text), model=model, input_tokens=input_tokens)
    return tuple(find_speaker(dialect).speak(said))

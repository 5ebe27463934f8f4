"""What a request to the recorded upstream asks for, in whichever dialect it is.

The dialects' fields do not collide, so all are looked for everywhere: one reader serves all. Read
`upstream.py` for the rules of choosing an answer; here they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from penstock.llm.events import Json, as_count, as_json_text, as_list, as_object, as_text
from penstock.testing.knobs import Knobs, read_query
from penstock.testing.recordings import VOICES, Recording, built_in
from penstock.testing.speech.dialects import GENERATE, SPEAKERS
from penstock.testing.speech.speaker import Speaker

# Where dialects name the maximum of tokens that an answer may have.
_LIMITS: Final = (
    ("max_completion_tokens",),
    ("max_output_tokens",),
    ("max_tokens",),
    ("generationConfig", "maxOutputTokens"),
    ("inferenceConfig", "maxTokens"),
    ("options", "num_predict"),
)

_CONVERSATIONS: Final = ("messages", "contents", "input")
_ASSISTANTS: Final = ("assistant", "model")
# What an assistant's turn has in Responses beside its messages.
_ITEMS: Final = ("function_call", "reasoning")


def _pattern(speaker: Speaker) -> re.Pattern[str]:
    before, found, after = speaker.endpoint.partition("{model}")
    model = "(?P<model>.+)" if found else ""
    return re.compile(f".*{re.escape(before)}{model}{re.escape(after)}")


# Chat completions stand before the completions whose path their own ends with.
_PATTERNS: Final = tuple((_pattern(one), one) for one in (*SPEAKERS.values(), GENERATE))


def find_endpoint(path: str) -> tuple[Speaker, str] | None:
    """The dialect that is asked at a path, and the model in it, "" where there is none."""
    for pattern, speaker in _PATTERNS:
        match = pattern.fullmatch(path)
        if match is not None:
            return speaker, match.groupdict().get("model") or ""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request.

    Attributes:
        model: as it was named, knobs and all.
        name: the same without the knobs.
        values: the knobs that stand in the name and the body.
        max_output_tokens: the most that the answer may have, where the request says it.
        turn: how often the assistant has spoken.
        question: the last thing that the user said, in the dialect's own form.
    """

    model: str
    name: str
    values: Mapping[str, Json]
    max_output_tokens: int | None
    turn: int
    question: Json

    @classmethod
    def read(cls, body: dict[str, Json], model: str = "") -> Self:
        """The request that a body is; `model` is the one that its path names.

        Raises:
            ValueError: the knobs in the model's name are none.
        """
        model = model or as_text(body.get("model"))
        name, _, query = model.partition("?")
        said = _conversation(body)
        questions = [one.get("content") or one.get("parts") for one in said if _is_question(one)]
        return cls(
            model=model,
            name=name,
            values={**as_object(body.get("penstock")), **read_query(query)},
            max_output_tokens=_limit(body),
            turn=_turns(said),
            question=questions[-1] if questions else None,
        )

    def choose(
        self, speaker: Speaker, load: Callable[[str], tuple[Recording, ...]], knobs: Knobs
    ) -> Recording:
        """The answer to it; `load` gives the recordings of a file.

        Raises:
            LookupError: the model names a recording or voice that is not there.
        """
        # A router has a provider's name in front, as in `openrouter/built-in:chat`.
        kind, _, name = self.name.rpartition("/")[2].partition(":")
        limit = self.max_output_tokens if knobs.obeys_limit else None
        if kind == "built-in":
            voice, _, turn = name.partition(":")
            number = int(turn) if turn.isdecimal() and len(turn) < 6 else self.turn
            return built_in(voice).spoken(speaker, number, limit=limit)
        recordings = load(speaker.file)
        if kind == "recorded":
            return _find(name, recordings, speaker.dialect)
        number = int.from_bytes(hashlib.sha256(as_json_text(self.question).encode()).digest()[:8])
        if recordings:
            return recordings[number % len(recordings)]
        return built_in(VOICES[number % len(VOICES)]).spoken(speaker, 0, limit=limit)


def _find(name: str, recordings: tuple[Recording, ...], dialect: str) -> Recording:
    index = int(name) if name.isdecimal() and len(name) < 6 else len(recordings)
    for place, recording in enumerate(recordings):
        if place == index or (len(name) >= 6 and recording.sha256.startswith(name)):
            return recording
    raise LookupError(f"no recording {name[:64]!r} of {dialect!r} on this machine")


def _conversation(body: dict[str, Json]) -> list[dict[str, Json]]:
    """What was said so far; a prompt alone is one question."""
    for field in _CONVERSATIONS:
        if messages := as_list(body.get(field)):
            return [as_object(message) for message in messages]
    asked = body.get("input") or body.get("prompt")
    return [{"role": "user", "content": asked}] if asked else []


def _is_question(message: dict[str, Json]) -> bool:
    return message.get("role") == "user"


def _turns(said: list[dict[str, Json]]) -> int:
    """How often the assistant spoke. Responses say a turn in several items, one after the other."""
    spoken = [one.get("role") in _ASSISTANTS for one in said]
    items = [one.get("type") in _ITEMS for one in said]
    if not any(items):
        return sum(spoken)
    mine = [is_spoken or is_item for is_spoken, is_item in zip(spoken, items, strict=True)]
    return sum(is_mine and not before for before, is_mine in pairwise([False, *mine]))


def _limit(body: dict[str, Json]) -> int | None:
    for *outer, field in _LIMITS:
        place = as_object(body.get(outer[0])) if outer else body
        count = as_count(place.get(field))
        if count:
            return count
    return None

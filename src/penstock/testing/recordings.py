"""Provider streams to play back: real ones where this machine has them, and our own everywhere.

Real streams are files beside the checkout, never part of it. Our own are plain text, a file a voice
under `streams/`, written out in a dialect on the fly: words and parts of words, one event each, as
a provider sends them. Only bytes are made here; time, errors and cuts are `upstream.py`'s.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from penstock.llm import anthropic, openai_chat
from penstock.llm.events import Json, as_count, as_json_text, as_text, parse_object

DIALECTS: Final = (openai_chat.DIALECT, anthropic.DIALECT)

VOICES: Final = ("aggressor", "brook", "chat", "defender", "granite", "magpie", "moderator")
"""Our own streams: `chat` is one long answer; `aggressor`, `defender` and `moderator` hold a debate
in turns; `brook`, `granite` and `magpie` answer one question in three characters."""

# The line between two turns of a voice.
_TURN: Final = "----\n"

# A piece is up to six letters with the space before them, a run of white space, or one other
# character: about what tokenizers make of prose. Every character belongs to exactly one piece.
_PIECE: Final = re.compile(r" ?\w{1,6}|\s+|[^\w\s]")

_EVENT_END: Final = re.compile(rb"\n\n|\r\n\r\n|\r\r")


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
    turns: tuple[str, ...]

    def recording(self, dialect: str, turn: int = 0) -> Recording:
        """What a provider of this dialect would have sent. Turns past the last begin again."""
        model = f"built-in:{self.name}"
        body = b"".join(render(dialect, self.turns[turn % len(self.turns)], model=model))
        return Recording(
            sha256=hashlib.sha256(body).hexdigest(),
            dialect=dialect,
            host="127.0.0.1",
            endpoint="/v1/messages" if dialect == anthropic.DIALECT else "/v1/chat/completions",
            model=model,
            status=200,
            content_type="text/event-stream",
            body=body,
        )


def built_in(name: str) -> Voice:
    """One of our own streams by its name.

    Raises:
        LookupError: there is no such voice; the message names those there are.
    """
    if name not in VOICES:
        raise LookupError(f"no built-in stream {name[:64]!r}; there are {', '.join(VOICES)}")
    file = resources.files("penstock.testing") / "streams" / f"{name}.txt"
    # A checkout may have CRLF; what is sent, and its digest, is the same everywhere.
    text = file.read_bytes().decode().replace("\r\n", "\n")
    return Voice(name=name, turns=tuple(turn.rstrip("\n") for turn in text.split(_TURN)))


def tokens(text: str) -> list[str]:
    """`text` in pieces of about a token each; together they are the text."""
    return _PIECE.findall(text)


def split_events(body: bytes) -> tuple[bytes, ...]:
    """An SSE body, event by event, comments included. Together they are the body."""
    ends = [match.end() for match in _EVENT_END.finditer(body)]
    if not ends or ends[-1] < len(body):
        ends.append(len(body))
    return tuple(body[start:end] for start, end in zip([0, *ends], ends, strict=False) if end)


def render(dialect: str, text: str, *, model: str, input_tokens: int = 24) -> tuple[bytes, ...]:
    """`text` as a provider of this dialect streams it, usage at the end: one item an event.

    Raises:
        LookupError: the dialect is not one of `DIALECTS`.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()[:24]
    pieces = tokens(text)
    if dialect == openai_chat.DIALECT:
        return tuple(_openai_chat(pieces, f"chatcmpl-{digest}", model, input_tokens))
    if dialect == anthropic.DIALECT:
        return tuple(_anthropic(pieces, f"msg_{digest}", model, input_tokens))
    raise LookupError(f"no dialect {dialect[:64]!r} to write; there are {', '.join(DIALECTS)}")


def _openai_chat(pieces: list[str], id: str, model: str, input_tokens: int) -> Iterator[bytes]:
    head: dict[str, Json] = {"id": id, "object": "chat.completion.chunk", "model": model}

    def chunk(delta: dict[str, Json], finish: str | None = None) -> bytes:
        choice: Json = {"index": 0, "delta": delta, "finish_reason": finish}
        return _data({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces:
        yield chunk({"content": piece})
    yield chunk({}, "stop")
    usage: dict[str, Json] = {
        "prompt_tokens": input_tokens,
        "completion_tokens": len(pieces),
        "total_tokens": input_tokens + len(pieces),
    }
    yield _data({**head, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _anthropic(pieces: list[str], id: str, model: str, input_tokens: int) -> Iterator[bytes]:
    message: dict[str, Json] = {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": input_tokens, "output_tokens": 1},
    }
    yield _named("message_start", {"message": message})
    block: Json = {"type": "text", "text": ""}
    yield _named("content_block_start", {"index": 0, "content_block": block})
    yield _named("ping", {})
    for piece in pieces:
        delta: Json = {"type": "text_delta", "text": piece}
        yield _named("content_block_delta", {"index": 0, "delta": delta})
    yield _named("content_block_stop", {"index": 0})
    end: Json = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _named("message_delta", {"delta": end, "usage": {"output_tokens": len(pieces)}})
    yield _named("message_stop", {})


def render_error(dialect: str, message: str, kind: str) -> bytes:
    """An error in the middle of a stream, as a provider of this dialect sends it."""
    error: dict[str, Json] = {"type": kind, "message": message}
    if dialect == anthropic.DIALECT:
        return _named("error", {"error": error})
    return _data({"error": error})


def _named(type: str, fields: dict[str, Json]) -> bytes:
    return f"event: {type}\n".encode() + _data({"type": type, **fields})


def _data(payload: dict[str, Json]) -> bytes:
    return f"data: {as_json_text(payload)}\n\n".encode()

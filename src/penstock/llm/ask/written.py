"""What all writers of requests share: whom they write to, what they give, and the border.

A writer is a function, `Request` and `Target` to `Written`. Where the request came in the dialect
that is written, it starts from `relayed`, the body as it came. Else it makes the body anew behind a
`Border`, which knows what may be left out and refuses the rest. No dialect's field names here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import quote

from penstock.core.errors import RequestInexpressible
from penstock.llm.ask.hints import is_hint, is_neutral
from penstock.llm.ask.json_values import parse_json
from penstock.llm.ask.request import MediaPart, Request, ResultPart, TextPart
from penstock.llm.events import Json

Headers: TypeAlias = tuple[tuple[str, str], ...]

# Compressed, a stream waits for the compressor's block to fill.
HEADERS: Final[Headers] = (
    ("Content-Type", "application/json"),
    ("Accept", "text/event-stream, application/json"),
    ("Accept-Encoding", "identity"),
)

_INDEX: Final = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom a request is written to.

    Attributes:
        dialect: the dialect it speaks, or a provider that speaks one with an accent
            (`penstock.llm.dialects.ACCENTS`).
        model: its name for the model.
        max_output_tokens: no more than this, whatever the client asked for; at least 1.
        is_stream: whether the answer is to come as a stream.
        may_drop: what the operator lets be left out although the model's answer may differ for it:
            names as `RequestInexpressible.field` has them, the places in lists left out or not
            (`top_k`, `seed`, `messages[].name`).
    """

    dialect: str
    model: str
    max_output_tokens: int | None = None
    is_stream: bool = True
    may_drop: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A request in a provider's dialect. The caller adds its key, or signs it.

    Whether the client asked for the usage that is asked for here is `Request.wants_usage`.

    Attributes:
        method: the HTTP method.
        path: what follows the upstream's base address, with a query where there is one. Already
            percent-encoded: to be sent as it is.
        headers: all but authorisation, host and length.
        body: what goes as JSON. Not to be changed: it may share what the client sent.
        left_out: what was not said to this provider, by name or path without the places in lists
            (`messages[].id`), each once.
    """

    path: str
    body: dict[str, Json]
    headers: Headers = HEADERS
    left_out: tuple[str, ...] = ()
    method: str = "POST"

    def data(self) -> bytes:
        """The body's bytes: JSON in ASCII, so that half a character stays what it was."""
        return json.dumps(self.body, separators=(",", ":"), allow_nan=False).encode()


Write: TypeAlias = Callable[[Request, Target], Written]


def relayed(request: Request, dialect: str) -> dict[str, Json] | None:
    """The body as it came, in a dict of its own, where it came in this dialect."""
    if request.dialect != dialect or request.origin is None:
        return None
    return dict(request.origin)


def spoken_headers(request: Request, dialect: str, headers: Headers = HEADERS) -> Headers:
    """The headers of a request, those of the client's dialect among them where it is this one."""
    if request.dialect != dialect:
        return headers
    said = request.headers
    return (*(pair for pair in headers if pair[0].lower() not in said), *said.items())


def bounded(asked: int | None, target: Target) -> int | None:
    """The lower one of what the client asked for and what it may have."""
    limit = target.max_output_tokens
    if asked is None or limit is None:
        return limit if asked is None else asked
    return min(asked, limit)


class Border:
    """What one request loses on its way into another dialect: left out by name, or refused.

    `goes_on` says whether a provider that speaks this dialect takes a last message of the assistant
    for the beginning of its answer, or for something said before it.
    """

    __slots__ = ("_dialect", "_left_out", "_may_drop", "extra")

    def __init__(self, request: Request, target: Target, dialect: str, *, goes_on: bool) -> None:
        self._dialect, self._may_drop = dialect, target.may_drop
        self._left_out: dict[str, None] = {}  # in order, each once
        # What is handed on although nothing here knows it: the body's own fields, in their dialect.
        self.extra: dict[str, Json] = {}
        for path, value in request.extra.items():
            if request.dialect == dialect and "." not in path and "[" not in path:
                self.extra[path] = value
            elif is_hint(path):
                self.leave_out(path)
            elif not is_neutral(path, value):
                self.refuse(path)
        for name in request.headers:
            if name.endswith("-beta") and request.dialect != dialect:
                self.leave_out(f"header {name}")
        is_last = bool(request.messages) and request.messages[-1].role == "assistant"
        if is_last and request.is_begun != goes_on:
            self.refuse("answer that is begun" if request.is_begun else "assistant's last message")

    def leave_out(self, name: str) -> None:
        """Says that this is not written."""
        self._left_out[_INDEX.sub("[]", name)] = None

    def refuse(self, name: str) -> None:
        """Refuses what this dialect cannot say, unless the operator lets it be left out."""
        if name not in self._may_drop and _INDEX.sub("[]", name) not in self._may_drop:
            raise RequestInexpressible(name, self._dialect)
        self.leave_out(name)

    def refuse_said(self, **said: object) -> None:
        """Refuses each of these that the client did say."""
        for name, value in said.items():
            if value is not None:
                self.refuse(name)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was left out, in order."""
        return tuple(self._left_out)


def without_none(fields: dict[str, Json]) -> dict[str, Json]:
    """The fields that say something."""
    return {name: value for name, value in fields.items() if value is not None}


def as_arguments(text: str, border: Border) -> dict[str, Json]:
    """A call's arguments as the object that most dialects want."""
    try:
        arguments = parse_json(text or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        border.refuse("tool call whose arguments are no JSON object")
        return {}
    return arguments


def result_text(result: ResultPart, border: Border, *, marks_errors: bool = False) -> str:
    """A tool's result as text alone. What failed says so, where the dialect has no flag for it."""
    said = "error: " if result.is_error and not marks_errors else ""
    for part in result.content:
        if isinstance(part, TextPart):
            said += part.text
        else:
            border.refuse(f"tool result with {media_word(part)}")
    return said


def few_stops(stop: tuple[str, ...], most: int, border: Border) -> Json:
    """The texts that end the answer, where the provider takes as many."""
    if len(stop) > most:
        border.refuse("stop")
        return None
    return list[Json](stop) or None


def fitting_id(id: str, fits: re.Pattern[str], length: int) -> str:
    """A call's id where the provider takes it, else one made of it, always the same.

    Ids come from whichever provider made the call, and each takes its own. Of the SHA-256, as many
    hexadecimal digits as `length`.
    """
    if fits.fullmatch(id):
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def model_path(model: str, dialect: str) -> str:
    """The model's name as part of a path, in as many segments as it has.

    Raises:
        RequestInexpressible: a segment of it would lead elsewhere.
    """
    segments = model.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise RequestInexpressible("model", dialect)
    return "/".join(quote(segment, safe="") for segment in segments)


def media_word(part: MediaPart) -> str:
    """What an error calls a picture or a document."""
    return "an image" if part.kind == "image" else "a file"


def data_url(part: MediaPart) -> str:
    """The address of a picture or a document, made from its bytes where it has none."""
    return part.url or f"data:{part.media_type};base64,{part.data}"


def join_texts(texts: Iterable[str]) -> str:
    """Instructions from several places as one text."""
    return "\n\n".join(text for text in texts if text)

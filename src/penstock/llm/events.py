"""Token events: what a model's answer is made of, whichever provider gave it.

The one vocabulary between dialects and everything above them. A reader turns provider bytes into
these values; a record of the log holds one of them; an encoder turns them into another dialect.
Only values live here, their form as a record, and the narrowing of JSON that somebody else wrote.
No dialect's field names: those belong into the dialect's file. Read `assemble.py` next.

One answer is a run of events in this order, and every reader keeps to it:

    Start  (Text | Reasoning | ToolCallDelta | ToolCall | Data | Usage)*  Stop?  (Data | Usage)*
    and last, where the answer went wrong: Failure

An answer is whole when it has a `Stop` and no `Failure`. A `Failure` can come first, without a
`Start`, and after a `Stop`; nothing ever follows it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, cast

from penstock.core.errors import BodyMalformed

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A value as JSON has it."""

StopReason = Literal["stop", "length", "tool_use", "content_filter", "refusal", "other"]

STOP_REASONS: Final[tuple[StopReason, ...]] = (
    "stop",
    "length",
    "tool_use",
    "content_filter",
    "refusal",
    "other",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The answer has begun. `id` and `model` are the provider's words, "" where it gave none."""

    id: str
    model: str
    role: str = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """More of what the model says, a refusal included. Never empty, never half a character."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """More of what the model thinks aloud before it says anything."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A piece of a tool call, for those who show it while it is written.

    `index` counts the answer's tool calls from 0. `id` and `name` are "" where this piece brings
    none; `arguments` is the next part of a JSON text.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A whole tool call, at its end. It repeats what its deltas said.

    `arguments` is the JSON text as the model wrote it ("{}" where it wrote nothing), and
    `arguments_valid` whether that text is JSON at all: models do write broken JSON.
    """

    index: int
    id: str
    name: str
    arguments: str
    arguments_valid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Something beside the text that is passed through as it came: a citation, a search result."""

    kind: str
    value: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the answer costs, as the provider counts. Each one replaces the one before it.

    `input_tokens` are all of them, those read from a cache and those written to one included;
    `cached_tokens` and `cache_write_tokens` say how many. `reasoning_tokens` are part of
    `output_tokens`. `partial` says that the provider was still counting: where no other follows,
    the answer broke off and cost at least this much.
    """

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The model stopped, and why. `raw` is the provider's own word, "" where it gave none."""

    reason: StopReason
    raw: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The answer went wrong under way. What came before it is real, and not the whole.

    `code` is the provider's own word, or ours where it begins with "upstream-":
    `upstream-truncated` (the body ended before its dialect's end), `upstream-malformed` (what came
    is not the dialect), `upstream-arguments-invalid` (a tool call's arguments are not JSON, where a
    filter asks for that), `upstream-failed` (an error the provider gave no word for). `status` is
    the HTTP status the provider named for it, if it did, and `retry_after_s` for how many seconds
    it wants to be left alone.
    """

    message: str
    code: str
    status: int | None = None
    retry_after_s: int | None = None


TokenEvent: TypeAlias = (
    Start | Text | Reasoning | ToolCallDelta | ToolCall | Data | Usage | Stop | Failure
)

MAX_COUNT: Final = 2**48
"""The largest number that counts something; what a provider says above it counts as absent."""

# A count here may be a sum of a few of a provider's. Above this, a JSON number is not the same
# number everywhere.
_MAX_SUM: Final = 2**53

TRUNCATED: Final = "upstream-truncated"
MALFORMED: Final = "upstream-malformed"
FAILED: Final = "upstream-failed"


class TokenReader(Protocol):
    """What every dialect's reader is: bytes of one answer's body in, token events out.

    A reader raises for nothing a provider can send: what is wrong with a body is a `Failure`.
    """

    def receive_data(self, data: bytes) -> None:
        """Takes the next bytes of the body, cut anywhere; where they were cut changes nothing."""
        ...

    def receive_eof(self) -> None:
        """Takes the end of the body, clean or broken. Too early, it is `upstream-truncated`."""
        ...

    def events(self) -> list[TokenEvent]:
        """The token events completed since the last call, in order, each exactly once."""
        ...

    @property
    def is_ended(self) -> bool:
        """Whether the dialect's own end, or a failure, was read: nothing more will come."""
        ...


TOKEN_TYPES: Final = frozenset(
    {"start", "text", "reasoning", "tool_delta", "tool", "data", "usage", "stop", "failure"}
)
"""The types of the records that hold token events: all that `to_record` gives."""


def to_record(event: TokenEvent) -> tuple[str, dict[str, Json]]:
    """The record type and payload of a token event. Fields that say nothing are left out."""
    match event:
        case Text(text=text):
            return "text", {"text": text}
        case Reasoning(text=text):
            return "reasoning", {"text": text}
        case ToolCallDelta(index=index, id=id, name=name, arguments=arguments):
            said = {"id": id, "name": name, "arguments": arguments}
            return "tool_delta", {"index": index, **{k: v for k, v in said.items() if v}}
        case Start(id=id, model=model, role=role):
            return "start", {"id": id, "model": model, "role": role}
        case ToolCall(index=index, id=id, name=name, arguments=arguments):
            whole: dict[str, Json] = {"id": id, "name": name, "arguments": arguments}
            return "tool", {"index": index, **whole, "arguments_valid": event.arguments_valid}
        case Data(kind=kind, value=value):
            return "data", {"kind": kind, "value": value}
        case Usage():
            return "usage", _usage_payload(event)
        case Stop(reason=reason, raw=raw):
            return "stop", {"reason": reason, "raw": raw}
        case Failure(message=message, code=code):
            numbers = {"status": event.status, "retry_after_s": event.retry_after_s}
            known: dict[str, Json] = {k: v for k, v in numbers.items() if v is not None}
            return "failure", {"message": message, "code": code, **known}


def _usage_payload(usage: Usage) -> dict[str, Json]:
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
    known: dict[str, Json] = {k: v for k, v in counts.items() if v is not None}
    return {**known, "partial": usage.partial}


def from_record(type: str, payload: dict[str, Json]) -> TokenEvent:
    """The token event that `to_record` wrote. Unknown fields are ignored.

    Raises:
        BodyMalformed: no token event has this type, or a field is missing or of another kind.
    """
    fields = _Fields(type, payload)
    match type:
        case "text":
            return Text(text=fields.text("text"))
        case "reasoning":
            return Reasoning(text=fields.text("text"))
        case "tool_delta":
            piece = {k: fields.text(k, "") for k in ("id", "name", "arguments")}
            return ToolCallDelta(index=fields.count("index"), **piece)
        case "tool":
            whole = {k: fields.text(k) for k in ("id", "name", "arguments")}
            valid = fields.flag("arguments_valid")
            return ToolCall(index=fields.count("index"), arguments_valid=valid, **whole)
        case "start":
            return Start(**{k: fields.text(k) for k in ("id", "model", "role")})
        case "data":
            return Data(kind=fields.text("kind"), value=payload.get("value"))
        case "usage":
            return Usage(
                input_tokens=fields.count("input_tokens"),
                output_tokens=fields.count("output_tokens"),
                reasoning_tokens=fields.maybe_count("reasoning_tokens"),
                cached_tokens=fields.maybe_count("cached_tokens"),
                cache_write_tokens=fields.maybe_count("cache_write_tokens"),
                partial=fields.flag("partial"),
            )
        case "stop":
            reason = fields.text("reason")
            if reason not in STOP_REASONS:
                raise fields.unusable("reason")
            return Stop(reason=reason, raw=fields.text("raw", ""))
        case "failure":
            message, code = fields.text("message"), fields.text("code")
            status, after_s = fields.maybe_count("status"), fields.maybe_count("retry_after_s")
            return Failure(message=message, code=code, status=status, retry_after_s=after_s)
        case _:
            raise BodyMalformed(f"is a record of type {type[:64]!r}, which no token event has")


class _Fields:
    """A record's payload, read strictly: what the log holds was written by `to_record`."""

    __slots__ = ("_payload", "_type")

    def __init__(self, type: str, payload: dict[str, Json]) -> None:
        self._type, self._payload = type, payload

    def text(self, name: str, default: str | None = None) -> str:
        value = self._payload.get(name, default)
        if not isinstance(value, str):
            raise self.unusable(name)
        return value

    def count(self, name: str) -> int:
        value = self.maybe_count(name)
        if value is None:
            raise self.unusable(name)
        return value

    def maybe_count(self, name: str) -> int | None:
        value = self._payload.get(name)
        count = as_count(value, _MAX_SUM)
        if value is not None and count is None:
            raise self.unusable(name)
        return count

    def flag(self, name: str) -> bool:
        value = self._payload.get(name)
        if not isinstance(value, bool):
            raise self.unusable(name)
        return value

    def unusable(self, name: str) -> BodyMalformed:
        return BodyMalformed(f"of a {self._type!r} record has no usable {name!r}")


# What follows narrows JSON from providers. They disagree on shapes, send null for absent and add
# fields weekly, so a value of an unexpected kind counts as absent, never as an error.

# NaN and Infinity are not JSON, yet Python servers send them (as log probabilities, say). They
# become null: one odd number nobody reads must not cost the answer.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def parse_string(text: str) -> str | None:
    """The string whose JSON is `text`, or None where that is anything else."""
    try:
        value, end = cast("tuple[Json, int]", _DECODER.raw_decode(text))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, str) and end == len(text) else None


def parse_object(text: str) -> dict[str, Json] | None:
    """The JSON object in `text`, white space around it allowed, or None where there is none."""
    text = text.strip()
    try:
        # Not `decode`, which looks for the white space with two regular expressions: on a chunk of
        # 300 bytes that is a fifth of its cost.
        value, end = cast("tuple[Json, int]", _DECODER.raw_decode(text))
    except (ValueError, RecursionError):  # the second: nested deeper than the stack
        return None
    return value if isinstance(value, dict) and end == len(text) else None


def as_object(value: Json) -> dict[str, Json]:
    """`value` where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Json) -> list[Json]:
    """`value` where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: Json) -> str:
    """`value` where it is a string, else ""."""
    return value if isinstance(value, str) else ""


def as_count(value: Json, most: int = MAX_COUNT) -> int | None:
    """`value` where it is a whole number from 0 to `most`, also written as 12.0; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        return None
    return int(value) if value == value // 1 else None


def as_json_text(value: Json) -> str:
    """`value` as a compact JSON text, non-ASCII characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

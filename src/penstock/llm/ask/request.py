"""A request: what a client asks of a model, whichever dialect it spoke.

The one vocabulary between the dialects that clients speak and those that providers do. Only values
live here; no dialect's field names, and nothing that reads or writes JSON. Read `dialects.py` next.

A conversation is a row of messages. Every instruction is a message of the role `system`, where it
was said; what a tool gave back is a message of the role `tool`, with results alone in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from penstock.llm.events import Json

Role = Literal["system", "user", "assistant", "tool"]

ROLES: Final[tuple[Role, ...]] = ("system", "user", "assistant", "tool")

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

EFFORTS: Final[tuple[Effort, ...]] = (
    *("none", "minimal", "low", "medium", "high"),
    *("xhigh", "max"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """Something said."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPart:
    """A picture or a document, by its address or as base64; one of the two, and never fetched.

    `media_type` is "" where the caller named none, which only an address may lack. `name` is a
    document's, "" where it has none.
    """

    kind: Literal["image", "file"]
    url: str = ""
    data: str = ""
    media_type: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPart:
    """A tool call the model made. `arguments` is the JSON text, as in `penstock.llm.events`."""

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultPart:
    """What a tool gave back for the call of this id. `is_error`: it failed, and this says how."""

    call_id: str
    content: tuple[TextPart | MediaPart, ...]
    is_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ThoughtPart:
    """What the model thought in an earlier turn.

    `seal` is its provider's own mark of it, a signature or the whole in encrypted form, which no
    other provider can read. `is_hidden`: the provider gave nothing but the seal.
    """

    text: str
    seal: str = ""
    is_hidden: bool = False


Part: TypeAlias = TextPart | MediaPart | CallPart | ResultPart | ThoughtPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. `ResultPart` stands in role `tool` alone, calls and thoughts in `assistant`."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function the model may call. `schema` is the JSON Schema of its arguments, an object.

    `is_strict` says whether the model is held to the schema; None leaves that to the provider.
    """

    name: str
    description: str = ""
    schema: Json = None
    is_strict: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """Whether tools are to be called: as the model likes, not at all, some, or the one `name`."""

    mode: Literal["auto", "none", "required", "named"]
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is drawn. None leaves it to the provider."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What the answer must be: any JSON, or JSON of this schema."""

    kind: Literal["json", "schema"]
    schema: Json = None
    name: str = ""
    description: str = ""
    is_strict: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """How much the model is to think: by a word, or by tokens (-1: as many as it likes)."""

    effort: Effort | None = None
    budget_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked. Nothing that a client said is in its `repr`.

    Attributes:
        dialect: the dialect it was read from; "" for one made by hand.
        model: as the client named it; "" where its dialect names none (Vercel's, AG-UI).
        messages: the conversation.
        is_begun: whether the last message, the assistant's, is the beginning of the answer, to be
            gone on with. Only Anthropic's clients can say so.
        tools, tool_choice, is_parallel: what may be called; whether several calls at once.
        sampling, format, thinking: None of each leaves it to the provider.
        max_output_tokens: what is thought counts.
        stop: texts that end the answer.
        is_stream: whether the client wants the answer as a stream.
        wants_usage: whether it wants the usage in a stream. Only OpenAI chat lets a client choose;
            the provider is asked for it whatever the client chose, so where this is False, the
            usage is for the meter and is left out of what the client is sent.
        user: whom it is asked for, in the client's words.
        metadata: notes of the client that the model never sees.
        extra: whatever else the client said, by its path in the body (`logit_bias`,
            `messages[2].content[0].cache_control`).
        headers: what it said of its dialect in headers (its version, its betas), by names in lower
            case. Only the same dialect is told.
        origin: the whole body as it came, which a writer of the same dialect hands on. Whoever
            changes what is asked with `dataclasses.replace` must set this to None, or the change
            is lost. Not to be changed.
    """

    model: str
    messages: tuple[Message, ...] = field(repr=False)
    dialect: str = ""
    tools: tuple[Tool, ...] = field(default=(), repr=False)
    tool_choice: ToolChoice | None = None
    is_parallel: bool | None = None
    sampling: Sampling = Sampling()
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = field(default=(), repr=False)
    format: Format | None = field(default=None, repr=False)
    thinking: Thinking | None = None
    is_begun: bool = False
    is_stream: bool = False
    wants_usage: bool = True
    user: str = field(default="", repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    extra: Mapping[str, Json] = field(default_factory=dict[str, Json], repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    origin: Mapping[str, Json] | None = field(default=None, repr=False, compare=False)


def text_of(parts: tuple[Part, ...]) -> str:
    """What the texts among `parts` say, one after the other."""
    return "".join(part.text for part in parts if isinstance(part, TextPart))

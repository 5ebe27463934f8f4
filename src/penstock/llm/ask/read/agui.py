"""AG-UI's `RunAgentInput`: a thread, its messages, and the tools of the page it is shown in.

What the page says about itself (`context`) becomes an instruction before all others, a line for
each entry. `state` and `forwardedProps` are for whoever runs the agent: of them only
`forwardedProps.model` is believed, and the rest is left out where another dialect is written. What
the page shows beside the talk (`activity`) is not the model's to read. The role `developer` is
`system`; a thought is a message of its own and joins the assistant's message after it.

Sources: the protocol's reference ("Core types") and its schema, version 1.0.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.ask.fields import Fields, read_model
from penstock.llm.ask.read.conversation import (
    need_messages,
    only_text,
    read_content,
    read_media_url,
    say,
)
from penstock.llm.ask.request import (
    CallPart,
    MediaPart,
    Message,
    Part,
    Request,
    ResultPart,
    TextPart,
    ThoughtPart,
    Tool,
)
from penstock.llm.ask.written import join_texts
from penstock.llm.events import Json

DIALECT: Final = "agui"

_ROLES: Final = ("developer", "system", "user", "assistant", "tool", "activity", "reasoning")


def read(body: dict[str, Json]) -> Request:
    """The request that this body is.

    Raises:
        RequestMalformed: it is none.
    """
    extra: dict[str, Json] = {}
    fields = Fields(body, "", extra)
    for name in ("threadId", "runId"):
        fields.note(name, fields.name(name))
    if "messages" not in fields:
        raise fields.wrong("messages", "is missing")
    spoken = _thoughts_joined([m for m in map(_message, fields.each("messages")) if m])
    need_messages(spoken, extra, "messages")
    request = Request(
        dialect=DIALECT,
        model=_model(fields),
        messages=(*_context(fields), *spoken),
        tools=tuple(map(_tool, fields.each("tools"))),
        is_stream=True,
        extra=extra,
        origin=body,
    )
    fields.rest()
    return request


def _model(fields: Fields) -> str:
    props = fields.raw("forwardedProps")
    if not isinstance(props, dict):  # any JSON may stand there
        return ""
    inner = Fields(props, "forwardedProps", fields.extra)
    model = read_model(inner, is_needed=False) if isinstance(props.get("model"), str) else ""
    inner.rest()
    return model


def _context(fields: Fields) -> list[Message]:
    lines: list[str] = []
    for entry in fields.each("context"):
        lines.append(f"{entry.text('description')}: {entry.text('value')}")
        entry.rest()
    return [Message(role="system", parts=(TextPart(text="\n".join(lines)),))] if lines else []


def _message(fields: Fields) -> Message | None:
    role = fields.word("role", _ROLES)
    message: Message | None = None
    match role:
        case "developer" | "system":
            parts = read_content(fields, "content", _text, say)
            message = Message(role="system", parts=parts)
        case "user":
            message = Message(role="user", parts=read_content(fields, "content", _part, say))
        case "assistant":
            said = read_content(fields, "content", _text, say)
            calls = tuple(map(_call, fields.each("toolCalls")))
            message = Message(role="assistant", parts=(*said, *calls))
        case "tool":
            message = Message(role="tool", parts=(_result(fields),))
        case "reasoning":
            thought = ThoughtPart(text=fields.text("content"))
            message = Message(role="assistant", parts=(thought,))
        case _:
            return None
    fields.rest()
    return message


def _thoughts_joined(messages: list[Message]) -> list[Message]:
    joined: list[Message] = []
    thoughts: list[Part] = []
    for message in messages:
        if message.role == "assistant" and all(isinstance(p, ThoughtPart) for p in message.parts):
            thoughts += message.parts
            continue
        if message.role == "assistant":
            message = Message(role="assistant", parts=(*thoughts, *message.parts))
        elif thoughts:
            joined.append(Message(role="assistant", parts=tuple(thoughts)))
        thoughts = []
        joined.append(message)
    if thoughts:
        joined.append(Message(role="assistant", parts=tuple(thoughts)))
    return joined


def _call(fields: Fields) -> CallPart:
    function = fields.child("function")
    if function is None:
        raise fields.wrong("function", "is missing")
    fields.word("type", ("function",), "")
    call = CallPart(
        id=fields.name("id"),
        name=function.name("name"),
        arguments=function.text("arguments") or "{}",
    )
    function.rest()
    fields.rest()
    return call


def _result(fields: Fields) -> ResultPart:
    text, error = fields.text("content"), fields.text("error")
    if error and error != text:
        text = join_texts((text, error))
    content = (TextPart(text=text),) if text else ()
    return ResultPart(call_id=fields.name("toolCallId"), content=content, is_error=bool(error))


def _part(fields: Fields) -> Part | None:
    part: Part | None = None
    match fields.text("type", None):
        case "text":
            part = TextPart(text=fields.text("text", None))
        case "image" | "document" as kind:
            part = _media(fields, kind)
        case "binary":
            part = _binary(fields)
        case kind:
            fields.note("type", kind)
    fields.rest()
    return None if isinstance(part, TextPart) and not part.text else part


def _media(fields: Fields, kind: str) -> Part:
    source = fields.child("source")
    if source is None:
        raise fields.wrong("source", "is missing")
    if source.word("type", ("data", "url")) == "url":
        part = read_media_url(kind, source.name("value"), media_type=source.text("mimeType"))
    else:
        part = _held(kind, source.name("value"), source.name("mimeType"))
    source.rest()
    return part


def _binary(fields: Fields) -> Part | None:
    media_type = fields.name("mimeType").lower()
    kind = "image" if media_type.startswith("image/") else "file"
    url, data, name = fields.text("url"), fields.text("data"), fields.text("filename")
    if data:
        return _held(kind, data, media_type, name)
    if url:
        return read_media_url(kind, url, name, media_type)
    fields.note("type", "binary")  # by an id that its own store knows
    return None


def _held(kind: str, data: str, media_type: str, name: str = "") -> MediaPart:
    word = "image" if kind == "image" else "file"
    return MediaPart(kind=word, data=data, media_type=media_type.lower(), name=name)


def _tool(fields: Fields) -> Tool:
    tool = Tool(
        name=fields.name("name"),
        description=fields.text("description"),
        schema=fields.schema("parameters"),
    )
    fields.rest()
    return tool


_text = only_text(_part, "is not text, and nothing else can stand here")

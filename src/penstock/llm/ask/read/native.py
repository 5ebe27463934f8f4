"""Our own dialect: a request as the vocabulary has it, in the same words.

    {"model": "…", "stream": true, "max_output_tokens": 500,
     "messages": [{"role": "user", "content": "…"}]}

`content` is a string or a list of parts: `{"type": "text", "text"}`, `{"type": "image"}` and
`{"type": "file"}` with `url`, or `data` as base64 and `media_type`; `{"type": "tool_call", "id",
"name", "arguments"}` with the arguments as JSON text; `{"type": "tool_result", "call_id",
"content", "is_error"}`; `{"type": "reasoning", "text"}`. No field is handed on unread, so one that
is not known here is refused: it would be lost in silence.
"""

from __future__ import annotations

from typing import Final

from penstock.core.errors import RequestMalformed
from penstock.llm.ask.fields import Fields, read_model
from penstock.llm.ask.read.conversation import (
    need_messages,
    read_content,
    read_effort,
    read_media_url,
    say,
)
from penstock.llm.ask.request import (
    EFFORTS,
    ROLES,
    CallPart,
    Format,
    MediaPart,
    Message,
    Part,
    Request,
    ResultPart,
    Role,
    Sampling,
    TextPart,
    Thinking,
    ThoughtPart,
    Tool,
    ToolChoice,
)
from penstock.llm.events import Json

DIALECT: Final = "native"

# By role: the parts that can stand in it.
_SAID: Final[dict[Role, tuple[type[Part], ...]]] = {
    "system": (TextPart,),
    "user": (TextPart, MediaPart),
    "assistant": (TextPart, ThoughtPart, CallPart),
    "tool": (ResultPart,),
}


def read(body: dict[str, Json]) -> Request:
    """The request that this body is.

    Raises:
        RequestMalformed: it is none.
    """
    extra: dict[str, Json] = {}
    fields = Fields(body, "", extra)
    model = read_model(fields)
    if "messages" not in fields:
        raise fields.wrong("messages", "is missing")
    messages = [_message(message) for message in fields.each("messages")]
    need_messages(messages, extra, "messages")
    request = Request(
        dialect=DIALECT,
        model=model,
        messages=tuple(messages),
        tools=tuple(map(_tool, fields.each("tools"))),
        tool_choice=_tool_choice(fields),
        is_parallel=fields.flag("parallel_tool_calls"),
        sampling=Sampling(
            temperature=fields.number("temperature"),
            top_p=fields.number("top_p"),
            top_k=fields.whole("top_k"),
            seed=fields.whole("seed"),
            presence_penalty=fields.number("presence_penalty"),
            frequency_penalty=fields.number("frequency_penalty"),
        ),
        max_output_tokens=fields.whole("max_output_tokens", 1),
        stop=fields.texts("stop"),
        format=_format(fields.child("format")),
        thinking=_thinking(fields.child("thinking")),
        is_stream=bool(fields.flag("stream")),
        user=fields.text("user"),
        metadata=fields.notes("metadata"),
        origin=body,
    )
    fields.rest()
    for path in extra:
        raise RequestMalformed(path, "is no field of a request")
    return request


def _message(fields: Fields) -> Message:
    word = fields.word("role", ROLES)
    roles: dict[str, Role] = {role: role for role in ROLES}
    role = roles[word]
    parts = read_content(fields, "content", _part, say)
    if not all(isinstance(part, _SAID[role]) for part in parts):
        raise fields.wrong("content", f"has a part that no message of role {role} has")
    fields.rest()
    return Message(role=role, parts=parts)


def _part(fields: Fields) -> Part | None:
    part: Part | None = None
    match fields.text("type", None):
        case "text":
            part = TextPart(text=fields.text("text", None))
        case "image" | "file" as kind:
            part = _media(fields, kind)
        case "tool_call":
            part = CallPart(
                id=fields.name("id"),
                name=fields.name("name"),
                arguments=fields.text("arguments") or "{}",
            )
        case "tool_result":
            part = _result(fields)
        case "reasoning":
            part = ThoughtPart(text=fields.text("text", None))
        case kind:
            raise fields.wrong("type", f"is {kind[:40]!r}, which no part is")
    fields.rest()
    return None if isinstance(part, TextPart) and not part.text else part


def _media(fields: Fields, kind: str) -> Part:
    name = fields.text("name")
    if "url" in fields:
        media_type = fields.text("media_type").lower()
        return read_media_url(kind, fields.name("url"), name, media_type)
    word = "image" if kind == "image" else "file"
    data, media_type = fields.name("data"), fields.name("media_type").lower()
    return MediaPart(kind=word, data=data, media_type=media_type, name=name)


def _result(fields: Fields) -> Part:
    call_id = fields.name("call_id")
    content = read_content(fields, "content", _part, say)
    said = tuple(part for part in content if isinstance(part, TextPart | MediaPart))
    if len(said) != len(content):
        raise fields.wrong("content", "has a part that no tool can give back")
    return ResultPart(call_id=call_id, content=said, is_error=bool(fields.flag("is_error")))


def _tool(fields: Fields) -> Tool:
    tool = Tool(
        name=fields.name("name"),
        description=fields.text("description"),
        schema=fields.schema("schema"),
        is_strict=fields.flag("strict"),
    )
    fields.rest()
    return tool


def _tool_choice(fields: Fields) -> ToolChoice | None:
    choice = fields.raw("tool_choice")
    match choice:
        case None:
            return None
        case "auto" | "none" | "required":
            return ToolChoice(mode=choice)
        case dict():
            named = Fields(choice, "tool_choice", fields.extra)
            name = named.name("name")
            named.rest()
            return ToolChoice(mode="named", name=name)
        case _:
            raise fields.wrong("tool_choice", "is neither auto, none, required nor a tool")


def _format(fields: Fields | None) -> Format | None:
    if fields is None:
        return None
    kind = fields.word("kind", ("json", "schema"))
    format = Format(
        kind="json" if kind == "json" else "schema",
        schema=fields.schema("schema"),
        name=fields.text("name"),
        description=fields.text("description"),
        is_strict=fields.flag("strict"),
    )
    fields.rest()
    return format


def _thinking(fields: Fields | None) -> Thinking | None:
    if fields is None:
        return None
    effort = read_effort(fields.word("effort", EFFORTS, ""))
    budget = fields.whole("budget_tokens", -1)
    fields.rest()
    if budget is None:
        return effort
    return Thinking(effort=effort.effort if effort else None, budget_tokens=budget)

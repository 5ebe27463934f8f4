"""Anthropic's messages, as clients ask for one.

`system` becomes the first message. What a user's turn brings back from tools becomes messages of
the role `tool`, in its place. Thoughts keep their signature, hidden ones their data. Server tools
and their results, files by the provider's id, search results and whatever else the vocabulary has
no word for stay in `extra`. `max_tokens` must be there, as the provider has it.

Sources: the provider's reference ("Create a message") and its SDK's types.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.ask.fields import Fields, read_model
from penstock.llm.ask.read.conversation import (
    need_messages,
    only_text,
    read_content,
    read_effort,
    read_media_url,
    say,
)
from penstock.llm.ask.request import (
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
from penstock.llm.events import Json, as_json_text

DIALECT: Final = "anthropic-messages"


def read(body: dict[str, Json]) -> Request:
    """The request that this body is.

    Raises:
        RequestMalformed: it is none.
    """
    extra: dict[str, Json] = {}
    fields = Fields(body, "", extra)
    model = read_model(fields)
    limit = fields.whole("max_tokens", 0)
    if limit is None:
        raise fields.wrong("max_tokens", "is missing")
    if limit == 0:  # no answer is asked for, only that the prompt be kept in the cache
        fields.note("max_tokens", 0)
    if "messages" not in fields:
        raise fields.wrong("messages", "is missing")
    system = read_content(fields, "system", _text, say)
    messages = [Message(role="system", parts=system)] if system else []
    messages += [m for turn in fields.each("messages") for m in _messages(turn)]
    need_messages(messages[1:] if system else messages, extra, "messages")
    tools = tuple(t for t in map(_tool, fields.each("tools")) if t is not None)
    choice, is_parallel = _tool_choice(fields)
    format, effort = _output(fields)
    request = Request(
        dialect=DIALECT,
        model=model,
        messages=tuple(messages),
        tools=tools,
        tool_choice=choice,
        is_parallel=is_parallel,
        sampling=Sampling(
            temperature=fields.number("temperature"),
            top_p=fields.number("top_p"),
            top_k=fields.whole("top_k"),
        ),
        max_output_tokens=limit,
        stop=fields.texts("stop_sequences"),
        format=format,
        thinking=_thinking(fields, effort),
        is_begun=bool(messages) and messages[-1].role == "assistant",
        is_stream=bool(fields.flag("stream")),
        user=_user(fields),
        extra=extra,
        origin=body,
    )
    fields.rest()
    return request


def _user(fields: Fields) -> str:
    metadata = fields.child("metadata")
    if metadata is None:
        return ""
    user = metadata.text("user_id")
    metadata.rest()
    return user


def _thinking(fields: Fields, effort: str) -> Thinking | None:
    thinking = fields.child("thinking")
    said = read_effort(effort)
    if thinking is None:
        return said
    match thinking.text("type", None):
        case "enabled":
            word = said.effort if said else None
            budget = thinking.whole("budget_tokens", 1)
            if budget is None:
                raise thinking.wrong("budget_tokens", "is missing")
            said = Thinking(effort=word, budget_tokens=budget)
        case "disabled":
            if effort:  # it also holds for what is said, for which the vocabulary has no word
                fields.note("output_config.effort", effort)
            said = Thinking(effort="none")
        case "adaptive":
            said = said or Thinking(budget_tokens=-1)
        case kind:
            thinking.note("type", kind)
    thinking.rest()
    return said


def _output(fields: Fields) -> tuple[Format | None, str]:
    """The format and the effort, which share a field."""
    output = fields.child("output_config")
    if output is None:
        return None, ""
    effort = output.text("effort")
    if effort and read_effort(effort) is None:
        output.note("effort", effort)
    given = output.child("format")
    format: Format | None = None
    if given is not None:
        kind = given.text("type", None)
        if kind == "json_schema":
            format = Format(kind="schema", schema=given.schema("schema"))
        else:
            given.note("type", kind)
        given.rest()
    output.rest()
    return format, effort


def _messages(fields: Fields) -> list[Message]:
    word = fields.word("role", ("user", "assistant", "system"))
    role: Role = "system" if word == "system" else "user" if word == "user" else "assistant"
    parts = read_content(fields, "content", _text if role == "system" else _part, say)
    for part in parts:
        if role != "assistant" and isinstance(part, CallPart | ThoughtPart):
            raise fields.wrong("content", "has a block that only the assistant says")
        if role != "user" and isinstance(part, ResultPart):
            raise fields.wrong("content", "has a tool_result, which only the user says")
    fields.rest()
    return _apart(role, parts)


def _apart(role: Role, parts: tuple[Part, ...]) -> list[Message]:
    """A turn as messages: what tools gave back apart from what was said."""
    messages: list[tuple[Role, list[Part]]] = []
    for part in parts:
        whose: Role = "tool" if isinstance(part, ResultPart) else role
        if not messages or messages[-1][0] != whose:
            messages.append((whose, []))
        messages[-1][1].append(part)
    if not messages:
        return [Message(role=role, parts=())]
    return [Message(role=whose, parts=tuple(said)) for whose, said in messages]


def _part(fields: Fields) -> Part | None:
    part: Part | None = None
    match fields.text("type", None):
        case "text":
            part = TextPart(text=fields.text("text", None))
        case "image":
            part = _media(fields, "image")
        case "document":
            part = _document(fields)
        case "tool_use":
            part = _call(fields)
        case "tool_result":
            part = _result(fields)
        case "thinking":
            thought = fields.text("thinking", None)
            part = ThoughtPart(text=thought, seal=fields.text("signature"))
        case "redacted_thinking":
            part = ThoughtPart(text="", seal=fields.text("data", None), is_hidden=True)
        case kind:
            fields.note("type", kind)
    fields.rest()
    return None if isinstance(part, TextPart) and not part.text else part


def _media(fields: Fields, kind: str, name: str = "") -> Part | None:
    source = fields.child("source")
    if source is None:
        raise fields.wrong("source", "is missing")
    part: Part | None = None
    match source.text("type", None):
        case "base64":
            part = MediaPart(
                kind="image" if kind == "image" else "file",
                data=source.name("data"),
                media_type=source.name("media_type"),
                name=name,
            )
        case "url":
            part = read_media_url(kind, source.name("url"), name)
        case "text":
            part = TextPart(text=source.text("data", None))
            source.text("media_type")
            if name:
                fields.note("title", name)
        case other:
            source.note("type", other)
    source.rest()
    return part


def _document(fields: Fields) -> Part | None:
    citations = fields.child("citations")
    if citations is not None and citations.flag("enabled"):
        fields.note("citations.enabled", True)
    return _media(fields, "file", fields.text("title"))


def _call(fields: Fields) -> Part:
    arguments = fields.schema("input")
    return CallPart(
        id=fields.name("id"),
        name=fields.name("name"),
        arguments="{}" if arguments is None else as_json_text(arguments),
    )


def _result(fields: Fields) -> Part:
    call_id = fields.name("tool_use_id")
    content = read_content(fields, "content", _part, say)
    said = tuple(part for part in content if isinstance(part, TextPart | MediaPart))
    if len(said) != len(content):
        raise fields.wrong("content", "has a block that no tool can give back")
    return ResultPart(call_id=call_id, content=said, is_error=bool(fields.flag("is_error")))


def _tool(fields: Fields) -> Tool | None:
    kind = fields.text("type", "custom")
    if kind != "custom":
        fields.note("type", kind)
        fields.rest()
        return None
    tool = Tool(
        name=fields.name("name"),
        description=fields.text("description"),
        schema=fields.schema("input_schema"),
        is_strict=fields.flag("strict"),
    )
    fields.rest()
    return tool


def _tool_choice(fields: Fields) -> tuple[ToolChoice | None, bool | None]:
    given = fields.child("tool_choice")
    if given is None:
        return None, None
    choice: ToolChoice | None = None
    match given.text("type", None):
        case "auto":
            choice = ToolChoice(mode="auto")
        case "none":
            choice = ToolChoice(mode="none")
        case "any":
            choice = ToolChoice(mode="required")
        case "tool":
            choice = ToolChoice(mode="named", name=given.name("name"))
        case kind:
            raise given.wrong("type", f"is {kind[:40]!r}; it can be auto, any, tool, none")
    alone = given.flag("disable_parallel_tool_use")
    given.rest()
    return choice, None if alone is None else not alone


_text = only_text(_part, "is not text, and an instruction can be nothing else")

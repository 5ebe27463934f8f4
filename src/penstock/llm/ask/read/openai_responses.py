"""OpenAI's Responses, as clients ask for one.

`instructions` become the first message. Items of one turn of the model (its thoughts, what it said,
its calls) become one message. The rest of what an input can hold (items by reference, calls of the
provider's own tools), and a conversation that the provider keeps (`previous_response_id`), stay in
`extra`: only this dialect can say them.

Sources: the provider's reference ("Create a model response") and its SDK's types.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.ask.fields import Fields, read_model
from penstock.llm.ask.read.conversation import (
    need_messages,
    read_content,
    read_effort,
    read_file_data,
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
    Sampling,
    TextPart,
    Thinking,
    ThoughtPart,
    Tool,
    ToolChoice,
)
from penstock.llm.events import Json

DIALECT: Final = "openai-responses"

_ROLES: Final = ("user", "assistant", "system", "developer")

# What stands in the place of an input.
_KEPT_INPUTS: Final = ("previous_response_id", "conversation", "prompt")


def read(body: dict[str, Json]) -> Request:
    """The request that this body is.

    Raises:
        RequestMalformed: it is none.
    """
    extra: dict[str, Json] = {}
    fields = Fields(body, "", extra)
    model = read_model(fields)
    instructions = fields.text("instructions")
    messages = [_said("system", instructions)] if instructions else []
    kept = any(name in fields for name in _KEPT_INPUTS)
    if "input" not in fields and not kept:
        raise fields.wrong("input", "is missing")
    spoken = _input(fields)
    if not kept:
        need_messages(spoken, extra, "input")
    format = _format(fields)
    request = Request(
        dialect=DIALECT,
        model=model,
        messages=(*messages, *spoken),
        tools=tuple(t for t in map(_tool, fields.each("tools")) if t is not None),
        tool_choice=_tool_choice(fields),
        is_parallel=fields.flag("parallel_tool_calls"),
        sampling=Sampling(temperature=fields.number("temperature"), top_p=fields.number("top_p")),
        max_output_tokens=fields.whole("max_output_tokens", 1),
        format=format,
        thinking=_thinking(fields),
        is_stream=bool(fields.flag("stream")),
        user=fields.text("user"),
        metadata=fields.notes("metadata"),
        extra=extra,
        origin=body,
    )
    fields.rest()
    return request


def _said(role: str, text: str) -> Message:
    whose = "system" if role == "system" else "user"
    return Message(role=whose, parts=(TextPart(text=text),))


def _input(fields: Fields) -> list[Message]:
    value = fields.raw("input")
    if isinstance(value, str):
        return [_said("user", value)]
    messages: list[tuple[Message, list[Part]]] = []
    for item in Fields({"input": value}, "", fields.extra).each("input"):
        message = _item(item)
        if message is None:
            continue
        if messages and _belongs(message, *messages[-1]):
            messages[-1][1].extend(message.parts)
        else:
            messages.append((message, list(message.parts)))
    return [Message(role=message.role, parts=tuple(parts)) for message, parts in messages]


def _belongs(message: Message, before: Message, said: list[Part]) -> bool:
    """Whether an item of the model goes on with its turn; two texts in a row are two messages."""
    if message.role != "assistant" or before.role != "assistant":
        return False
    is_text = any(isinstance(part, TextPart) for part in message.parts)
    return not (is_text and said and isinstance(said[-1], TextPart))


def _item(item: Fields) -> Message | None:
    message: Message | None = None
    match item.text("type", "message"):
        case "message":
            message = _message(item)
        case "function_call":
            call = CallPart(
                id=item.name("call_id"),
                name=item.name("name"),
                arguments=item.text("arguments") or "{}",
            )
            message = Message(role="assistant", parts=(call,))
        case "function_call_output":
            message = Message(role="tool", parts=(_result(item),))
        case "reasoning":
            message = Message(role="assistant", parts=(_thought(item),))
        case kind:
            item.note("type", kind)
    item.rest()
    return message


def _message(item: Fields) -> Message:
    role = item.word("role", _ROLES)
    parts = read_content(item, "content", _part, say)
    match role:
        case "assistant":
            return Message(role="assistant", parts=parts)
        case "user":
            return Message(role="user", parts=parts)
        case _:
            if not all(isinstance(part, TextPart) for part in parts):
                raise item.wrong("content", "is not text, and an instruction can be nothing else")
            return Message(role="system", parts=parts)


def _result(item: Fields) -> ResultPart:
    call_id = item.name("call_id")
    content = read_content(item, "output", _part, say)
    said = tuple(part for part in content if isinstance(part, TextPart | MediaPart))
    return ResultPart(call_id=call_id, content=said)


def _thought(item: Fields) -> ThoughtPart:
    texts = [text.text("text") for name in ("content", "summary") for text in item.each(name)]
    return ThoughtPart(text="\n\n".join(texts), seal=item.text("encrypted_content"))


def _part(fields: Fields) -> Part | None:
    part: Part | None = None
    match fields.text("type", None):
        case "input_text" | "output_text" | "text":
            part = TextPart(text=fields.text("text", None))
        case "refusal":
            part = TextPart(text=fields.text("refusal", None))
        case "input_image":
            if url := fields.text("image_url"):
                part = read_media_url("image", url)
        case "input_file":
            if "file_data" in fields:
                part = read_file_data(fields)
            elif url := fields.text("file_url"):
                part = read_media_url("file", url, fields.text("filename"))
        case kind:
            fields.note("type", kind)
    fields.rest()
    return None if isinstance(part, TextPart) and not part.text else part


def _tool(fields: Fields) -> Tool | None:
    kind = fields.text("type", None)
    if kind != "function":
        fields.note("type", kind)
        fields.rest()
        return None
    tool = Tool(
        name=fields.name("name"),
        description=fields.text("description"),
        schema=fields.schema("parameters"),
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
        case {"type": "function"}:
            whole = Fields(choice, "tool_choice", fields.extra)
            named = ToolChoice(mode="named", name=whole.name("name"))
            whole.raw("type")
            whole.rest()
            return named
        case dict():
            fields.note("tool_choice", choice)
            return None
        case _:
            raise fields.wrong("tool_choice", "is neither auto, none, required nor a tool")


def _thinking(fields: Fields) -> Thinking | None:
    reasoning = fields.child("reasoning")
    if reasoning is None:
        return None
    effort = reasoning.text("effort")
    thinking = read_effort(effort)
    if effort and thinking is None:  # a provider's own word
        reasoning.note("effort", effort)
    reasoning.rest()
    return thinking


def _format(fields: Fields) -> Format | None:
    text = fields.child("text")
    given = text.child("format") if text is not None else None
    format: Format | None = None
    if given is not None:
        match given.text("type", None):
            case "text":
                pass
            case "json_object":
                format = Format(kind="json")
            case "json_schema":
                format = Format(
                    kind="schema",
                    name=given.name("name"),
                    description=given.text("description"),
                    schema=given.schema("schema"),
                    is_strict=given.flag("strict"),
                )
            case kind:
                given.note("type", kind)
        given.rest()
    if text is not None:
        text.rest()
    return format

"""OpenAI's chat completions, as clients ask for one.

`developer` is the role `system`. A refusal of the model is what it said, and `reasoning_content`
(DeepSeek's) or `reasoning` (OpenRouter's, vLLM's) what it thought. A tool's `name` beside its
result repeats what the call says. `max_completion_tokens` is believed before the older
`max_tokens`. Custom and built-in tools, the older `functions`, audio and files by the provider's id
have no word in the vocabulary: they stay in `extra`.

Sources: the provider's reference ("Create chat completion") and its SDK's types.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.ask.fields import Fields, read_model
from penstock.llm.ask.read.conversation import (
    need_messages,
    only_text,
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
    ThoughtPart,
    Tool,
    ToolChoice,
)
from penstock.llm.events import Json

DIALECT: Final = "openai-chat"

_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")


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
    messages = [m for m in map(_message, fields.each("messages")) if m is not None]
    need_messages(messages, extra, "messages")
    limit = fields.whole("max_completion_tokens", 1)
    older = fields.whole("max_tokens", 1)
    tools = tuple(t for t in map(_tool, fields.each("tools")) if t is not None)
    request = Request(
        dialect=DIALECT,
        model=model,
        messages=tuple(messages),
        tools=tools,
        tool_choice=_tool_choice(fields),
        is_parallel=fields.flag("parallel_tool_calls"),
        sampling=_sampling(fields),
        max_output_tokens=older if limit is None else limit,
        stop=fields.texts("stop"),
        format=_format(fields),
        thinking=read_effort(_effort(fields)),
        is_stream=bool(fields.flag("stream")),
        wants_usage=_wants_usage(fields),
        user=fields.text("user"),
        metadata=fields.notes("metadata"),
        extra=extra,
        origin=body,
    )
    fields.rest()
    return request


def _sampling(fields: Fields) -> Sampling:
    return Sampling(
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        top_k=fields.whole("top_k"),  # not OpenAI's; vLLM's, OpenRouter's and others'
        seed=fields.whole("seed"),
        presence_penalty=fields.number("presence_penalty"),
        frequency_penalty=fields.number("frequency_penalty"),
    )


def _effort(fields: Fields) -> str:
    effort = fields.text("reasoning_effort")
    if effort and read_effort(effort) is None:  # a provider's own word
        fields.note("reasoning_effort", effort)
    return effort


def _wants_usage(fields: Fields) -> bool:
    options = fields.child("stream_options")
    if options is None:
        return False
    wants = bool(options.flag("include_usage"))
    options.rest()
    return wants


def _message(fields: Fields) -> Message | None:
    role = fields.word("role", _ROLES)
    match role:
        case "system" | "developer":
            message = Message(role="system", parts=read_content(fields, "content", _text, say))
        case "user":
            message = Message(role="user", parts=read_content(fields, "content", _part, say))
        case "assistant":
            message = Message(role="assistant", parts=_assistant(fields))
        case "tool":
            message = Message(role="tool", parts=(_result(fields),))
        case _:
            fields.keep()  # of before there were tools
            return None
    fields.rest()
    return message


def _assistant(fields: Fields) -> tuple[Part, ...]:
    thought = fields.text("reasoning_content")
    thought = fields.text("reasoning") or thought
    refusal = fields.text("refusal")
    calls = (_call(call) for call in fields.each("tool_calls"))
    return (
        *((ThoughtPart(text=thought),) if thought else ()),
        *read_content(fields, "content", _part, say),
        *((TextPart(text=refusal),) if refusal else ()),
        *(call for call in calls if call is not None),
    )


def _call(fields: Fields) -> CallPart | None:
    if fields.text("type", "function") != "function":
        fields.keep()
        return None
    function = fields.child("function")
    if function is None:
        raise fields.wrong("function", "is missing")
    call = CallPart(
        id=fields.name("id"),
        name=function.name("name"),
        arguments=function.text("arguments") or "{}",
    )
    function.rest()
    fields.rest()
    return call


def _result(fields: Fields) -> ResultPart:
    call_id = fields.name("tool_call_id")
    fields.text("name")
    content = read_content(fields, "content", _part, say)
    said = tuple(part for part in content if isinstance(part, TextPart | MediaPart))
    return ResultPart(call_id=call_id, content=said)


def _part(fields: Fields) -> Part | None:
    part: Part | None = None
    match fields.text("type", None):
        case "text":
            part = TextPart(text=fields.text("text", None))
        case "refusal":
            part = TextPart(text=fields.text("refusal", None))
        case "image_url":
            part = _image(fields)
        case "file":
            part = _file(fields)
        case kind:
            fields.note("type", kind)
    fields.rest()
    return None if isinstance(part, TextPart) and not part.text else part


def _image(fields: Fields) -> Part:
    image = fields.child("image_url")
    if image is None:
        raise fields.wrong("image_url", "is missing")
    part = read_media_url("image", image.name("url"))
    image.rest()
    return part


def _file(fields: Fields) -> Part | None:
    file = fields.child("file")
    if file is None:
        raise fields.wrong("file", "is missing")
    part = read_file_data(file)
    file.rest()
    return part


def _tool(fields: Fields) -> Tool | None:
    kind = fields.text("type", None)
    if kind != "function":
        fields.note("type", kind)
        fields.rest()
        return None
    function = fields.child("function")
    if function is None:
        raise fields.wrong("function", "is missing")
    tool = Tool(
        name=function.name("name"),
        description=function.text("description"),
        schema=function.schema("parameters"),
        is_strict=function.flag("strict"),
    )
    function.rest()
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
            function = whole.child("function")
            if function is None:
                raise whole.wrong("function", "is missing")
            named = ToolChoice(mode="named", name=function.name("name"))
            whole.raw("type")
            function.rest()
            whole.rest()
            return named
        case dict():
            fields.note("tool_choice", choice)
            return None
        case _:
            raise fields.wrong("tool_choice", "is neither auto, none, required nor a tool")


def _format(fields: Fields) -> Format | None:
    given = fields.child("response_format")
    if given is None:
        return None
    format: Format | None = None
    match given.text("type", None):
        case "text":
            pass
        case "json_object":
            format = Format(kind="json")
        case "json_schema":
            format = _schema(given)
        case kind:
            given.note("type", kind)
    given.rest()
    return format


def _schema(given: Fields) -> Format:
    schema = given.child("json_schema")
    if schema is None:
        raise given.wrong("json_schema", "is missing")
    format = Format(
        kind="schema",
        name=schema.name("name"),
        description=schema.text("description"),
        schema=schema.schema("schema"),
        is_strict=schema.flag("strict"),
    )
    schema.rest()
    return format


_text = only_text(_part, "is not text, and an instruction can be nothing else")

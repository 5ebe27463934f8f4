"""Vercel AI SDK's chat request: what `useChat` posts, a page's messages in parts.

An assistant's message is cut at its steps: what was said and called in one, then what its tools
gave back. A call whose input is still being written is none yet, and one that the user denied has
failed. Sources and data parts are the page's and no part of what is asked, as the SDK itself has it
on its way to a model. A message of its version 4 has `content` in the place of parts. The request
names no model and no settings; where the page's own code added `model`, it is believed. An output
that is no string is its JSON.

Sources: the SDK's reference ("Transport", "UIMessage") and its schema, versions 5 to 7.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.ask.fields import Fields, read_model
from penstock.llm.ask.read.conversation import need_messages, read_media_url
from penstock.llm.ask.request import (
    CallPart,
    MediaPart,
    Message,
    Part,
    Request,
    ResultPart,
    TextPart,
    ThoughtPart,
)
from penstock.llm.events import Json, as_json_text

DIALECT: Final = "vercel"

_ROLES: Final = ("system", "user", "assistant")
_STATES: Final = (
    *("input-streaming", "input-available", "approval-requested", "approval-responded"),
    *("output-available", "output-error", "output-denied"),
)
_PAGES_OWN: Final = ("source-url", "source-document")
# Of a part: how the page shows it, and what of a tool there is once it has an answer.
_SHOWN: Final = ("state", "title", "approval", "preliminary", "rawInput", "output", "errorText")


def read(body: dict[str, Json]) -> Request:
    """The request that this body is.

    Raises:
        RequestMalformed: it is none.
    """
    extra: dict[str, Json] = {}
    fields = Fields(body, "", extra)
    if "messages" not in fields:
        raise fields.wrong("messages", "is missing")
    model = read_model(fields, is_needed=False)
    messages = [m for message in fields.each("messages") for m in _messages(message)]
    need_messages(messages, extra, "messages")
    fields.rest()
    return Request(
        dialect=DIALECT,
        model=model,
        messages=tuple(messages),
        is_stream=True,
        extra=extra,
        origin=body,
    )


def _messages(fields: Fields) -> list[Message]:
    role = fields.word("role", _ROLES)
    if "parts" not in fields:
        text = fields.text("content", None)
        parts: list[Part | None] = [TextPart(text=text)] if text else []
    else:
        fields.raw("content")  # of version 4, which says the same in both
        parts = [part for inner in fields.each("parts") for part in _parts(inner)]
    fields.rest()
    if role == "assistant":
        return _steps(parts)
    said = tuple(p for p in parts if isinstance(p, TextPart | MediaPart))
    if role == "user":
        return [Message(role="user", parts=said)]
    if not all(isinstance(part, TextPart) for part in said):
        raise fields.wrong("parts", "is not text, and an instruction can be nothing else")
    return [Message(role="system", parts=said)]


def _steps(parts: list[Part | None]) -> list[Message]:
    """An assistant's message as those of its steps; None among the parts is where one begins."""
    messages: list[Message] = []
    said: list[Part] = []
    results: list[Part] = []
    for part in [*parts, None]:
        if isinstance(part, ResultPart):
            results.append(part)
        elif part is not None:
            said.append(part)
            continue
        elif said or results:
            messages.append(Message(role="assistant", parts=tuple(said)))
            if results:
                messages.append(Message(role="tool", parts=tuple(results)))
            said, results = [], []
    return messages


def _parts(fields: Fields) -> list[Part | None]:
    kind = fields.text("type", None)
    if kind in _PAGES_OWN or kind.startswith("data-"):
        return []
    parts = _read_parts(fields, kind)
    if fields.flag("providerExecuted"):  # a tool of the provider that was spoken to then
        fields.note("providerExecuted", True)
    for name in _SHOWN:
        fields.raw(name)
    fields.rest()
    return parts


def _read_parts(fields: Fields, kind: str) -> list[Part | None]:
    match kind:
        case "step-start":
            return [None]
        case "text":
            text = fields.text("text", None)
            return [TextPart(text=text)] if text else []
        case "reasoning":
            text = fields.text("text", None)
            return [ThoughtPart(text=text)] if text else []
        case "file":
            return [_file(fields)]
        case _:
            if kind == "dynamic-tool" or kind.startswith("tool-"):
                name = fields.name("toolName") if kind == "dynamic-tool" else kind[5:]
                return _tool(fields, name)
            fields.note("type", kind)
            return []


def _file(fields: Fields) -> Part:
    media_type = fields.name("mediaType").lower()
    name = fields.text("filename")
    kind = "image" if media_type.startswith("image/") else "file"
    return read_media_url(kind, fields.name("url"), name, media_type)


def _tool(fields: Fields, name: str) -> list[Part | None]:
    if not name:
        raise fields.wrong("type", "names no tool")
    state = fields.word("state", _STATES, "")
    id = fields.name("toolCallId")
    if state == "input-streaming":
        return []
    arguments = fields.raw("input")
    parts: list[Part | None] = [
        CallPart(id=id, name=name, arguments="{}" if arguments is None else _json(arguments))
    ]
    match state:
        case "output-available":
            parts.append(_result(id, fields.raw("output")))
        case "output-error":
            said = TextPart(text=fields.text("errorText"))
            parts.append(ResultPart(call_id=id, content=(said,), is_error=True))
        case "output-denied" | "approval-responded":
            approval = fields.child("approval")
            if state == "output-denied" or (approval and approval.flag("approved") is False):
                reason = approval.text("reason") if approval else ""
                said = TextPart(text=reason or "the user denied this call")
                parts.append(ResultPart(call_id=id, content=(said,), is_error=True))
        case _:
            pass
    return parts


def _json(value: Json) -> str:
    # A model's input that was no JSON comes back as the text it was.
    return value if isinstance(value, str) else as_json_text(value)


def _result(id: str, output: Json) -> ResultPart:
    text = output if isinstance(output, str) else as_json_text(output)
    return ResultPart(call_id=id, content=(TextPart(text=text),) if text else ())

"""Anthropic's messages.

`max_tokens` is required: 16,384 where the client named none, and what it may think for on top. The
instructions go into `system`. A budget for thinking must be less than `max_tokens`: it is halved
down to 1,024 to fit, and where that does not fit, thinking is left out. `claude.py` has what else
the models take and refuse. A format is a schema; "any JSON" cannot be said. Notes (`metadata`) are
left out; whom it is for is `metadata.user_id`. A seed and the penalties cannot be said, and a
penalty of 0 need not be. Pictures are PNG, JPEG, GIF or WebP; documents are PDF, or plain text. A
document's title is its name. Ids of calls are letters, digits, underscores and hyphens: another is
written as the first 32 hexadecimal digits of its SHA-256.

Source: the provider's reference ("Create a message").
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as BadBase64
from typing import Final

from penstock.llm.ask.request import (
    CallPart,
    Format,
    MediaPart,
    Part,
    Request,
    ResultPart,
    TextPart,
    ThoughtPart,
    Tool,
    ToolChoice,
)
from penstock.llm.ask.write.claude import Settings, fit_thinking, settings_of
from penstock.llm.ask.write.turns import demand_user, instructions_of, turns_of
from penstock.llm.ask.written import (
    HEADERS,
    Border,
    Headers,
    Target,
    Written,
    as_arguments,
    bounded,
    fitting_id,
    media_word,
    relayed,
    spoken_headers,
    without_none,
)
from penstock.llm.events import Json, as_count, as_object

DIALECT: Final = "anthropic-messages"

# The version of the request that is written here; the provider keeps old ones working.
VERSION: Final = "2023-06-01"

MAX_TOKENS: Final = 16_384
"""Written where the client named none: a very long answer, and every model that is still served
takes twice as much."""

_HEADERS: Final[Headers] = (*HEADERS, ("anthropic-version", VERSION))
_IMAGES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
_ID: Final = re.compile(r"[A-Za-z0-9_-]+")


def write(request: Request, target: Target) -> Written:
    """The request in this dialect.

    Raises:
        RequestInexpressible: it says what this dialect cannot.
    """
    body = relayed(request, DIALECT)
    left_out: list[str] = []
    if body is None:
        border = Border(request, target, DIALECT, goes_on=True)
        body = border.extra | _body(request, target, border)
        left_out += border.left_out
        if not _fit_thinking(body, as_count(body["max_tokens"]) or 0):
            left_out.append("thinking")
    asked = as_count(body.get("max_tokens"))
    limit = bounded(asked, target)
    body |= {"model": target.model, "stream": target.is_stream}
    if limit != asked:
        body["max_tokens"] = limit
        if not _fit_thinking(body, limit or 0):
            left_out.append("thinking")
    headers = spoken_headers(request, DIALECT, _HEADERS)
    return Written(
        path="/v1/messages", body=body, headers=headers, left_out=tuple(dict.fromkeys(left_out))
    )


def _fit_thinking(body: dict[str, Json], limit: int) -> bool:
    """Keeps the budget below the bound, as the provider demands; False where there is no room."""
    thinking = body.get("thinking")
    if not isinstance(thinking, dict):
        return True
    body["thinking"] = fitting = fit_thinking(thinking, limit)
    if fitting is None:
        body["thinking"] = {"type": "disabled"}
    return fitting is not None


def _body(request: Request, target: Target, border: Border) -> dict[str, Json]:
    sampling = request.sampling
    border.refuse_said(
        seed=sampling.seed,
        presence_penalty=sampling.presence_penalty or None,
        frequency_penalty=sampling.frequency_penalty or None,
    )
    if request.metadata:
        border.leave_out("metadata")
    settings = settings_of(request, target.model, border)
    turns = turns_of(request, border, keeps_thoughts=request.dialect == DIALECT)
    demand_user(turns, border)
    limit = request.max_output_tokens
    return without_none(
        {
            "system": instructions_of(request) or None,
            "messages": [
                {"role": turn.role, "content": _parts(turn.parts, border)} for turn in turns
            ],
            "max_tokens": MAX_TOKENS + settings.room if limit is None else limit,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _tool_choice(request),
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "stop_sequences": list[Json](settings.stop) or None,
            "thinking": settings.thinking,
            "output_config": _output(request.format, settings, border) or None,
            "metadata": {"user_id": request.user} if request.user else None,
        }
    )


def _parts(parts: tuple[Part, ...], border: Border) -> list[Json]:
    written = (_part(part, border) for part in parts)
    return [part for part in written if part is not None]


def _part(part: Part, border: Border) -> Json:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case MediaPart():
            return _media(part, border)
        case CallPart(id=id, name=name, arguments=arguments):
            said = as_arguments(arguments, border)
            return {"type": "tool_use", "id": _id(id), "name": name, "input": said}
        case ThoughtPart(is_hidden=True, seal=seal):
            return {"type": "redacted_thinking", "data": seal}
        case ThoughtPart(text=text, seal=seal):
            return {"type": "thinking", "thinking": text, "signature": seal}
        case ResultPart():
            return _result(part, border)


def _media(part: MediaPart, border: Border) -> Json:
    source: Json = {"type": "url", "url": part.url} if part.url else _source(part)
    if source is None:
        border.refuse(f"{media_word(part)} of type {part.media_type[:60]!r}")
        return None
    if part.kind == "image":
        return {"type": "image", "source": source}
    title: dict[str, Json] = {"title": part.name} if part.name else {}
    return {"type": "document", "source": source, **title}


def _source(part: MediaPart) -> Json:
    """What a picture or a document holds; None where the provider takes no such type."""
    kinds = _IMAGES if part.kind == "image" else ("application/pdf",)
    if part.media_type in kinds:
        return {"type": "base64", "media_type": part.media_type, "data": part.data}
    if part.kind == "image" or part.media_type != "text/plain":
        return None
    try:
        text = b64decode(part.data, validate=True).decode()
    except (BadBase64, ValueError):
        return None
    return {"type": "text", "media_type": "text/plain", "data": text}


def _result(part: ResultPart, border: Border) -> Json:
    content = _parts(part.content, border)
    failed: dict[str, Json] = {"is_error": True} if part.is_error else {}
    said: dict[str, Json] = {"content": content} if content else {}
    return {"type": "tool_result", "tool_use_id": _id(part.call_id), **said, **failed}


def _id(id: str) -> str:
    return fitting_id(id, _ID, 32)


def _tool(tool: Tool) -> Json:
    return without_none(
        {
            "name": tool.name,
            "description": tool.description or None,
            # Required, and its type too.
            "input_schema": {"type": "object", **as_object(tool.schema)},
            "strict": tool.is_strict,
        }
    )


_MODES: Final = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}


def _tool_choice(request: Request) -> Json:
    choice, is_parallel = request.tool_choice, request.is_parallel
    if not request.tools or (choice is None and is_parallel is None):
        return None
    choice = choice or ToolChoice(mode="auto")
    said: dict[str, Json] = {"type": _MODES[choice.mode]}
    if choice.mode == "named":
        said["name"] = choice.name
    if is_parallel is not None and choice.mode != "none":
        said["disable_parallel_tool_use"] = not is_parallel
    return said


def _output(format: Format | None, settings: Settings, border: Border) -> dict[str, Json]:
    output: dict[str, Json] = {"effort": settings.effort} if settings.effort else {}
    if format is not None and format.kind == "json":
        border.refuse("response format of any JSON")
    elif format is not None:
        output["format"] = {"type": "json_schema", "schema": format.schema or {}}
    return output

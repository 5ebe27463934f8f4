"""OpenAI's chat completions, and the accents of those who speak it too.

Usage is always asked for in a stream, whoever wants it. `user` holds whom it is for. What was
thought before is left out. A tool's failure is said in its text ("error: "). The bound lowers the
field that is there; where none is, the accent's: OpenAI's reasoning models refuse `max_tokens`,
most others know no other. `top_k` is only written for an accent that has it. OpenAI takes four stop
sequences, notes (`metadata`) where it is to store the answer, and ids of calls of 40 characters: a
longer one is written as the first 32 hexadecimal digits of its SHA-256. How the tools are to be
chosen is said where there are any.

Mistral calls a seed `random_seed` and a required tool `any`, refuses fields it does not know (it
gives the usage unasked, and has no `user` and few hints: they are left out), and takes ids of calls
of exactly nine letters and digits: another is written as nine digits of its SHA-256. All this holds
for bodies that came in this dialect too.

Sources: the providers' references ("Create chat completion", "Chat completion").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from penstock.llm.ask.hints import is_hint
from penstock.llm.ask.request import (
    CallPart,
    Format,
    MediaPart,
    Message,
    Part,
    Request,
    ResultPart,
    TextPart,
    Tool,
    ToolChoice,
)
from penstock.llm.ask.thinking import effort_of
from penstock.llm.ask.write.turns import without_thoughts
from penstock.llm.ask.written import (
    Border,
    Target,
    Written,
    bounded,
    data_url,
    few_stops,
    fitting_id,
    relayed,
    result_text,
    spoken_headers,
    without_none,
)
from penstock.llm.events import Json, as_count, as_list, as_object

DIALECT: Final = "openai-chat"

_PATH: Final = "/chat/completions"
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
_ID: Final = re.compile(r".{1,40}", re.DOTALL)
_MISTRAL_ID: Final = re.compile(r"[A-Za-z0-9]{9}")
_MISTRALS_OWN: Final = ("metadata", "prediction")
_MAX_STOPS: Final = 4
_ANY_STOPS: Final = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class _Accent:
    """How a provider differs."""

    limit: str = "max_tokens"
    stops: int = _ANY_STOPS
    has_top_k: bool = False
    is_mistral: bool = False


_OWN: Final = _Accent(limit="max_completion_tokens", stops=_MAX_STOPS)
_WITH_TOP_K: Final = _Accent(has_top_k=True)
_ACCENTS: Final[dict[str, _Accent]] = {
    **dict.fromkeys((DIALECT, "azure", "groq", "xai"), _OWN),
    **dict.fromkeys(
        ("vllm", "openrouter", "together", "fireworks", "llama-cpp", "lm-studio"), _WITH_TOP_K
    ),
    "mistral": _Accent(is_mistral=True),
}


def write(request: Request, target: Target) -> Written:
    """The request in this dialect.

    Raises:
        RequestInexpressible: it says what this dialect cannot.
    """
    accent = _ACCENTS.get(target.dialect, _Accent())
    body = relayed(request, DIALECT)
    left_out: tuple[str, ...] = ()
    if body is None:
        border = Border(request, target, DIALECT, goes_on=False)
        body = border.extra | _body(request, border, accent)
        left_out = border.left_out
    body |= {"model": target.model, "stream": target.is_stream}
    _bound(body, target, accent)
    _ask_for_usage(body, target)
    if accent.is_mistral:
        body = _as_mistral(body)
        unknown = [name for name in body if name not in _MISTRALS_OWN and _is_unheard(name)]
        left_out = tuple(dict.fromkeys((*left_out, *unknown)))
        body = {name: value for name, value in body.items() if name not in unknown}
    headers = spoken_headers(request, DIALECT)
    return Written(path=_PATH, body=body, headers=headers, left_out=left_out)


def _is_unheard(name: str) -> bool:
    """Whether a field may be left out for a provider that refuses those it does not know."""
    return name == "user" or is_hint(name)


def _bound(body: dict[str, Json], target: Target, accent: _Accent) -> None:
    given = [name for name in _LIMITS if body.get(name) is not None]
    if not given and target.max_output_tokens is not None:
        body[accent.limit] = target.max_output_tokens
    for name in given:
        asked = as_count(body[name])
        if bounded(asked, target) != asked:
            body[name] = target.max_output_tokens


def _ask_for_usage(body: dict[str, Json], target: Target) -> None:
    if target.is_stream:
        body["stream_options"] = {**as_object(body.get("stream_options")), "include_usage": True}
    else:  # the provider refuses options of a stream that is none
        body.pop("stream_options", None)


def _body(request: Request, border: Border, accent: _Accent) -> dict[str, Json]:
    sampling, thinking = request.sampling, request.thinking
    if sampling.top_k is not None and not accent.has_top_k:
        border.refuse("top_k")
    messages = [m for message in request.messages for m in _messages(message, border)]
    return without_none(
        {
            "messages": list[Json](messages),
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _tool_choice(request.tool_choice) if request.tools else None,
            "parallel_tool_calls": request.is_parallel if request.tools else None,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k if accent.has_top_k else None,
            "seed": sampling.seed,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            accent.limit: request.max_output_tokens,
            "stop": few_stops(request.stop, accent.stops, border),
            "response_format": _format(request.format),
            "reasoning_effort": effort_of(thinking) if thinking else None,
            "user": request.user or None,
            "metadata": _metadata(request, border),
        }
    )


def _metadata(request: Request, border: Border) -> Json:
    if not request.metadata:
        return None
    if border.extra.get("store") is not True:
        border.leave_out("metadata")
        return None
    return dict[str, Json](request.metadata)


def _messages(message: Message, border: Border) -> list[dict[str, Json]]:
    parts = without_thoughts(message, border)
    if message.role == "tool":
        results = [part for part in parts if isinstance(part, ResultPart)]
        return [
            {"role": "tool", "tool_call_id": _id(r.call_id), "content": result_text(r, border)}
            for r in results
        ]
    calls = [_call(part) for part in parts if isinstance(part, CallPart)]
    said = [_part(part, border) for part in parts if isinstance(part, TextPart | MediaPart)]
    if message.role == "assistant":
        if any(isinstance(part, MediaPart) for part in parts):
            border.refuse("image or file the model made")
        content: Json = "".join(p.text for p in parts if isinstance(p, TextPart)) or None
        if calls:
            return [{"role": "assistant", "content": content, "tool_calls": list[Json](calls)}]
        return [{"role": "assistant", "content": content or ""}]
    return [{"role": message.role, "content": _content(parts, said)}]


def _content(parts: tuple[Part, ...], said: list[Json]) -> Json:
    """One text as a string, which every provider takes; else the parts."""
    if not parts:
        return ""
    first = parts[0]
    return first.text if len(parts) == 1 and isinstance(first, TextPart) else said


def _part(part: TextPart | MediaPart, border: Border) -> Json:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if part.kind == "image":
        return {"type": "image_url", "image_url": {"url": data_url(part)}}
    if part.url:  # a file's address is no part of this dialect
        border.refuse("file at a URL")
    return {
        "type": "file",
        "file": {"filename": part.name or "file", "file_data": data_url(part)},
    }


def _call(part: CallPart) -> Json:
    function: Json = {"name": part.name, "arguments": part.arguments or "{}"}
    return {"id": _id(part.id), "type": "function", "function": function}


def _id(id: str) -> str:
    return fitting_id(id, _ID, 32)


def _tool(tool: Tool) -> Json:
    function: dict[str, Json] = {
        "name": tool.name,
        "description": tool.description or None,
        "parameters": tool.schema,
        "strict": tool.is_strict,
    }
    return {"type": "function", "function": without_none(function)}


def _tool_choice(choice: ToolChoice | None) -> Json:
    if choice is None or choice.mode != "named":
        return None if choice is None else choice.mode
    return {"type": "function", "function": {"name": choice.name}}


def _format(format: Format | None) -> Json:
    if format is None:
        return None
    if format.kind == "json":
        return {"type": "json_object"}
    schema: dict[str, Json] = {
        "name": format.name or "answer",
        "description": format.description or None,
        "schema": format.schema,
        "strict": format.is_strict,
    }
    return {"type": "json_schema", "json_schema": without_none(schema)}


def _as_mistral(body: dict[str, Json]) -> dict[str, Json]:
    body.pop("stream_options", None)
    if "max_completion_tokens" in body:
        body["max_tokens"] = body.pop("max_completion_tokens")
    if "seed" in body:
        body["random_seed"] = body.pop("seed")
    if body.get("tool_choice") == "required":
        body["tool_choice"] = "any"
    body["messages"] = [_mistral_message(as_object(m)) for m in as_list(body.get("messages"))]
    return body


def _mistral_message(message: dict[str, Json]) -> Json:
    new = dict(message)
    id = new.get("tool_call_id")
    if isinstance(id, str):
        new["tool_call_id"] = _mistral_id(id)
    if calls := as_list(new.get("tool_calls")):
        new["tool_calls"] = [_mistral_call(as_object(call)) for call in calls]
    return new


def _mistral_call(call: dict[str, Json]) -> Json:
    id = call.get("id")
    return {**call, "id": _mistral_id(id)} if isinstance(id, str) else call


def _mistral_id(id: str) -> str:
    return fitting_id(id, _MISTRAL_ID, 9)

"""Cohere's chat, version 2.

Instructions stay where they were said. "Call any tool" and "call none" have a word; a tool's name
has none. Several calls at once cannot be forbidden. Pictures are addresses, or hold themselves;
files cannot be said, and a result of a tool is text. Thinking is a budget of tokens, or on with
none. What was thought before is left out, and so is whom it is for and notes. Strictness is one
word for all tools, and said where every one is strict. `p` lies between 0.01 and 0.99, and what is
beyond is written as the nearer one; penalties lie between 0 and 1, `k` ends at 500, and five stop
sequences are taken.

Source: the provider's reference ("Chat", API v2).
"""

from __future__ import annotations

from typing import Final

from penstock.llm.ask.request import (
    CallPart,
    Format,
    MediaPart,
    Message,
    Request,
    ResultPart,
    TextPart,
    Thinking,
    Tool,
    text_of,
)
from penstock.llm.ask.thinking import budget_of
from penstock.llm.ask.write.turns import without_thoughts
from penstock.llm.ask.written import (
    Border,
    Target,
    Written,
    bounded,
    data_url,
    few_stops,
    result_text,
    without_none,
)
from penstock.llm.events import Json

DIALECT: Final = "cohere"

_LEAST_P: Final = 0.01
_MOST_P: Final = 0.99
_MOST_K: Final = 500
_MAX_STOPS: Final = 5


def write(request: Request, target: Target) -> Written:
    """The request in this dialect.

    Raises:
        RequestInexpressible: it says what this dialect cannot.
    """
    border = Border(request, target, DIALECT, goes_on=False)
    sampling = request.sampling
    if request.user:
        border.leave_out("user")
    if request.metadata:
        border.leave_out("metadata")
    if request.tools and request.is_parallel is False:
        border.refuse("parallel_tool_calls")
    body = without_none(
        {
            "model": target.model,
            "messages": [said for m in request.messages for said in _messages(m, border)],
            "tools": [_tool(tool) for tool in request.tools] or None,
            "strict_tools": _strict(request.tools, border),
            "tool_choice": _tool_choice(request, border),
            "max_tokens": bounded(request.max_output_tokens, target),
            "temperature": sampling.temperature,
            "p": None if sampling.top_p is None else min(max(sampling.top_p, _LEAST_P), _MOST_P),
            "k": _between("top_k", sampling.top_k, _MOST_K, border),
            "seed": sampling.seed,
            "presence_penalty": _between("presence_penalty", sampling.presence_penalty, 1, border),
            "frequency_penalty": _between(
                "frequency_penalty", sampling.frequency_penalty, 1, border
            ),
            "stop_sequences": few_stops(request.stop, _MAX_STOPS, border),
            "response_format": _format(request.format),
            "thinking": _thinking(request.thinking),
            "stream": target.is_stream,
        }
    )
    return Written(path="/v2/chat", body=body, left_out=border.left_out)


def _between(name: str, value: float | None, most: float, border: Border) -> float | None:
    if value is None or 0 <= value <= most:
        return value
    border.refuse(name)
    return None


def _messages(message: Message, border: Border) -> list[Json]:
    parts = without_thoughts(message, border)
    if message.role == "tool":
        results = [part for part in parts if isinstance(part, ResultPart)]
        return [
            {"role": "tool", "tool_call_id": r.call_id, "content": result_text(r, border)}
            for r in results
        ]
    calls = [_call(part) for part in parts if isinstance(part, CallPart)]
    said: dict[str, Json] = {"role": message.role}
    if message.role == "user" and any(isinstance(part, MediaPart) for part in parts):
        shown = [_part(p, border) for p in parts if isinstance(p, TextPart | MediaPart)]
        return [{**said, "content": [part for part in shown if part is not None]}]
    if any(isinstance(part, MediaPart) for part in parts):
        border.refuse("image or file the model made")
    text = text_of(parts)
    if calls:
        said["tool_calls"] = list[Json](calls)
    if text or not calls:
        said["content"] = text
    return [said]


def _part(part: TextPart | MediaPart, border: Border) -> Json:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if part.kind == "file":
        border.refuse("file")
        return None
    return {"type": "image_url", "image_url": {"url": data_url(part)}}


def _call(part: CallPart) -> Json:
    function: Json = {"name": part.name, "arguments": part.arguments or "{}"}
    return {"id": part.id, "type": "function", "function": function}


def _tool(tool: Tool) -> Json:
    function: dict[str, Json] = {
        "name": tool.name,
        "description": tool.description or None,
        "parameters": tool.schema or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": without_none(function)}


def _strict(tools: tuple[Tool, ...], border: Border) -> Json:
    strict = [tool for tool in tools if tool.is_strict]
    if strict and len(strict) < len(tools):
        border.leave_out("tools.strict")
        return None
    return True if strict else None


def _tool_choice(request: Request, border: Border) -> Json:
    choice = request.tool_choice
    if choice is None or not request.tools or choice.mode == "auto":
        return None
    if choice.mode == "named":
        border.refuse("tool_choice")
        return None
    return "NONE" if choice.mode == "none" else "REQUIRED"


def _format(format: Format | None) -> Json:
    if format is None:
        return None
    schema: dict[str, Json] = {"json_schema": format.schema} if format.schema else {}
    return {"type": "json_object", **schema}


def _thinking(thinking: Thinking | None) -> Json:
    if thinking is None:
        return None
    budget = budget_of(thinking)
    if budget == 0:
        return {"type": "disabled"}
    return {"type": "enabled", **({"token_budget": budget} if budget > 0 else {})}

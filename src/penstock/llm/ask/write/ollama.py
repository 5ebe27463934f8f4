"""Ollama's `/api/chat`.

Sampling, the bound and stop sequences go into `options`. Pictures are base64 beside the text, and
an address of one cannot be said, nor can a file, nor a picture that the model made. Thinking is on
or off, and its measure left out. Which tool is to be called cannot be said; "none" is said by
naming no tools, and results are named by their function, not their call. What was thought before is
left out, and so is whom it is for, notes and strictness.

Source: the provider's reference ("Generate a chat message").
"""

from __future__ import annotations

from typing import Final

from penstock.llm.ask.request import (
    CallPart,
    MediaPart,
    Message,
    Request,
    ResultPart,
    Tool,
    text_of,
)
from penstock.llm.ask.thinking import budget_of
from penstock.llm.ask.write.turns import names_of_calls, without_thoughts
from penstock.llm.ask.written import (
    Border,
    Target,
    Written,
    as_arguments,
    bounded,
    media_word,
    result_text,
    without_none,
)
from penstock.llm.events import Json

DIALECT: Final = "ollama"


def write(request: Request, target: Target) -> Written:
    """The request in this dialect.

    Raises:
        RequestInexpressible: it says what this dialect cannot.
    """
    border = Border(request, target, DIALECT, goes_on=True)
    _leave_out(request, border)
    names = names_of_calls(request)
    format, choice = request.format, request.tool_choice
    tools = () if choice is not None and choice.mode == "none" else request.tools
    body = without_none(
        {
            "model": target.model,
            "messages": [said for m in request.messages for said in _messages(m, names, border)],
            "tools": [_tool(tool) for tool in tools] or None,
            "format": ("json" if format.kind == "json" else format.schema) if format else None,
            "options": _options(request, target) or None,
            "think": budget_of(request.thinking) != 0 if request.thinking else None,
            "stream": target.is_stream,
        }
    )
    return Written(path="/api/chat", body=body, left_out=border.left_out)


def _leave_out(request: Request, border: Border) -> None:
    if request.user:
        border.leave_out("user")
    if request.metadata:
        border.leave_out("metadata")
    if request.thinking is not None and budget_of(request.thinking) > 0:
        border.leave_out("measure of thinking")
    if any(tool.is_strict for tool in request.tools):
        border.leave_out("tools.strict")
    if request.tools and request.is_parallel is False:
        border.refuse("parallel_tool_calls")
    if request.tool_choice is not None and request.tool_choice.mode in ("required", "named"):
        border.refuse("tool_choice")


def _options(request: Request, target: Target) -> dict[str, Json]:
    sampling = request.sampling
    return without_none(
        {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": sampling.seed,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "num_predict": bounded(request.max_output_tokens, target),
            "stop": list[Json](request.stop) or None,
        }
    )


def _messages(message: Message, names: dict[str, str], border: Border) -> list[Json]:
    parts = without_thoughts(message, border)
    if message.role == "tool":
        return [_result(part, names, border) for part in parts if isinstance(part, ResultPart)]
    said: dict[str, Json] = {"role": message.role, "content": text_of(parts)}
    if message.role == "assistant" and any(isinstance(part, MediaPart) for part in parts):
        border.refuse("image or file the model made")
        parts = tuple(part for part in parts if not isinstance(part, MediaPart))
    images = [_image(part, border) for part in parts if isinstance(part, MediaPart)]
    if shown := [image for image in images if image is not None]:
        said["images"] = list[Json](shown)
    if calls := [_call(part, border) for part in parts if isinstance(part, CallPart)]:
        said["tool_calls"] = calls
    return [said]


def _result(part: ResultPart, names: dict[str, str], border: Border) -> Json:
    name = names.get(part.call_id, "")
    if not name:
        border.refuse("tool result without its call")
    return {"role": "tool", "tool_name": name, "content": result_text(part, border)}


def _image(part: MediaPart, border: Border) -> str | None:
    if part.kind == "file" or part.url:
        border.refuse(f"{media_word(part)}{' at a URL' if part.url else ''}")
        return None
    return part.data


def _call(part: CallPart, border: Border) -> Json:
    arguments = as_arguments(part.arguments, border)
    return {"function": {"name": part.name, "arguments": arguments}}


def _tool(tool: Tool) -> Json:
    function: dict[str, Json] = {
        "name": tool.name,
        "description": tool.description or None,
        "parameters": tool.schema or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": without_none(function)}

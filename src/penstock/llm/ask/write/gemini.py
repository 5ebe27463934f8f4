"""Google Gemini's `generateContent`.

The model is part of the path, and a stream another method of it. What was thought before is left
out, and so is whom it is for, notes, and the strictness of a tool, which has no word here. A result
of a tool is named by its function, which is looked up by the call's id, and is an object: its text
as `output`, or as `error`. Schemas go in the fields that take JSON Schema as it is. How much to
think is a budget of tokens; what is thought is asked for where anything is. At an address can only
be what the provider itself may fetch. Five stop sequences are taken.

From version 3 on the models refuse a call of a tool without the seal of the thought before it,
which no other dialect carries. For a conversation that was held elsewhere the provider has a word
to put in its place, on the first call of a turn; models up to version 2 do without.

Sources: the provider's reference ("Generating content") and its page "Thought signatures".
"""

from __future__ import annotations

import re
from typing import Final

from penstock.llm.ask.request import (
    CallPart,
    MediaPart,
    Part,
    Request,
    ResultPart,
    TextPart,
    Thinking,
    Tool,
)
from penstock.llm.ask.thinking import budget_of
from penstock.llm.ask.write.turns import instructions_of, names_of_calls, turns_of
from penstock.llm.ask.written import (
    Border,
    Target,
    Written,
    as_arguments,
    bounded,
    few_stops,
    model_path,
    result_text,
    without_none,
)
from penstock.llm.events import Json

DIALECT: Final = "gemini"

_MAX_STOPS: Final = 5
_UNSEALED: Final = re.compile(r"gemini-[12]\b")
_NO_SEAL: Final = "skip_thought_signature_validator"
_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}


def write(request: Request, target: Target) -> Written:
    """The request in this dialect.

    Raises:
        RequestInexpressible: it says what this dialect cannot.
    """
    border = Border(request, target, DIALECT, goes_on=True)
    if request.user:
        border.leave_out("user")
    if request.metadata:
        border.leave_out("metadata")
    if request.tools and request.is_parallel is False:
        border.refuse("parallel_tool_calls")
    instructions = instructions_of(request)
    body = without_none(
        {
            "contents": _contents(request, target, border),
            "systemInstruction": {"parts": [{"text": instructions}]} if instructions else None,
            "tools": _tools(request.tools, border),
            "toolConfig": _tool_config(request),
            "generationConfig": _config(request, target, border) or None,
        }
    )
    return Written(path=_path(target), body=body, left_out=border.left_out)


def _path(target: Target) -> str:
    # A tuned model has a collection of its own; "models/" may be said or not.
    model = target.model if "/" in target.model else f"models/{target.model}"
    method = "streamGenerateContent?alt=sse" if target.is_stream else "generateContent"
    return f"/{model_path(model, DIALECT)}:{method}"


def _contents(request: Request, target: Target, border: Border) -> list[Json]:
    names = names_of_calls(request)
    is_sealed = _UNSEALED.search(target.model) is None
    contents: list[Json] = []
    for turn in turns_of(request, border):
        parts = [_part(part, names, border) for part in turn.parts]
        first = next((part for part in parts if "functionCall" in part), None)
        if first is not None and is_sealed:
            first["thoughtSignature"] = _NO_SEAL
        role = "model" if turn.role == "assistant" else "user"
        contents.append({"role": role, "parts": list[Json](parts)})
    return contents


def _part(part: Part, names: dict[str, str], border: Border) -> dict[str, Json]:
    match part:
        case CallPart(name=name, arguments=arguments):
            return {"functionCall": {"name": name, "args": as_arguments(arguments, border)}}
        case ResultPart():
            name = names.get(part.call_id, "")
            if not name:
                border.refuse("tool result without its call")
            text = result_text(part, border, marks_errors=True)
            said: Json = {"error" if part.is_error else "output": text}
            return {"functionResponse": {"name": name, "response": said}}
        case MediaPart(url="", media_type=media_type, data=data):
            return {"inlineData": {"mimeType": media_type, "data": data}}
        case MediaPart(url=url, media_type=media_type):
            kind: dict[str, Json] = {"mimeType": media_type} if media_type else {}
            return {"fileData": {"fileUri": url, **kind}}
        case TextPart(text=text):
            return {"text": text}
        case _:
            return {"text": part.text}


def _tools(tools: tuple[Tool, ...], border: Border) -> Json:
    if not tools:
        return None
    if any(tool.is_strict for tool in tools):
        border.leave_out("tools.strict")
    declarations = [
        without_none(
            {
                "name": tool.name,
                "description": tool.description or None,
                "parametersJsonSchema": tool.schema,
            }
        )
        for tool in tools
    ]
    return [{"functionDeclarations": list[Json](declarations)}]


def _tool_config(request: Request) -> Json:
    choice = request.tool_choice
    if choice is None or not request.tools:
        return None
    config: dict[str, Json] = {"mode": _MODES[choice.mode]}
    if choice.mode == "named":
        config["allowedFunctionNames"] = [choice.name]
    return {"functionCallingConfig": config}


def _config(request: Request, target: Target, border: Border) -> dict[str, Json]:
    sampling, format = request.sampling, request.format
    return without_none(
        {
            "temperature": sampling.temperature,
            "topP": sampling.top_p,
            "topK": sampling.top_k,
            "seed": sampling.seed,
            "presencePenalty": sampling.presence_penalty,
            "frequencyPenalty": sampling.frequency_penalty,
            "maxOutputTokens": bounded(request.max_output_tokens, target),
            "stopSequences": few_stops(request.stop, _MAX_STOPS, border),
            "responseMimeType": "application/json" if format else None,
            "responseJsonSchema": format.schema if format else None,
            "thinkingConfig": _thinking(request.thinking),
        }
    )


def _thinking(thinking: Thinking | None) -> Json:
    if thinking is None:
        return None
    budget = budget_of(thinking)
    return {"thinkingBudget": budget, "includeThoughts": budget != 0}

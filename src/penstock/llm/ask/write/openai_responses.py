"""OpenAI's Responses.

Every message becomes items of `input`, instructions where they were said. What was thought before
is left out, since the provider takes its own items of it alone. A tool's failure is said in its
text ("error: "). A tool whose strictness nobody named is not strict: here that would be the
default, as it is nowhere else. Stop sequences, a seed, `top_k` and the penalties cannot be said,
and a penalty of 0 need not be. The provider takes no bound below 16: a lower one is written as 16,
and whoever counts has to cut. It would keep what it is asked unless it is told not to, which no
other does: `store` is false. Ids of calls have 64 characters: a longer one is written as the first
32 hexadecimal digits of its SHA-256.

Source: the provider's reference ("Create a model response").
"""

from __future__ import annotations

import re
from typing import Final

from penstock.llm.ask.request import (
    CallPart,
    Format,
    MediaPart,
    Message,
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
    fitting_id,
    relayed,
    spoken_headers,
    without_none,
)
from penstock.llm.events import Json, as_count

DIALECT: Final = "openai-responses"

_LEAST_BOUND: Final = 16
_ID: Final = re.compile(r".{1,64}", re.DOTALL)


def write(request: Request, target: Target) -> Written:
    """The request in this dialect.

    Raises:
        RequestInexpressible: it says what this dialect cannot.
    """
    body = relayed(request, DIALECT)
    left_out: tuple[str, ...] = ()
    if body is None:
        border = Border(request, target, DIALECT, goes_on=False)
        body = {"store": False} | border.extra | _body(request, border)
        left_out = border.left_out
    body |= {"model": target.model, "stream": target.is_stream}
    asked = as_count(body.get("max_output_tokens"))
    limit = bounded(asked, target)
    if limit is not None and limit != asked:
        limit = max(limit, _LEAST_BOUND)
        body["max_output_tokens"] = limit if asked is None else min(limit, asked)
    headers = spoken_headers(request, DIALECT)
    return Written(path="/responses", body=body, headers=headers, left_out=left_out)


def _body(request: Request, border: Border) -> dict[str, Json]:
    sampling, thinking = request.sampling, request.thinking
    border.refuse_said(
        stop=request.stop or None,
        seed=sampling.seed,
        top_k=sampling.top_k,
        presence_penalty=sampling.presence_penalty or None,
        frequency_penalty=sampling.frequency_penalty or None,
    )
    effort = effort_of(thinking) if thinking else None
    return without_none(
        {
            "input": [item for message in request.messages for item in _items(message, border)],
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _tool_choice(request.tool_choice) if request.tools else None,
            "parallel_tool_calls": request.is_parallel if request.tools else None,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_output_tokens": _limit(request.max_output_tokens),
            "text": _format(request.format),
            "reasoning": {"effort": effort} if effort else None,
            "user": request.user or None,
            "metadata": dict[str, Json](request.metadata) or None,
        }
    )


def _limit(asked: int | None) -> int | None:
    return None if asked is None else max(asked, _LEAST_BOUND)


def _items(message: Message, border: Border) -> list[Json]:
    """A message's items, in the order of its parts; neighbouring texts and media are one."""
    items: list[Json] = []
    said: list[TextPart | MediaPart] = []
    for part in without_thoughts(message, border):
        match part:
            case CallPart(id=id, name=name, arguments=arguments):
                items += _spoken(message, said, border)
                said = []
                call: Json = {"type": "function_call", "call_id": _id(id), "name": name}
                items.append({**call, "arguments": arguments or "{}"})
            case ResultPart():
                output = _output(part, border)
                call_id = _id(part.call_id)
                items.append({"type": "function_call_output", "call_id": call_id, "output": output})
            case TextPart() | MediaPart():
                said.append(part)
            case _:
                pass
    return items + _spoken(message, said, border)


def _id(id: str) -> str:
    return fitting_id(id, _ID, 32)


def _spoken(message: Message, said: list[TextPart | MediaPart], border: Border) -> list[Json]:
    if not said:
        return []
    texts = [part.text for part in said if isinstance(part, TextPart)]
    if message.role == "assistant":
        if len(texts) != len(said):
            border.refuse("image or file the model made")
        return [{"role": "assistant", "content": "".join(texts)}]
    return [{"role": message.role, "content": [_part(part) for part in said]}]


def _part(part: TextPart | MediaPart) -> Json:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    if part.kind == "image":
        return {"type": "input_image", "detail": "auto", "image_url": data_url(part)}
    if part.url:
        return {"type": "input_file", "file_url": part.url}
    name = part.name or "file"
    return {"type": "input_file", "filename": name, "file_data": data_url(part)}


def _output(result: ResultPart, border: Border) -> Json:
    marked: tuple[TextPart | MediaPart, ...] = result.content
    if result.is_error:
        marked = (TextPart(text="error: "), *marked)
    texts = [part.text for part in marked if isinstance(part, TextPart)]
    return "".join(texts) if len(texts) == len(marked) else [_part(part) for part in marked]


def _tool(tool: Tool) -> Json:
    said: dict[str, Json] = {"type": "function", "name": tool.name}
    if tool.description:
        said["description"] = tool.description
    return {**said, "parameters": tool.schema, "strict": bool(tool.is_strict)}


def _tool_choice(choice: ToolChoice | None) -> Json:
    if choice is None or choice.mode != "named":
        return None if choice is None else choice.mode
    return {"type": "function", "name": choice.name}


def _format(format: Format | None) -> Json:
    if format is None:
        return None
    if format.kind == "json":
        return {"format": {"type": "json_object"}}
    schema: dict[str, Json] = {
        "type": "json_schema",
        "name": format.name or "answer",
        "description": format.description or None,
        "schema": format.schema or {},
        "strict": format.is_strict,
    }
    return {"format": without_none(schema)}

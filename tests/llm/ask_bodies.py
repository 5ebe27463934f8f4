"""What pages and our own dialect would post to ask what a `Request` asks: written for tests alone.

The product reads these three dialects and writes none of them.
"""

from __future__ import annotations

import json
from typing import Any

from llm.asking import write
from penstock.llm.ask.request import (
    CallPart,
    MediaPart,
    Message,
    Part,
    Request,
    ResultPart,
    TextPart,
)
from penstock.llm.ask.written import data_url


def body_of(request: Request, dialect: str) -> dict[str, Any]:
    """The body a client of this dialect sends. Pages have no settings to send."""
    match dialect:
        case "native":
            return _native(request)
        case "vercel":
            first = {"role": "system", "parts": [{"type": "text", "text": "a page's own"}]}
            return {"id": "c", "messages": [first, *_vercel(request)]}
        case "agui":
            tools = [{"name": tool.name, "parameters": tool.schema} for tool in request.tools]
            messages = [said for message in request.messages for said in _agui(message)]
            return {"threadId": "t", "runId": "r", "messages": messages, "tools": tools}
        case _:
            return write(request, dialect).body


def _native(request: Request) -> dict[str, Any]:
    sampling, choice, format = request.sampling, request.tool_choice, request.format
    thinking = request.thinking
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [
            {"role": message.role, "content": [_native_part(part) for part in message.parts]}
            for message in request.messages
        ],
        "tools": [
            {"name": tool.name, "schema": tool.schema, "strict": tool.is_strict}
            for tool in request.tools
        ],
        "parallel_tool_calls": request.is_parallel,
        **{name: getattr(sampling, name) for name in sampling.__slots__},
        "max_output_tokens": request.max_output_tokens,
        "stop": list(request.stop),
        "user": request.user,
        "metadata": dict(request.metadata),
    }
    if choice is not None:
        body["tool_choice"] = {"name": choice.name} if choice.mode == "named" else choice.mode
    if format is not None:
        body["format"] = {"kind": format.kind, "schema": format.schema}
    if thinking is not None:
        body["thinking"] = {name: getattr(thinking, name) for name in thinking.__slots__}
    return body


def _native_part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case MediaPart(url=url, kind=kind) if url:
            return {"type": kind, "url": url}
        case MediaPart(kind=kind, data=data, media_type=media_type):
            return {"type": kind, "data": data, "media_type": media_type, "name": part.name}
        case CallPart(id=id, name=name, arguments=arguments):
            return {"type": "tool_call", "id": id, "name": name, "arguments": arguments}
        case ResultPart(call_id=id, content=content, is_error=is_error):
            inner = [_native_part(part) for part in content]
            return {"type": "tool_result", "call_id": id, "content": inner, "is_error": is_error}
        case _:
            return {"type": "reasoning", "text": part.text}


def _vercel(request: Request) -> list[dict[str, Any]]:
    results = {
        part.call_id: part
        for message in request.messages
        for part in message.parts
        if isinstance(part, ResultPart)
    }
    return [
        {
            "id": str(place),
            "role": message.role,
            "parts": [_vercel_part(part, results) for part in message.parts],
        }
        for place, message in enumerate(request.messages)
        if message.role != "tool"
    ]


def _vercel_part(part: Part, results: dict[str, ResultPart]) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case MediaPart():
            media_type = part.media_type or "image/png"
            return {"type": "file", "mediaType": media_type, "url": data_url(part)}
        case CallPart(id=id, name=name, arguments=arguments):
            called = {"type": f"tool-{name}", "toolCallId": id, "input": _read(arguments)}
            if id not in results:
                return {**called, "state": "input-available"}
            output = "".join(p.text for p in results[id].content if isinstance(p, TextPart))
            return {**called, "state": "output-available", "output": output}
        case _:
            return {"type": "reasoning", "text": getattr(part, "text", "")}


def _read(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _agui(message: Message) -> list[dict[str, Any]]:
    parts = message.parts
    if message.role == "tool":
        return [
            {
                "id": "m",
                "role": "tool",
                "toolCallId": part.call_id,
                "content": "".join(p.text for p in part.content if isinstance(p, TextPart)),
            }
            for part in parts
            if isinstance(part, ResultPart)
        ]
    said = [_agui_part(part) for part in parts if isinstance(part, TextPart | MediaPart)]
    calls = [
        {
            "id": part.id,
            "type": "function",
            "function": {"name": part.name, "arguments": part.arguments},
        }
        for part in parts
        if isinstance(part, CallPart)
    ]
    return [{"id": "m", "role": message.role, "content": said, "toolCalls": calls or None}]


def _agui_part(part: TextPart | MediaPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind = "image" if part.kind == "image" else "document"
    if part.url:
        return {"type": kind, "source": {"type": "url", "value": part.url}}
    source = {"type": "data", "value": part.data, "mimeType": part.media_type}
    return {"type": kind, "source": source}

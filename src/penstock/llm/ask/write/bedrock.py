"""AWS Bedrock's Converse, in every model's same words. Whoever sends it signs it (SigV4).

The model is part of the path. Pictures and documents are bytes, or an address in S3; other
addresses cannot be said. A document must have a name of letters, digits, single spaces, hyphens,
round and square brackets, and no two the same one: other characters become hyphens, and a number
follows. A seed, the penalties, formats and "call no tool" cannot be said, and a penalty of 0 need
not be. `top_k` and thinking are fields of the model, known here for Anthropic's alone, which also
take their own sealed thoughts back; `claude.py` has what else they take and refuse. Notes are
written where all of them fit what AWS takes, and else left out, as are whom it is for and
strictness. Calls in the conversation are refused where the request has no tools, as AWS does. Ids
of calls are up to 64 letters, digits, underscores and hyphens: another is written as the first 32
hexadecimal digits of its SHA-256.

Source: the provider's reference ("Converse").
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
    ThoughtPart,
    Tool,
)
from penstock.llm.ask.thinking import budget_of
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
    model_path,
    without_none,
)
from penstock.llm.events import Json

DIALECT: Final = "bedrock"

_HEADERS: Final[Headers] = (
    HEADERS[0],
    ("Accept", "application/vnd.amazon.eventstream, application/json"),
    *HEADERS[2:],
)

_IMAGES: Final = {f"image/{kind}": kind for kind in ("png", "jpeg", "gif", "webp")}
_DOCUMENTS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9 ()\[\]-]")
_MAX_NAME: Final = 190
_NOTE: Final = re.compile(r"[A-Za-z0-9\s:_@$#=/+,.-]{0,256}")
_MAX_NOTES: Final = 16
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def write(request: Request, target: Target) -> Written:
    """The request in this dialect.

    Raises:
        RequestInexpressible: it says what this dialect cannot.
    """
    border = Border(request, target, DIALECT, goes_on=True)
    is_claude = "anthropic." in target.model or "claude" in target.model
    _refuse(request, border)
    if request.user:
        border.leave_out("user")
    instructions = instructions_of(request)
    keeps_thoughts = is_claude and request.dialect == "anthropic-messages"
    turns = turns_of(request, border, keeps_thoughts=keeps_thoughts)
    demand_user(turns, border)
    limit = bounded(request.max_output_tokens, target)
    settings = _settings(request, target, border, is_claude=is_claude)
    fields = _model_fields(request, settings, limit, border) if is_claude else None
    writer = _Blocks(border)
    body = without_none(
        {
            "messages": [
                {"role": turn.role, "content": writer.blocks(turn.parts)} for turn in turns
            ],
            "system": [{"text": instructions}] if instructions else None,
            "inferenceConfig": _config(settings, limit) or None,
            "toolConfig": _tool_config(request, border),
            "additionalModelRequestFields": fields or None,
            "requestMetadata": _notes(request, border),
        }
    )
    method = "converse-stream" if target.is_stream else "converse"
    # An ARN has a slash, and is one segment all the same.
    model = model_path(target.model, DIALECT).replace("/", "%2F")
    path = f"/model/{model}/{method}"
    return Written(path=path, body=body, headers=_HEADERS, left_out=border.left_out)


def _refuse(request: Request, border: Border) -> None:
    sampling, choice = request.sampling, request.tool_choice
    border.refuse_said(
        seed=sampling.seed,
        presence_penalty=sampling.presence_penalty or None,
        frequency_penalty=sampling.frequency_penalty or None,
        response_format=request.format,
        tool_choice=choice if choice is not None and choice.mode == "none" else None,
        parallel_tool_calls=False if request.tools and request.is_parallel is False else None,
    )
    has_calls = any(
        isinstance(part, CallPart | ResultPart) for m in request.messages for part in m.parts
    )
    if has_calls and not request.tools:
        border.refuse("tool calls without tools")


def _settings(request: Request, target: Target, border: Border, *, is_claude: bool) -> Settings:
    if is_claude:
        return settings_of(request, target.model, border)
    thinking, sampling = request.thinking, request.sampling
    border.refuse_said(
        top_k=sampling.top_k, thinking=thinking if thinking and budget_of(thinking) else None
    )
    return Settings(temperature=sampling.temperature, top_p=sampling.top_p, stop=request.stop)


def _config(settings: Settings, limit: int | None) -> dict[str, Json]:
    return without_none(
        {
            "maxTokens": limit,
            "temperature": settings.temperature,
            "topP": settings.top_p,
            "stopSequences": list[Json](settings.stop) or None,
        }
    )


def _model_fields(
    request: Request, settings: Settings, limit: int | None, border: Border
) -> dict[str, Json]:
    thinking = settings.thinking
    if thinking is not None and limit is not None:
        thinking = fit_thinking(thinking, limit)
        if thinking is None:
            border.leave_out("thinking")  # it must be less than the bound, and at least 1,024
    return without_none(
        {
            "top_k": settings.top_k,
            "thinking": thinking,
            "output_config": {"effort": settings.effort} if settings.effort else None,
        }
    )


def _notes(request: Request, border: Border) -> Json:
    notes = request.metadata
    if not notes:
        return None
    fits = all(key and _NOTE.fullmatch(key) and _NOTE.fullmatch(v) for key, v in notes.items())
    if not fits or len(notes) > _MAX_NOTES:
        border.leave_out("metadata")
        return None
    return dict[str, Json](notes)


class _Blocks:
    """Writes the parts of one request, whose documents must have names of their own."""

    __slots__ = ("_border", "_names")

    def __init__(self, border: Border) -> None:
        self._border = border
        self._names: dict[str, int] = {}

    def blocks(self, parts: tuple[Part, ...]) -> list[Json]:
        """The blocks of a turn, or of a tool's result."""
        blocks = (self._block(part) for part in parts)
        return [block for block in blocks if block is not None]

    def _block(self, part: Part) -> Json:
        match part:
            case TextPart(text=text):
                return {"text": text}
            case MediaPart():
                return self._media(part)
            case CallPart(id=id, name=name, arguments=arguments):
                said = as_arguments(arguments, self._border)
                return {"toolUse": {"toolUseId": _id(id), "name": name, "input": said}}
            case ThoughtPart(is_hidden=True, seal=seal):
                return {"reasoningContent": {"redactedContent": seal}}
            case ThoughtPart(text=text, seal=seal):
                return {"reasoningContent": {"reasoningText": {"text": text, "signature": seal}}}
            case ResultPart():
                result: dict[str, Json] = {
                    "toolUseId": _id(part.call_id),
                    "content": self.blocks(part.content),
                    "status": "error" if part.is_error else "success",
                }
                return {"toolResult": result}

    def _media(self, part: MediaPart) -> Json:
        kinds = _IMAGES if part.kind == "image" else _DOCUMENTS
        ending = part.url.rpartition(".")[2].lower() if part.url.startswith("s3://") else ""
        format = kinds.get(part.media_type, ending if ending in kinds.values() else "")
        if part.url and not part.url.startswith("s3://"):
            self._border.refuse(f"{media_word(part)} at a URL")
            return None
        if not format:
            self._border.refuse(f"{media_word(part)} of type {part.media_type[:60]!r}")
            return None
        source: Json = {"bytes": part.data}
        if part.url:
            source = {"s3Location": {"uri": part.url}}
        if part.kind == "image":
            return {"image": {"format": format, "source": source}}
        return {"document": {"format": format, "name": self._name(part), "source": source}}

    def _name(self, part: MediaPart) -> str:
        said = " ".join(_NOT_IN_NAMES.sub("-", part.name).split())[:_MAX_NAME] or "document"
        name, count = said, self._names.get(said, 1)
        while name in self._names:
            count += 1
            name = f"{said} {count}"
        self._names[said] = count  # counted on from here, so that many cost no more each
        self._names.setdefault(name, 1)
        return name


def _id(id: str) -> str:
    return fitting_id(id, _ID, 32)


def _tool_config(request: Request, border: Border) -> Json:
    if not request.tools:
        return None
    if any(tool.is_strict for tool in request.tools):
        border.leave_out("tools.strict")
    config: dict[str, Json] = {"tools": [_tool(tool) for tool in request.tools]}
    match request.tool_choice:
        case None:
            pass
        case choice if choice.mode == "named":
            config["toolChoice"] = {"tool": {"name": choice.name}}
        case choice if choice.mode == "required":
            config["toolChoice"] = {"any": {}}
        case choice if choice.mode == "auto":
            config["toolChoice"] = {"auto": {}}
        case _:
            pass  # refused, or let go
    return config


def _tool(tool: Tool) -> Json:
    spec: dict[str, Json] = {
        "name": tool.name,
        "description": tool.description or None,
        "inputSchema": {"json": tool.schema or {"type": "object", "properties": {}}},
    }
    return {"toolSpec": without_none(spec)}

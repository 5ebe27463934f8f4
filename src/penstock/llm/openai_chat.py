"""OpenAI Chat Completions, and the many who speak it with an accent.

A body is chunks with choices, as `openai_choices.py` says; each is a `chat.completion.chunk`, and a
choice's `delta` is what is new of the message: its text, its reasoning, its tool calls. Azure,
Groq, OpenRouter, DeepSeek, Mistral, vLLM, llama.cpp, Writer and Ollama all answer in this shape and
each bends it; what a provider does differently is said where it is read.

Sources: the provider's reference ("The chat completion chunk object") and its SDK's types, those of
the others named here, and their recorded streams.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.assemble import Composer
from penstock.llm.events import (
    Json,
    as_count,
    as_json_text,
    as_list,
    as_object,
    as_text,
)
from penstock.llm.openai_choices import ChoicesReader

DIALECT: Final = "openai-chat"

# Fields of a delta that are passed through under their own name: OpenAI's, those of Groq's own
# tools, of Azure's own data, and of Writer's.
_PASSED: Final = frozenset(
    {
        *("annotations", "images", "audio"),
        *("executed_tools", "context", "graph_data", "web_search_data"),
    }
)


class Reader(ChoicesReader):
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = ("_calls", "_last_index")

    dialect = DIALECT

    def __init__(self, composer: Composer | None = None) -> None:
        super().__init__(composer)
        # By index: the key of the last call begun under it, and that call's id.
        self._calls: dict[int, tuple[int, str]] = {}
        self._last_index = 0

    def _receive_content(self, choice: dict[str, Json]) -> None:
        # Some who do not really stream send the whole message in the delta's place.
        delta = as_object(choice.get("delta") or choice.get("message"))
        composer = self._composer
        # Some send both fields with the same text: the first that says something is it.
        thought = as_text(delta.get("reasoning")) or as_text(delta.get("reasoning_content"))
        if details := delta.get("reasoning_details"):
            self._receive_details(thought, [as_object(detail) for detail in as_list(details)])
        elif thought:
            composer.reasoning(thought)
        content = delta.get("content")
        if isinstance(content, str):
            composer.text(content)
        else:
            self._receive_parts(as_list(content))
        refusal = as_text(delta.get("refusal"))
        if refusal:
            self._is_refused = True
            composer.text(refusal)
        for call in as_list(delta.get("tool_calls")):
            self._receive_call(as_object(call))
        if legacy := as_object(delta.get("function_call")):
            self._receive_call({"index": 0, "function": legacy})
        for kind, value in delta.items():
            if kind in _PASSED and _says_something(value):
                composer.data(kind, value)

    def _receive_details(self, thought: str, details: list[dict[str, Json]]) -> None:
        """Reasoning as OpenRouter has it in parts, which may repeat what is thought beside them."""
        if not thought:
            thought = "".join(
                as_text(detail.get("text")) or as_text(detail.get("summary")) for detail in details
            )
        self._composer.reasoning(thought)
        # What must be sent back with the next turn, and cannot be told from the text.
        opaque: list[Json] = [d for d in details if d.get("data") or d.get("signature")]
        if opaque:
            self._composer.data("reasoning_details", opaque)

    def _receive_parts(self, parts: list[Json]) -> None:
        """Content as a list of parts, which Mistral's reasoning models send."""
        for part in parts:
            fields = as_object(part)
            match fields.get("type"):
                case "text":
                    self._composer.text(as_text(fields.get("text")))
                case "thinking":
                    thinking = fields.get("thinking")
                    pieces = [thinking, *(as_object(p).get("text") for p in as_list(thinking))]
                    self._composer.reasoning("".join(as_text(piece) for piece in pieces))
                case "refusal":
                    self._is_refused = True
                    self._composer.text(as_text(fields.get("refusal")))
                case str() as kind:
                    self._composer.data(kind, part)
                case _:
                    self._composer.text(as_text(part))

    def _receive_call(self, call: dict[str, Json]) -> None:
        id = as_text(call.get("id"))
        function = as_object(call.get("function")) or as_object(call.get("custom"))
        name = as_text(function.get("name"))
        arguments = function.get("arguments") or function.get("input")
        if isinstance(arguments, dict):  # a whole value in the place of its text
            arguments = as_json_text(arguments)
        if not (id or name or arguments):
            return
        key = self._call_key(call, id, name)
        self._composer.call(key, id=id, name=name, arguments=as_text(arguments))

    def _call_key(self, call: dict[str, Json], id: str, name: str) -> int:
        """Which call a piece belongs to: the last begun under its index, or a new one.

        Gemini behind this dialect leaves the index out, or gives every call 0; there an id and a
        name that are both new begin a call. An id alone does not: older vLLM made a new one up for
        each piece.
        """
        given = as_count(call.get("index"))
        index = self._last_index if given is None else given
        self._last_index = index
        key, known = self._calls.get(index, (-1, ""))
        is_new = bool(name and known and id and id != known)
        if key < 0 or is_new or (given is None and name and not id):
            key, known = self._composer.call_count, ""
        self._calls[index] = key, known or id
        return key


def _says_something(value: Json) -> bool:
    """Whether anything is in it: Writer sends objects whose every field is null."""
    return any(value.values()) if isinstance(value, dict) else bool(value)

"""OpenAI's Responses: numbered items, each added, filled and done, and the response as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.llm.events import Json
from penstock.testing.speech.framing import named
from penstock.testing.speech.said import CREATED_AT, Said, SaidCall


def speak(said: Said) -> Iterator[bytes]:
    """An answer as the events of a response."""
    return _Speech(said).events()


def fail(message: str, place: int) -> bytes:
    """An error under way, with the number that its event has."""
    error: dict[str, Json] = {"code": "server_error", "message": message, "param": None}
    return named("error", {**error, "sequence_number": place})


class _Speech:
    """One response: the number of its next event, and the items that are done."""

    def __init__(self, said: Said) -> None:
        self._said = said
        self._number = 0
        self._output: list[Json] = []

    def events(self) -> Iterator[bytes]:
        said = self._said
        for step in ("created", "in_progress"):
            yield self._event(f"response.{step}", response=self._response("in_progress"))
        if said.thought:
            yield from self._reasoning(said.thought)
        if said.text:
            yield from self._message(said.text)
        for call in said.calls:
            yield from self._call(call)
        status = "incomplete" if said.is_cut else "completed"
        yield self._event(f"response.{status}", response=self._response(status))

    def _event(self, type: str, **fields: Json) -> bytes:
        number, self._number = self._number, self._number + 1
        return named(type, {"sequence_number": number, **fields})

    def _response(self, status: str) -> Json:
        said = self._said
        why: Json = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": f"resp_{said.id}",
            "object": "response",
            "created_at": CREATED_AT,
            "status": status,
            "error": None,
            "incomplete_details": why,
            "instructions": None,
            "metadata": {},
            "model": said.model,
            "output": [*self._output],
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": None if status == "in_progress" else _usage(said),
        }

    def _reasoning(self, pieces: tuple[str, ...]) -> Iterator[bytes]:
        id = f"rs_{self._said.id}"
        place: dict[str, Json] = {"item_id": id, "output_index": 0, "summary_index": 0}
        summary: Json = {"type": "summary_text", "text": "".join(pieces)}
        item: dict[str, Json] = {"id": id, "type": "reasoning", "summary": []}
        type = "response.reasoning_summary"
        yield self._event("response.output_item.added", output_index=0, item=item)
        empty: Json = {"type": "summary_text", "text": ""}
        yield self._event(f"{type}_part.added", **place, part=empty)
        for piece in pieces:
            yield self._event(f"{type}_text.delta", **place, delta=piece)
        yield self._event(f"{type}_text.done", **place, text="".join(pieces))
        yield self._event(f"{type}_part.done", **place, part=summary)
        yield self._done({**item, "summary": [summary]})

    def _message(self, pieces: tuple[str, ...]) -> Iterator[bytes]:
        index, id = len(self._output), f"msg_{self._said.id}"
        place: dict[str, Json] = {"item_id": id, "output_index": index, "content_index": 0}
        item: dict[str, Json] = {"id": id, "type": "message", "role": "assistant"}
        opened: Json = {**item, "status": "in_progress", "content": []}
        part: dict[str, Json] = {"type": "output_text", "annotations": [], "logprobs": []}
        text = "".join(pieces)
        yield self._event("response.output_item.added", output_index=index, item=opened)
        yield self._event("response.content_part.added", **place, part={**part, "text": ""})
        for piece in pieces:
            yield self._event("response.output_text.delta", **place, logprobs=[], delta=piece)
        yield self._event("response.output_text.done", **place, logprobs=[], text=text)
        yield self._event("response.content_part.done", **place, part={**part, "text": text})
        is_last = not self._said.calls
        status = "incomplete" if self._said.is_cut and is_last else "completed"
        yield self._done({**item, "status": status, "content": [{**part, "text": text}]})

    def _call(self, call: SaidCall) -> Iterator[bytes]:
        index = len(self._output)
        id = f"fc_{self._said.id}{index}"
        place: dict[str, Json] = {"item_id": id, "output_index": index}
        item: dict[str, Json] = {"id": id, "type": "function_call", "name": call.name}
        item |= {"call_id": f"call_{self._said.id}{index}"}
        opened: Json = {**item, "status": "in_progress", "arguments": ""}
        whole = "".join(call.arguments)
        type = "response.function_call_arguments"
        yield self._event("response.output_item.added", output_index=index, item=opened)
        for piece in call.arguments:
            yield self._event(f"{type}.delta", **place, delta=piece)
        yield self._event(f"{type}.done", **place, name=call.name, arguments=whole)
        status = "completed" if call.is_whole else "incomplete"
        yield self._done({**item, "status": status, "arguments": whole})

    def _done(self, item: dict[str, Json]) -> bytes:
        index = len(self._output)
        self._output.append(item)
        return self._event("response.output_item.done", output_index=index, item=item)


def _usage(said: Said) -> Json:
    return {
        "input_tokens": said.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said.output_tokens,
        "output_tokens_details": {"reasoning_tokens": len(said.thought)},
        "total_tokens": said.input_tokens + said.output_tokens,
    }

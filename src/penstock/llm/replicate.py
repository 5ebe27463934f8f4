"""Replicate's output stream: the text itself as the data of events, without any JSON around it.

A body is SSE with ids. `output` events carry the next text as it is, white space and line ends
included; `logs` are the model's own and no part of the answer. `done` ends it, with `{}` or with a
reason ("canceled", "error") that makes it a `Failure`, as an `error` event is, whose data is a
sentence or an object with a `detail`. The end of the body before `done` is `upstream-truncated`.
Comments come at odd places (`: hi`, `:408: 408 Request Timeout`).

There are no counts, no tool calls, no id and no model: those belong to the prediction, which is
asked for elsewhere. Models that make files give their addresses as output, which is text here.

Sources: the provider's guide ("Streaming output") and SDK, and recorded streams.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.events import FAILED, as_text, parse_object
from penstock.llm.reader import SseReader
from penstock.wire.sse import Event

DIALECT: Final = "replicate"


class Reader(SseReader):
    """Reads one answer in this dialect. See `penstock.llm.events.TokenReader` for the contract."""

    __slots__ = ()

    dialect = DIALECT

    def _receive_event(self, event: Event) -> None:
        match event.type:
            case "output":
                self._composer.start()
                self._composer.text(event.data)
            case "done":
                self._receive_done(event.data)
            case "error":
                text = event.data.strip()
                self._fail(parse_object(text) or text)
            case _:
                pass

    def _receive_done(self, data: str) -> None:
        reason = as_text((parse_object(data) or {}).get("reason"))
        if reason:
            code = FAILED if reason == "error" else reason
            self._composer.fail(f"the prediction ended with {reason!r}", code)
            return
        # A model may say nothing at all; that it is done is an answer.
        self._composer.start()
        self._composer.stop("stop", "")
        self._is_done = True

"""Holding tool calls back until they are whole, so that nobody acts on half of one.

Deltas are not given. When a call is whole and its arguments are JSON, it comes as one delta with
all of it and then as the call. Where they are not JSON the answer fails: a `Failure` with the code
`upstream-arguments-invalid`, after which nothing comes and the provider can be left. A call that is
never finished is never shown. Nothing is held here: the whole call repeats what its deltas said.
"""

from __future__ import annotations

from typing import Final

from penstock.llm.events import Failure, TokenEvent, ToolCall, ToolCallDelta

ARGUMENTS_INVALID: Final = "upstream-arguments-invalid"
"""The code of the failure: the model's arguments of a tool call are not JSON."""


class WholeToolCalls:
    """Gives tool calls whole and valid, or ends the answer. See the module."""

    __slots__ = ("_has_failed",)

    def __init__(self) -> None:
        self._has_failed = False

    def receive_event(self, event: TokenEvent) -> list[TokenEvent]:
        if self._has_failed:
            return []
        match event:
            case ToolCallDelta():
                return []
            case ToolCall(arguments_valid=False):
                self._has_failed = True
                return [_refusal(event)]
            case ToolCall(index=index, id=id, name=name, arguments=arguments):
                return [ToolCallDelta(index=index, id=id, name=name, arguments=arguments), event]
            case _:
                return [event]

    def flush(self) -> list[TokenEvent]:
        return []


def _refusal(call: ToolCall) -> Failure:
    name = call.name[:100]
    message = f"the model called the tool {name!r} with arguments that are not JSON; ask it again"
    return Failure(message=message, code=ARGUMENTS_INVALID)

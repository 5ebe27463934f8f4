"""What the tests of all writers share: answers made by hand, each ended in its own way."""

from __future__ import annotations

from typing import NamedTuple

from llm.reading import answer
from penstock.core.record import EndReason
from penstock.llm.assemble import Answer
from penstock.llm.events import (
    Data,
    Failure,
    Reasoning,
    Start,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
)

START = Start(id="up-1", model="provider-model")
USAGE = Usage(
    input_tokens=30, output_tokens=12, reasoning_tokens=5, cached_tokens=8, cache_write_tokens=4
)
STOP = Stop(reason="stop", raw="stop")
TOOLS = Stop(reason="tool_use", raw="tool_calls")
FAILURE = Failure(message="the model is overloaded", code="overloaded_error", status=529)

# Control characters, every kind of line end that somebody honours, what looks like framing, quotes
# and backslashes, characters of two, three and four bytes.
NASTY = (
    "".join(map(chr, range(0x20)))
    + "\x7f\x85\u2028\u2029\ufeff\r\n\n\ndata: [DONE]\n\nevent: error\ndata: {}\n\n: "
    + '"\\"\\\\/</script>%s%d{}ä流🌊'
)


def delta(index: int, id: str = "", name: str = "", arguments: str = "") -> ToolCallDelta:
    return ToolCallDelta(index=index, id=id, name=name, arguments=arguments)


def call(index: int, id: str, name: str, arguments: str, *, is_valid: bool = True) -> ToolCall:
    return ToolCall(index=index, id=id, name=name, arguments=arguments, arguments_valid=is_valid)


class Case(NamedTuple):
    """An answer, and how its stream ended; `end` is what a client shows, "" what the stop says.

    `is_call_cut`: it has a tool call that was not whole. A client may show less of that one.
    """

    events: tuple[TokenEvent, ...]
    reason: EndReason = EndReason.COMPLETE
    end: str = ""
    is_call_cut: bool = False

    @property
    def answer(self) -> Answer:
        return answer(self.events)

    def end_in(self, dialect: str) -> str:
        """`end` in this dialect: our own has the reason itself."""
        is_reason = dialect == "native" and self.end and self.answer.failure is None
        return self.reason.value if is_reason else self.end


_TWO_CALLS = (
    START,
    Reasoning(text="Two places, "),
    Reasoning(text="so two calls."),
    Text(text="Looking "),
    Text(text="both up."),
    delta(0, "call_a", "weather", ""),
    delta(0, arguments='{"place":'),
    delta(0, arguments='"Köln"}'),
)
_HALF_A_CALL = (START, Text(text="Well"), delta(0, "call_a", "f"), delta(0, arguments='{"a": [1, '))

CASES: dict[str, Case] = {
    "text": Case((START, Text(text="Hello "), Text(text="there."), STOP, USAGE)),
    "text without usage": Case((START, Text(text="Hello."), STOP)),
    "usage before the text": Case((START, USAGE, Text(text="Hello."), STOP)),
    "nothing at all": Case((START, STOP, USAGE)),
    "not even a start": Case(()),
    "parallel calls": Case(
        (
            *_TWO_CALLS,
            delta(1, "call_b", "weather", '{"place":"Bonn"}'),
            call(0, "call_a", "weather", '{"place":"Köln"}'),
            call(1, "call_b", "weather", '{"place":"Bonn"}'),
            *(TOOLS, USAGE),
        )
    ),
    "calls written by turns": Case(
        (
            START,
            delta(0, "call_a", "f", '{"a":'),
            delta(1, "call_b", "g"),
            delta(1, arguments='{"b":'),
            delta(2, "call_c", "h", "{}"),
            delta(0, arguments="1}"),
            delta(1, arguments="2}"),
            call(0, "call_a", "f", '{"a":1}'),
            call(1, "call_b", "g", '{"b":2}'),
            call(2, "call_c", "h", "{}"),
            *(TOOLS, USAGE),
        )
    ),
    "text while a call is open": Case(
        (
            *_HALF_A_CALL,
            Text(text=", so"),
            Reasoning(text="hm"),
            delta(0, arguments="2]}"),
            Text(text=" it is."),
            call(0, "call_a", "f", '{"a": [1, 2]}'),
            TOOLS,
        )
    ),
    "a call without arguments": Case(
        (START, delta(0, "call_a", "now"), call(0, "call_a", "now", "{}"), TOOLS)
    ),
    "a name in pieces": Case(
        (
            START,
            delta(0, "call_a", "get_"),
            delta(0, name="weather"),
            delta(0, arguments="{}"),
            call(0, "call_a", "get_weather", "{}"),
            TOOLS,
        )
    ),
    "calls without ids": Case(
        (
            START,
            delta(0, name="f", arguments="{}"),
            call(0, "", "f", "{}"),
            delta(1, name="f", arguments="{}"),
            call(1, "", "f", "{}"),
            TOOLS,
        )
    ),
    "a call that was held back": Case((START, call(0, "call_a", "f", '{"a":1}'), TOOLS)),
    "thinking between texts": Case(
        (
            START,
            *(Reasoning(text="one"), Text(text="eins")),
            *(Reasoning(text=" two"), Text(text=" zwei"), STOP),
        )
    ),
    "nasty text": Case((START, Reasoning(text=NASTY), Text(text=NASTY), STOP, USAGE)),
    "nasty arguments": Case(
        (
            START,
            delta(0, "call_a", "f", '{"a":"\u2028\u0085 流🌊"}'),
            call(0, "call_a", "f", '{"a":"\u2028\u0085 流🌊"}'),
            TOOLS,
        )
    ),
    "a huge delta": Case((START, Text(text="0123456789 \u2028ä" * 100_000), STOP)),
    "many deltas": Case((START, *(Text(text=f"{n} ") for n in range(400)), STOP)),
    "length": Case((START, Text(text="Once upon"), Stop(reason="length", raw="length"), USAGE)),
    "filtered": Case((START, Text(text="How"), Stop(reason="content_filter", raw="x"))),
    "refused": Case((START, Text(text="No."), Stop(reason="refusal", raw="refusal"))),
    "cut by a limit": Case((START, Text(text="Once"), USAGE), EndReason.LIMIT, "length"),
    "a call cut by a limit": Case((*_HALF_A_CALL, USAGE), EndReason.LIMIT, "length", True),
    "limit before anything": Case((START,), EndReason.LIMIT, "length"),
    "cancelled": Case((START, Text(text="Once"), USAGE), EndReason.CANCELLED, "cancelled"),
    "cancelled in a call": Case(_HALF_A_CALL, EndReason.CANCELLED, "cancelled", True),
    "cancelled before the start": Case((), EndReason.CANCELLED, "cancelled"),
    "lost": Case((START, Text(text="Once"), USAGE), EndReason.LOST, "failed"),
    "lost after the stop": Case((START, Text(text="Once"), STOP), EndReason.LOST, "failed"),
    "failed": Case((START, Text(text="Once"), USAGE, FAILURE), EndReason.FAILED, "failed"),
    "failed in a call": Case((*_HALF_A_CALL, FAILURE), EndReason.FAILED, "failed", True),
    "failed before the start": Case((FAILURE,), EndReason.FAILED, "failed"),
    "failed after the stop": Case(
        (START, Text(text="Once"), STOP, USAGE, FAILURE), EndReason.FAILED, "failed"
    ),
    "failed without a word": Case((START, Text(text="Once")), EndReason.FAILED, "failed"),
    "failed, and said to be complete": Case(
        (START, Text(text="Once"), FAILURE), EndReason.COMPLETE, "failed"
    ),
    "sources": Case(
        (
            START,
            Data(kind="citations", value=["https://a.test/", "https://b.test/"]),
            Text(text="As A says."),
            Data(kind="citation", value={"url": "https://c.test/", "title": "C"}),
            STOP,
            Data(
                kind="groundingMetadata",
                value={"groundingChunks": [{"web": {"uri": "https://d.test/", "title": "D"}}]},
            ),
            USAGE,
        )
    ),
    "sources behind an open call": Case(
        (
            *(START, delta(0, "call_a", "f", '{"a":')),
            *[Data(kind="citation", value={"url": "https://a.test/"})] * 250,
            *(delta(0, arguments="1}"), call(0, "call_a", "f", '{"a":1}'), TOOLS),
        )
    ),
    "sources without a text": Case(
        (START, Data(kind="citations", value=["https://a.test/"]), STOP)
    ),
}
"""By what is special about it."""

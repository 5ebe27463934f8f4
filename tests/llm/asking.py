"""What the tests of requests share: requests drawn at random, and what one says in short."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from penstock.llm.ask.dialects import read_request, write_request
from penstock.llm.ask.request import (
    EFFORTS,
    CallPart,
    Format,
    MediaPart,
    Message,
    Part,
    Request,
    ResultPart,
    Sampling,
    TextPart,
    Thinking,
    Tool,
    ToolChoice,
)
from penstock.llm.ask.written import Target, Written
from penstock.llm.events import Json

SCHEMA: dict[str, Json] = {"type": "object", "properties": {"city": {"type": "string"}}}
PNG = "iVBORw0KGgo="


def write(request: Request, dialect: str, **said: Any) -> Written:
    """`request` as an upstream of this dialect takes it, for its model "m"."""
    return write_request(request, Target(dialect=dialect, **{"model": "m", **said}))


def convert(dialect: str, body: dict[str, Any], to: str, **said: Any) -> dict[str, Any]:
    """The body in the other dialect."""
    written = write(read_request(dialect, json.dumps(body).encode()), to, **said)
    assert json.loads(written.data()) == written.body
    return written.body


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
texts = st.builds(TextPart, text=words)
images = st.one_of(
    st.builds(MediaPart, kind=st.just("image"), url=st.just("https://a.test/cat.png")),
    st.builds(MediaPart, kind=st.just("image"), data=st.just(PNG), media_type=st.just("image/png")),
)
files = st.builds(
    MediaPart,
    kind=st.just("file"),
    data=st.just("JVBERi0="),
    media_type=st.just("application/pdf"),
    name=st.just("report"),
)
tools = st.builds(
    Tool,
    name=names,
    description=st.one_of(st.just(""), words),
    schema=st.just(SCHEMA),
    is_strict=st.sampled_from([None, True, False]),
)
formats = st.builds(
    Format,
    kind=st.just("schema"),
    schema=st.just(SCHEMA),
    name=st.just("answer"),
    is_strict=st.sampled_from([None, True]),
)


def _choice(mode: Any) -> ToolChoice:
    return ToolChoice(mode=mode)


def _effort(effort: Any) -> Thinking:
    return Thinking(effort=effort)


@st.composite
def exchanges(draw: st.DrawFn) -> list[Message]:
    """A question, the calls it led to, their results, and an answer."""
    asked = draw(st.lists(st.one_of(texts, images, files), min_size=1, max_size=3))
    ids = draw(st.lists(names, unique=True, max_size=3))
    arguments = st.dictionaries(names, words, max_size=2).map(json.dumps)
    calls: list[Part] = [
        CallPart(id=f"call_{id}", name=draw(names), arguments=draw(arguments)) for id in ids
    ]
    said = draw(st.lists(texts, max_size=1))
    messages = [Message(role="user", parts=tuple(asked))]
    if calls:
        results = tuple(ResultPart(call_id=f"call_{id}", content=(draw(texts),)) for id in ids)
        messages.append(Message(role="assistant", parts=(*said, *calls)))
        messages.append(Message(role="tool", parts=results))
    messages.append(Message(role="assistant", parts=(draw(texts),)))
    return messages


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """What OpenAI's two dialects and Anthropic's can all say."""
    turns = [m for turn in draw(st.lists(exchanges(), max_size=2)) for m in turn]
    system = draw(st.lists(texts, max_size=1))
    first = [Message(role="system", parts=tuple(system))] if system else []
    last = Message(role="user", parts=(draw(texts),))
    called = tuple(draw(st.lists(tools, max_size=2, unique_by=lambda tool: tool.name)))
    thinking = draw(st.sampled_from([None, *map(_effort, ("minimal", "low", "high"))]))
    # Who thinks is told neither how to draw nor which tool to call.
    modes = ("auto", "none") if thinking else ("auto", "none", "required")
    choice = st.sampled_from([None, *map(_choice, modes)])
    samplings = [Sampling(), Sampling(temperature=0.5), Sampling(top_p=0.9)]
    return Request(
        model=draw(names),
        messages=(*first, *turns, last),
        tools=called,
        tool_choice=draw(choice) if called else None,
        sampling=draw(st.sampled_from(samplings[:1] if thinking else samplings)),
        max_output_tokens=draw(st.integers(40_000, 99_999)),
        format=draw(st.one_of(st.none(), formats)),
        thinking=thinking,
        user=draw(st.sampled_from(["", "user-1"])),
    )


RARE: dict[str, st.SearchStrategy[Any]] = {
    "sampling": st.builds(
        Sampling,
        temperature=st.sampled_from([None, 0, 1, 1.5]),
        top_p=st.sampled_from([None, 0, 1]),
        top_k=st.sampled_from([None, 5, 5_000]),
        seed=st.sampled_from([None, 7]),
        presence_penalty=st.sampled_from([None, 0, 0.5, -1.5]),
        frequency_penalty=st.sampled_from([None, 2]),
    ),
    "tool_choice": st.sampled_from([ToolChoice(mode="named", name="f"), ToolChoice(mode="none")]),
    "is_parallel": st.booleans(),
    "max_output_tokens": st.sampled_from([None, 1, 20, 1_500]),
    "stop": st.lists(st.sampled_from(["end", "\n", "a"]), max_size=6).map(tuple),
    "format": st.sampled_from([Format(kind="json"), Format(kind="schema", schema={})]),
    "thinking": st.sampled_from(
        [
            *map(_effort, EFFORTS),
            *(Thinking(budget_tokens=tokens) for tokens in (-1, 0, 1, 5_000, 90_000)),
        ]
    ),
    "metadata": st.sampled_from([{"a": "b"}, {"a": "\x00"}]),
    "messages": st.lists(
        st.sampled_from(
            [
                Message(role="system", parts=(TextPart(text="be brief"),)),
                Message(role="user", parts=(TextPart(text=" "),)),
                Message(role="user", parts=(TextPart(text="a"),)),
                Message(role="user", parts=(MediaPart(kind="file", url="https://a.test/b"),)),
                Message(role="assistant", parts=(TextPart(text="b"),)),
                Message(role="assistant", parts=(CallPart(id="fn.f:0", name="f"),)),
                Message(role="assistant", parts=(CallPart(id="x" * 70, name="f"),)),
                Message(role="assistant", parts=(CallPart(id="a", name="f", arguments="[1"),)),
                Message(role="tool", parts=(ResultPart(call_id="fn.f:0", content=()),)),
                Message(
                    role="tool",
                    parts=(
                        ResultPart(
                            call_id="x" * 70,
                            content=(MediaPart(kind="image", data=PNG, media_type="image/png"),),
                            is_error=True,
                        ),
                    ),
                ),
            ]
        ),
        min_size=1,
        max_size=4,
    ).map(tuple),
}


@st.composite
def anything(draw: st.DrawFn) -> Request:
    """What some dialect or other can say."""
    asked = draw(requests())
    rarely = draw(st.sampled_from(["", *RARE]))
    more: dict[str, Any] = {rarely: draw(RARE[rarely])} if rarely else {}
    return replace(asked, **more)


def said(request: Request) -> list[tuple[str, object]]:
    """A conversation as what is said in it, one part after the other: however it is grouped."""
    flat: list[tuple[str, object]] = []
    for message in request.messages:
        for part in message.parts:
            match part:
                case CallPart():
                    flat.append(("call", (part.id, part.name, json.loads(part.arguments))))
                case MediaPart(kind="file"):
                    flat.append((message.role, (part.data, part.media_type)))
                case TextPart() if flat and flat[-1][0] == message.role == "assistant":
                    flat[-1] = (message.role, f"{flat[-1][1]}{part.text}")
                case TextPart():
                    flat.append((message.role, part.text))
                case _:
                    flat.append((message.role, part))
    return flat


def essence(request: Request) -> Request:
    """A request without what its dialect alone says: how messages are grouped, names, notes."""
    return replace(
        request,
        dialect="",
        messages=(),
        extra={},
        origin=None,
        wants_usage=True,
        is_stream=True,
        thinking=None,
        tools=tuple(replace(tool, is_strict=bool(tool.is_strict)) for tool in request.tools),
        format=request.format and replace(request.format, name="", is_strict=None),
    )

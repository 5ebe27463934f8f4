"""The Gemini reader stops where the body ends after a finish reason, and nowhere else."""

from __future__ import annotations

import json

import pytest

from llm.reading import answer, assert_in_order, calls, cut, drip, only
from llm.reading import failure as failure_of
from llm.reading import read as read_dialect
from penstock.llm.events import (
    Data,
    Failure,
    Reasoning,
    Start,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    Usage,
)


def read(*pieces: bytes) -> list[TokenEvent]:
    events = read_dialect("gemini", *pieces)
    assert_in_order(events)
    return events


def failure(*pieces: bytes) -> Failure:
    return failure_of("gemini", *pieces)


def data(payload: object) -> bytes:
    return f"data: {json.dumps(payload)}\r\n\r\n".encode()


def chunk(*parts: object, finish: str | None = None, usage: object = None, **more: object) -> bytes:
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **more}
    if finish:
        candidate["finishReason"] = finish
    payload = {"candidates": [candidate], "responseId": "r", "modelVersion": "m"}
    if usage:
        payload["usageMetadata"] = usage
    return data(payload)


def say(text: str, **more: object) -> bytes:
    return chunk({"text": text}, **more)


def invoke(**call: object) -> bytes:
    return chunk({"functionCall": call})


END = chunk({"text": ""}, finish="STOP")


def test_a_plain_answer_is_start_text_usage_and_the_stop_at_its_end() -> None:
    assert read(
        say("Hi", usage={"promptTokenCount": 3, "candidatesTokenCount": 1}),
        say(" you", finish="STOP", usage={"promptTokenCount": 3, "candidatesTokenCount": 2}),
    ) == [
        Start(id="r", model="m"),
        Text(text="Hi"),
        Usage(input_tokens=3, output_tokens=1, partial=True),
        Text(text=" you"),
        Usage(input_tokens=3, output_tokens=2),
        Stop(reason="stop", raw="STOP"),
    ]


def test_a_finish_reason_in_every_chunk_ends_nothing_early() -> None:
    events = read(say("a", finish="STOP"), say("b", finish="STOP"), say("c", finish="MAX_TOKENS"))
    assert [piece.text for piece in only(Text, events)] == ["a", "b", "c"]
    assert only(Stop, events) == [Stop(reason="length", raw="MAX_TOKENS")]


@pytest.mark.parametrize("pieces", [[], [say("x")], [data({"usageMetadata": {}})], [data({})]])
def test_an_end_without_a_finish_reason_is_truncated(pieces: list[bytes]) -> None:
    assert failure(*pieces).code == "upstream-truncated"


def test_thoughts_and_fed_tokens_are_part_of_the_counts() -> None:
    usage = {
        "promptTokenCount": 10,
        "cachedContentTokenCount": 6,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 20,
        "toolUsePromptTokenCount": 100,
        "totalTokenCount": 133,
    }
    assert only(Usage, read(say("x", finish="STOP", usage=usage))) == [
        Usage(input_tokens=110, output_tokens=23, reasoning_tokens=20, cached_tokens=6)
    ]


def test_a_sum_of_the_largest_counts_survives_and_what_is_larger_counts_as_absent() -> None:
    most = {"promptTokenCount": 2**48, "toolUsePromptTokenCount": 2**48}
    (usage,) = only(Usage, read(say("x", finish="STOP", usage=most)))
    assert usage.input_tokens == 2**49
    beyond = {"promptTokenCount": 10**30, "candidatesTokenCount": 1}
    (usage,) = only(Usage, read(say("x", finish="STOP", usage=beyond)))
    assert usage.input_tokens == 0


def test_a_count_that_came_before_the_answer_broke_off_is_partial() -> None:
    events = read(say("x", usage={"promptTokenCount": 1, "candidatesTokenCount": 1}))
    assert only(Usage, events) == [Usage(input_tokens=1, output_tokens=1, partial=True)]
    assert isinstance(events[-1], Failure)


@pytest.mark.parametrize(
    ("error", "message", "code", "status"),
    [
        ({"code": 503, "message": "m", "status": "UNAVAILABLE"}, "m", "UNAVAILABLE", 503),
        ({"code": 429, "message": "m"}, "m", "upstream-failed", 429),
        ("words", "words", "upstream-failed", None),
    ],
)
@pytest.mark.parametrize("before", [b"", say("x"), say("x", finish="STOP")])
def test_an_error_is_a_failure_at_any_place(
    error: object, message: str, code: str, status: int | None, before: bytes
) -> None:
    wanted = Failure(message=message, code=code, status=status)
    assert failure(before, data({"error": error}), END) == wanted


@pytest.mark.parametrize("wrap", ["{}", "[{}\n]", "  [{}"])
def test_an_error_that_is_the_whole_body_is_a_failure_with_its_sentence(wrap: str) -> None:
    error = json.dumps({"error": {"code": 400, "message": "m", "status": "INVALID"}}, indent=2)
    body = wrap.replace("{}", error).encode()
    wanted = Failure(message="m", code="INVALID", status=400)
    if wrap == "  [{}":
        wanted = failure(b"")
    assert failure(body) == failure(*drip(body)) == wanted


def test_a_blocked_prompt_is_a_failure_that_says_why_and_what_it_cost() -> None:
    blocked = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 9},
        "modelVersion": "m",
    }
    events = read(data(blocked))
    assert events[1] == Usage(input_tokens=9, output_tokens=0, partial=True)
    assert events[-1] == Failure(
        message="the prompt was blocked: PROHIBITED_CONTENT", code="PROHIBITED_CONTENT"
    )


@pytest.mark.parametrize("feedback", [{}, {"safetyRatings": []}, None])
def test_a_prompt_that_was_not_blocked_fails_nothing(feedback: object) -> None:
    assert not only(Failure, read(data({"promptFeedback": feedback}), END))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("OTHER", "other"),
        ("A_NEW_ONE", "other"),
    ],
)
def test_a_finish_reason_is_mapped_and_kept(raw: str, reason: str) -> None:
    assert read(say("x", finish=raw))[-1] == Stop(reason=reason, raw=raw)


def test_output_that_could_not_be_used_is_a_failure() -> None:
    events = read(say("x"), chunk(finish="MALFORMED_FUNCTION_CALL", finishMessage="bad call"))
    assert only(Text, events) == [Text(text="x")]
    assert events[-1] == Failure(message="bad call", code="MALFORMED_FUNCTION_CALL")
    assert failure(chunk(finish="UNEXPECTED_TOOL_CALL")).code == "UNEXPECTED_TOOL_CALL"


def test_a_thought_is_reasoning_and_a_signature_follows_what_it_signs() -> None:
    events = read(
        chunk({"text": "hm", "thought": True}),
        chunk({"text": "x", "thoughtSignature": "s1"}),
        chunk({"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "s2"}),
        END,
    )
    assert only(Reasoning, events) == [Reasoning(text="hm")]
    order = [event for event in events if isinstance(event, Text | ToolCall | Data)]
    assert order == [
        Text(text="x"),
        Data(kind="thoughtSignature", value="s1"),
        ToolCall(index=0, id="", name="f", arguments="{}", arguments_valid=True),
        Data(kind="thoughtSignature", value="s2"),
    ]


def test_calls_come_whole_and_each_part_is_one() -> None:
    events = read(
        chunk(
            {"functionCall": {"name": "f", "args": {"a": 'é"]', "b": [1.5, None]}, "id": "x"}},
            {"functionCall": {"name": "f"}},
        ),
        invoke(name="g", args={"c": {}}),
        END,
    )
    assert calls(events) == [
        ("x", "f", '{"a":"é\\"]","b":[1.5,null]}'),
        ("", "f", "{}"),
        ("", "g", '{"c":{}}'),
    ]
    assert events[-1] == Stop(reason="tool_use", raw="STOP")


def piece(path: str, more: bool = False, **value: object) -> dict[str, object]:
    return {"jsonPath": path, **value, **({"willContinue": True} if more else {})}


def test_arguments_in_pieces_are_put_together_by_their_paths() -> None:
    events = read(
        invoke(name="f", id="x", willContinue=True),
        invoke(partialArgs=[piece("$.city", more=True, stringValue="New ")], willContinue=True),
        invoke(
            partialArgs=[
                piece("$.city", stringValue="Delhi"),
                piece("$.n", numberValue=3),
                piece("$.is_it", boolValue=False),
                piece("$.nothing", nullValue="NULL_VALUE"),
            ],
            willContinue=True,
        ),
        invoke(
            partialArgs=[
                piece("$.list[0].a", stringValue="1"),
                piece("$.list[1]", stringValue="2"),
                piece("$['odd name']", stringValue="3"),
            ],
            willContinue=True,
        ),
        invoke(),
        invoke(name="g", partialArgs=[piece("$.a", numberValue=1)]),
        END,
    )
    first, second = only(ToolCall, events)
    assert (first.id, first.name) == ("x", "f")
    assert json.loads(first.arguments) == {
        "city": "New Delhi",
        "n": 3,
        "is_it": False,
        "nothing": None,
        "list": [{"a": "1"}, "2"],
        "odd name": "3",
    }
    assert (second.name, second.arguments) == ("g", '{"a":1}')


@pytest.mark.parametrize(
    "path",
    ["", "$", "x", "$.a[", "$..", "$[999999999]", "$.a[999999999].b", "$" + ".a" * 5000, "$[-1]"],
)
def test_a_path_of_any_shape_costs_no_more_than_it_says(path: str) -> None:
    first = piece("$.a[0]", stringValue="1")
    events = read(invoke(name="f", partialArgs=[first, piece(path, stringValue="y")]), END)
    (call,) = only(ToolCall, events)
    assert call.arguments_valid
    assert len(call.arguments) < 1000


def test_a_call_that_broke_off_is_never_given_as_whole() -> None:
    events = read(invoke(name="f", willContinue=True))
    assert not only(ToolCall, events)
    assert [call.name for call in answer(events).tool_calls] == ["f"]


def test_other_parts_and_what_a_candidate_carries_are_passed_through() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "AA=="}, "thoughtSignature": "s"}
    code = {"executableCode": {"language": "PYTHON", "code": "1"}}
    grounding = {"groundingChunks": [{"web": {"uri": "u"}}]}
    other = {"content": {"parts": [{"text": "B"}]}, "index": 1}
    events = read(
        chunk(image, code, groundingMetadata=grounding),
        data({"candidates": [other]}),
        chunk({"text": "A"}, groundingMetadata=grounding, citationMetadata={}),
        END,
    )
    assert only(Data, events) == [
        Data(kind="inlineData", value=image),
        Data(kind="executableCode", value=code),
        Data(kind="groundingMetadata", value=grounding),
        Data(kind="candidate", value=other),
    ]
    assert only(Text, events) == [Text(text="A")]


@pytest.mark.parametrize(
    "odd",
    [
        {"candidates": None},
        {"candidates": [None, 3, "x"]},
        {"candidates": [{"content": {"parts": [None, {"text": 3}, {"functionCall": "x"}]}}]},
        {"candidates": [{"content": None, "finishReason": 7}]},
        {"usageMetadata": {"promptTokenCount": "many"}, "promptFeedback": []},
        {"responseId": 3, "modelVersion": None},
    ],
)
def test_fields_of_an_unexpected_kind_count_as_absent(odd: dict) -> None:
    events = read(say("x"), data(odd), END)
    assert only(Text, events) == [Text(text="x")]
    assert not only(Failure, events)


def test_every_cut_of_a_body_gives_the_same_events() -> None:
    wire = say("é🙂\u2028") + invoke(name="f", args={"é": "🙂"}) + END
    whole = read(wire)
    assert read(*drip(wire)) == whole
    assert all(read(*cut(wire, [place])) == whole for place in range(len(wire)))

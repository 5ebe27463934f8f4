"""The dialects that continue a prompt: OpenAI's legacy Completions, Replicate and watsonx."""

from __future__ import annotations

import pytest

from llm.reading import answer, assert_in_order, cut, data, drip, failure, only
from llm.reading import read as read_dialect
from penstock.llm.events import (
    Data,
    Failure,
    Reasoning,
    Start,
    Stop,
    Text,
    TokenEvent,
    Usage,
)

DONE = b"data: [DONE]\n\n"


def read(dialect: str, *pieces: bytes) -> list[TokenEvent]:
    events = read_dialect(dialect, *pieces)
    assert_in_order(events)
    return events


# OpenAI's legacy Completions


def completion(text: str, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return data({"id": "c", "object": "text_completion", "model": "m", "choices": [choice], **more})


def test_a_completion_is_start_text_stop_usage() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    assert read(
        "openai-completions",
        completion("Hi"),
        completion(" you", "length"),
        data({"id": "c", "model": "m", "choices": [], "usage": usage}),
        DONE,
    ) == [
        Start(id="c", model="m"),
        Text(text="Hi"),
        Text(text=" you"),
        Stop(reason="length", raw="length"),
        Usage(input_tokens=3, output_tokens=2),
    ]


def test_a_completion_ends_with_its_mark_or_with_a_finish_reason_and_its_body() -> None:
    dialect = "openai-completions"
    assert read(dialect, completion("x"), DONE)[-1] == Stop(reason="other", raw="")
    assert read(dialect, completion("x", "stop"))[-1] == Stop(reason="stop", raw="stop")
    for pieces in ([], [completion("x")], [DONE]):
        assert failure(dialect, *pieces).code == "upstream-truncated"


@pytest.mark.parametrize(
    "said",
    [
        data({"error": {"message": "m", "code": 500}}),
        data({"object": "error", "message": "m", "code": 500}),
        b'error: {"message":"m","code":500}\n\n',
        data({"detail": "m", "status": 500}),
    ],
)
def test_an_error_in_a_completion_is_a_failure(said: bytes) -> None:
    wanted = Failure(message="m", code="upstream-failed", status=500)
    assert failure("openai-completions", completion("x"), said, DONE) == wanted


def test_other_choices_of_a_completion_are_passed_through_and_thoughts_are_reasoning() -> None:
    other = {"index": 1, "text": "B", "finish_reason": "stop"}
    thinking = {"index": 0, "text": "", "reasoning": "hm"}
    events = read(
        "openai-completions", data({"id": "c", "choices": [other, thinking]}), completion("A"), DONE
    )
    assert only(Text, events) == [Text(text="A")]
    assert only(Data, events) == [Data(kind="choice", value=other)]
    assert only(Reasoning, events) == [Reasoning(text="hm")]


# Replicate


def output(text: str, id: str = "1:0") -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.split("\n"))
    return f"event: output\nid: {id}\n{lines}\n".encode()


def ended(reason: str = "") -> bytes:
    said = f'{{"reason":"{reason}"}}' if reason else "{}"
    return f"event: done\nid: 2:0\ndata: {said}\n\n".encode()


def test_replicate_s_text_is_given_as_it_is() -> None:
    noise = b": hi\n\n" + b"event: logs\ndata: loading\n\n"
    events = read(
        "replicate", noise, output(""), output(" a "), output("\n\nb"), output("{}"), ended()
    )
    assert events == [
        Start(id="", model=""),
        Text(text=" a "),
        Text(text="\n\nb"),
        Text(text="{}"),
        Stop(reason="stop", raw=""),
    ]
    assert read("replicate", ended()) == [Start(id="", model=""), Stop(reason="stop", raw="")]


def test_replicate_s_end_is_done_and_nothing_else() -> None:
    for pieces in (
        [],
        [output("x")],
        [output("x"), b"data: [DONE]\n\n"],
        [output("x"), b": 408\n"],
    ):
        assert failure("replicate", *pieces).code == "upstream-truncated"
    whole = read("replicate", output("x"), ended())
    assert read("replicate", output("x"), ended(), b":408: 408\n\n", output("late")) == whole


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (b'event: error\ndata: {"detail":"m"}\n\n', Failure(message="m", code="upstream-failed")),
        (b"event: error\ndata: words\n\n", Failure(message="words", code="upstream-failed")),
        (
            ended("canceled"),
            Failure(message="the prediction ended with 'canceled'", code="canceled"),
        ),
        (
            ended("error"),
            Failure(message="the prediction ended with 'error'", code="upstream-failed"),
        ),
    ],
)
def test_replicate_s_errors_are_failures(said: bytes, wanted: Failure) -> None:
    assert failure("replicate", output("x"), said, ended()) == wanted


# watsonx


def result(text: str, stop: str = "not_finished", **more: object) -> bytes:
    said = data(
        {"model_id": "m", "results": [{"generated_text": text, "stop_reason": stop, **more}]}
    )
    return b"id: 1\nevent: message\n" + said


def test_watsonx_counts_its_input_once_and_its_output_along() -> None:
    assert read(
        "watsonx",
        result("", input_token_count=8, generated_token_count=0),
        result("Hi", input_token_count=0, generated_token_count=1),
        result(" you", "EOS_TOKEN", input_token_count=0, generated_token_count=2),
    ) == [
        Start(id="", model="m"),
        Usage(input_tokens=8, output_tokens=0, partial=True),
        Text(text="Hi"),
        Usage(input_tokens=8, output_tokens=1, partial=True),
        Text(text=" you"),
        Usage(input_tokens=8, output_tokens=2),
        Stop(reason="stop", raw="eos_token"),
    ]


@pytest.mark.parametrize("pieces", [[], [result("x")], [data({"system": {"warnings": []}})]])
def test_watsonx_s_end_is_a_stop_reason(pieces: list[bytes]) -> None:
    assert failure("watsonx", *pieces).code == "upstream-truncated"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("eos_token", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("token_limit", "length"),
        ("time_limit", "length"),
        ("a_new_one", "other"),
    ],
)
def test_watsonx_s_stop_reason_is_mapped_and_kept(raw: str, reason: str) -> None:
    assert read("watsonx", result("x", raw))[-1] == Stop(reason=reason, raw=raw)


@pytest.mark.parametrize(
    ("said", "code", "status"),
    [
        (
            data({"errors": [{"code": "model_down", "message": "m"}], "status_code": 503}),
            "model_down",
            503,
        ),
        (b'event: error\ndata: {"errors":[{"message":"m"}]}\n\n', "upstream-failed", None),
        (result("", "error"), "upstream-failed", None),
        (result("", "cancelled"), "cancelled", None),
    ],
)
def test_watsonx_s_errors_are_failures(said: bytes, code: str, status: int | None) -> None:
    failed = failure("watsonx", result("x"), said, result("", "eos_token"))
    assert (failed.code, failed.status) == (code, status)


def test_watsonx_s_moderations_are_passed_through() -> None:
    found = {"hap": [{"score": 0.9}]}
    events = read("watsonx", result("x", "eos_token", moderations=found))
    assert only(Data, events) == [Data(kind="moderations", value=found)]


@pytest.mark.parametrize(
    ("dialect", "wire"),
    [
        ("openai-completions", completion("é🙂") + completion("", "stop") + DONE),
        ("replicate", output("é\n🙂 ") + ended()),
        ("watsonx", result("é🙂") + result("", "eos_token")),
    ],
)
def test_every_cut_of_a_body_gives_the_same_events(dialect: str, wire: bytes) -> None:
    whole = read(dialect, wire)
    assert not answer(whole).is_truncated
    assert read(dialect, *drip(wire)) == whole
    assert all(read(dialect, *cut(wire, [place])) == whole for place in range(len(wire)))


@pytest.mark.parametrize("dialect", ["openai-completions", "watsonx"])
@pytest.mark.parametrize(
    "odd",
    [
        {"choices": None, "results": None},
        {"choices": [3], "results": [3]},
        {"choices": [{"text": 3}], "results": [{"generated_text": [], "stop_reason": 7}]},
        {"usage": [], "model": 3, "model_id": 3},
    ],
)
def test_fields_of_an_unexpected_kind_count_as_absent(dialect: str, odd: dict) -> None:
    begin, end = completion("x"), completion("", "stop")
    if dialect == "watsonx":
        begin, end = result("x"), result("", "eos_token")
    events = read(dialect, begin, data(odd), end)
    assert only(Text, events) == [Text(text="x")]
    assert not only(Failure, events)

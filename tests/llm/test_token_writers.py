"""Every dialect's writer: an answer's parts, its end, and the same bytes for everybody."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from llm.matrix import write
from llm.plain_clients import CLIENTS, ENVELOPE, events, expected
from llm.writing import (
    CASES,
    FAILURE,
    NASTY,
    START,
    STOP,
    TOOLS,
    USAGE,
    Case,
    call,
    delta,
)
from penstock.core.record import EndReason
from penstock.llm.assemble import MAX_HELD_BYTES
from penstock.llm.dialects import DIALECTS
from penstock.llm.events import Data, Failure, Json, Reasoning, Stop, Text, TokenEvent, Usage
from penstock.llm.write import agui, anthropic, native, openai_chat, openai_responses, vercel
from penstock.llm.write.dialects import OUT_DIALECTS, find_out_dialect
from penstock.llm.write.writer import Envelope, TokenWriter, as_wire_json

EVERY_DIALECT = pytest.mark.parametrize("dialect", OUT_DIALECTS)
EVERY_CASE = pytest.mark.parametrize("name", CASES)


def steps(dialect: str, case: Case) -> list[bytes]:
    """What is sent after each record, and after the end."""
    writer = find_out_dialect(dialect).make_writer(ENVELOPE)
    sent: list[bytes] = []
    for event in case.events:
        writer.receive_event(event)
        sent.append(writer.data_to_send())
    writer.end(case.reason)
    return [*sent, writer.data_to_send()]


def payloads(dialect: str, *given: TokenEvent, reason: EndReason = EndReason.COMPLETE) -> list[Any]:
    return [payload for _, payload in events(write(dialect, given, reason)) if payload]


def typed(dialect: str, type: str, *given: TokenEvent) -> list[Any]:
    return [payload for payload in payloads(dialect, *given) if payload["type"] == type]


@EVERY_DIALECT
@EVERY_CASE
def test_a_client_shows_what_was_written(name: str, dialect: str) -> None:
    case = CASES[name]
    shown = CLIENTS[dialect](write(dialect, case.events, case.reason))
    assert shown == expected(case.answer, dialect, case.end_in(dialect))


@EVERY_DIALECT
@EVERY_CASE
def test_every_record_adds_whole_events(name: str, dialect: str) -> None:
    for sent in steps(dialect, CASES[name]):
        events(sent)


@EVERY_DIALECT
@EVERY_CASE
def test_who_joins_at_any_record_gets_what_all_others_get(name: str, dialect: str) -> None:
    """A new writer that is fed the records before goes on with the very same bytes."""
    case = CASES[name]
    sent = steps(dialect, case)
    for place in {0, min(1, len(case.events)), len(case.events) // 2, len(case.events)}:
        joining = find_out_dialect(dialect).make_writer(ENVELOPE)
        for event in case.events[:place]:
            joining.receive_event(event)
        assert joining.data_to_send() == b"".join(sent[:place])
        for event in case.events[place:]:
            joining.receive_event(event)
        joining.end(case.reason)
        assert joining.data_to_send() == b"".join(sent[place:])


@EVERY_DIALECT
def test_nothing_follows_an_end(dialect: str) -> None:
    writer = find_out_dialect(dialect).make_writer(ENVELOPE)
    for event in (START, Text(text="a"), STOP):
        writer.receive_event(event)
    writer.end(EndReason.COMPLETE)
    assert writer.data_to_send()
    for late in (Text(text="b"), USAGE, STOP, FAILURE):
        writer.receive_event(late)
    writer.end(EndReason.FAILED)
    assert writer.data_to_send() == b""


@pytest.mark.parametrize("dialect", [name for name in OUT_DIALECTS if name != "native"])
def test_nothing_of_the_model_follows_its_stop(dialect: str) -> None:
    late = (Text(text="late"), Reasoning(text="late"), delta(0, "late", "late", "{}"))
    shown = CLIENTS[dialect](write(dialect, (START, STOP, *late, USAGE), EndReason.COMPLETE))
    assert "late" not in str(shown)


@EVERY_DIALECT
def test_half_characters_never_break_a_body(dialect: str) -> None:
    """Readers join or replace them; what a filter of a user's makes of a text is not known."""
    given = (START, Text(text="a\ud83d"), Text(text="\ude00b"), STOP)
    assert CLIENTS[dialect](write(dialect, given, EndReason.COMPLETE)).text == "a\ufffd\ufffdb"


@EVERY_DIALECT
def test_ids_and_names_cannot_break_out_of_their_place(dialect: str) -> None:
    given = (START, call(0, NASTY, NASTY, "{}"), TOOLS)
    shown = CLIENTS[dialect](write(dialect, given, EndReason.COMPLETE))
    assert shown.calls == ((NASTY, NASTY, "{}"),)


@EVERY_DIALECT
def test_random_answers_come_out_as_they_were(dialect: str) -> None:
    for _ in range(150):
        seed = random.randrange(2**32)
        case = random_case(random.Random(seed))
        shown = CLIENTS[dialect](write(dialect, case.events, case.reason))
        assert shown == expected(case.answer, dialect), f"seed {seed}"


def random_case(draw: random.Random) -> Case:
    """An answer whose texts, reasoning, data and calls are mixed as no provider mixes them."""
    written = dict.fromkeys(range(draw.randrange(4)), "")
    whole = {index: json.dumps({"n": index, "流": [None] * index}) for index in written}
    given: list[TokenEvent] = [START]
    opened: list[int] = []
    closed: set[int] = set()
    for _ in range(draw.randrange(30)):
        unfinished = [index for index in opened if index not in closed]
        match draw.randrange(6):
            case 0:
                given.append(Text(text=draw.choice(["a", "ä ", "\n"])))
            case 1:
                given.append(Reasoning(text=draw.choice(["b", "流"])))
            case 2 if len(opened) < len(written):
                opened.append(len(opened))
                given.append(delta(opened[-1], f"call_{opened[-1]}", "f"))
            case 3 | 4 if unfinished:
                index = draw.choice(unfinished)
                rest = whole[index][len(written[index]) :]
                piece = rest[: draw.randint(1, 6)]
                if piece:
                    written[index] += piece
                    given.append(delta(index, arguments=piece))
            case 5 if unfinished:
                index = draw.choice(unfinished)
                closed.add(index)
                given.append(call(index, f"call_{index}", "f", whole[index]))
            case _:
                given.append(Data(kind="citation", value={"url": "https://a.test/"}))
    given += [call(i, f"call_{i}", "f", whole[i]) for i in opened if i not in closed]
    return Case((*given, TOOLS if opened else STOP, USAGE))


def test_what_one_record_costs_does_not_grow_with_the_answer() -> None:
    """Each record's bytes are of its own size, however much came before."""
    for dialect in OUT_DIALECTS:
        sent = steps(dialect, Case((START, *[Text(text="word ")] * 3000, STOP)))
        sizes = {len(one) for one in sent[10:2990]}
        assert max(sizes) < 400
        assert max(sizes) - min(sizes) <= 4  # a number in it may grow


@pytest.mark.parametrize("dialect", ["openai-responses", "anthropic-messages", "vercel", "agui"])
def test_what_waits_behind_an_open_call_is_bounded(dialect: str) -> None:
    """A call that is never closed makes way, and what comes of it later is dropped."""
    given: list[TokenEvent] = [START, delta(0, "call_a", "f", '{"a": ')]
    given += [Text(text="x" * 1000)] * (2 * MAX_HELD_BYTES // 1000)
    writer = find_out_dialect(dialect).make_writer(ENVELOPE)
    held = sent = 0
    for event in given:
        writer.receive_event(event)
        sent += len(writer.data_to_send())
        held += 1000
        assert held - sent < MAX_HELD_BYTES + 10_000
    writer.receive_event(delta(0, arguments="1}"))
    assert b"1}" not in writer.data_to_send()


@EVERY_DIALECT
def test_a_call_of_white_space_is_one_without_arguments(dialect: str) -> None:
    given = (START, delta(0, "call_a", "f", " "), call(0, "call_a", "f", "{}"), TOOLS)
    ((_, _, arguments),) = CLIENTS[dialect](write(dialect, given, EndReason.COMPLETE)).calls
    assert json.loads(arguments) == {}


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-responses", "anthropic-messages"])
@pytest.mark.parametrize("count", [1, 99, 100, 101, 350])
def test_every_source_is_shown_once_wherever_it_comes(count: int, dialect: str) -> None:
    """Before any text, behind a call, after the stop; also where there is no text at all."""
    source = Data(kind="citation", value={"url": "https://a.test/"})
    opened, closed = delta(0, "call_a", "f", '{"a":'), call(0, "call_a", "f", '{"a":1}')
    for given in (
        (*[source] * count, Text(text="a"), STOP),
        (Text(text="a"), *[source] * count, STOP),
        (Text(text="a"), STOP, *[source] * count),
        (opened, *[source] * count, closed, Text(text="a"), TOOLS),
        (opened, *[source] * count, closed, TOOLS),
        (*[source] * count, STOP),
    ):
        body = write(dialect, (START, *given), EndReason.COMPLETE)
        if dialect == "openai-responses":  # which repeats them
            text = json.dumps(events(body)[-1][1])
        else:
            text = body.decode()
        assert text.count("https://a.test/") == count


def test_calls_with_an_object_make_way_at_once() -> None:
    """Most providers close their calls at the very end: the text after one is not held back."""
    for dialect in ("openai-responses", "anthropic-messages", "vercel", "agui"):
        case = Case((START, delta(0, "call_a", "f", '{"a":1}'), Text(text="and"), STOP))
        assert b'"and"' in steps(dialect, case)[2]


def test_chat_brings_the_usage_only_to_who_asked() -> None:
    for wanted in (True, False):
        writer = openai_chat.Writer(ENVELOPE, include_usage=wanted)
        for event in (START, STOP, USAGE):
            writer.receive_event(event)
        writer.end(EndReason.COMPLETE)
        assert (b"prompt_tokens" in writer.data_to_send()) == wanted


def test_chat_numbers_the_lists_of_its_deltas() -> None:
    """The SDKs put lists together by `index`, and raise where the second one has none."""
    citation = Data(kind="citation", value={"url": "https://a.test/"})
    chunks = payloads("openai-chat", START, citation, citation, Text(text="a"), STOP)
    found = [c["choices"][0]["delta"].get("annotations") for c in chunks]
    assert [one[0]["index"] for one in found if one] == [0, 1]


def test_chat_passes_what_is_its_own_through() -> None:
    second: dict[str, Json] = {"index": 1, "delta": {"content": "Hi"}, "finish_reason": None}
    given = (
        START,
        Data(kind="choice", value=second),
        Data(kind="search_results", value=[{"url": "https://a.test/", "title": "A"}]),
        Data(kind="images", value=[{"image_url": {"url": "data:,"}}]),
        Data(kind="reasoning_details", value=[{"type": "x", "text": "said", "signature": "s"}]),
        Data(kind="trace", value={"nobody": "knows"}),
        STOP,
    )
    chunks = payloads("openai-chat", *given)
    assert [c["choices"] for c in chunks].count([second]) == 1
    assert [c["search_results"][0]["title"] for c in chunks if "search_results" in c] == ["A"]
    deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
    assert [d["images"][0]["index"] for d in deltas if "images" in d] == [0]
    details = [d["reasoning_details"][0] for d in deltas if "reasoning_details" in d]
    assert details == [{"index": 0, "type": "x", "text": "", "signature": "s"}]
    assert "nobody" not in str(chunks)


def test_anthropic_says_first_what_the_prompt_cost() -> None:
    """Many of its clients look for the input's tokens there and nowhere else."""
    (start,) = typed("anthropic-messages", "message_start", START, USAGE, Text(text="a"), STOP)
    assert start["message"]["usage"] == {
        "input_tokens": 18,
        "cache_read_input_tokens": 8,
        "cache_creation_input_tokens": 4,
        "output_tokens": 12,
        "output_tokens_details": {"thinking_tokens": 5},
    }


def test_anthropic_passes_what_is_its_own_through() -> None:
    place = {"type": "char_location", "cited_text": "x", "document_index": 0}
    tool = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"q": 1}}
    given = (
        START,
        Reasoning(text="hm"),
        Data(kind="signature", value="sig-1"),
        Reasoning(text="hm again"),
        Data(kind="signature", value="sig-2"),
        Data(kind="redacted_thinking", value={"type": "redacted_thinking", "data": "..."}),
        Data(kind="server_tool_use", value=tool),
        Data(kind="citation", value=place),
        Text(text="cited"),
        Data(kind="web_search_call", value={"type": "web_search_call", "id": "ws_1"}),
        STOP,
    )
    blocks = typed("anthropic-messages", "content_block_start", *given)
    kinds = [block["content_block"]["type"] for block in blocks]
    assert kinds == ["thinking", "thinking", "redacted_thinking", "server_tool_use", "text"]
    assert blocks[3]["content_block"] == tool
    deltas = [d["delta"] for d in typed("anthropic-messages", "content_block_delta", *given)]
    assert [d["signature"] for d in deltas if "signature" in d] == ["sig-1", "sig-2"]
    assert [d["citation"] for d in deltas if "citation" in d] == [place]
    assert deltas[-1] == {"type": "text_delta", "text": "cited"}


def test_anthropic_signs_thinking_that_was_left_unsaid() -> None:
    given = (START, Data(kind="signature", value="sig"), Text(text="a"), STOP)
    blocks = typed("anthropic-messages", "content_block_start", *given)
    assert [block["content_block"]["type"] for block in blocks] == ["thinking", "text"]


@pytest.mark.parametrize(
    ("reason", "raw", "word"),
    [
        ("stop", "stop_sequence", "stop_sequence"),
        ("other", "pause_turn", "pause_turn"),
        ("length", "model_context_window_exceeded", "model_context_window_exceeded"),
        ("length", "pause_turn", "max_tokens"),  # a filter stopped it for another reason
        ("other", "eos", "end_turn"),
    ],
)
def test_anthropic_keeps_its_own_words_for_a_stop(reason: Any, raw: str, word: str) -> None:
    (last,) = typed("anthropic-messages", "message_delta", START, Stop(reason=reason, raw=raw))
    assert last["delta"]["stop_reason"] == word


def test_responses_go_on_after_the_number_a_reader_saw() -> None:
    case = CASES["parallel calls"]
    whole = events(write("openai-responses", case.events, case.reason))
    for last_seen in range(-1, len(whole)):
        writer = openai_responses.Writer(ENVELOPE, starting_after=last_seen)
        for event in case.events:
            writer.receive_event(event)
        writer.end(case.reason)
        assert events(writer.data_to_send()) == whole[last_seen + 1 :]


def test_responses_repeat_what_was_asked() -> None:
    request: dict[str, Json] = {
        "instructions": "be brief",
        "metadata": {"a": "b"},
        "temperature": None,
        "input": "not repeated",
    }
    writer = openai_responses.Writer(ENVELOPE, request=request)
    writer.receive_event(START)
    (_, created), _ = events(writer.data_to_send())
    response = created["response"]
    assert (response["instructions"], response["metadata"]) == ("be brief", {"a": "b"})
    assert response["tool_choice"] == "auto"
    assert "input" not in response


def test_responses_give_sealed_reasoning_back_under_its_own_id() -> None:
    """It is sent back with the next turn; the words in it are those that were shown."""
    sealed: dict[str, Json] = {
        "type": "reasoning",
        "id": "rs_theirs",
        "summary": [{"type": "summary_text", "text": "what a filter took out"}],
        "encrypted_content": "gAAAA",
    }
    given = (START, Reasoning(text="shown"), Data(kind="reasoning", value=sealed), STOP)
    last = payloads("openai-responses", *given)[-1]["response"]["output"][0]
    assert (last["id"], last["encrypted_content"]) == ("rs_theirs", "gAAAA")
    assert last["summary"] == [{"type": "summary_text", "text": "shown"}]
    alone = payloads("openai-responses", START, Data(kind="reasoning", value=sealed), STOP)
    assert alone[-1]["response"]["output"] == [{**sealed, "summary": []}]


def test_responses_pass_items_and_annotations_of_their_own_through() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    place = {"type": "file_citation", "file_id": "f", "filename": "a.txt", "index": 3}
    given = (
        START,
        Data(kind="web_search_call", value=search),
        Text(text="found"),
        Data(kind="citation", value=place),
        STOP,
    )
    output = payloads("openai-responses", *given)[-1]["response"]["output"]
    assert output[0] == search
    assert output[1]["content"][0]["annotations"] == [place]


def test_a_call_that_broke_off_is_never_said_to_be_done() -> None:
    """Whoever sees a call that is done may run it."""
    given = (START, delta(0, "call_a", "rm", '{"path":"/tmp'))
    for reason in (EndReason.FAILED, EndReason.CANCELLED, EndReason.LOST):
        for dialect in ("openai-responses", "anthropic-messages", "vercel"):
            body = write(dialect, given, reason)
            for word in (b"content_block_stop", b"arguments.done", b"item.done", b"-available"):
                assert word not in body


def test_vercel_says_what_is_wrong_with_an_input() -> None:
    broken = call(0, "call_a", "f", '{"a":', is_valid=False)
    (error,) = typed("vercel", "tool-input-error", START, broken, TOOLS)
    assert (error["input"], bool(error["errorText"])) == ('{"a":', True)


@pytest.mark.parametrize("text", ["[1, 2]", '"words"', "7", "null", "{}"])
def test_vercel_gives_inputs_of_any_kind(text: str) -> None:
    (given,) = typed("vercel", "tool-input-available", START, call(0, "a", "f", text), TOOLS)
    assert given["input"] == json.loads(text)


def test_vercel_shows_sources_and_passes_the_rest_as_data() -> None:
    given = (
        START,
        Data(kind="annotations", value=[{"url_citation": {"url": "https://a.test/"}}]),
        Data(kind="trace", value={"a": 1}),
        STOP,
    )
    (source,) = typed("vercel", "source-url", *given)
    assert source["url"] == "https://a.test/"
    assert typed("vercel", "data-trace", *given) == [{"type": "data-trace", "data": {"a": 1}}]


def test_a_page_and_an_agent_name_what_they_asked_for() -> None:
    page = vercel.Writer(ENVELOPE, message_id="m-7")
    agent = agui.Writer(ENVELOPE, thread_id="t-7", run_id="r-7")
    for writer in (page, agent):
        writer.receive_event(START)
    assert events(page.data_to_send())[0][1]["messageId"] == "m-7"
    started = events(agent.data_to_send())[0][1]
    assert (started["threadId"], started["runId"]) == ("t-7", "r-7")


@pytest.mark.parametrize("dialect", [name for name in OUT_DIALECTS if name != "vercel"])
def test_the_model_is_the_callers_word_or_else_the_providers(dialect: str) -> None:
    """A page alone is not told the model."""
    for said, model in (("ours", "ours"), ("", START.model)):
        writer = find_out_dialect(dialect).make_writer(Envelope(id="a", created_at=1, model=said))
        for event in (START, USAGE, Text(text="a"), STOP):
            writer.receive_event(event)
        writer.end(EndReason.COMPLETE)
        wanted = START.model if dialect == "native" else model
        assert json.dumps(wanted).encode() in writer.data_to_send()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (openai_chat.Writer, "[DONE]"),
        (vercel.Writer, "[DONE]"),
        (openai_responses.Writer, "response.failed"),
        (anthropic.Writer, "event: error"),
        (agui.Writer, "RUN_ERROR"),
    ],
)
def test_an_early_end_is_never_a_clean_one(
    make: Callable[[Envelope], TokenWriter], text: str
) -> None:
    writer = make(ENVELOPE)
    for event in (START, Text(text="Once"), USAGE):
        writer.receive_event(event)
    writer.data_to_send()
    writer.end(EndReason.LOST)
    body = writer.data_to_send().decode()
    assert text in body
    assert "vanished" in body
    assert "12" in body  # what it cost


def test_json_on_the_wire_is_one_line_for_everybody() -> None:
    for text in (NASTY, *map(chr, [*range(0x300), 0x2028, 0x2029, 0xD800, 0xFEFF, 0x1F30A])):
        data = as_wire_json({"key " + text: text})
        assert len(data.decode().splitlines()) == 1
        wanted = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        assert json.loads(data) == {"key " + wanted: wanted}


def test_a_dialect_has_one_name_whichever_way_it_goes() -> None:
    ours = {agui.DIALECT, vercel.DIALECT, native.DIALECT}  # clients speak them, no provider
    assert set(OUT_DIALECTS) - ours <= set(DIALECTS)
    assert not ours & set(DIALECTS)


def test_unknown_dialects_are_named() -> None:
    with pytest.raises(LookupError, match=r"no dialect 'morse' to write; there are openai-chat, "):
        find_out_dialect("morse")


def test_a_failure_of_the_provider_keeps_its_words() -> None:
    failure = Failure(message="slow down\r\n\r\nevent: x", code="rate_limit_error", status=429)
    for dialect in OUT_DIALECTS:
        body = write(dialect, (START, failure), EndReason.FAILED)
        assert b"slow down\\r\\n\\r\\nevent: x" in body


def test_counts_that_nobody_counted_are_left_out_where_they_can_be() -> None:
    usage = Usage(input_tokens=3, output_tokens=2)
    chunk = payloads("openai-chat", START, STOP, usage)[-1]
    assert chunk["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}

"""What a filter hides never reaches a reader, in whole or in part, wherever the text was cut."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from llm.filtering import (
    START,
    STOP,
    answer_of,
    arguments_of,
    calls_of,
    cuts,
    reasoning_of,
    text_of,
    through,
)
from penstock.core.errors import SettingInvalid
from penstock.llm.events import (
    Data,
    Failure,
    Reasoning,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from penstock.llm.filters.chain import Chain, Filter
from penstock.llm.filters.channels import MAX_WAITING
from penstock.llm.filters.redact import SECRETS, Redact, redact_automaton
from penstock.llm.filters.stops import StopSequences, stop_automaton
from penstock.llm.filters.strip import CONTROL_TOKENS, Strip, strip_automaton
from penstock.llm.filters.table import read_filters
from penstock.llm.filters.tool_calls import WholeToolCalls
from penstock.llm.filters.white_space import NormalizeWhiteSpace

ALL_TOKENS = strip_automaton(CONTROL_TOKENS)
ALL_SECRETS = redact_automaton(presets=SECRETS)
USAGE = Usage(input_tokens=3, output_tokens=4)


def strip() -> Strip:
    return Strip(ALL_TOKENS, ["text", "reasoning"])


def redact() -> Redact:
    return Redact(ALL_SECRETS)


def stop_at(*sequences: str) -> StopSequences:
    return StopSequences(stop_automaton(sequences))


TOKENS = [
    *("<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|endoftext|>", "<|END_OF_TURN_TOKEN|>"),
    *("<｜end▁of▁sentence｜>", "<｜tool▁calls▁begin｜>", "</｜DSML｜function_calls>"),
    *("<end_of_turn>", "<start_of_turn>", "<eos>", "<s>", "</s>", "[INST]", "[/INST]"),
    *("<<SYS>>", "<</SYS>>", "[TOOL_CALLS]", "[/AVAILABLE_TOOLS]"),
]
HIDDEN = [
    "sk-" + "aB3_-" * 5,
    "sk-ant-api03-" + "x" * 95,
    "AKIA" + "Q7" * 8,
    "AIza" + "a_B-c" * 7,
    "ghp_" + "a1" * 18,
    "xoxb-123456789012-abcDEF",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "ann.o'b+x@mail.example.co.uk"[6:],
    "4111 1111 1111 1111",
    "3782-822463-10005",
]


@pytest.mark.parametrize("token", TOKENS)
def test_a_control_token_cut_anywhere_is_stripped(token: str) -> None:
    text = f"a {token}b < c"
    for pieces in cuts(text):
        assert text_of(through(strip(), answer_of(pieces))) == "a b < c", pieces


@pytest.mark.parametrize("token", TOKENS)
def test_a_control_token_s_front_is_text_where_the_answer_ends_with_it(token: str) -> None:
    for end in range(1, len(token)):
        pieces = list("a" + token[:end])
        assert text_of(through(strip(), answer_of(pieces))) == "a" + token[:end]


@pytest.mark.parametrize("secret", HIDDEN)
def test_a_secret_cut_anywhere_is_redacted(secret: str) -> None:
    text = f"({secret}) x"
    for pieces in (
        cuts(text) if len(text) < 60 else ([text[:n], text[n:]] for n in range(len(text)))
    ):
        assert text_of(through(redact(), answer_of(pieces))) == "([redacted]) x", pieces


@pytest.mark.parametrize("sequence", ["STOP", "\n\nHuman:", "</answer>", "🛑x", "aab"])
def test_a_stop_sequence_cut_anywhere_ends_the_answer(sequence: str) -> None:
    for pieces in cuts(f"aa {sequence} more {sequence}"):
        chain = Chain([stop_at(sequence)])
        given = through(chain, [*answer_of(pieces), USAGE])
        assert text_of(given) == "aa "
        assert given[-2:] == [Stop(reason="stop", raw=sequence), USAGE]
        assert chain.is_ended


def shown_along(one: Filter, pieces: list[str]) -> list[str]:
    """What a reader has seen after each piece, and after the answer's end."""
    seen, along = "", []
    for event in answer_of(pieces):
        seen += text_of(one.receive_event(event))
        along.append(seen)
    return along


@pytest.mark.parametrize("make", [strip, redact, lambda: stop_at("<|im_end|>")])
def test_what_is_shown_is_never_taken_back(make: Callable[[], Filter]) -> None:
    text = "a <|im_<|pad|>end|> sk-" + "a" * 30 + " b@c.d.example <|im_end|"
    whole = text_of(through(make(), answer_of([text])))
    for pieces in ([*text], [text[:9], text[9:]], [text[:40], *text[40:]]):
        along = shown_along(make(), pieces)
        assert along[-1] == whole
        assert all(whole.startswith(seen) for seen in along)


def test_what_closes_up_to_a_token_is_stripped_too() -> None:
    for text in ("<|im_<|pad|>end|>", "<<|a|>|b|>", "<|<|<|x|>x|>x|>", "<|a<s>|>"):
        for pieces in cuts(text):
            assert text_of(through(strip(), answer_of(pieces))) == "", pieces


@pytest.mark.parametrize(
    "text",
    ["a <| b |> c", "if x <|> y", "<|>", "<||>", "x < y | z > w", "<|im end|>", "<table>", "[0]"],
)
def test_what_is_no_control_token_stays(text: str) -> None:
    for pieces in cuts(text):
        assert text_of(through(strip(), answer_of(pieces))) == text


def test_only_the_asked_families_are_stripped() -> None:
    one = Strip(strip_automaton(["gemma"], [r"<x{2}>"]), ["text"])
    given = through(one, answer_of(["<eos><s><|im_end|><xx>", "<start_of_turn>"]))
    assert text_of(given) == "<s><|im_end|>"


def test_matches_that_touch_or_overlap_are_one() -> None:
    one = Redact(redact_automaton(["abc", "cd", "xy"]))
    assert text_of(through(one, answer_of(list("_abcdxy_xy")))) == "_[redacted]_[redacted]"


def test_an_open_repeat_hides_all_that_follows_and_holds_nothing_of_it() -> None:
    one = Redact(redact_automaton(["key-[a-z]{4,}"]))
    assert text_of(through(one, [START, *(Text(text=c) for c in "x key-abcd")])) == "x [redacted]"
    given = through(one, [Text(text="z") for _ in range(5000)])
    assert given == []
    assert text_of(through(one, [Text(text="!"), STOP])) == "!"


def test_what_follows_the_longest_match_is_shown() -> None:
    one = Redact(redact_automaton(["k[a-z]{2,4}"]))
    assert text_of(through(one, answer_of(list("kabcdefg")))) == "[redacted]efg"


BROKEN = [
    Stop(reason="length"),
    Stop(reason="content_filter"),
    Failure(message="no", code="upstream-truncated"),
]


@pytest.mark.parametrize("end", BROKEN, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("make", [strip, redact, lambda: stop_at("<|im_end|>")])
def test_the_front_of_what_is_hidden_is_not_shown_where_the_answer_breaks_off(
    make: Callable[[], Filter], end: TokenEvent
) -> None:
    hidden = "sk-abc" if make is redact else "<|im_"
    for text in (hidden[:n] for n in range(1, len(hidden))):
        one = make()
        assert through(one, [START, Text(text="a " + text), end])[-1] == end
        flushed = make()
        assert text_of(through(flushed, [Text(text="a " + text)]) + flushed.flush()) == "a "
        assert text_of(through(make(), [Text(text="a " + text), end])) == "a "


def test_a_match_that_nothing_could_make_longer_is_replaced_where_the_answer_breaks_off() -> None:
    one = Redact(redact_automaton(["ab{1,5}"]))
    assert text_of(through(one, [Text(text="x abb!"), BROKEN[0]])) == "x [redacted]!"
    one = Redact(redact_automaton(["ab{1,5}"]))
    assert text_of(through(one, [Text(text="x abb"), BROKEN[0]])) == "x "


def test_text_and_reasoning_are_looked_into_apart() -> None:
    events = [Text(text="a<|im_"), Reasoning(text="end|>b<|x"), Text(text="end|>c"), STOP]
    given = through(strip(), events)
    assert text_of(given) == "ac"
    assert reasoning_of(given) == "end|>b<|x"
    given = through(strip(), [Text(text="<|a"), Reasoning(text="<|b"), STOP])
    assert given == [Text(text="<|a"), Reasoning(text="<|b"), STOP]


def test_what_came_after_held_text_is_given_after_it() -> None:
    data, thought = Data(kind="citation", value=1), Reasoning(text="hm")
    events = [Text(text="a <"), thought, data, USAGE, Text(text="b"), Text(text="c"), STOP]
    assert through(strip(), events) == [
        Text(text="a "),
        Text(text="<"),
        thought,
        data,
        USAGE,
        Text(text="bc"),  # "<b" could still have been <bos>
        STOP,
    ]


def test_a_token_around_other_events_is_stripped_and_they_stay() -> None:
    data = Data(kind="citation", value=1)
    events = [Text(text="a<|im"), data, Text(text="_e"), USAGE, Text(text="nd|>b"), STOP]
    assert through(strip(), events) == [Text(text="a"), data, USAGE, Text(text="b"), STOP]


def test_more_than_may_wait_goes_ahead_of_undecided_text_which_stays_hidden() -> None:
    one = strip()
    assert through(one, [Text(text="a<|im_")]) == [Text(text="a")]
    given = through(one, [Reasoning(text="x" * 1000) for _ in range(MAX_WAITING // 1000)])
    assert len(reasoning_of(given)) >= MAX_WAITING - 10_000
    assert text_of(given) == ""
    assert through(one, [Text(text="en"), Reasoning(text="y")])[-1] == Reasoning(text="y")
    assert through(one, [Text(text="d|>b"), STOP]) == [Text(text="b"), STOP]


def test_a_stop_sequence_around_other_events_drops_what_came_after_its_first_character() -> None:
    one = stop_at("END")
    events = [Text(text="a E"), Reasoning(text="hm"), USAGE, Text(text="ND")]
    assert through(one, events) == [Text(text="a "), USAGE, Stop(reason="stop", raw="END")]
    assert through(one, [Text(text="more"), STOP, Data(kind="x", value=1), USAGE]) == [USAGE]


def test_the_sequence_that_is_whole_first_stops_and_of_those_the_longest() -> None:
    assert text_of(through(stop_at("abc", "b"), answer_of(list("xabc")))) == "xa"
    given = through(stop_at("bc", "abc"), answer_of(list("xabc")))
    assert given == [START, Text(text="x"), Stop(reason="stop", raw="abc")]


def test_a_sequence_in_reasoning_or_arguments_stops_nothing() -> None:
    events = [Reasoning(text="END"), ToolCallDelta(index=0, name="f", arguments='"END"'), STOP]
    assert through(stop_at("END"), events) == events


KEY = "sk-" + "a" * 24


def call(arguments: str, valid: bool = True) -> ToolCall:
    return ToolCall(index=0, id="c", name="f", arguments=arguments, arguments_valid=valid)


def test_arguments_of_tool_calls_are_redacted_in_their_deltas_and_whole() -> None:
    arguments = json.dumps({"key": KEY})
    for pieces in cuts(arguments):
        head = ToolCallDelta(index=0, id="c", name="f", arguments=pieces[0])
        deltas = [ToolCallDelta(index=0, arguments=piece) for piece in pieces[1:]]
        given = through(redact(), [START, head, *deltas, call(arguments), STOP])
        assert arguments_of(given) == '{"key": "[redacted]"}'
        assert calls_of(given) == [call('{"key": "[redacted]"}')]
        assert isinstance(given[1], ToolCallDelta)
        assert (given[1].id, given[1].name) == ("c", "f")


def test_arguments_that_redacting_breaks_are_marked() -> None:
    one = Redact(redact_automaton(['"x"\\}']))
    given = through(one, [call('{"a": "x"}')])
    assert given == [call('{"a": [redacted]', valid=False)]


def test_data_and_failures_are_redacted() -> None:
    value = {"title": f"see {KEY}", KEY: [KEY, 1, None, True]}
    failure = Failure(message=f"Incorrect API key provided: {KEY}.", code="invalid_api_key")
    given = through(redact(), [Data(kind="citation", value=value), failure])
    assert KEY not in repr(given)
    assert given[1] == Failure(
        message="Incorrect API key provided: [redacted].", code="invalid_api_key"
    )


def test_each_call_s_arguments_are_looked_into_apart() -> None:
    half = KEY[:10]
    events = [
        ToolCallDelta(index=0, name="f", arguments=half),
        ToolCallDelta(index=1, name="g", arguments=KEY[10:]),
        STOP,
    ]
    given = through(redact(), events)
    assert arguments_of(given) == KEY
    assert given[0] == ToolCallDelta(index=0, name="f")


def test_tool_calls_come_whole_and_valid() -> None:
    events = [
        START,
        ToolCallDelta(index=0, id="c", name="f", arguments='{"a"'),
        Text(text="x"),
        ToolCallDelta(index=0, arguments=": 1}"),
        call('{"a": 1}'),
        STOP,
    ]
    whole = ToolCallDelta(index=0, id="c", name="f", arguments='{"a": 1}')
    assert through(WholeToolCalls(), events) == [START, events[2], whole, events[4], STOP]


def test_a_call_with_broken_arguments_fails_the_answer_and_shows_nothing_of_them() -> None:
    chain = Chain([WholeToolCalls()])
    delta = ToolCallDelta(index=0, id="c", name="f", arguments='{"secret')
    given = through(chain, [START, delta, call('{"secret', valid=False), STOP, USAGE])
    assert [type(event) for event in given] == [type(START), Failure]
    failure = given[-1]
    assert isinstance(failure, Failure)
    assert failure.code == "upstream-arguments-invalid"
    assert "secret" not in failure.message
    assert chain.is_ended


def test_a_call_that_is_never_finished_is_never_shown() -> None:
    delta = ToolCallDelta(index=0, id="c", name="f", arguments='{"a"')
    assert through(WholeToolCalls(), [START, delta, BROKEN[2]]) == [START, BROKEN[2]]


WHITE = {
    "  a": "a",
    "a  \n\t": "a",
    "a\r\nb\rc\u2028d": "a\nb\nc\nd",
    "a\r\r\nb": "a\n\nb",
    "a\n\n\n\n  b": "a\n\n  b",
    "a\n \t\n  \nb": "a\n\nb",
    "a\xa0b\u202fc": "a b c",
    "a  b": "a  b",
    "a  \nb": "a  \nb",
    "a" + " " * 1000 + "b": "a" + " " * 256 + "b",
    "a\n" + "\t" * 1000 + "b": "a\n" + "\t" * 256 + "b",
    "  \n ": "",
}


@pytest.mark.parametrize("text", WHITE, ids=repr)
def test_white_space_is_tidied_wherever_it_is_cut(text: str) -> None:
    for pieces in cuts(text) if len(text) < 40 else ([text], list(text)):
        given = through(NormalizeWhiteSpace(), answer_of(pieces))
        assert text_of(given) == WHITE[text]
        assert (
            reasoning_of(through(NormalizeWhiteSpace(), answer_of(pieces, Reasoning)))
            == (WHITE[text])
        )
        assert all(event.text for event in given if isinstance(event, Text))


def test_lines_are_trimmed_and_empty_ones_dropped_where_asked() -> None:
    one = NormalizeWhiteSpace(max_empty_lines=0, trim_lines=True)
    assert text_of(through(one, answer_of(list("a  \n\n b\t\nc")))) == "a\n b\nc"


def test_functions_of_one_event_are_filters() -> None:
    def shout(event: TokenEvent) -> TokenEvent | list[TokenEvent] | None:
        match event:
            case Text(text="drop"):
                return None
            case Text(text="end"):
                return Stop(reason="refusal", raw="policy")
            case Text(text=text):
                return [Text(text=text.upper()), Text(text="")]
            case _:
                return event

    chain = Chain([shout, strip()])
    events = [START, Text(text="a"), Text(text="drop"), Data(kind="d", value=1), USAGE]
    assert through(chain, events) == [START, Text(text="A"), events[3], USAGE]
    assert through(chain, [Text(text="end"), Text(text="x"), STOP, BROKEN[2], USAGE]) == [
        Stop(reason="refusal", raw="policy"),
        USAGE,
    ]
    assert chain.is_ended


@pytest.mark.parametrize("given", [5, "text", [START], USAGE])
def test_a_function_that_gives_something_else_is_refused(given: object) -> None:
    chain = Chain([lambda _: given])  # pyright: ignore[reportArgumentType]
    with pytest.raises(SettingInvalid):
        chain.receive_event(Text(text="a"))


def test_the_order_of_kinds_is_kept_whatever_a_filter_does() -> None:
    class Wild:
        def receive_event(self, event: TokenEvent) -> list[TokenEvent]:
            return [START, Text(text="a"), STOP, Text(text="b"), STOP, BROKEN[2], USAGE, BROKEN[2]]

        def flush(self) -> list[TokenEvent]:
            return [Text(text="late")]

    chain = Chain([Wild()])
    given = through(chain, [START, Text(text="x"), STOP]) + chain.flush()
    assert given == [START, Text(text="a"), STOP, BROKEN[2]]


def test_an_answer_that_is_broken_off_is_flushed_through_the_later_filters() -> None:
    chain = Chain([strip(), redact()])
    assert text_of(through(chain, [START, Text(text="b <|im_ sk-")])) == "b <|im_ "
    assert text_of(chain.flush()) == ""
    hidden = redact_automaton(["(a|y){3}", "b{2}"])
    for later, shown in (([], "y<|x|>"), ([strip()], "y")):
        chain = Chain([Redact(hidden, replacement="<|x|>"), *later])
        assert text_of(through(chain, [START, Text(text="x ybb")])) == "x "
        assert text_of(chain.flush()) == shown


SETTINGS = [
    {"kind": "strip", "families": ["bars"], "patterns": ["<x>"]},
    {"kind": "redact", "presets": ["emails"], "patterns": ["Anna"], "ignore_case": True},
    {"kind": "white-space", "max_empty_lines": 2},
    {"kind": "stop", "sequences": ["END"]},
    {"kind": "whole-tool-calls"},
    {"kind": "mine"},
]


def test_a_chain_is_made_from_settings_anew_for_each_answer() -> None:
    seen: list[TokenEvent] = []
    make = read_filters(SETTINGS, {"mine": lambda event: seen.append(event)})
    for _ in range(2):
        chain = make()
        assert through(chain, answer_of([" <x>", "anna ", "<|a|>to a@b.cd EN", "D"])) == [
            START,
            Stop(reason="stop", raw="END"),
        ]
    assert text_of(seen) == "[redacted] to [redacted] " * 2


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({}, "kind"),
        ({"kind": "magic"}, "kind"),
        ({"kind": "strip", "famillies": []}, "famillies"),
        ({"kind": "strip", "families": ["x"]}, "families"),
        ({"kind": "strip", "families": "bars"}, "families"),
        ({"kind": "strip", "channels": ["texts"]}, "channels"),
        ({"kind": "strip", "channels": []}, "channels"),
        ({"kind": "strip", "patterns": ["a+"]}, "pattern"),
        ({"kind": "redact"}, "patterns"),
        ({"kind": "redact", "patterns": [1]}, "patterns"),
        ({"kind": "redact", "patterns": ["a"], "replacement": ""}, "replacement"),
        ({"kind": "redact", "patterns": ["a"], "replacement": 'a"b'}, "replacement"),
        ({"kind": "redact", "patterns": ["a"], "ignore_case": 1}, "ignore_case"),
        ({"kind": "redact", "presets": ["all"]}, "presets"),
        ({"kind": "stop"}, "patterns"),
        ({"kind": "stop", "sequences": [""]}, "pattern"),
        ({"kind": "stop", "sequences": ["x"] * 65}, "sequences"),
        ({"kind": "white-space", "max_empty_lines": 99}, "max_empty_lines"),
        ({"kind": "white-space", "max_empty_lines": True}, "max_empty_lines"),
    ],
    ids=repr,
)
def test_a_mistake_in_settings_is_found_when_they_are_read(options: dict, where: str) -> None:
    with pytest.raises(SettingInvalid, match=re.escape(where)):
        read_filters([options])

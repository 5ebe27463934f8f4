"""Pieces become well-formed token events, and token events become the answer."""

from penstock.llm.assemble import MAX_DEPTH, MAX_HELD_BYTES, Assembler, Composer, is_json
from penstock.llm.events import (
    Data,
    Failure,
    Start,
    Stop,
    Text,
    TokenEvent,
    ToolCall,
    ToolCallDelta,
    Usage,
)


def assemble(events: list[TokenEvent]):
    assembler = Assembler()
    for event in events:
        assembler.receive_event(event)
    return assembler.answer()


def test_an_emoji_cut_between_two_pieces_is_joined() -> None:
    composer = Composer()
    composer.text("a\ud83d")
    composer.text("\ude00b")
    assert composer.take()[1:] == [Text(text="a"), Text(text="😀b")]


def test_a_lone_half_is_the_replacement_character() -> None:
    composer = Composer()
    composer.text("a\udc00b")
    composer.data("x\ud800", {"k\ud800": ["\udfff"]})
    _, text, data = composer.take()
    assert text == Text(text="a\ufffdb")
    assert data == Data(kind="x\ufffd", value={"k\ufffd": ["\ufffd"]})


def test_halves_of_two_channels_do_not_meet() -> None:
    composer = Composer()
    composer.text("\ud83d")
    composer.reasoning("r")
    composer.text("\ude00")
    assert composer.take()[-1] == Text(text="😀")


def test_a_value_nested_deeper_than_writers_go_is_cut_to_null() -> None:
    value: list = []
    for _ in range(500):
        value = [value]
    composer = Composer()
    composer.start()
    composer.data("deep", value)
    held, depth = composer.take()[-1].value, 0
    while held is not None:
        held, depth = held[0], depth + 1
    assert depth == MAX_DEPTH


def test_data_waits_for_the_start() -> None:
    composer = Composer()
    composer.data("early", 1)
    assert composer.take() == []
    composer.start(id="a")
    assert [type(event) for event in composer.take()] == [Start, Data]


def test_nothing_follows_a_failure_and_the_first_stands() -> None:
    composer = Composer()
    composer.fail("one", "c")
    composer.text("late")
    composer.usage(Usage(input_tokens=1, output_tokens=1))
    composer.stop("stop", "")
    composer.fail("two", "c")
    assert composer.take() == [Failure(message="one", code="c")]


def test_a_call_ends_once_and_a_stop_ends_all() -> None:
    composer = Composer()
    composer.call(7, id="x", name="f")
    composer.call(7, arguments="[1")
    composer.call(7, id="x", name="f")
    composer.call(9, id="y", name="g")
    composer.stop("tool_use", "t")
    composer.stop("stop", "again")
    events = composer.take()
    assert events[1:] == [
        ToolCallDelta(index=0, id="x", name="f"),
        ToolCallDelta(index=0, arguments="[1"),
        ToolCallDelta(index=1, id="y", name="g"),
        ToolCall(index=0, id="x", name="f", arguments="[1", arguments_valid=False),
        ToolCall(index=1, id="y", name="g", arguments="{}", arguments_valid=True),
        Stop(reason="tool_use", raw="t"),
    ]


def test_an_answer_that_broke_off_shows_its_unfinished_call() -> None:
    answer = assemble(
        [
            Start(id="a", model="m"),
            Text(text="x"),
            ToolCallDelta(index=0, id="c", name="f", arguments='{"a":'),
            Failure(message="gone", code="upstream-truncated"),
        ]
    )
    assert answer.is_truncated
    assert answer.text == "x"
    assert [(c.arguments, c.arguments_valid) for c in answer.tool_calls] == [('{"a":', False)]


def test_an_answer_with_a_stop_is_whole_and_keeps_the_last_usage() -> None:
    first, last = (
        Usage(input_tokens=1, output_tokens=1, partial=True),
        Usage(input_tokens=1, output_tokens=9),
    )
    answer = assemble([Start(id="a", model="m"), first, Stop(reason="length"), last])
    assert not answer.is_truncated
    assert answer.usage == last


def test_json_has_no_nan() -> None:
    assert is_json('{"a": [1, null]}')
    assert not is_json('{"a": NaN}')
    assert not is_json("")


def test_nothing_but_counts_and_data_follows_a_stop() -> None:
    composer = Composer()
    composer.text("a")
    composer.stop("stop", "")
    composer.text("late")
    composer.reasoning("late")
    composer.call(0, name="late")
    composer.data("k", 1)
    composer.usage(Usage(input_tokens=1, output_tokens=1))
    kinds = [type(event) for event in composer.take()]
    assert kinds == [Start, Text, Stop, Data, Usage]


def test_what_waits_for_a_start_is_bounded() -> None:
    composer = Composer()
    for number in range(20):
        composer.data("early", number)
    events = composer.take()
    assert isinstance(events[0], Start)
    assert [event.value for event in events[1:]] == list(range(20))


def test_what_is_open_is_bounded_and_what_is_closed_is_not_counted() -> None:
    composer = Composer()
    piece = "x" * (MAX_HELD_BYTES // 4)
    for key in range(8):
        composer.call(key, arguments=piece)
        composer.close_call(key)
    assert not composer.has_failed
    for key in range(8):
        composer.call(key, arguments=piece)
    assert composer.has_failed
    last = composer.take()[-1]
    assert isinstance(last, Failure)
    assert last.code == "upstream-malformed"


def test_numbers_that_few_can_read_become_null() -> None:
    composer = Composer()
    composer.start()
    composer.data("n", [2**63 - 1, 2**64, -(2**70), float("inf"), True, 1.5])
    assert composer.take()[-1].value == [2**63 - 1, None, None, None, True, 1.5]


def test_a_half_character_of_one_call_does_not_meet_another_call_s() -> None:
    composer = Composer()
    composer.call(0, name="f", arguments="\ud83d")
    composer.close_call(0)
    composer.call(0, name="g", arguments="\ude00")
    assert composer.take()[-1] == ToolCallDelta(index=1, name="g", arguments="\ufffd")

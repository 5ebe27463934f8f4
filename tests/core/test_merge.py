"""Merging says the same in fewer records, each in the place of the last it stands for."""

from __future__ import annotations

import json
import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.merge import Merges
from penstock.core.record import Record
from penstock.llm.events import Json, Text, ToolCallDelta, from_record, to_record
from penstock.llm.merging import MERGES


def joined(a: bytes, b: bytes) -> bytes | None:
    return None if b.startswith(b"!") else a + b


MERGING = Merges({"t": joined})
RECORDS = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"bc", b"", b"!d"]),
        st.sampled_from(["t", "t", "t", "u"]),
        st.sampled_from(["", "", "k"]),
    ),
    max_size=40,
)


def placed(rows: list[tuple[bytes, str, str]]) -> list[Record]:
    return [Record(i, *row) for i, row in enumerate(rows, 1)]


@given(RECORDS)
def test_it_says_the_same_in_order_and_each_place_is_the_last_of_what_it_says(
    rows: list[tuple[bytes, str, str]],
) -> None:
    records = placed(rows)
    shown = MERGING.merged(records)
    start = 0
    for record in shown:
        covered = [r for r in records if start < r.position <= record.position]
        assert covered, "a record that stands for nothing"
        assert {(r.type, r.key) for r in covered} == {(record.type, record.key)}
        assert b"".join(r.payload for r in covered) == record.payload
        start = record.position
    assert start == len(records)


@given(RECORDS)
def test_no_two_neighbours_are_left_that_could_be_one(rows: list[tuple[bytes, str, str]]) -> None:
    shown = MERGING.merged(placed(rows))
    for first, second in pairwise(shown):
        same = (first.type, first.key) == (second.type, second.key)
        assert not (same and first.type == "t" and not second.payload.startswith(b"!"))


def test_a_long_run_becomes_one_and_costs_no_square() -> None:
    calls = 0

    def counting(a: bytes, b: bytes) -> bytes:
        nonlocal calls
        calls += len(a) + len(b)
        return a + b

    records = [Record(i, b"x", "t") for i in range(1, 4097)]
    (one,) = Merges({"t": counting}).merged(records)
    assert (one.position, one.payload) == (4096, b"x" * 4096)
    assert calls == 4096 * 12


def as_record(position: int, event: Text | ToolCallDelta) -> Record:
    type_, payload = to_record(event)
    return Record(position, json.dumps(payload).encode(), type_)


def test_deltas_of_an_answer_become_what_they_say_together() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chooser = random.Random(seed)
    words = [chooser.choice(["ein ", "два ", "三", '"\n', "🙂"]) for _ in range(2000)]
    records = [as_record(i, Text(text=word)) for i, word in enumerate(words, 1)]
    (one,) = Merges(MERGES).merged(records)
    assert one.position == 2000
    payload: dict[str, Json] = json.loads(one.payload)
    assert from_record("text", payload) == Text(text="".join(words))


def test_a_tool_calls_arguments_are_joined_and_two_calls_are_not() -> None:
    pieces = [
        ToolCallDelta(index=0, id="a", name="f", arguments='{"x"'),
        ToolCallDelta(index=0, arguments=":1}"),
        ToolCallDelta(index=1, id="b", name="g", arguments="{"),
        ToolCallDelta(index=1, arguments="}"),
    ]
    shown = Merges(MERGES).merged([as_record(i, p) for i, p in enumerate(pieces, 1)])
    assert [record.position for record in shown] == [2, 4]
    assert [json.loads(record.payload)["arguments"] for record in shown] == ['{"x":1}', "{}"]


def test_what_is_no_token_event_is_left_apart() -> None:
    rows = [
        b'{"text":"a"}',
        b'{"text":1}',
        b"nonsense",
        b'{"text":"b","more":1}',
        b'{"text":"c"}',
        b'{"text":"\xff"}',
    ]
    records = [Record(i, payload, "text") for i, payload in enumerate(rows, 1)]
    assert Merges(MERGES).merged(records) == records

"""The opening record of an answer says what every dialect needs to write it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.plain_clients import CLIENTS, events, expected
from llm.writing import CASES, NASTY, START, STOP, USAGE
from penstock.core.errors import BodyMalformed
from penstock.core.record import EndReason, NewRecord, Record
from penstock.llm.events import Json, Text
from penstock.llm.write.about import RECORD_TYPE, About
from penstock.llm.write.dialects import OUT_DIALECTS, find_out_dialect
from penstock.llm.write.writer import TokenWriter

ABOUT = About(
    id="0f5c2a9be1d74c68", created_at=1_767_225_600, model="penstock-test", dialect="vercel"
)


def body(writer: TokenWriter) -> bytes:
    for event in (START, Text(text="Hi"), STOP, USAGE):
        writer.receive_event(event)
    writer.end(EndReason.COMPLETE)
    return writer.data_to_send()


ids = st.text("abcXYZ019-_", min_size=1, max_size=128)
texts = st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(ids, st.integers(0, 2**40), texts, texts, st.dictionaries(texts, values), texts)
def test_it_reads_back_as_it_was_written(
    id: str, created_at: int, model: str, dialect: str, options: dict[str, Json], mark: str
) -> None:
    about = About(
        id=id,
        created_at=created_at,
        model=model,
        dialect=dialect,
        options=options,
        fingerprint=mark,
    )
    record = about.to_record()
    assert record.type == RECORD_TYPE
    assert b"\n" not in record.payload
    assert About.from_record(record) == about
    assert About.from_record(Record(1, record.payload, record.type)) == about


def test_what_a_later_version_adds_is_ignored_and_what_is_missing_says_nothing() -> None:
    payload = json.dumps({"id": "a", "created_at": 5, "color": "red"}).encode()
    about = About.from_record(NewRecord(payload, RECORD_TYPE))
    assert about == About(id="a", created_at=5)
    assert b"fingerprint" not in about.to_record().payload


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'"\xff"',
        b"\xff",
        b"{}",
        b'{"id":"a"}',
        b'{"created_at":5}',
        b'{"id":"","created_at":5}',
        b'{"id":"a b","created_at":5}',
        b'{"id":"a\\n","created_at":5}',
        b'{"id":"\xc3\xa4","created_at":5}',
        b'{"id":"%b","created_at":5}' % (b"a" * 129),
        b'{"id":7,"created_at":5}',
        b'{"id":"a","created_at":-1}',
        b'{"id":"a","created_at":true}',
        b'{"id":"a","created_at":"5"}',
        b'{"id":"a","created_at":1.5}',
        b'{"id":"a","created_at":1e300}',
    ],
)
def test_what_opens_no_answer_is_malformed(payload: bytes) -> None:
    with pytest.raises(BodyMalformed):
        About.from_record(NewRecord(payload, RECORD_TYPE))


def test_a_record_of_another_type_opens_no_answer() -> None:
    with pytest.raises(BodyMalformed, match="'text'"):
        About.from_record(NewRecord(ABOUT.to_record().payload, "text"))


@pytest.mark.parametrize("options", [7, "x", [], None, {"message_id": 7, "thread_id": []}])
@pytest.mark.parametrize("dialect", OUT_DIALECTS)
def test_options_of_another_shape_count_as_none(dialect: str, options: Json) -> None:
    said: dict[str, Any] = {"id": ABOUT.id, "created_at": ABOUT.created_at, "model": ABOUT.model}
    payload = json.dumps({**said, "dialect": dialect, "options": options}).encode()
    about = About.from_record(NewRecord(payload, RECORD_TYPE))
    assert body(about.make_writer(dialect)) == body(ABOUT.make_writer(dialect))


@pytest.mark.parametrize("dialect", OUT_DIALECTS)
@pytest.mark.parametrize("name", CASES)
def test_its_writers_are_those_of_the_dialects(dialect: str, name: str) -> None:
    case = CASES[name]
    writer = ABOUT.make_writer(dialect)
    for event in case.events:
        writer.receive_event(event)
    writer.end(case.reason)
    shown = CLIENTS[dialect](writer.data_to_send())
    assert shown == expected(case.answer, dialect, case.end_in(dialect))


def with_options(dialect: str, **options: Json) -> About:
    return About(id="a", created_at=5, model="m", dialect=dialect, options=options)


@pytest.mark.parametrize(
    ("dialect", "options", "shown", "hidden"),
    [
        ("openai-chat", {"include_usage": False}, b"Hi", b"prompt_tokens"),
        ("openai-responses", {"request": {"instructions": "be kind"}}, b"be kind", b"nothing"),
        ("vercel", {"message_id": "page-7"}, b"page-7", b"msg_a"),
        ("agui", {"thread_id": "t-7", "run_id": "r-7"}, b'"t-7","runId":"r-7"', b'"a"'),
    ],
)
def test_options_hold_for_the_clients_own_dialect_alone(
    dialect: str, options: dict[str, Json], shown: bytes, hidden: bytes
) -> None:
    about = with_options(dialect, **options)
    own = body(about.make_writer(dialect))
    assert shown in own
    assert hidden not in own
    for other in OUT_DIALECTS:
        plain = find_out_dialect(other).make_writer(about.envelope)
        if other != dialect:
            assert body(about.make_writer(other)) == body(plain)


def test_the_usage_is_written_unless_the_client_said_not_to() -> None:
    for options in ({}, {"include_usage": True}, {"include_usage": None}):
        written = body(with_options("openai-chat", **options).make_writer("openai-chat"))
        assert b"prompt_tokens" in written


def test_a_reader_goes_on_after_the_number_it_saw() -> None:
    whole = events(body(ABOUT.make_writer("openai-responses")))
    for after in range(len(whole)):
        rest = body(ABOUT.make_writer("openai-responses", starting_after=after))
        assert events(rest) == whole[after + 1 :]
    assert body(ABOUT.make_writer("vercel", starting_after=3)) == body(ABOUT.make_writer("vercel"))


def test_what_a_client_wrote_cannot_break_out_of_a_body() -> None:
    options: dict[str, Json] = {"message_id": NASTY, "thread_id": NASTY, "run_id": NASTY}
    for dialect in OUT_DIALECTS:
        about = About(id="a", created_at=5, model=NASTY, dialect=dialect, options=options)
        about = About.from_record(about.to_record())
        for name, payload in events(body(about.make_writer(dialect))):
            assert name != "error"
            assert payload is None or isinstance(payload, dict)


def test_a_dialect_that_there_is_not_is_named() -> None:
    with pytest.raises(LookupError, match="'morse'"):
        ABOUT.make_writer("morse")

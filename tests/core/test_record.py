"""A record of outside input is checked once, so that no transport has to."""

from __future__ import annotations

import pytest

from penstock.core.errors import RecordFieldMalformed, RecordTooLarge, RecordTypeReserved
from penstock.core.limits import MAX_KEY_BYTES, MAX_TYPE_BYTES
from penstock.core.record import RESERVED_TYPES, EndReason, NewRecord, Record, checked

FORBIDDEN = ["\r", "\n", "\0", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800", "\ufeff"]


def test_a_record_needs_no_type_and_no_key() -> None:
    assert checked(b"x", "", "", 10) == NewRecord(b"x")


def test_type_and_key_are_kept_as_given() -> None:
    assert checked(b"x", "token", "user 7 – ü", 10) == NewRecord(b"x", "token", "user 7 – ü")


def test_a_payload_may_be_empty_and_may_be_exactly_the_limit() -> None:
    assert checked(b"", "", "", 0).payload == b""
    assert checked(b"12345", "", "", 5).payload == b"12345"


def test_a_payload_above_the_limit_is_refused_with_both_numbers() -> None:
    with pytest.raises(RecordTooLarge) as refusal:
        checked(b"123456", "", "", 5)
    assert (refusal.value.size, refusal.value.limit) == (6, 5)


@pytest.mark.parametrize("type", sorted(RESERVED_TYPES))
def test_a_type_that_transports_use_is_refused(type: str) -> None:
    with pytest.raises(RecordTypeReserved):
        checked(b"", type, "", 10)


def test_the_reserved_types_are_the_ones_that_were_decided() -> None:
    assert sorted(RESERVED_TYPES) == ["cursor", "drain", "end", "error", "gap", "open", "status"]


@pytest.mark.parametrize("bad", FORBIDDEN, ids=ascii)
@pytest.mark.parametrize("field", ["type", "key"])
@pytest.mark.parametrize("text", ["{}x", "x{}", "x{}x"])
def test_what_could_break_out_of_a_line_is_refused(bad: str, field: str, text: str) -> None:
    fields = {"type": "", "key": ""} | {field: text.format(bad)}
    with pytest.raises(RecordFieldMalformed) as refusal:
        checked(b"", max_bytes=10, **fields)
    assert refusal.value.field == field
    # The sentence goes to logs and responses: what was refused must not reach them raw.
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(("field", "limit"), [("type", MAX_TYPE_BYTES), ("key", MAX_KEY_BYTES)])
def test_a_field_is_measured_in_bytes_not_characters(field: str, limit: int) -> None:
    fits = {"type": "", "key": ""} | {field: "é" * (limit // 2)}
    assert checked(b"", max_bytes=0, **fits) == NewRecord(b"", **fits)
    with pytest.raises(RecordFieldMalformed):
        checked(b"", max_bytes=0, **(fits | {field: "é" * (limit // 2) + "e"}))


@pytest.mark.parametrize("record", [NewRecord(b"x"), Record(1, b"x")], ids=["new", "placed"])
def test_a_record_cannot_be_changed(record: NewRecord | Record) -> None:
    with pytest.raises(AttributeError):
        record.payload = b"y"  # type: ignore[misc]
    assert not hasattr(record, "__dict__")


def test_an_end_reason_is_its_word_on_the_wire() -> None:
    words = [str(reason) for reason in EndReason]
    assert words == ["complete", "cancelled", "failed", "limit", "lost"]

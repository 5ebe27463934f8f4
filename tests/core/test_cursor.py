"""Offsets name places, sort as bytes and are refused when no log wrote them."""

from __future__ import annotations

import pytest

from penstock.core.cursor import (
    EPOCH_ORIGIN_S,
    MAX_EPOCH,
    MAX_POSITION,
    Offset,
    next_epoch,
    offset_prefix,
    parse_event_id,
    parse_offset,
    position_text,
)
from penstock.core.errors import CallerError, OffsetMalformed


def test_an_offset_is_its_epochs_prefix_and_its_positions_text() -> None:
    # Whoever writes many offsets of one stream keeps the prefix; both ways must agree.
    for position in (0, 1, 61, 62, 10**6, MAX_POSITION):
        offset = Offset(77, position)
        assert str(offset) == offset_prefix(77) + position_text(position)


def test_the_first_million_records_have_ids_of_at_most_ten_characters() -> None:
    assert len(str(Offset(MAX_EPOCH, 1_000_000))) == 10
    assert len(str(Offset(MAX_EPOCH, 62**4 - 1))) == 10
    assert len(str(Offset(MAX_EPOCH, 62**4))) == 11


def test_an_offset_is_safe_in_a_header_a_query_and_an_event_field() -> None:
    for offset in (Offset(0, 0), Offset(12345, 67890), Offset(MAX_EPOCH, MAX_POSITION)):
        assert str(offset).isalnum()
        assert str(offset).isascii()
        assert offset.end_id.isprintable()


def test_a_later_epoch_sorts_after_every_place_of_an_earlier_one() -> None:
    assert Offset(1, MAX_POSITION) < Offset(2, 0)
    assert str(Offset(1, MAX_POSITION)) < str(Offset(2, 0))


def test_the_end_has_an_id_of_its_own_that_reads_back_as_the_tail() -> None:
    tail = Offset(9, 41)
    assert tail.end_id != str(tail)
    assert parse_event_id(tail.end_id) == (tail, True)
    assert parse_event_id(str(tail)) == (tail, False)


def test_the_end_mark_is_no_part_of_an_offset() -> None:
    with pytest.raises(OffsetMalformed):
        parse_offset(Offset(9, 41).end_id)


def test_a_refusal_is_the_callers_mistake_and_quotes_a_bounded_part_of_the_text() -> None:
    with pytest.raises(CallerError) as refusal:
        parse_offset("x" * 100_000)
    assert len(str(refusal.value)) < 200


def test_an_epoch_rises_even_when_the_clock_stands_still_or_goes_back() -> None:
    now = EPOCH_ORIGIN_S + 1000.0
    first = next_epoch(now)
    second = next_epoch(now, first)
    assert (first, second) == (1000, 1001)
    assert next_epoch(now - 500, second) == 1002


def test_an_epoch_fits_its_digits_whatever_the_clock_says() -> None:
    assert next_epoch(1e12) == MAX_EPOCH
    assert len(offset_prefix(MAX_EPOCH)) == len(offset_prefix(next_epoch(0.0))) == 5


def test_the_digits_last_at_least_twenty_nine_years() -> None:
    assert MAX_EPOCH >= 29 * 365.25 * 86_400

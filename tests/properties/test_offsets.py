"""Offsets: one place has one text, texts sort as places, and nothing else is an offset."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from penstock.core.cursor import (
    DIGITS,
    END_MARK,
    EPOCH_ORIGIN_S,
    MAX_EPOCH,
    MAX_POSITION,
    Offset,
    from_base62,
    next_epoch,
    parse_event_id,
    parse_offset,
    to_base62,
)
from penstock.core.errors import OffsetMalformed

# Positions of every length alike: drawn evenly, nearly all would have eleven digits.
positions = st.integers(0, 63).flatmap(lambda bits: st.integers(0, min(2**bits, MAX_POSITION)))
epochs = st.integers(0, MAX_EPOCH) | st.integers(0, 63)
offsets = st.builds(Offset, epochs, positions)
# Texts that look like offsets, and texts one step away from one.
nearly = (
    st.text(alphabet=DIGITS + "~-_ +\n\0é²", max_size=19)
    | st.text(alphabet="01Bz", min_size=6, max_size=18)
    | st.text(max_size=19)
    | st.builds(
        lambda offset, at, put, cut: str(offset)[:at] + put + str(offset)[at + cut :],
        offsets,
        st.integers(0, 18),
        st.text(alphabet=DIGITS + "~ ", max_size=2),
        st.integers(0, 2),
    )
)


def read(text: str) -> Offset | None:
    try:
        return parse_offset(text)
    except OffsetMalformed:
        return None


@given(offsets)
@example(Offset(MAX_EPOCH, MAX_POSITION))
@example(Offset(0, 0))
def test_an_offset_reads_back_as_itself(offset: Offset) -> None:
    assert parse_offset(str(offset)) == offset
    assert parse_event_id(str(offset)) == (offset, False)
    assert parse_event_id(offset.end_id) == (offset, True)


@given(offsets, offsets)
@example(Offset(1, 61), Offset(1, 62))
@example(Offset(1, MAX_POSITION), Offset(2, 0))
def test_texts_sort_as_bytes_in_the_order_of_places(left: Offset, right: Offset) -> None:
    order = (left.epoch, left.position) < (right.epoch, right.position)
    assert (left < right) == order
    assert (str(left).encode() < str(right).encode()) == order


@given(epochs, positions, positions)
def test_the_end_mark_keeps_the_order(epoch: int, one: int, other: int) -> None:
    """An end's id sorts after its own place and before every later one."""
    low, high = sorted((one, other))
    assert Offset(epoch, low).end_id > str(Offset(epoch, low))
    assert (Offset(epoch, low).end_id < str(Offset(epoch, high))) == (low < high)


@given(nearly)
def test_a_text_is_an_offset_exactly_when_it_is_how_one_is_written(text: str) -> None:
    offset = read(text)
    assert offset is None or str(offset) == text


@given(nearly)
def test_an_event_id_is_an_offset_with_at_most_one_mark(text: str) -> None:
    bare = text[:-1] if text.endswith(END_MARK) else text
    try:
        offset, seen_end = parse_event_id(text)
    except OffsetMalformed:
        assert read(bare) is None
    else:
        assert (offset, seen_end) == (read(bare), bare != text)


@given(epochs, st.integers(0, 1_000_000))
@example(MAX_EPOCH, 1_000_000)
def test_the_first_million_records_take_at_most_ten_characters(epoch: int, position: int) -> None:
    assert len(str(Offset(epoch, position))) <= 10


@given(st.integers(0, 2**200))
def test_base_62_reads_back_and_has_no_leading_zero(value: int) -> None:
    text = to_base62(value)
    assert from_base62(text) == value
    assert text == "0" or not text.startswith("0")


@given(st.lists(st.floats(0, EPOCH_ORIGIN_S + MAX_EPOCH / 2), min_size=2, max_size=20))
def test_epochs_rise_whatever_the_clock_does(clock: list[float]) -> None:
    last = 0
    for now_s in clock:
        epoch = next_epoch(now_s, last)
        assert last < epoch <= MAX_EPOCH
        last = epoch

"""The gate lets each of a producer's appends in once, in order, and keeps ghosts out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import (
    ProducerEpochInvalid,
    ProducerFenced,
    ProducerGap,
    SequenceConflict,
    StreamEnded,
)
from penstock.core.producer import Gate, Stamp
from penstock.core.record import EndReason


def put(gate: Gate, stamp: Stamp | None = None, seq: str | None = None) -> int | None:
    """Append as a backend does: what is let in, is noted."""
    newest = gate.admit("s", None, stamp, seq)
    if newest is None:
        gate.passed(stamp, seq)
    return newest


def test_an_epochs_numbers_begin_at_0_and_have_no_gaps() -> None:
    gate = Gate()
    with pytest.raises(ProducerGap) as error:
        put(gate, Stamp("p", 0, 1))
    assert (error.value.expected, error.value.received) == (0, 1)
    assert [put(gate, Stamp("p", 0, seq)) for seq in range(3)] == [None] * 3
    with pytest.raises(ProducerGap) as error:
        put(gate, Stamp("p", 0, 4))
    assert (error.value.expected, error.value.received) == (3, 4)


def test_what_was_appended_is_a_duplicate_and_names_the_newest() -> None:
    gate = Gate()
    for seq in range(3):
        put(gate, Stamp("p", 0, seq))
    assert [put(gate, Stamp("p", 0, seq)) for seq in range(3)] == [2, 2, 2]
    assert put(gate, Stamp("p", 0, 3)) is None


def test_a_later_epoch_fences_the_earlier_one_off_and_begins_at_0() -> None:
    gate = Gate()
    put(gate, Stamp("p", 3, 0))
    with pytest.raises(ProducerEpochInvalid):
        put(gate, Stamp("p", 7, 1))
    put(gate, Stamp("p", 7, 0))
    with pytest.raises(ProducerFenced) as error:
        put(gate, Stamp("p", 3, 1))
    assert error.value.epoch == 7


def test_producers_do_not_know_each_other() -> None:
    gate = Gate()
    put(gate, Stamp("p", 5, 0))
    assert put(gate, Stamp("q", 0, 0)) is None
    assert put(gate, Stamp("p", 5, 1)) is None


def test_nothing_is_noted_of_what_was_not_committed() -> None:
    gate = Gate()
    assert gate.admit("s", None, Stamp("p", 0, 0), "b") is None
    assert gate.admit("s", None, Stamp("p", 0, 0), "b") is None
    assert not gate.knows("p")
    assert gate.seq == ""


@pytest.mark.parametrize("seq", ["", "10", "09"])
def test_a_stream_seq_must_follow_the_last_as_text(seq: str) -> None:
    gate = Gate(seq="10")
    with pytest.raises(SequenceConflict):
        put(gate, seq=seq)
    put(gate, seq="2")
    assert gate.seq == "2"


def test_a_duplicate_succeeds_whatever_its_stream_seq_and_though_the_stream_has_ended() -> None:
    gate = Gate()
    put(gate, Stamp("p", 0, 0), "a")
    assert gate.admit("s", EndReason.COMPLETE, Stamp("p", 0, 0), "a") == 0


def test_an_ended_stream_refuses_what_is_new_but_tells_a_ghost_that_it_is_one() -> None:
    gate = Gate()
    put(gate, Stamp("p", 2, 0))
    for stamp in (Stamp("p", 2, 1), Stamp("p", 2, 9), Stamp("p", 3, 0), Stamp("q", 0, 0), None):
        with pytest.raises(StreamEnded):
            gate.admit("s", EndReason.COMPLETE, stamp, None)
    with pytest.raises(ProducerFenced):
        gate.admit("s", EndReason.COMPLETE, Stamp("p", 1, 0), None)


def test_the_producer_that_appended_longest_ago_is_forgotten_above_the_bound() -> None:
    gate = Gate(max_producers=2)
    for producer in ("p", "q", "p", "r"):
        seq = 1 if producer == "p" and gate.knows("p") else 0
        put(gate, Stamp(producer, 0, seq))
    assert [gate.knows(producer) for producer in "pqr"] == [True, False, True]
    assert put(gate, Stamp("q", 0, 0)) is None


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=60))
def test_whatever_is_sent_each_append_is_let_in_once_and_in_order(
    sent: list[tuple[int, int]],
) -> None:
    gate, accepted = Gate(), list[tuple[int, int]]()
    for epoch, seq in sent:
        try:
            newest = put(gate, Stamp("p", epoch, seq))
        except (ProducerFenced, ProducerGap, ProducerEpochInvalid):
            continue
        if newest is None:
            accepted.append((epoch, seq))
        else:
            assert (epoch, seq) in accepted
    assert accepted == sorted(set(accepted))
    for epoch in {epoch for epoch, _ in accepted}:
        numbers = [seq for of, seq in accepted if of == epoch]
        assert numbers == list(range(len(numbers)))

"""The native representation: one event a record, and the transport's own events around them."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.cursor import MAX_EPOCH, MAX_POSITION, Offset, parse_event_id
from penstock.core.record import RESERVED_TYPES, Record
from penstock.wire import native
from penstock.wire.sse import Decoder, Event

ON_ANY_MACHINE = settings(deadline=None, print_blob=True)
TAIL = Offset(7, 42)


def decode(*parts: bytes) -> tuple[list[Event], Decoder]:
    decoder = Decoder()
    for part in parts:
        decoder.receive_data(part)
    return decoder.events(), decoder


@ON_ANY_MACHINE
@given(
    st.lists(st.integers(1, MAX_POSITION), unique=True, max_size=10).map(sorted),
    st.integers(0, MAX_EPOCH),
    st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp"))),
)
def test_each_record_is_one_event_under_its_offset(
    positions: list[int], epoch: int, text: str
) -> None:
    records = [Record(position, text.encode(), "token", "k") for position in positions]
    records += [Record(MAX_POSITION, b"last")]
    events, _ = decode(*native.NativeEncoder(epoch).encode(records))
    assert [event.last_event_id for event in events] == [
        str(Offset(epoch, record.position)) for record in records
    ]
    assert [event.data for event in events] == [text] * len(positions) + ["last"]
    assert [event.type for event in events] == ["token"] * len(positions) + ["message"]


def test_line_ends_of_a_payload_do_not_end_its_event() -> None:
    records = [Record(1, b"a\nb\r\nc\rd\n\nevent: end"), Record(2, b"\n"), Record(3, b"")]
    events, _ = decode(*native.NativeEncoder(1).encode(records))
    assert [event.data for event in events] == ["a\nb\nc\nd\n\nevent: end", "\n", ""]
    assert {event.type for event in events} == {"message"}


def test_binary_payloads_are_base64() -> None:
    payload = bytes(range(256))
    (event,), _ = decode(*native.NativeEncoder(1, binary=True).encode([Record(1, payload)]))
    assert base64.b64decode(event.data) == payload


def test_around_the_boundary_of_shared_ids_every_id_is_right() -> None:
    positions = [1, 61, 62, 3843, 3844, 3845, 7687, 7688, 238_327, 238_328, 62**4, 62**5 - 1]
    records = [Record(position, b"x") for position in positions]
    events, _ = decode(*native.NativeEncoder(1).encode(records))
    assert [event.last_event_id for event in events] == [str(Offset(1, p)) for p in positions]


def test_the_end_has_an_id_that_is_marked_and_reads_back_as_the_tail() -> None:
    (event,), _ = decode(native.end_event(TAIL, "complete"))
    assert event.type == "end"
    assert json.loads(event.data) == {"reason": "complete"}
    assert parse_event_id(event.last_event_id) == (TAIL, True)


@pytest.mark.parametrize("seen", ["", str(TAIL), TAIL.end_id])
def test_a_lost_streams_end_is_marked_too(seen: str) -> None:
    (event,), _ = decode(native.lost_event(seen))
    assert json.loads(event.data) == {"reason": "lost"}
    assert event.last_event_id == seen.removesuffix("~") + "~"


@ON_ANY_MACHINE
@given(st.text(max_size=30))
def test_a_gap_moves_the_readers_place_and_says_from_where(asked: str) -> None:
    (event,), decoder = decode(native.gap_event(asked, TAIL, "malformed"))
    assert event.type == "gap"
    assert json.loads(event.data) == {"from": asked, "to": str(TAIL), "reason": "malformed"}
    assert decoder.last_event_id == str(TAIL)


def test_drain_and_status_leave_the_readers_place_alone() -> None:
    record = native.NativeEncoder(7).encode([Record(5, b"x")])
    events, decoder = decode(*record, native.drain_event(1234), native.status_event(TAIL))
    assert [event.type for event in events] == ["message", "drain", "status"]
    assert decoder.last_event_id == str(Offset(7, 5))
    assert decoder.retry_ms == 1234
    assert json.loads(events[1].data) == {"retry_ms": 1234}
    assert json.loads(events[2].data) == {"tail": str(TAIL)}


def test_heartbeat_and_preamble_make_no_event() -> None:
    events, decoder = decode(native.preamble(2500), native.HEARTBEAT, native.HEARTBEAT)
    assert events == []
    assert decoder.comments == 3
    assert decoder.retry_ms == 2500
    assert native.HEARTBEAT == b": \n\n"


def test_what_a_transport_says_itself_no_record_may_say() -> None:
    said = [
        native.end_event(TAIL, "complete"),
        native.gap_event("", TAIL, "trimmed"),
        native.drain_event(1),
        native.status_event(TAIL),
    ]
    events, _ = decode(*said)
    assert {event.type for event in events} <= RESERVED_TYPES

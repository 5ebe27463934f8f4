"""What the SSE decoder promises beyond the vectors: draining, failing, ending, resuming."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict

import pytest

from penstock.core.errors import EventTooLarge, PeerError
from penstock.wire.sse import Decoder, Event


def test_each_event_is_given_once_and_in_order():
    decoder = Decoder()
    decoder.receive_data(b"data: a\n\ndata: b\n\n")
    first = decoder.events()
    decoder.receive_data(b"data: c\n\n")
    assert [event.data for event in first] == ["a", "b"]
    assert [event.data for event in decoder.events()] == ["c"]
    assert decoder.events() == []


def test_an_event_is_an_ordinary_frozen_value():
    decoder = Decoder()
    decoder.receive_data(b"id: 1\nevent: t\ndata: a\n\n")
    (event,) = decoder.events()
    made = Event("t", "a", "1")
    assert type(event) is Event
    assert (event, hash(event), repr(event)) == (made, hash(made), repr(made))
    assert asdict(event) == {"type": "t", "data": "a", "last_event_id": "1"}
    with pytest.raises(FrozenInstanceError):
        event.data = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    "stream", [b"data: a\n\n", b"data: a\n\ndata: b\n\n", b"event: e\ndata\n\n"]
)
def test_events_of_every_loop_are_frozen_values(stream: bytes):
    decoder = Decoder()
    decoder.receive_data(b": level\n\n")
    decoder.receive_data(stream)
    assert {type(event) for event in decoder.events()} == {Event}


def test_nothing_read_changes_nothing():
    decoder = Decoder(last_event_id="5")
    decoder.receive_data(b"")
    assert (decoder.events(), decoder.last_event_id) == ([], "5")
    assert (decoder.retry_ms, decoder.comments) == (None, 0)


def test_a_failed_decoder_keeps_the_events_before_and_takes_nothing_more():
    decoder = Decoder(max_event_bytes=20)
    with pytest.raises(EventTooLarge) as caught:
        decoder.receive_data(b"id: 1\ndata: a\n\nid: 2\ndata: " + b"x" * 20 + b"\n\ndata: b\n\n")
    assert caught.value.limit == 20
    assert isinstance(caught.value, PeerError)
    for _ in range(2):
        with pytest.raises(EventTooLarge):
            decoder.receive_data(b"data: c\n\n")
    decoder.receive_eof()
    assert decoder.events() == [Event("message", "a", "1")]
    assert decoder.last_event_id == "1"


def test_a_line_that_never_ends_fails_at_the_bound():
    decoder = Decoder(max_event_bytes=1000)
    for _ in range(10):
        decoder.receive_data(b"x" * 100)
    with pytest.raises(EventTooLarge):
        decoder.receive_data(b"x")


def test_a_level_decoder_bounds_an_event_that_comes_in_one_read():
    decoder = Decoder(max_event_bytes=20)
    decoder.receive_data(b"data: a\n\n")
    decoder.receive_data(b"data: 0123456789012\n\n")  # 19 bytes and a line end
    assert [event.data for event in decoder.events()] == ["a", "0123456789012"]
    with pytest.raises(EventTooLarge):
        decoder.receive_data(b"data: 01234567890123\n\n")


def test_the_default_bound_takes_eight_mebibytes():
    decoder = Decoder()
    decoder.receive_data(b"data: " + b"x" * (8 * 1024 * 1024 - 7) + b"\n\n")
    assert len(decoder.events()) == 1
    with pytest.raises(EventTooLarge):
        decoder.receive_data(b"data: " + b"x" * (8 * 1024 * 1024 - 6) + b"\n\n")


def test_a_bound_below_one_byte_is_refused():
    with pytest.raises(ValueError, match="max_event_bytes"):
        Decoder(max_event_bytes=0)


def test_the_end_drops_the_open_event_and_keeps_the_finished_ones():
    decoder = Decoder()
    decoder.receive_data(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")
    decoder.receive_eof()
    decoder.receive_eof()
    assert decoder.events() == [Event("message", "a", "1")]
    assert decoder.last_event_id == "1"


@pytest.mark.parametrize("before", [b"", b"data: a\n\n", b"data: a\r", b"data"])
def test_bytes_after_the_end_are_a_mistake(before: bytes):
    decoder = Decoder()
    decoder.receive_data(before)
    decoder.receive_eof()
    with pytest.raises(ValueError, match="new Decoder"):
        decoder.receive_data(b"data: b\n\n")


def test_a_second_connection_resumes_with_the_id_of_the_first():
    first = Decoder()
    first.receive_data(b"id: 7\ndata: a\n\n")
    second = Decoder(last_event_id=first.last_event_id)
    second.receive_data(b"data: b\n\n")
    assert second.events() == [Event("message", "b", "7")]


def test_two_decoders_share_nothing():
    one, two = Decoder(), Decoder()
    one.receive_data(b"id: 1\nretry: 5\n: c\ndata: a\n\n")
    assert (two.events(), two.last_event_id, two.retry_ms, two.comments) == ([], "", None, 0)

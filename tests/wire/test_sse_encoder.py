"""What the SSE encoder refuses says which field, and what it writes is plain."""

from __future__ import annotations

import pytest

from penstock.core.errors import CallerError, RecordFieldMalformed
from penstock.wire.sse import Decoder, encode_comment, encode_event, encode_retry


@pytest.mark.parametrize("field", ["id", "type", "key"])
@pytest.mark.parametrize("forbidden", [b"\r", b"\n", b"\0"])
def test_a_refusal_names_the_field(field: str, forbidden: bytes):
    with pytest.raises(RecordFieldMalformed, match=field) as caught:
        encode_event(b"", **{field: b"before" + forbidden})
    assert caught.value.field == field
    assert isinstance(caught.value, CallerError)


def test_a_refused_comment_says_so():
    with pytest.raises(RecordFieldMalformed, match="comment"):
        encode_comment(b"a\n\nevent: end")


def test_everything_written_joins_into_one_stream():
    decoder = Decoder()
    decoder.receive_data(
        encode_comment()
        + encode_retry(1500)
        + encode_event(b"a\nb", id=b"1", type=b"t", key=b"k")
        + encode_comment(b"ping")
        + encode_event(b"")
    )
    events = [(event.type, event.data, event.last_event_id) for event in decoder.events()]
    assert events == [("t", "a\nb", "1"), ("message", "", "1")]
    assert (decoder.retry_ms, decoder.comments) == (1500, 2)


def test_data_of_one_line_is_written_as_it_is():
    assert encode_event(b'{"a":1}', id=b"0a") == b'id: 0a\ndata: {"a":1}\n\n'

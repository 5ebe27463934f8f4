"""The Durable Streams representation: what its readers are sent, and what its requests say."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.core.cursor import MAX_EPOCH, MAX_POSITION, Offset
from penstock.core.errors import QueryMalformed
from penstock.core.limits import CURSOR_INTERVAL_S, MAX_KEY_BYTES
from penstock.core.producer import MAX_NUMBER, Stamp
from penstock.core.record import EndReason, Record
from penstock.wire import durable
from penstock.wire.sse import Decoder, Event

TEXT, JSON, BINARY = "text/plain", "application/json", "application/octet-stream"
AT = Offset(7, 42)
offsets = st.builds(Offset, st.integers(0, MAX_EPOCH), st.integers(0, MAX_POSITION))
lines = st.lists(
    st.sampled_from(["", " ", "  a", "\r", "\n", "\r\n", "data:", "data: ", "é", "\u2028", ":"])
).map("".join)


def decode(stream: bytes) -> list[Event]:
    decoder = Decoder()
    decoder.receive_data(stream)
    return decoder.events()


def records_of(*payloads: bytes) -> list[Record]:
    return [Record(place, payload) for place, payload in enumerate(payloads, 1)]


def with_plain_ends(text: str) -> str:
    return re.sub("\r\n|\r", "\n", text)


# --- bodies and events --------------------------------------------------------------------------


def test_a_body_is_an_array_of_a_json_stream_and_the_payloads_of_any_other() -> None:
    records = records_of(b"1", b'{"a":2}')
    assert durable.body(records, JSON) == b'[1,{"a":2}]'
    assert durable.body(records, "application/problem+json") == b'[1,{"a":2}]'
    assert durable.body(records, TEXT) == b'1{"a":2}'
    assert durable.body(records, BINARY) == b'1{"a":2}'
    assert durable.body([], JSON) == b"[]"
    assert durable.body([], TEXT) == b""


@given(st.lists(lines, min_size=1, max_size=4))
def test_text_is_read_back_with_its_lines_and_their_spaces(payloads: list[str]) -> None:
    records = records_of(*[payload.encode() for payload in payloads])
    (event,) = decode(durable.data_event(records, AT, TEXT))
    assert event.type == "data"
    assert event.data == with_plain_ends("".join(payloads))
    assert event.last_event_id == str(AT)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_binary_is_read_back_from_one_line_of_base64(payloads: list[bytes]) -> None:
    stream = durable.data_event(records_of(*payloads), AT, BINARY)
    assert stream.count(b"data:") == 1
    (event,) = decode(stream)
    assert base64.b64decode(event.data, validate=True) == b"".join(payloads)


def test_a_line_that_needs_no_space_has_none() -> None:
    stream = durable.data_event(records_of(b"a\n b\n\nc"), AT, TEXT)
    assert stream == b"id: %b\nevent: data\ndata:a\ndata:  b\ndata:\ndata:c\n\n" % str(AT).encode()


def test_no_payload_begins_an_event_of_its_own() -> None:
    payload = b"x\n\nevent: control\ndata: {}\n\nid: 1\r\rretry: 1"
    (event,) = decode(durable.data_event(records_of(payload), AT, TEXT))
    assert (event.type, event.last_event_id) == ("data", str(AT))


@given(offsets, st.integers(0, MAX_NUMBER), st.booleans())
def test_a_control_event_says_where_to_go_on(
    after: Offset, cursor: int, is_up_to_date: bool
) -> None:
    (event,) = decode(durable.control_event(after, cursor, is_up_to_date=is_up_to_date))
    said = json.loads(event.data)
    assert event.type == "control"
    assert said.pop("streamNextOffset") == str(after)
    assert said.pop("streamCursor") == str(cursor)
    assert said == ({"upToDate": True} if is_up_to_date else {})
    assert event.last_event_id == "", "it moves nobody's place"


@pytest.mark.parametrize("reason", EndReason)
def test_the_last_control_has_the_ends_own_id_and_no_cursor(reason: EndReason) -> None:
    (event,) = decode(durable.control_event(AT, 5, is_up_to_date=True, end=reason))
    assert event.last_event_id == AT.end_id
    assert json.loads(event.data) == {
        "streamNextOffset": str(AT),
        "streamClosed": True,
        "streamEndReason": str(reason),
    }


def test_a_data_event_and_its_control_are_two_events_that_agree() -> None:
    stream = durable.data_event(records_of(b"1", b"2"), AT, JSON)
    stream += durable.control_event(AT, 9, is_up_to_date=True)
    data, control = decode(stream)
    assert (data.type, control.type) == ("data", "control")
    assert json.loads(control.data)["streamNextOffset"] == data.last_event_id
    assert control.last_event_id == data.last_event_id, "a control without an id keeps the place"


# --- cursors ------------------------------------------------------------------------------------

moments = st.floats(0, 1e12, allow_nan=False)
draws = st.floats(0, 1, exclude_max=True)


@given(moments, st.none() | st.integers(0, MAX_NUMBER), draws)
def test_a_cursor_is_beyond_the_one_seen_and_never_behind_its_time(
    now_s: float, seen: int | None, draw: float
) -> None:
    cursor = durable.next_cursor(now_s, seen, draw)
    assert cursor >= durable.cursor_at(now_s)
    assert seen is None or cursor > seen
    most = max(durable.cursor_at(now_s), -1 if seen is None else seen) + 1 + durable.MOST_JITTER
    assert cursor <= most, "and not an hour ahead of both"


@given(st.lists(st.tuples(moments, draws), min_size=1, max_size=20))
def test_a_client_that_gives_back_what_it_was_given_only_goes_forward(
    answers: list[tuple[float, float]],
) -> None:
    seen: int | None = None
    for now_s, draw in answers:
        cursor = durable.next_cursor(now_s, seen, draw)
        assert seen is None or cursor > seen
        seen = durable.parse_cursor(str(cursor))


def test_a_cursor_counts_intervals_from_the_protocols_origin() -> None:
    origin = datetime(2024, 10, 9, tzinfo=UTC).timestamp()
    assert durable.cursor_at(origin) == 0
    assert durable.cursor_at(origin + CURSOR_INTERVAL_S - 0.001) == 0
    assert durable.cursor_at(origin + CURSOR_INTERVAL_S) == 1
    assert durable.cursor_at(0) == 0, "a clock before it gives no number below 0"


@pytest.mark.parametrize("text", [None, "", "0", "1", "007", "1234567890", str(MAX_NUMBER - 1)])
def test_a_cursor_of_an_earlier_answer_is_read(text: str | None) -> None:
    assert durable.parse_cursor(text) == (int(text) if text else None)


@pytest.mark.parametrize(
    "text",
    ["-1", "+1", "1.5", "1e3", " 1", "x", "٣", "0x10", str(MAX_NUMBER), "9" * 17, "1" * 5000],
)
def test_any_other_cursor_is_refused(text: str) -> None:
    with pytest.raises(QueryMalformed):
        durable.parse_cursor(text)


# --- producers' stamps --------------------------------------------------------------------------


def stamp_of(producer: bytes | None, epoch: bytes | None, seq: bytes | None) -> Stamp | None:
    named = {b"producer-id": producer, b"producer-epoch": epoch, b"producer-seq": seq}
    return durable.parse_stamp({name: value for name, value in named.items() if value is not None})


@given(st.integers(0, MAX_NUMBER), st.integers(0, MAX_NUMBER))
def test_a_stamp_is_read(epoch: int, seq: int) -> None:
    stamp = stamp_of(b" writer-1 ", b"%d" % epoch, b"\t%d" % seq)
    assert stamp == Stamp("writer-1", epoch, seq)


def test_no_stamp_is_none() -> None:
    assert stamp_of(None, None, None) is None


GARBAGE = [
    *(b"", b"-1", b"+1", b"1.0", b"1e3", b"x", b"1 2", b"0x1", b"%d" % (MAX_NUMBER + 1)),
    *(b"9" * 17, b"9" * 10_000, "٣".encode(), b"\xb2", b"null", b"1_0"),
]


@pytest.mark.parametrize("number", GARBAGE, ids=lambda value: repr(value[:20]))
def test_a_stamps_numbers_are_whole_and_not_below_0(number: bytes) -> None:
    with pytest.raises(QueryMalformed, match="producer-epoch"):
        stamp_of(b"w", number, b"0")
    with pytest.raises(QueryMalformed, match="producer-seq"):
        stamp_of(b"w", b"0", number)


@pytest.mark.parametrize(
    ("producer", "epoch", "seq"),
    [
        (b"w", None, None),
        (None, b"0", None),
        (None, None, b"0"),
        (b"w", b"0", None),
        (b"w", None, b"0"),
        (None, b"0", b"0"),
        (b"", b"0", b"0"),
        (b"  ", b"0", b"0"),
        (b"a\x7fb", b"0", b"0"),
        (b"a\x85b", b"0", b"0"),
        (b"w" * (MAX_KEY_BYTES + 1), b"0", b"0"),
        (b"\xe9" * MAX_KEY_BYTES, b"0", b"0"),
    ],
    ids=repr,
)
def test_a_stamp_that_is_not_whole_is_refused(
    producer: bytes | None, epoch: bytes | None, seq: bytes | None
) -> None:
    with pytest.raises(QueryMalformed):
        stamp_of(producer, epoch, seq)


@given(st.none() | st.binary(max_size=8), st.none() | st.binary(max_size=8), st.binary(max_size=8))
def test_whatever_a_stamp_says_it_is_read_or_refused(
    producer: bytes | None, epoch: bytes | None, seq: bytes
) -> None:
    try:
        stamp = stamp_of(producer, epoch, seq)
    except QueryMalformed:
        return
    assert stamp is not None
    assert stamp.producer
    assert 0 <= stamp.epoch <= MAX_NUMBER
    assert 0 <= stamp.seq <= MAX_NUMBER


# --- expiry -------------------------------------------------------------------------------------


def expiry_of(ttl: bytes | None = None, at: bytes | None = None) -> tuple[int | None, float | None]:
    named = {b"stream-ttl": ttl, b"stream-expires-at": at}
    return durable.parse_expiry({name: value for name, value in named.items() if value is not None})


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(b"0", 0), (b"1", 1), (b" 3600\t", 3600), (b"2147483647", 2**31 - 1)]
)
def test_a_time_to_live_is_read(ttl: bytes, seconds: int) -> None:
    assert expiry_of(ttl) == (seconds, None)


@pytest.mark.parametrize(
    "ttl",
    [
        *(b"", b"-1", b"+1", b"01", b"00", b"1.0", b"1e3", b"3600s", b"x", b"0x10", b"1 1", b"1_0"),
        *("٣".encode(), b"\xb2", b"2147483648", b"9" * 16, b"9" * 5000, b"Infinity", b"NaN"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_any_other_time_to_live_is_refused(ttl: bytes) -> None:
    with pytest.raises(QueryMalformed, match="stream-ttl"):
        expiry_of(ttl)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1970-01-01T00:00:00Z", 0.0),
        (b"2030-01-02T03:04:05Z", 1_893_553_445.0),
        (b"2030-01-02t03:04:05z", 1_893_553_445.0),
        (b"2030-01-02T03:04:05.25Z", 1_893_553_445.25),
        (b"2030-01-02T03:04:05.123456789Z", 1_893_553_445.123456),
        (b"2030-01-02T05:04:05+02:00", 1_893_553_445.0),
        (b"2030-01-01T19:04:05-08:00", 1_893_553_445.0),
        (b"2028-02-29T00:00:00Z", 1_835_395_200.0),
    ],
)
def test_a_moment_is_read_as_rfc_3339_has_it(text: bytes, seconds: float) -> None:
    assert expiry_of(at=text) == (None, seconds)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"x", b"now", b"1893553445", b"2030-01-02", b"2030-01-02T03:04:05"),
        *(b"20300102T030405Z", b"2030-01-02 03:04:05Z", b"2030-1-2T3:4:5Z"),
        *(b"2030-13-02T03:04:05Z", b"2030-02-30T03:04:05Z", b"2030-01-02T24:04:05Z"),
        *(b"2030-01-02T03:60:05Z", b"2030-01-02T03:04:61Z", b"2030-01-02T03:04:05.Z"),
        *(b"2030-01-02T03:04:05.0000000001Z", b"2030-01-02T03:04:05+25:00"),
        *(b"2030-01-02T03:04:05+0200", b"2030-W01-1T03:04:05Z", b"0000-01-01T00:00:00Z"),
        *(b"12030-01-02T03:04:05Z", b"-030-01-02T03:04:05Z", b"2030-01-02T03:04:05ZZ"),
        *(b"2030-01-02T03:04:05Z\n", "٢٠٣٠-01-02T03:04:05Z".encode()),
    ],
    ids=repr,
)
def test_any_other_moment_is_refused(text: bytes) -> None:
    with pytest.raises(QueryMalformed, match="stream-expires-at"):
        expiry_of(at=text)


def test_an_expiry_is_said_in_one_way() -> None:
    with pytest.raises(QueryMalformed, match="stream-ttl"):
        expiry_of(b"60", b"2030-01-02T03:04:05Z")
    assert expiry_of() == (None, None)


@given(st.binary(max_size=30))
def test_whatever_an_expiry_says_it_is_read_or_refused(text: bytes) -> None:
    for ttl, at in ((text, None), (None, text)):
        try:
            ttl_s, expires_at = expiry_of(ttl, at)
        except QueryMalformed:
            continue
        assert (ttl_s is None) != (expires_at is None)


@given(st.integers(-(10**9) * 60, 10**10 * 25), st.integers(0, 999))
def test_a_moment_is_written_so_that_it_reads_back(seconds: int, thousandths: int) -> None:
    text = durable.time_text(seconds + thousandths / 1000)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    _, read = expiry_of(at=text.encode())
    assert read is not None
    assert abs(read - seconds - thousandths / 1000) < 0.0011, "to a thousandth, rounded down"


@example(datetime(9999, 12, 31, 23, 59, 59), "-23:59")  # noqa: DTZ001
@example(datetime(9999, 12, 31, 23, 59, 59, 999_999), "Z")  # noqa: DTZ001
@example(datetime(1, 1, 1), "+23:59")  # noqa: DTZ001
@given(
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)),  # noqa: DTZ001
    st.sampled_from(["Z", "+00:00", "-23:59", "+23:59", "+14:00"]),
)
def test_every_moment_that_is_taken_can_be_told(moment: datetime, zone: str) -> None:
    text = moment.isoformat(timespec="microseconds") + zone
    try:
        _, at = expiry_of(at=text.encode())
    except QueryMalformed:
        return
    assert at is not None
    assert durable.time_text(at)


# --- entity tags --------------------------------------------------------------------------------


@given(offsets, offsets, st.booleans())
def test_an_entity_tag_is_quoted_text_without_quotes(
    after: Offset, until: Offset, is_closed: bool
) -> None:
    tag = durable.etag(after, until, is_closed=is_closed)
    # RFC 9110 8.8.3: no quotes, no blanks inside; a strong one has no prefix.
    assert re.fullmatch(rb'"[!#-~]+"', tag)
    assert b"," not in tag, "a list of them can be cut at its commas"


@given(*[st.tuples(offsets, offsets, st.booleans())] * 2)
def test_two_reads_share_a_tag_only_when_they_are_the_same(
    one: tuple[Offset, Offset, bool], other: tuple[Offset, Offset, bool]
) -> None:
    first, second = [durable.etag(a, b, is_closed=c) for a, b, c in (one, other)]
    assert (first == second) == (one == other)

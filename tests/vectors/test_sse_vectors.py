"""Every SSE vector gives what it says, however its bytes are cut.

The cases are data in `spec/vectors/sse` (format: `spec/vectors/README.md`); this file only feeds
them: whole, in the chunks they name, byte by byte, split at every point, behind a blank line, and
with a comment behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from penstock.core.errors import EventTooLarge, RecordFieldMalformed
from penstock.wire.sse import Decoder, Event, encode_comment, encode_event, encode_retry

Case = dict[str, Any]

DIRECTORY = Path(__file__).parents[2] / "spec" / "vectors" / "sse"
FAMILIES = {path.stem: json.loads(path.read_text("utf-8")) for path in DIRECTORY.glob("*.json")}
ENCODE: list[Case] = FAMILIES.pop("encode")["cases"]
DECODE: list[tuple[str, Case]] = [
    (f"{family}: {case['name']}", case)
    for family, content in sorted(FAMILIES.items())
    for case in content["cases"]
]
EVERY_DECODE = pytest.mark.parametrize(
    "case", [case for _, case in DECODE], ids=[name for name, _ in DECODE]
)


def chunks_of(case: Case) -> list[bytes]:
    if "text" in case:
        return [case["text"].encode("utf-8")]
    return [bytes.fromhex(chunk) for chunk in case["chunks_hex"]]


def decoder_for(case: Case) -> Decoder:
    given = {key: case[key] for key in ("max_event_bytes", "last_event_id") if key in case}
    return Decoder(**given)


def decode(case: Case, chunks: Iterable[bytes]) -> tuple[dict[str, Any], list[int]]:
    """What came out, in the shape of `expected`, and the events there were after each chunk."""
    decoder, events, delivered = decoder_for(case), list[Event](), list[int]()
    outcome: dict[str, Any] = {}
    try:
        for chunk in chunks:
            decoder.receive_data(chunk)
            events += decoder.events()
            delivered.append(len(events))
        decoder.receive_eof()
    except EventTooLarge as error:
        outcome["error"] = error.code
    events += decoder.events()
    outcome["events"] = [
        {"type": event.type, "data": event.data, "last_event_id": event.last_event_id}
        for event in events
    ]
    outcome["last_event_id"] = decoder.last_event_id
    outcome["retry_ms"] = decoder.retry_ms
    outcome["comments"] = decoder.comments
    return outcome, delivered


def expected_of(case: Case) -> dict[str, Any]:
    return {key: value for key, value in case["expected"].items() if key != "delivered"}


@EVERY_DECODE
def test_a_stream_read_whole_gives_its_events(case: Case):
    assert decode(case, [b"".join(chunks_of(case))])[0] == expected_of(case)


@EVERY_DECODE
def test_a_stream_read_in_its_own_chunks_gives_its_events_on_time(case: Case):
    outcome, delivered = decode(case, chunks_of(case))
    assert outcome == expected_of(case)
    assert delivered == case["expected"].get("delivered", delivered)


@EVERY_DECODE
def test_a_stream_read_byte_by_byte_gives_its_events(case: Case):
    stream = b"".join(chunks_of(case))
    assert decode(case, (stream[i : i + 1] for i in range(len(stream))))[0] == expected_of(case)


@EVERY_DECODE
def test_a_stream_cut_at_any_point_gives_its_events(case: Case):
    stream = b"".join(chunks_of(case))
    # Five thousand digits need no five thousand cuts: the first and last of a long stream do.
    cuts = [cut for cut in range(len(stream) + 1) if cut < 200 or cut > len(stream) - 200]
    for cut in cuts:
        outcome, _ = decode(case, [stream[:cut], b"", stream[cut:]])
        assert outcome == expected_of(case), f"cut at byte {cut}"


@pytest.mark.parametrize(
    "case",
    [case for name, case in DECODE if not name.startswith("bom: ")],
    ids=[name for name, _ in DECODE if not name.startswith("bom: ")],
)
def test_a_stream_behind_a_blank_line_gives_its_events(case: Case):
    # The decoder has left the start of the stream, so its shortest way is open from the first read.
    chunks = chunks_of(case)
    for reads in (chunks, [b"".join(chunks)]):
        assert decode(case, [b"\n", *reads])[0] == expected_of(case)


@pytest.mark.parametrize(
    "case",
    [case for _, case in DECODE if "max_event_bytes" not in case],
    ids=[name for name, case in DECODE if "max_event_bytes" not in case],
)
def test_what_follows_without_a_line_end_changes_nothing(case: Case):
    stream = b"".join(chunks_of(case))
    for garbage in (b":", b": garbage \xff\0 data: x"):
        assert decode(case, [stream, garbage])[0] == expected_of(case)
        assert decode(case, [stream + garbage])[0] == expected_of(case)


def test_the_families_hold_what_their_readme_promises():
    assert len(DECODE) >= 70
    names = [name for name, _ in DECODE]
    assert len(set(names)) == len(names)
    for name, case in DECODE:
        assert ("text" in case) != ("chunks_hex" in case), name
        assert case["rule"].strip(), name
        outcome = {"events", "last_event_id", "retry_ms", "comments"}
        assert set(case["expected"]) - {"error", "delivered"} == outcome, name


def encode(case: Case) -> bytes:
    match case["encode"]:
        case "comment":
            return encode_comment(bytes.fromhex(case["text_hex"]))
        case "retry":
            return encode_retry(case["ms"])
        case _:
            fields = {
                name: bytes.fromhex(case[f"{name}_hex"])
                for name in ("id", "type", "key")
                if f"{name}_hex" in case
            }
            return encode_event(bytes.fromhex(case["data_hex"]), **fields)


@pytest.mark.parametrize("case", ENCODE, ids=[case["name"] for case in ENCODE])
def test_the_encoder_writes_these_bytes_or_refuses(case: Case):
    match case.get("refused"):
        case None:
            assert encode(case) == bytes.fromhex(case["expected_hex"])
        case "value":
            with pytest.raises(ValueError):
                encode(case)
        case code:
            with pytest.raises(RecordFieldMalformed) as caught:
                encode(case)
            assert caught.value.code == code

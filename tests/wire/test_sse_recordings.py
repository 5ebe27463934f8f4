"""Real provider streams decode to the same events however they are cut, and survive re-encoding."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from penstock.wire.sse import Decoder, Event, encode_event

DIRECTORY = Path(
    os.environ.get("PENSTOCK_RECORDINGS")
    or Path(__file__).parents[2].parent / "shared" / "recordings"
)
SEED = 20261121


def bodies() -> Iterator[bytes]:
    for path in sorted(DIRECTORY.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                recording = json.loads(line)
                content_type = recording["content_type"] or ""
                if recording["encoding"] == "utf-8" and "event-stream" in content_type:
                    yield recording["body"].encode("utf-8")


@pytest.fixture(scope="module")
def streams() -> list[bytes]:
    found = list(bodies())
    if not found:
        pytest.skip(f"no recordings in {DIRECTORY}; set PENSTOCK_RECORDINGS to their folder")
    return found


def decode(chunks: list[bytes]) -> list[Event]:
    decoder, events = Decoder(), list[Event]()
    for chunk in chunks:
        decoder.receive_data(chunk)
        events += decoder.events()
    return events


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    return [stream[a:b] for a, b in pairwise([0, *sorted(places), len(stream)])]


def test_a_recorded_stream_decodes_the_same_however_it_is_cut(streams: list[bytes]):
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    for stream in streams:
        whole = decode([stream])
        assert whole
        start = stream[:10_000]
        assert decode([start[i : i + 1] for i in range(len(start))]) == decode([start])
        assert decode(stream.splitlines(keepends=True)) == whole
        places = [chance.randrange(len(stream)) for _ in range(len(stream) // 100)]
        assert decode(cut(stream, places)) == whole
        # The standard joins by CR, LF or CRLF alike, so changing one for another changes nothing.
        for end in (b"\r", b"\r\n"):
            other = stream.replace(b"\r\n", b"\n").replace(b"\n", end)
            assert decode(cut(other, places)) == whole


def test_a_recorded_stream_survives_encoding(streams: list[bytes]):
    for stream in streams:
        events = decode([stream])
        again = b"".join(
            encode_event(
                event.data.encode(),
                id=event.last_event_id.encode(),
                type=b"" if event.type == "message" else event.type.encode(),
            )
            for event in events
        )
        assert decode([again]) == events

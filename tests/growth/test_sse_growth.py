"""The cost of decoding grows with the bytes, never with their square.

Each claim measures processor time at n and at 2n, the best of several runs, so that other work on
the machine does not count. Linear gives a ratio near 2, quadratic one near 4: the line is 3. A
ratio above it is measured again, up to three times, since noise can only raise it for a while.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from penstock.wire.sse import Decoder, encode_event

MIB = 1024 * 1024
LINE = 3.0
RUNS = 5
ATTEMPTS = 3


def decode(chunks: list[bytes], count: int) -> None:
    decoder = Decoder(max_event_bytes=64 * MIB)
    seen = 0
    for chunk in chunks:
        decoder.receive_data(chunk)
        seen += len(decoder.events())
    assert seen == count


def cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[i : i + size] for i in range(0, len(stream), size)]


def best_s(work: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(RUNS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def assert_linear(at: Callable[[int], Callable[[], object]], n: int) -> None:
    small, large = at(n), at(2 * n)
    ratios: list[float] = []
    gc.collect()
    gc.disable()  # the collector's pace depends on every other test's objects
    try:
        for _ in range(ATTEMPTS):
            ratios.append(best_s(large) / best_s(small))
            if ratios[-1] < LINE:
                return
    finally:
        gc.enable()
    pytest.fail(f"twice the input costs {ratios} times as much, so it is not linear")


def one_event_in_reads(size: int) -> Callable[[int], Callable[[], object]]:
    def at(n: int) -> Callable[[], object]:
        chunks = cut(b"data: " + b"x" * n + b"\n\n", size)
        return lambda: decode(chunks, 1)

    return at


def test_one_huge_event_in_packets_is_linear():
    assert_linear(one_event_in_reads(1400), 8 * MIB)


def test_one_huge_line_dripped_byte_by_byte_is_linear():
    assert_linear(one_event_in_reads(1), 60_000)


def test_one_event_of_many_lines_in_packets_is_linear():
    def at(n: int) -> Callable[[], object]:
        chunks = cut(b"data: 0123456789\n" * n + b"\n", 1400)
        return lambda: decode(chunks, 1)

    assert_linear(at, 40_000)


def test_one_event_of_many_lines_dripped_line_by_line_is_linear():
    def at(n: int) -> Callable[[], object]:
        chunks = [b"data: 01\r\n"] * n + [b"\r\n"]
        return lambda: decode(chunks, 1)

    assert_linear(at, 20_000)


@pytest.mark.parametrize(
    "event", [b"data: a\n\n", b"id: 1\nevent: e\ndata: a\n\n", b"data: a\r\n\r\n", b"data: a\r\r"]
)
def test_many_small_events_in_one_read_are_linear(event: bytes):
    def at(n: int) -> Callable[[], object]:
        stream = event * n
        return lambda: decode([stream], n)

    assert_linear(at, 25_000)


def test_heartbeats_without_blank_lines_are_linear():
    def at(n: int) -> Callable[[], object]:
        chunks = [b"data: a\n"] + [b": ping\n"] * n + [b"\n"]
        return lambda: decode(chunks, 1)

    assert_linear(at, 20_000)


def test_an_unfinished_run_beside_the_bound_is_linear():
    def at(n: int) -> Callable[[], object]:
        stream = b"data: a\n\n" * n

        def work() -> None:
            decoder = Decoder(max_event_bytes=10)
            decoder.receive_data(stream)
            assert len(decoder.events()) == n

        return work

    assert_linear(at, 20_000)


def test_encoding_many_lines_is_linear():
    def at(n: int) -> Callable[[], object]:
        data = b"line\r\n" * n
        return lambda: encode_event(data)

    assert_linear(at, 200_000)

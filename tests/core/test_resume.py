"""A client comes back by rules: what each happening means is said here once, vectors say the rest.

The sequences lie in `spec/vectors/resume`, the laws over random sequences in
`tests/properties/test_resumption.py`; here stands what neither says well.
"""

from __future__ import annotations

import pytest

from penstock.core.limits import PATIENCE_S
from penstock.core.resume import RETRIABLE, Backoff, Outcome, Resumption, Verdict


def test_a_client_begins_with_nothing_to_wait_for() -> None:
    client = Resumption()
    assert client.last_event_id == ""
    assert client.next_deadline() is None
    assert client.outcome is None
    assert not client.expire(1e12)


def test_a_client_may_begin_where_an_earlier_one_stopped() -> None:
    assert Resumption(last_event_id="0000115").last_event_id == "0000115"


def test_each_event_moves_the_place() -> None:
    client = Resumption()
    client.receive_response(200, 0.0, 0.5)
    for number in range(5):
        client.receive_event("token", f"id-{number}", float(number))
        assert client.last_event_id == f"id-{number}"


def test_the_last_status_is_kept_for_whoever_reports_it() -> None:
    client = Resumption()
    client.receive_response(503, 0.0, 0.5)
    assert client.status == 503
    client.receive_response(404, 1.0, 0.5)
    assert client.status == 404
    assert client.outcome is Outcome.REFUSED


def test_patience_counts_from_the_last_sign_of_life() -> None:
    client = Resumption()
    client.receive_response(200, 100.0, 0.5)
    client.receive_bytes(110.0)
    assert client.next_deadline() == 110.0 + PATIENCE_S


def test_the_retriable_refusals_are_the_ones_that_say_later() -> None:
    assert sorted(RETRIABLE) == [408, 425, 429]


def test_a_week_of_tries_keeps_to_the_cap() -> None:
    backoff = Backoff(base_ms=500, cap_ms=30_000)
    assert backoff.delay_ms(10**9, None, 0.999) < 30_000


def test_a_base_above_the_cap_is_the_cap() -> None:
    assert Backoff(base_ms=9_000, cap_ms=1_000).delay_ms(0, None, 0.5) == 500


def test_clients_that_were_cut_together_come_back_apart() -> None:
    draws = [number / 100 for number in range(100)]
    deadlines = set()
    for draw in draws:
        client = Resumption()
        client.receive_cut(0.0, draw)
        deadlines.add(client.next_deadline())
    assert len(deadlines) == len(draws)


@pytest.mark.parametrize("status", [200, 404, 503])
def test_nothing_wakes_a_closed_client(status: int) -> None:
    client = Resumption()
    client.close()
    assert client.receive_response(status, 1.0, 0.5) is Verdict.STOP
    assert client.receive_cut(2.0, 0.5) is Verdict.STOP
    client.receive_bytes(3.0)
    assert client.next_deadline() is None
    assert client.outcome is Outcome.CLOSED

"""The default numbers agree with each other, and each says its reason."""

from __future__ import annotations

import ast
import inspect

from penstock.core import limits
from penstock.core.resume import Backoff, Resumption

BASE64_GROWTH = 4 / 3


def test_two_lost_heartbeats_do_not_exhaust_a_clients_patience() -> None:
    assert 2 * limits.HEARTBEAT_S < limits.PATIENCE_S
    assert Resumption().patience_s == limits.PATIENCE_S


def test_the_heartbeat_is_well_below_the_shortest_idle_timeout_of_the_field() -> None:
    assert limits.HEARTBEAT_S <= 30 / 2


def test_a_reader_is_given_up_later_than_a_client_gives_up_a_server() -> None:
    assert limits.STALL_S > limits.PATIENCE_S


def test_the_servers_retry_lies_within_the_clients_back_off() -> None:
    lowest = limits.RETRY_MS * (1 - limits.RETRY_JITTER)
    highest = limits.RETRY_MS * (1 + limits.RETRY_JITTER)
    assert 0 < limits.RETRY_JITTER < 1
    assert lowest >= limits.BACKOFF_BASE_MS
    assert highest <= limits.BACKOFF_CAP_MS
    assert Backoff() == Backoff(base_ms=limits.BACKOFF_BASE_MS, cap_ms=limits.BACKOFF_CAP_MS)


def test_the_largest_record_can_travel_and_be_kept() -> None:
    assert limits.MAX_RECORD_BYTES <= limits.MAX_BODY_BYTES
    assert limits.MAX_RECORD_BYTES * BASE64_GROWTH < limits.MAX_EVENT_BYTES
    assert limits.MAX_RECORD_BYTES <= limits.RETAIN_BYTES
    # Counting that many records never costs more than the whole store may.
    assert limits.RETAIN_RECORDS * limits.RECORD_OVERHEAD_BYTES < limits.MAX_STORE_BYTES
    assert limits.RETAIN_BYTES < limits.MAX_STORE_BYTES


def test_the_names_and_fields_of_a_request_fit_its_head() -> None:
    percent_encoded = 3
    fields = limits.MAX_NAME_BYTES + limits.MAX_TYPE_BYTES + limits.MAX_KEY_BYTES
    assert fields * percent_encoded < limits.HEADER_BYTES / 2


def test_a_write_fits_what_a_view_keeps_and_pauses_what_is_slow() -> None:
    assert limits.NOTSENT_LOWAT_BYTES < limits.WRITE_HIGH_WATER_BYTES < limits.WRITE_BYTES
    assert limits.WRITE_BYTES <= limits.VIEW_TAIL_BYTES


def test_going_away_takes_less_than_five_seconds_in_all() -> None:
    assert limits.DRAIN_S + limits.CANCEL_S < 5


def test_every_number_stands_with_its_reason() -> None:
    """A constant is followed by a sentence, and nothing but constants is in the file."""
    body = ast.parse(inspect.getsource(limits)).body[1:]
    statements = [node for node in body if not isinstance(node, ast.ImportFrom)]
    names = statements[::2]
    reasons = statements[1::2]
    assert len(names) == len(reasons)
    for constant, reason in zip(names, reasons, strict=True):
        assert isinstance(constant, ast.AnnAssign), ast.unparse(constant)
        assert isinstance(constant.target, ast.Name)
        assert constant.target.id.isupper()
        assert isinstance(reason, ast.Expr), f"{constant.target.id} says no reason"
        assert isinstance(reason.value, ast.Constant)
        assert str(reason.value.value).strip(), constant.target.id


def test_every_number_is_positive() -> None:
    numbers = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert numbers
    assert all(value > 0 for value in numbers.values()), numbers

"""Offsets and the rules of resuming behave as `spec/vectors` says, which every language loads.

A vector is read here and nowhere interpreted: what a case means stands in its file's `about`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.core.cursor import Offset, next_epoch, parse_event_id, parse_offset
from penstock.core.errors import OffsetMalformed
from penstock.core.resume import Backoff, Resumption

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"
RESUME_FILES = ("stopping", "coming_back", "silence", "tokens")


def load(name: str) -> list[Any]:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["cases"]


def resume_cases() -> list[Any]:
    return [
        pytest.param(case, id=f"{name}: {case['claim']}")
        for name in RESUME_FILES
        for case in load(f"resume/{name}")
    ]


@pytest.mark.parametrize("case", load("offset/written"), ids=lambda case: case["text"])
def test_an_offset_reads_and_writes_as_the_vectors_say(case: Any) -> None:
    offset = Offset(case["epoch"], int(case["position"]))
    assert str(offset) == case["text"]
    assert parse_offset(case["text"]) == offset


@pytest.mark.parametrize("case", load("offset/refused"), ids=lambda case: case["why"])
def test_text_that_is_no_offset_is_refused(case: Any) -> None:
    with pytest.raises(OffsetMalformed) as refusal:
        parse_offset(case["text"])
    assert refusal.value.text == case["text"]


@pytest.mark.parametrize("case", load("offset/event_ids"), ids=lambda case: repr(case["id"]))
def test_an_event_id_reads_as_the_vectors_say(case: Any) -> None:
    if case["offset"] is None:
        with pytest.raises(OffsetMalformed):
            parse_event_id(case["id"])
        return
    offset, seen_end = parse_event_id(case["id"])
    assert (str(offset), seen_end) == (case["offset"], case["seen_end"])
    assert case["id"] == (offset.end_id if seen_end else str(offset))


def test_the_vectors_order_is_the_order_of_bytes_and_of_offsets() -> None:
    texts = load("offset/order")
    assert sorted(texts, key=str.encode) == texts
    assert sorted(texts, key=parse_offset) == texts


@pytest.mark.parametrize("case", load("offset/epochs"), ids=str)
def test_an_epoch_is_what_the_vectors_say(case: Any) -> None:
    assert next_epoch(case["now_s"], case["last"]) == case["epoch"]


@pytest.mark.parametrize("case", resume_cases())
def test_resuming_goes_as_the_vectors_say(case: Any) -> None:
    settings = {"base_ms": 1000, "cap_ms": 8000, "max_attempts": None, "patience_s": 30}
    settings |= {"last_event_id": ""} | case.get("settings", {})
    client = Resumption(
        last_event_id=settings.pop("last_event_id"),
        patience_s=settings.pop("patience_s"),
        backoff=Backoff(**settings),
    )
    for number, step in enumerate(case["steps"]):
        where = f"step {number}: {step}"
        seen = happen(client, step)
        assert seen == step.get("verdict", step.get("expired")), where
        assert client.next_deadline() == pytest.approx(step["deadline"]), where
    assert (client.outcome and client.outcome.value) == case["outcome"]
    assert client.last_event_id == case["last_event_id"]


def happen(client: Resumption, step: dict[str, Any]) -> str | bool | None:
    """Tell the client of one step; returns its verdict's word, or whether its deadline came."""
    now = step.get("now", 0.0)
    if "response" in step:
        return client.receive_response(
            step["response"],
            now,
            step["random"],
            retry_after_s=step.get("retry_after_s"),
            can_renew=step.get("can_renew", False),
        ).value
    if "event" in step:
        return client.receive_event(step["event"], step["id"], now).value
    if "cut" in step:
        return client.receive_cut(now, step["random"]).value
    if "close" in step:
        return client.close().value
    if "expire" in step:
        return client.expire(now)
    if "bytes" in step:
        client.receive_bytes(now)
    else:
        client.receive_retry(step["retry_ms"])
    return None

"""The reserved addresses: what they answer, and what of a request they refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from inprocess import Called, call, until
from penstock.server.subscriptions.addresses import WebhookRules
from subscribing import BASE, Subscribing, receiver, subscribing

PULL = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool"}
HOOK = {"type": "webhook", "pattern": "events/*", "webhook": {"url": "http://127.0.0.1:9/x"}}


@pytest.fixture
async def world() -> AsyncGenerator[Subscribing]:
    async with subscribing() as world:
        await world.put("wake/pool")
        yield world


def answered(called: Called, status: int) -> Any:
    assert called.status == status, (called.status, called.body)
    assert called.heads == 1
    return json.loads(called.body) if called.body else None


def refused(called: Called, status: int, code: str, protocol_code: str) -> dict[str, Any]:
    assert (called.status, called.code) == (status, code)
    problem = json.loads(called.body)
    assert problem["error"]["code"] == protocol_code
    assert problem["error"]["message"] == problem["detail"]
    return dict(problem)


async def test_a_subscription_is_created_confirmed_shown_and_deleted(world: Subscribing) -> None:
    await world.put("events/old", 1, 2)
    asked = {**PULL, "streams": ["/own/", "own"], "lease_ttl_ms": 1000, "description": "ours"}
    created = answered(await world.ask("PUT", "s", asked), 201)
    assert created["created_at"].endswith("Z")
    assert created == {
        "id": "s",
        "subscription_id": "s",
        "type": "pull-wake",
        "pattern": "events/*",
        "streams": [
            {"path": "own", "link_type": "explicit", "acked_offset": "-1"},
            {
                "path": "events/old",
                "link_type": "glob",
                "acked_offset": await world.tail("events/old"),
            },
        ],
        "wake_stream": "wake/pool",
        "lease_ttl_ms": 1000,
        "created_at": created["created_at"],
        "status": "active",
        "description": "ours",
    }
    assert answered(await world.ask("PUT", "s", {**asked, "streams": ["own"]}), 200) == created
    assert answered(await world.ask("GET", "s"), 200) == created
    shown = await world.ask("HEAD", "s")
    assert (shown.status, shown.body) == (200, b"")
    refused(
        await world.ask("PUT", "s", {**asked, "pattern": "**"}),
        409,
        "subscription-conflict",
        "SUBSCRIPTION_ALREADY_EXISTS",
    )
    for _ in range(2):
        assert answered(await world.ask("DELETE", "s"), 204) is None
    refused(await world.ask("GET", "s"), 404, "subscription-not-found", "SUBSCRIPTION_NOT_FOUND")


async def test_a_webhook_shows_the_key_it_is_signed_with(world: Subscribing) -> None:
    created = answered(await world.ask("PUT", "s", HOOK), 201)
    signing = created["webhook"]["signing"]
    assert signing["jwks_url"] == f"{BASE}/__ds/jwks.json"
    jwks = await call(world.app, "GET", "/v1/stream/__ds/jwks.json")
    assert jwks.header(b"content-type") == b"application/jwk-set+json"
    (key,) = json.loads(jwks.body)["keys"]
    assert key["kid"] == signing["kid"]
    assert sorted(key) == ["alg", "crv", "kid", "kty", "use", "x"], "nothing of the private half"


async def test_explicit_streams_are_added_from_their_tails_and_removed(world: Subscribing) -> None:
    await world.put("manual/b", 1)
    await world.ask("PUT", "s", {**PULL, "pattern": None, "streams": ["manual/a"]})
    body = {"streams": ["manual/b", "/manual/c", "manual/b"]}
    assert answered(await world.ask("POST", "s/streams", body), 204) is None
    shown = answered(await world.ask("GET", "s"), 200)["streams"]
    assert {link["path"]: link["acked_offset"] for link in shown} == {
        "manual/a": "-1",
        "manual/b": await world.tail("manual/b"),
        "manual/c": "-1",
    }
    for path in ("manual%2Fb", "manual/c", "never%2fthere", "manual%2Fb"):
        assert answered(await world.ask("DELETE", f"s/streams/{path}"), 204) is None
    shown = answered(await world.ask("GET", "s"), 200)["streams"]
    assert [link["path"] for link in shown] == ["manual/a"]
    refused(
        await world.ask("POST", "t/streams", body),
        404,
        "subscription-not-found",
        "SUBSCRIPTION_NOT_FOUND",
    )


async def test_work_is_claimed_acknowledged_and_released(world: Subscribing) -> None:
    await world.ask("PUT", "s", PULL)
    refused(
        await world.ask("POST", "s/claim", {"worker": "one"}),
        409,
        "nothing-pending",
        "NO_PENDING_WORK",
    )
    await world.put("events/a", 1, 2)

    async def woken(times: int) -> None:
        async with asyncio.timeout(10):
            while len(await world.records("wake/pool")) < times:
                await asyncio.sleep(0.002)

    await woken(1)
    (record,) = await world.records("wake/pool")
    assert isinstance(record.pop("ts"), int)
    assert record == {"type": "wake", "subscription_id": "s", "stream": "events/a", "generation": 1}
    claimed = answered(await world.ask("POST", "s/claim", {"worker": "one"}), 200)
    tail = await world.tail("events/a")
    assert claimed["streams"] == [
        {
            "path": "events/a",
            "link_type": "glob",
            "acked_offset": "-1",
            "tail_offset": tail,
            "has_pending": True,
        }
    ]
    assert claimed["lease_ttl_ms"] == 30_000
    busy = refused(
        await world.ask("POST", "s/claim", {"worker": "two"}),
        409,
        "wake-claimed",
        "ALREADY_CLAIMED",
    )
    assert busy["error"]["current_holder"] == "one"
    assert busy["error"]["generation"] == 1

    token = claimed["token"]
    wake = {"wake_id": claimed["wake_id"], "generation": 1}
    acks = {**wake, "acks": [{"stream": "/events/a", "offset": tail}]}
    going_on = await world.ask("POST", "s/ack", acks, token=token)
    assert answered(going_on, 200) == {"ok": True, "next_wake": False}
    await world.append("events/a", 3)
    done = await world.ask("POST", "s/ack", {**wake, "done": True}, token=token)
    assert answered(done, 200) == {"ok": True, "next_wake": True}
    refused(await world.ask("POST", "s/ack", wake, token=token), 409, "wake-fenced", "FENCED")
    await woken(2)

    again = answered(await world.ask("POST", "s/claim", {"worker": "two"}), 200)
    wake = {"wake_id": again["wake_id"], "generation": 2}
    released = await world.ask("POST", "s/release", wake, token=again["token"])
    assert answered(released, 204) is None
    await woken(3)
    assert [r["generation"] for r in await world.records("wake/pool")] == [1, 2, 3]


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"Basic x", b"Bearer x.y.z"])
async def test_an_answer_without_a_token_of_ours_is_401(
    world: Subscribing, header: bytes | None
) -> None:
    await world.ask("PUT", "s", PULL)
    headers = [] if header is None else [(b"authorization", header)]
    for action in ("ack", "release"):
        target = f"/v1/stream/__ds/subscriptions/s/{action}"
        called = await call(world.app, "POST", target, headers, b"{}")
        refused(called, 401, "wake-token-invalid", "TOKEN_INVALID")
        assert called.header(b"www-authenticate") == b"Bearer"


@pytest.mark.parametrize(
    ("change", "code", "protocol_code"),
    [
        ({"type": "email"}, "body-malformed", "INVALID_REQUEST"),
        ({"type": None}, "body-malformed", "INVALID_REQUEST"),
        ({"pattern": 7}, "body-malformed", "INVALID_REQUEST"),
        ({"pattern": None}, "subscription-invalid", "INVALID_REQUEST"),
        ({"pattern": "", "streams": []}, "subscription-invalid", "INVALID_REQUEST"),
        ({"pattern": "a/b*"}, "subscription-invalid", "INVALID_REQUEST"),
        ({"pattern": "a//b"}, "subscription-invalid", "INVALID_REQUEST"),
        ({"streams": [1]}, "body-malformed", "INVALID_REQUEST"),
        ({"streams": ["a", ""]}, "name-malformed", "INVALID_REQUEST"),
        ({"streams": ["../x"]}, "name-malformed", "INVALID_REQUEST"),
        ({"streams": ["__ds/x"]}, "name-malformed", "INVALID_REQUEST"),
        ({"streams": ["wake/pool"]}, "subscription-invalid", "INVALID_REQUEST"),
        ({"wake_stream": None}, "subscription-invalid", "INVALID_REQUEST"),
        ({"wake_stream": "a//b"}, "name-malformed", "INVALID_REQUEST"),
        ({"lease_ttl_ms": 999}, "body-malformed", "INVALID_REQUEST"),
        ({"lease_ttl_ms": 600_001}, "body-malformed", "INVALID_REQUEST"),
        ({"lease_ttl_ms": 1000.5}, "body-malformed", "INVALID_REQUEST"),
        ({"lease_ttl_ms": "1000"}, "body-malformed", "INVALID_REQUEST"),
        ({"description": "x" * 1025}, "body-malformed", "INVALID_REQUEST"),
        ({"type": "webhook"}, "subscription-invalid", "INVALID_REQUEST"),
        ({"type": "webhook", "webhook": {}}, "body-malformed", "INVALID_REQUEST"),
        ({"type": "webhook", "webhook": {"url": ""}}, "subscription-invalid", "INVALID_REQUEST"),
        (
            {"type": "webhook", "webhook": {"url": "http://10.0.0.1/hook"}},
            "webhook-url-rejected",
            "WEBHOOK_URL_REJECTED",
        ),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused(
    world: Subscribing, change: dict[str, Any], code: str, protocol_code: str
) -> None:
    refused(await world.ask("PUT", "s", {**PULL, **change}), 400, code, protocol_code)
    assert (await world.ask("GET", "s")).status == 404


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000),
        b'{"type":"pull-wake","pattern":"\\ud800"}',
    ],
)
async def test_a_body_that_is_none_is_refused(world: Subscribing, raw: bytes) -> None:
    called = await world.ask("PUT", "s", raw=raw)
    assert called.status == 400
    assert called.code in ("body-malformed", "subscription-invalid")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "s/streams", {"streams": "a"}),
        ("POST", "s/streams", {}),
        ("POST", "s/streams", {"streams": [""]}),
        ("POST", "s/streams", {"streams": ["wake/pool"]}),
        ("POST", "s/claim", {}),
        ("POST", "s/claim", {"worker": ""}),
        ("POST", "s/claim", {"worker": 7}),
        ("POST", "s/claim", {"worker": "x" * 1025}),
        ("DELETE", "s/streams/a%2F%2Fb", None),
        ("DELETE", "s/streams/%ff", None),
        ("DELETE", "s/streams/", None),
    ],
)
async def test_a_request_that_cannot_be_is_refused(
    world: Subscribing, method: str, path: str, body: Any
) -> None:
    await world.ask("PUT", "s", PULL)
    called = await world.ask(method, path, body)
    assert called.status == 400
    assert json.loads(called.body)["error"]["code"] == "INVALID_REQUEST"


async def test_streams_that_cannot_all_be_added_are_not_added_at_all(world: Subscribing) -> None:
    await world.ask("PUT", "s", PULL)
    await world.ask("POST", "s/streams", {"streams": ["a", "wake/pool", "z"]})
    assert answered(await world.ask("GET", "s"), 200)["streams"] == []


@pytest.mark.parametrize("id", ["%2F", "a%2Fb", "%00", "%ff", "..%2F", "x" * 129, "%2E%2E", "%5c"])
async def test_an_id_that_cannot_be_is_refused(world: Subscribing, id: str) -> None:
    refused(await world.ask("PUT", id, PULL), 400, "subscription-invalid", "INVALID_REQUEST")


async def test_an_id_is_any_other_text(world: Subscribing) -> None:
    created = answered(await world.ask("PUT", "caf%C3%A9%20%231%3F", PULL), 201)
    assert created["id"] == "café #1?"


@pytest.mark.parametrize("path", ["", "subscriptions", "subscriptions/s/what", "x", "jwks.json/x"])
async def test_other_reserved_addresses_are_404(world: Subscribing, path: str) -> None:
    called = await call(world.app, "GET", f"/v1/stream/__ds/{path}")
    assert (called.status, called.code) == (404, "route-not-found")


async def test_a_method_an_address_does_not_have_is_405(world: Subscribing) -> None:
    for path, allow in (
        ("s", b"GET, PUT, DELETE, HEAD"),
        ("s/streams", b"POST"),
        ("s/streams/a", b"DELETE"),
        ("s/claim", b"POST"),
        ("s/callback", b"POST"),
    ):
        called = await world.ask("PATCH", path)
        assert (called.status, called.header(b"allow")) == (405, allow)
    options = await world.ask("OPTIONS", "s")
    assert (options.status, options.header(b"allow")) == (204, b"GET, PUT, DELETE, HEAD, OPTIONS")


async def test_a_server_that_calls_no_webhooks_says_so_and_has_pull_wake() -> None:
    async with subscribing(rules=WebhookRules()) as world:
        refused(await world.ask("PUT", "s", HOOK), 403, "webhooks-off", "WEBHOOKS_OFF")
        assert (await world.ask("PUT", "t", PULL)).status == 201
        jwks = await call(world.app, "GET", "/v1/stream/__ds/jwks.json")
        assert json.loads(jwks.body) == {"keys": []}


async def test_without_the_package_that_signs_there_are_no_webhooks_and_there_is_pull_wake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(
        __import__("sys").modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None
    )
    async with subscribing() as world:
        refused(await world.ask("PUT", "s", HOOK), 403, "webhooks-off", "WEBHOOKS_OFF")
        assert (await world.ask("PUT", "t", PULL)).status == 201


async def test_callbacks_go_where_the_operator_says_the_server_is() -> None:
    async with receiver() as hook, subscribing(public_url="https://outside.example/v1/") as world:
        body = {**HOOK, "webhook": {"url": hook.url}}
        created = answered(await world.ask("PUT", "s%201", body), 201)
        outside = "https://outside.example/v1/stream/__ds"
        assert created["webhook"]["signing"]["jwks_url"] == f"{outside}/jwks.json"
        await world.put("events/a", 1)
        await until(lambda: hook.calls)
        assert hook.calls[0].body["callback_url"] == f"{outside}/subscriptions/s%201/callback"


async def test_two_requests_for_one_new_subscription_make_one(world: Subscribing) -> None:
    answers = await asyncio.gather(*(world.ask("PUT", "s", PULL) for _ in range(10)))
    assert sorted(called.status for called in answers) == [200] * 9 + [201]


async def test_a_wake_stream_that_is_not_there_is_waited_for(world: Subscribing) -> None:
    await world.ask("PUT", "s", {**PULL, "wake_stream": "wake/later"})
    await world.put("events/a", 1)
    async with asyncio.timeout(10):
        while answered(await world.ask("GET", "s"), 200)["status"] != "failed":
            await asyncio.sleep(0.002)
        await world.put("wake/later")
        while not await world.records("wake/later"):
            await asyncio.sleep(0.01)
    assert answered(await world.ask("GET", "s"), 200)["status"] == "active"

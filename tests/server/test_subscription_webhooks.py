"""Webhooks, called for real: signed, bounded, retried, fenced, and never led astray."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from inprocess import call, until
from penstock.core.limits import ANSWER_BYTES, WAKES_AT_ONCE
from penstock.server.subscriptions.addresses import WebhookRules
from penstock.server.subscriptions.signing import SigningKey
from penstock.server.subscriptions.webhooks import Delivery, call_webhook
from subscribing import LOOPBACK, Subscribing, receiver, subscribing

KEY = SigningKey(b"s" * 32)


async def subscribe(world: Subscribing, url: str, id: str = "s", **config: Any) -> None:
    body = {"type": "webhook", "pattern": "events/*", "webhook": {"url": url}, **config}
    called = await world.ask("PUT", id, body)
    assert called.status == 201, called.body


async def shown(world: Subscribing, id: str = "s") -> dict[str, Any]:
    return dict(json.loads((await world.ask("GET", id)).body))


async def acked(world: Subscribing, name: str, id: str = "s") -> str:
    links = (await shown(world, id))["streams"]
    return next(str(link["acked_offset"]) for link in links if link["path"] == name)


async def eventually(claim: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(15):
        while not await claim():
            await asyncio.sleep(0.002)


# --- through the whole of it --------------------------------------------------------------------


async def test_a_receiver_can_tell_that_this_server_called() -> None:
    async with receiver({"done": True}) as hook, subscribing(wall_clock=lambda: 1e9 + 0.7) as world:
        await subscribe(world, hook.url)
        await world.put("events/a", "ü")
        await until(lambda: hook.calls)
        (arrived,) = hook.calls
        jwks = json.loads((await call(world.app, "GET", "/v1/stream/__ds/jwks.json")).body)
        said = re.fullmatch(
            r"t=(\d+),kid=([^,]+),ed25519=([\w-]+)", arrived.headers["webhook-signature"]
        )
        assert said is not None
        (key,) = [key for key in jwks["keys"] if key["kid"] == said[2]]
        assert said[1] == "1000000000"
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
        signature = base64.urlsafe_b64decode(said[3] + "==")
        public.verify(signature, b"1000000000." + arrived.raw)
        with pytest.raises(InvalidSignature):
            public.verify(signature, b"1000000001." + arrived.raw)
        assert arrived.headers["content-type"] == "application/json"
        assert "cookie" not in arrived.headers


async def test_a_receiver_that_says_done_has_acknowledged_what_it_was_told() -> None:
    async with receiver({"done": True}) as hook, subscribing() as world:
        await subscribe(world, hook.url)
        for value in range(50):
            await world.append("events/a", value) if value else await world.put("events/a", value)

        async def is_done() -> bool:
            return await acked(world, "events/a") == await world.tail("events/a")

        await eventually(is_done)
        bodies = [arrived.body for arrived in hook.calls]
        assert [body["generation"] for body in bodies] == list(range(1, len(bodies) + 1))
        assert len({body["wake_id"] for body in bodies}) == len(bodies)
        assert bodies[-1]["streams"][0]["tail_offset"] == await world.tail("events/a")


async def test_a_receiver_calls_back_and_what_comes_later_is_fenced() -> None:
    async with receiver() as hook, subscribing() as world:
        await subscribe(world, hook.url)
        await world.put("events/a", 1)
        await until(lambda: hook.calls)
        body = hook.calls[0].body
        assert (
            body["callback_url"] == "http://127.0.0.1:4437/v1/stream/__ds/subscriptions/s/callback"
        )
        said = {
            "wake_id": body["wake_id"],
            "generation": body["generation"],
            "acks": [{"path": "events/a", "offset": body["streams"][0]["tail_offset"]}],
            "done": True,
        }
        token = body["callback_token"]
        first = await world.ask("POST", "s/callback", said, token=token)
        assert json.loads(first.body) == {"ok": True, "next_wake": False}
        second = await world.ask("POST", "s/callback", said, token=token)
        assert (second.status, second.code) == (409, "wake-fenced")
        assert len(hook.calls) == 1


async def test_a_receiver_that_never_acknowledges_is_woken_again_when_its_lease_is_over() -> None:
    now = 1000.0
    async with receiver() as hook, subscribing(clock=lambda: now) as world:
        await subscribe(world, hook.url, lease_ttl_ms=1000)
        await world.put("events/a", 1)
        await until(lambda: hook.calls)
        await eventually(lambda: no_delivery(world))
        now += 1.0
        await world.hub.tick(now)
        await until(lambda: len(hook.calls) == 2)
        assert [arrived.body["generation"] for arrived in hook.calls] == [1, 2]


async def no_delivery(world: Subscribing) -> bool:
    return not world.hub.subscriptions.get("s").announcing


async def test_a_failed_delivery_is_made_again_with_the_same_wake() -> None:
    now = 1000.0
    async with receiver({"done": True}) as hook, subscribing(clock=lambda: now) as world:
        hook.answers = [web.Response(status=503), web.HTTPFound("http://127.0.0.1:1/")]
        await subscribe(world, hook.url)
        await world.put("events/a", 1)
        for count in (1, 2):
            await until(lambda: len(hook.calls) == count)  # noqa: B023
            await eventually(lambda: no_delivery(world))
            assert (await shown(world))["status"] == "failed"
            await world.hub.tick(now)
            assert len(hook.calls) == count
            now += 2.5
            await world.hub.tick(now)
        await until(lambda: len(hook.calls) == 3)

        async def is_well() -> bool:
            return (await shown(world))["status"] == "active"

        await eventually(is_well)
        assert len({arrived.body["wake_id"] for arrived in hook.calls}) == 1
        assert await acked(world, "events/a") == await world.tail("events/a")


async def test_a_lease_ends_by_itself_without_the_hubs_tick() -> None:
    async with receiver() as hook, subscribing() as world:
        await subscribe(world, hook.url, lease_ttl_ms=1000)
        await world.put("events/a", 1)
        await until(lambda: len(hook.calls) >= 2)
        first, second = (arrived.body["generation"] for arrived in hook.calls[:2])
        assert (first, second) == (1, 2)


async def test_slow_receivers_hold_no_more_than_their_places() -> None:
    """As many deliveries are under way as may be; the others wait and lose nothing."""
    async with receiver({"done": True}) as hook, subscribing() as world:
        hook.is_held = True
        for n in range(WAKES_AT_ONCE + 4):
            await subscribe(world, hook.url, id=f"s{n}", pattern=f"events/{n}")
        for n in range(WAKES_AT_ONCE + 4):
            await world.put(f"events/{n}", n)
        await until(lambda: len(hook.calls) == WAKES_AT_ONCE)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(hook.calls) == WAKES_AT_ONCE
        hook.go_on.set()
        await until(lambda: len(hook.calls) == WAKES_AT_ONCE + 4)


async def test_a_deleted_subscription_is_not_called_again() -> None:
    async with receiver({"done": True}) as hook, subscribing() as world:
        hook.is_held = True
        await subscribe(world, hook.url)
        await world.put("events/a", 1)
        await until(lambda: hook.calls)
        await world.append("events/a", 2)
        await world.ask("DELETE", "s")
        token = hook.calls[0].body["callback_token"]
        late = await world.ask("POST", "s/callback", {"done": True}, token=token)
        assert (late.status, late.code) == (404, "subscription-not-found")
        hook.go_on.set()
        await world.append("events/a", 3)
        await eventually(lambda: nothing_under_way(world))
        assert len(hook.calls) == 1


async def nothing_under_way(world: Subscribing) -> bool:
    return not any(
        task.get_name().startswith("penstock:wake") and not task.done()
        for task in asyncio.all_tasks()
    )


async def test_a_hub_that_stops_waits_for_no_receiver() -> None:
    async with receiver() as hook:
        async with subscribing() as world:
            hook.is_held = True
            await subscribe(world, hook.url)
            await world.put("events/a", 1)
            await until(lambda: hook.calls)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 2
        assert await nothing_under_way(world)


# --- one call -----------------------------------------------------------------------------------


async def called(
    url: str, rules: WebhookRules = LOOPBACK, within_s: float = 5.0, body: bytes = b"{}"
) -> Delivery:
    return await call_webhook(rules, url, body, key=KEY, wall_clock=lambda: 1.0, within_s=within_s)


@asynccontextmanager
async def answering(*parts: bytes, stays: bool = False) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """A server that reads a request and answers these bytes, whatever they are."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        seen.append(head + await reader.readexactly(int(length[1]) if length else 0))
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            if stays:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?a=b", seen
    finally:
        server.close()


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("answer", "delivery"),
    [
        (OK + b'content-length: 13\r\n\r\n{"done":true}', Delivery(True, True)),
        (OK + b'content-length: 14\r\n\r\n{"done":false}', Delivery(True)),
        (OK + b'content-length: 15\r\n\r\n{"done":"true"}', Delivery(True)),
        (OK + b"content-length: 4\r\n\r\ntrue", Delivery(True)),
        (OK + b"content-length: 0\r\n\r\n", Delivery(True)),
        (OK + b'connection: close\r\n\r\n{"done":true}', Delivery(True, True)),
        (OK + b'content-length: 99\r\n\r\n{"done":true}', Delivery(True)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Delivery(True)),
        (
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            Delivery(False, why="it answered 404"),
        ),
    ],
)
async def test_an_answer_means_what_its_status_and_its_done_say(
    answer: bytes, delivery: Delivery
) -> None:
    async with answering(answer) as (url, seen):
        assert await called(url) == delivery
    assert len(seen) == 1
    head = seen[0].lower()
    assert head.startswith(b"post /hook?a=b http/1.1\r\n")
    assert b"accept-encoding: identity" in head
    assert b"webhook-signature: t=1,kid=ds_" in head


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    async with answering(b"") as (elsewhere, reached):
        head = f"HTTP/1.1 {status} x\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n"
        async with answering(head.encode()) as (url, _):
            assert await called(url) == Delivery(False, why=f"it answered {status}")
        assert reached == []


@pytest.mark.parametrize(
    "answer",
    [
        *(
            b"",
            b"\x00\xff\r\n\r\n",
            b"HTTP/1.1 200",
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1 999999 x\r\n\r\n",
        ),
        b"HTTP/1.1 200 OK\r\n" + b"x-y: " + b"z" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_a_failure(answer: bytes) -> None:
    async with answering(answer) as (url, _):
        delivery = await called(url)
    assert not delivery.is_delivered
    assert "hook" not in delivery.why


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    written = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"\r\n")
        try:
            while written < 1 << 30:
                writer.write(b" " * 65536)
                await writer.drain()
                written += 65536
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    assert await called(url) == Delivery(True)
    server.close()
    assert written < 200 * ANSWER_BYTES


async def test_a_packed_answer_is_not_unpacked() -> None:
    import gzip

    packed = gzip.compress(b'{"done":true}')
    head = OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    async with answering(head + packed) as (url, _):
        assert await called(url) == Delivery(True)


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nx: y"])
async def test_a_receiver_that_does_not_answer_is_given_up(part: bytes) -> None:
    async with answering(part, stays=True) as (url, _):
        delivery = await called(url, within_s=0.1)
    assert delivery == Delivery(False, why="it did not answer within 0.1 s")


async def test_a_receiver_that_stalls_in_its_answer_has_the_wake() -> None:
    async with answering(OK + b"content-length: 13\r\n\r\n{", stays=True) as (url, _):
        assert await called(url, within_s=0.1) == Delivery(True)


async def test_a_receiver_that_is_not_there_is_a_failure() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        delivery = await called(f"http://127.0.0.1:{unused.getsockname()[1]}/secret")
    assert not delivery.is_delivered
    assert "secret" not in delivery.why


async def test_a_name_is_judged_by_the_address_it_leads_to() -> None:
    """`localhost` is a name that leads within: under rules that call the public internet alone, a
    host that passed the first check is stopped before it is connected to."""

    class Fooled(WebhookRules):
        def check(self, text: str) -> Any:
            return LOOPBACK.check(text)

    async with answering(OK + b"\r\n") as (url, seen):
        for host in ("localhost", "127.0.0.1"):
            target = url.replace("127.0.0.1", host)
            delivery = await called(target, rules=Fooled(reach="public"))
            assert not delivery.is_delivered
        assert seen == []
        assert (await called(url.replace("127.0.0.1", "localhost"))).is_delivered


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(b"") as (proxy, asked):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        async with answering(OK + b"content-length: 0\r\n\r\n") as (url, seen):
            assert (await called(url)).is_delivered
        assert (len(seen), asked) == (1, [])


async def test_cancelling_a_call_closes_its_connection() -> None:
    async with receiver() as hook:
        hook.is_held = True
        task = asyncio.create_task(called(hook.url))
        await until(lambda: hook.calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

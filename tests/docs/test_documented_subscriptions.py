"""The page on subscriptions shows what is really sent, and its check of a signature works.

The page's commands are run in `test_documented_commands.py`; here its bodies are sent and compared.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from docs.documents import BIN, ROOT, blocks, serving, table
from subscribing import Receiver, receiver

PAGE = ROOT / "docs/build/subscriptions.md"
WAKE, CLAIM, ACK, WEBHOOK, CALL = (json.loads(block.text) for block in blocks(PAGE, "json"))
PATIENCE_S = 30.0


class Client:
    """Asks one server, and gives status and body."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self.session = session
        self.streams = f"{address}/v1/stream"

    async def ask(self, method: str, url: str, body: Any = None, token: str = "") -> Any:
        """Ask for a stream or a whole address."""
        if not url.startswith("http"):
            url = f"{self.streams}/{url}"
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        async with self.session.request(method, url, json=body, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def until(self, url: str, is_so: Callable[[Any], object]) -> Any:
        """Ask until the body is as it should be."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                _, body = await self.ask("GET", url)
                if is_so(body):
                    return body
                await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    folder: Path = tmp_path_factory.mktemp("webhooks")
    command = [str(BIN / "penstock"), "serve", "--port", "0", "--webhooks", "loopback"]
    with serving(command, folder) as found:
        yield found


def shape(value: Any) -> Any:
    """The keys and kinds of a value, without what it says."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: shape(inner) for key, inner in fields.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in cast("list[Any]", value)[:1]]
    return type(value).__name__


def genuine() -> Any:
    """The function that the page shows."""
    (block,) = blocks(PAGE, "python")
    known = {
        "base64": base64,
        "time": time,
        "Ed25519PublicKey": Ed25519PublicKey,
        "InvalidSignature": InvalidSignature,
    }
    exec(compile(block.text, block.where, "exec"), known)
    return known["is_genuine"]


async def called(calls: Receiver) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while not calls.calls:
            await asyncio.sleep(0.01)
    return calls.calls.pop(0)


async def test_a_pulling_worker_sends_and_gets_what_is_shown(address: str) -> None:
    below = "__ds/subscriptions/puller"
    async with aiohttp.ClientSession() as session:
        client = Client(session, address)
        config = {"type": "pull-wake", "pattern": "pulled/*", "wake_stream": "wake/puller"}
        await client.ask("PUT", "wake/puller")
        assert (await client.ask("PUT", below, config))[0] == 201
        await client.ask("PUT", "pulled/1", [{"do": "this"}])
        wakes = await client.until("wake/puller", bool)
        assert shape(wakes[0]) == shape(WAKE)
        status, claim = await client.ask("POST", f"{below}/claim", {"worker": "one"})
        assert (status, shape(claim)) == (200, shape(CLAIM))
        work = claim["streams"][0]
        ack = {
            "wake_id": claim["wake_id"],
            "generation": claim["generation"],
            "acks": [{"stream": work["path"], "offset": work["tail_offset"]}],
        }
        assert shape(ack | {"done": True}) == shape(ACK)
        assert (await client.ask("POST", f"{below}/ack", ack, claim["token"]))[0] == 200
        done = await client.ask("POST", f"{below}/ack", ack | {"done": True}, claim["token"])
        assert done[0] == 200
        assert "next_wake" in done[1]
        late = await client.ask("POST", f"{below}/ack", ack, claim["token"])
        assert (late[0], late[1]["code"]) == (409, "wake-fenced")


async def test_a_webhook_gets_what_is_shown_and_the_shown_check_tells_who_calls(
    address: str,
) -> None:
    below = "__ds/subscriptions/hooks"
    async with aiohttp.ClientSession() as session, receiver({"done": True}) as calls:
        client = Client(session, address)
        config = WEBHOOK | {"pattern": "hooked/*", "webhook": {"url": calls.url}}
        assert shape(config) == shape(WEBHOOK)
        assert (await client.ask("PUT", below, config))[0] == 201
        await client.ask("PUT", "hooked/1", [1])
        call = await called(calls)
        assert shape(call.body) == shape(CALL)
        _, jwks = await client.ask("GET", "__ds/jwks.json")
        is_genuine, signature = genuine(), call.headers["webhook-signature"]
        assert is_genuine(call.raw, signature, jwks)
        assert not is_genuine(call.raw + b" ", signature, jwks)
        old = signature.replace(signature.partition(",")[0], "t=1700000000")
        assert not is_genuine(call.raw, old, jwks)
        acked = call.body["streams"][0]["tail_offset"]

        def is_acked(body: Any) -> bool:
            return body["streams"][0]["acked_offset"] == acked

        await client.until(below, is_acked)


async def test_a_webhook_that_needs_longer_calls_back(address: str) -> None:
    below = "__ds/subscriptions/slow"
    async with aiohttp.ClientSession() as session, receiver({}) as calls:
        client = Client(session, address)
        config = WEBHOOK | {"pattern": "slow/*", "webhook": {"url": calls.url}}
        await client.ask("PUT", below, config)
        await client.ask("PUT", "slow/1", [1])
        call = (await called(calls)).body
        work = call["streams"][0]
        ack = {
            "wake_id": call["wake_id"],
            "generation": call["generation"],
            "acks": [{"stream": work["path"], "offset": work["tail_offset"]}],
            "done": True,
        }
        url, token = call["callback_url"], call["callback_token"]
        assert (await client.ask("POST", url, ack, token))[0] == 200
        assert (await client.ask("DELETE", below))[0] == 204


async def test_without_the_setting_a_webhook_is_refused_as_shown(server: str) -> None:
    rows = {
        cells[0]: cells[1] for cells in table("docs/build/subscriptions.md", "webhooks", "Called")
    }
    assert set(rows) == {"off", "loopback", "public"}
    async with aiohttp.ClientSession() as session:
        below = "__ds/subscriptions/none"
        status, problem = await Client(session, server).ask("PUT", below, WEBHOOK)
    assert f"{status} {problem['code']}" in rows["off"]

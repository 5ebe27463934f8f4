"""Streams whose names begin with `__` are the server's own: no address reaches them."""

from __future__ import annotations

import json

import pytest

from inprocess import call, serving
from penstock.core.record import EndReason
from penstock.server.app import ServerApp
from penstock.server.hub import Hub
from penstock.server.lane import Lane
from raw_http import ask

NAME = "__penstock/usage"
SPELLINGS = [
    "__penstock/usage",
    "%5F%5Fpenstock/usage",
    "_%5fpenstock/usage",
    "%5f_penstock/usage",
    "__",
    "__x",
    "__dsx/y",
]
JSON = {"Content-Type": "application/json"}
METHODS = [("stream", m) for m in ("GET", "HEAD", "PUT", "POST", "DELETE")]
METHODS += [("cancel", "POST"), ("streams", "GET"), ("streams", "HEAD")]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("where", "method"), METHODS)
async def test_no_address_reaches_them(where: str, method: str, spelling: str) -> None:
    async with Hub() as hub:
        stream = await hub.create(NAME)
        await stream.append("secret")
        for query in ("", "?live=events", "?offset=-1&live=sse", "?dialect=native"):
            called = await call(
                ServerApp(hub),
                method,
                f"/v1/{where}/{spelling}{query}",
                [(b"content-type", b"application/json")],
                b"1" if method in ("PUT", "POST") else b"",
            )
            assert (called.status, called.code) == (400, "name-malformed")
            assert b"secret" not in called.body
        assert len(await stream.records()) == 1
        assert stream.end is None
        assert [s.name for s in hub.streams()] == [NAME]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_the_lane_leaves_them_alone(spelling: str) -> None:
    """Which answers below ASGI, where only `penstock serve` is."""
    hub = Hub()
    async with serving(hub, bounds={"lane": Lane(hub)}) as server:
        stream = await hub.create(NAME)
        answer = await ask(server.port, "POST", f"/v1/stream/{spelling}", JSON, b"1")
        assert (answer.status, answer.code) == (400, "name-malformed")
        assert await stream.records() == []


@pytest.mark.parametrize("prefix", ["", "/", "/v1/stream/", "http://127.0.0.1/v1/stream/"])
@pytest.mark.parametrize("spelling", SPELLINGS[:4])
async def test_nobody_forks_them(prefix: str, spelling: str) -> None:
    async with Hub() as hub:
        stream = await hub.create(NAME)
        await stream.append("secret")
        headers = [(b"stream-forked-from", (prefix + spelling).encode())]
        called = await call(ServerApp(hub), "PUT", "/v1/stream/mine", headers)
        assert (called.status, called.code) == (400, "name-malformed")
        assert [s.name for s in hub.streams()] == [NAME]


async def test_the_program_itself_uses_them_as_any_other() -> None:
    async with Hub() as hub:
        stream = await hub.create(NAME)
        await stream.append(1)
        assert await hub.get(NAME) is stream
        assert [json.loads(record.payload) for record in await stream.records()] == [1]
        await stream.close()
        assert stream.end is EndReason.COMPLETE


@pytest.mark.parametrize("name", ["_a", "_a/__b", "a/__b", "a__", "_", "%5Fa"])
async def test_other_names_with_underscores_are_anybodys(name: str) -> None:
    async with Hub() as hub, serving(Hub(), bounds={}) as server:
        called = await call(ServerApp(hub), "PUT", f"/v1/stream/{name}")
        assert called.status == 201
        assert (await ask(server.port, "PUT", f"/v1/stream/{name}", JSON)).status == 201
        assert (await ask(server.port, "POST", f"/v1/stream/{name}", JSON, b"1")).status == 204

"""What a restart finds: every subscription, cursor, wake and key as the last answer said it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from inprocess import until
from penstock.backends.interface import Backend, Listed, StreamConfig
from penstock.backends.memory import MemoryBackend
from penstock.backends.sqlite import SqliteBackend
from penstock.core.errors import DiskFull, StoreDamaged
from penstock.core.record import NewRecord
from penstock.server.subscriptions import documents
from penstock.server.subscriptions.service import Subscriptions
from penstock.server.subscriptions.tokens import make_token
from subscribing import Subscribing, receiver, subscribing

PULL = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake", "lease_ttl_ms": 1000}


class Disk(MemoryBackend):
    """A store that outlives its hub, and that can be made to fail."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: 0.0, wall_clock=lambda: 2e9)
        self.is_full = False
        self.writes: list[tuple[str, str]] = []
        self.stop_after: int | None = None

    async def store_document(self, kind: str, name: str, body: bytes | None) -> None:
        await asyncio.sleep(0)
        if self.is_full or (self.stop_after is not None and len(self.writes) >= self.stop_after):
            raise DiskFull("/store")
        self.writes.append((kind, name))
        await super().store_document(kind, name, body)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Backend]:
    """Gives the same store at each call, as a restart finds it."""
    if request.param == "sqlite":
        return lambda: SqliteBackend(str(tmp_path / "streams.db"))
    disk = Disk()
    return lambda: disk


async def shown(world: Subscribing, id: str = "s") -> dict[str, Any]:
    called = await world.ask("GET", id)
    assert called.status == 200, called.body
    return dict(json.loads(called.body))


async def woken(world: Subscribing, times: int) -> None:
    async with asyncio.timeout(10):
        while len(await world.records("wake")) < times:
            await asyncio.sleep(0.002)


async def claim(world: Subscribing, worker: str = "one") -> dict[str, Any]:
    called = await world.ask("POST", "s/claim", {"worker": worker})
    assert called.status == 200, called.body
    return dict(json.loads(called.body))


async def test_a_restart_changes_nothing_that_was_answered(
    store: Callable[[], Backend],
) -> None:
    async with subscribing(store()) as world:
        await world.put("wake")
        await world.put("events/a", 1)
        await world.ask("PUT", "s", {**PULL, "streams": ["own"], "description": "ours"})
        await world.append("events/a", 2)
        await world.put("events/b", 1)
        claimed = await claim(world)
        said = {
            "wake_id": claimed["wake_id"],
            "generation": 1,
            "acks": [{"stream": "events/a", "offset": await world.tail("events/a")}],
        }
        await world.ask("POST", "s/ack", said, token=claimed["token"])
        before = await shown(world)

    async with subscribing(store()) as world:
        after = await shown(world)
        links = {link["path"]: link for link in after.pop("streams")}
        assert links == {link["path"]: link for link in before.pop("streams")}
        assert after == before
        assert (
            await world.ask("PUT", "s", {**PULL, "streams": ["own"], "description": "ours"})
        ).status == 200
        busy = await world.ask("POST", "s/claim", {"worker": "two"})
        assert (busy.status, busy.code) == (409, "wake-claimed")
        said["acks"] = [{"stream": "events/b", "offset": await world.tail("events/b")}]
        done = await world.ask("POST", "s/ack", {**said, "done": True}, token=claimed["token"])
        assert json.loads(done.body) == {"ok": True, "next_wake": False}


async def test_work_that_came_while_nobody_ran_wakes_after_the_restart() -> None:
    disk = Disk()
    async with subscribing(disk) as world:
        await world.put("wake")
        await world.put("events/a", 1)
        await world.ask("PUT", "s", {**PULL, "streams": ["own"]})
    await disk.append("events/a", [NewRecord(b"2")])
    await disk.create("events/new", StreamConfig(), [NewRecord(b"1")])
    await disk.create("events/empty", StreamConfig())
    await disk.create("own", StreamConfig())
    async with subscribing(disk) as world:
        await woken(world, 1)
        streams = {stream["path"]: stream for stream in (await claim(world))["streams"]}
        assert {path for path, stream in streams.items() if stream["has_pending"]} == {
            "events/a",
            "events/new",
        }
        assert streams["events/new"]["acked_offset"] == "-1"


async def test_a_stream_that_went_while_nobody_ran_is_followed_no_more() -> None:
    disk = Disk()
    async with subscribing(disk) as world:
        await world.put("wake")
        await world.put("events/a", 1)
        await world.put("own", 1)
        await world.ask("PUT", "s", {**PULL, "streams": ["own"]})
    await disk.delete("events/a")
    await disk.delete("own")
    async with subscribing(disk) as world:
        (link,) = (await shown(world))["streams"]
        assert link == {"path": "own", "link_type": "explicit", "acked_offset": "-1"}
    assert await disk.load_documents(documents.CURSORS) != {}
    async with subscribing(disk) as world:
        await world.ask("DELETE", "s")
    assert await disk.load_documents(documents.SUBSCRIPTIONS) == {}
    assert await disk.load_documents(documents.CURSORS) == {}


async def test_a_wake_under_way_when_the_hub_stops_is_delivered_after_the_restart(
    store: Callable[[], Backend],
) -> None:
    async with receiver({"done": True}) as hook:
        body = {"type": "webhook", "pattern": "events/*", "webhook": {"url": hook.url}}
        async with subscribing(store()) as world:
            hook.is_held = True
            signing = json.loads((await world.ask("PUT", "s", body)).body)["webhook"]["signing"]
            await world.put("events/a", 1)
            await until(lambda: hook.calls)
        hook.is_held = False
        async with subscribing(store()) as world:
            await until(lambda: len(hook.calls) == 2)
            first, second = (arrived.body for arrived in hook.calls)
            assert first == second, "the same wake with the same token"
            assert (await shown(world))["webhook"]["signing"] == signing, "and the same key"


async def test_a_wake_record_that_was_written_is_not_written_again(
    store: Callable[[], Backend],
) -> None:
    async with subscribing(store()) as world:
        await world.put("wake")
        await world.ask("PUT", "s", PULL)
        await world.put("events/a", 1)
        await woken(world, 1)
        await until(lambda: not world.hub.subscriptions.get("s").announcing)
    async with subscribing(store()) as world:
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(await world.records("wake")) == 1
        assert (await claim(world))["generation"] == 1


async def test_a_hub_that_is_opened_again_goes_on() -> None:
    async with subscribing() as world:
        await world.put("wake")
        await world.ask("PUT", "s", PULL)
        await world.hub.subscriptions.close()
        await world.hub.subscriptions.close()
        called = await world.ask("PUT", "t", PULL)
        assert (called.status, called.code) == (503, "draining")
        await world.put("events/a", 1)
        await world.hub.subscriptions.open()
        await world.hub.subscriptions.open()
        await woken(world, 1)


async def test_nothing_is_announced_or_answered_that_could_not_be_stored() -> None:
    disk = Disk()
    async with subscribing(disk) as world:
        await world.put("wake")
        await world.ask("PUT", "s", PULL)
        disk.is_full = True
        await world.put("events/a", 1)
        called = await world.ask("PUT", "t", PULL)
        assert (called.status, called.code) == (507, "disk-full")
        assert (await world.ask("GET", "t")).status == 404
        claimed = await world.ask("POST", "s/claim", {"worker": "one"})
        assert (claimed.status, claimed.code) == (507, "disk-full")
        assert await world.records("wake") == []
        disk.is_full = False
        await world.hub.tick(0.0)
        await until(lambda: not world.hub.subscriptions._machine.following.has_changes)
    async with subscribing(disk) as world:
        assert (await world.ask("GET", "t")).status == 404
        busy = await world.ask("POST", "s/claim", {"worker": "two"})
        assert busy.code == "wake-claimed"


@pytest.mark.parametrize("writes", range(12))
async def test_a_crash_between_two_writes_loses_no_cursor(writes: int) -> None:
    """A create is five writes here and a delete five more. Wherever they break off, no restart
    finds one that begins at the wrong place, and none that was answered for is gone."""
    disk = Disk()
    async with subscribing(disk) as world:
        await world.put("wake")
        for n in range(4):
            await world.put(f"events/{n}", n)
        disk.writes.clear()
        disk.stop_after = writes
        called = await world.ask("PUT", "s", PULL)
        assert called.status == (201 if writes >= 5 else 507)
        if called.status == 201:
            await world.ask("DELETE", "s")
    disk.stop_after = None
    async with subscribing(disk) as world:
        found = await world.ask("GET", "s")
        if found.status == 200:
            links = json.loads(found.body)["streams"]
            assert all(link["acked_offset"] != "-1" for link in links), links
            assert len(links) == 4
        else:
            assert writes != 5, "answered for, and not deleted"
    async with subscribing(disk):
        kept = await disk.load_documents(documents.CURSORS)
        assert found.status == 200 or kept == {}, "what a crash left behind is swept"


@pytest.mark.parametrize(
    ("kind", "name", "body"),
    [
        (documents.SUBSCRIPTIONS, "s", b"{"),
        (documents.SUBSCRIPTIONS, "s", b'{"config":{"type":"email"}}'),
        (documents.CURSORS, "s/events/a", b'{"acked":"nowhere"}'),
        (documents.KEYS, "token", b"short"),
        (documents.KEYS, "ed25519", b"short"),
    ],
)
async def test_a_damaged_document_is_refused_and_left_as_it_is(
    kind: str, name: str, body: bytes
) -> None:
    disk = Disk()
    async with subscribing(disk) as world:
        await world.ask("PUT", "s", PULL)
    await disk.store_document(kind, name, body)
    with pytest.raises(StoreDamaged):
        async with subscribing(disk):
            pass
    assert (await disk.load_documents(kind))[name] == body


class Plain:
    """A backend with the six methods and nothing beside them."""

    def __init__(self) -> None:
        self._inner = MemoryBackend(clock=lambda: 0.0, wall_clock=lambda: 2e9)
        for method in ("create", "append", "read", "head", "delete", "watch"):
            setattr(self, method, getattr(self._inner, method))


async def test_a_backend_that_keeps_no_documents_and_lists_nothing_will_do() -> None:
    async with subscribing(Plain()) as world:  # type: ignore[arg-type]
        await world.put("wake")
        await world.put("events/old", 1)
        await world.ask("PUT", "s", {**PULL, "streams": ["events/old"]})
        await world.put("events/new", 1)
        await woken(world, 1)
        assert (await claim(world))["streams"][0]["path"] == "events/new"


async def test_a_stream_that_a_store_forgot_without_a_word_is_noticed() -> None:
    backend = Plain()
    async with subscribing(backend) as world:  # type: ignore[arg-type]
        await world.put("wake")
        await world.put("events/a", 1)
        await world.put("events/b", 1)
        await world.ask("PUT", "s", {**PULL, "streams": ["events/a", "events/b"]})
        inner = backend._inner
        inner._kept("events/a").listeners.clear()
        await inner.delete("events/a")
        before = {link["path"]: link["acked_offset"] for link in (await shown(world))["streams"]}
        assert before["events/a"] != "-1"
        await world.hub.tick(world.hub.clock())
        async with asyncio.timeout(10):
            while (await shown(world))["streams"][0]["acked_offset"] != "-1":
                await asyncio.sleep(0.002)
        after = {link["path"]: link["acked_offset"] for link in (await shown(world))["streams"]}
        assert after == before | {"events/a": "-1"}


class Paged(Disk):
    """A store whose listing is slow enough for things to happen in between."""

    def __init__(self) -> None:
        super().__init__()
        self.listing = asyncio.Event()
        self.go_on = asyncio.Event()

    async def list(self, prefix: str, after: str, limit: int) -> Sequence[Listed]:
        found = await super().list(prefix, after, limit)
        self.listing.set()
        await self.go_on.wait()
        return found


async def test_what_happens_while_a_subscription_is_made_is_neither_lost_nor_repeated() -> None:
    disk = Paged()
    async with subscribing(disk) as world:
        await world.put("wake")
        for name in ("kept", "grows", "goes"):
            await world.put(f"events/{name}", 1)
        made = asyncio.create_task(world.ask("PUT", "s", PULL))
        await disk.listing.wait()
        await world.append("events/grows", 2)
        await world.hub.delete("events/goes")
        await world.put("events/comes", 1)
        disk.go_on.set()
        called = await made
        assert called.status == 201
        links = {x["path"]: x["acked_offset"] for x in json.loads(called.body)["streams"]}
        assert links == {
            "events/kept": await world.tail("events/kept"),
            "events/grows": await world.tail("events/grows"),
            "events/comes": "-1",
        }
        await woken(world, 1)


async def test_a_request_that_is_cancelled_leaves_no_half_subscription() -> None:
    disk = Paged()
    async with subscribing(disk) as world:
        await world.put("wake")
        await world.put("events/a", 1)
        made = asyncio.create_task(world.ask("PUT", "s", PULL))
        await disk.listing.wait()
        made.cancel()
        await asyncio.wait([made])
        disk.go_on.set()
        assert (await world.ask("GET", "s")).status == 404
        assert (await world.ask("PUT", "s", {**PULL, "lease_ttl_ms": 2000})).status == 201


async def test_a_hub_that_nobody_opened_makes_no_tokens_that_anybody_could() -> None:
    async with subscribing() as world:
        await world.put("wake")
        subs = world.hub.subscriptions = Subscriptions(world.hub)
        try:
            await world.ask("PUT", "s", PULL)
            await world.put("events/a", 1)
            claimed = await claim(world)
            forged = make_token(b"", "s", 1, claimed["wake_id"])
            assert claimed["token"] != forged
        finally:
            await subs.close()

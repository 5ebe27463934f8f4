"""Where subscriptions are kept: in the backend's documents, or in memory where it keeps none.

A restart finds what was stored, and looks at every stream for what happened since.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from penstock.backends.interface import Backend, Documents, Lists, ReadsNow
from penstock.core.cursor import Offset
from penstock.core.errors import StoreDamaged, StreamGone, StreamNotFound, WebhooksOff
from penstock.core.limits import STORES_AT_ONCE
from penstock.core.log import Head
from penstock.server.subscriptions import documents
from penstock.server.subscriptions.following import Changes, Following
from penstock.server.subscriptions.signing import SEED_BYTES, SigningKey
from penstock.server.subscriptions.tokens import KEY_BYTES

logger = logging.getLogger("penstock")

PAGE: Final = 1_000


class Keys(NamedTuple):
    """What tokens are made with, and what webhooks are signed with, where they can be."""

    token: bytes
    signing: SigningKey | None


class Keeper:
    """Stores what changed and reads it back."""

    def __init__(
        self, backend: Backend, *, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        self._backend = backend
        self._documents = backend if isinstance(backend, Documents) else None
        self._clock = clock
        self._wall_clock = wall_clock
        self._is_storing = asyncio.Lock()

    # reading

    @property
    def keeps(self) -> bool:
        """Whether what is stored outlives this process's memory of it."""
        return self._documents is not None

    async def restore(self, following: Following) -> None:
        """Read every subscription and cursor. Raises StoreDamaged, StoreFailed."""
        if self._documents is not None:
            documents.restore(
                following,
                await self._documents.load_documents(documents.SUBSCRIPTIONS),
                await self._documents.load_documents(documents.CURSORS),
                self._clock(),
                self._wall_clock(),
            )

    async def load_keys(self, *, with_signing: bool) -> Keys:
        """Give the keys, made now where there are none. Raises StoreDamaged, StoreFailed."""
        token = await self._key("token", KEY_BYTES)
        if not with_signing:
            return Keys(token, None)
        try:
            return Keys(token, SigningKey(await self._key("ed25519", SEED_BYTES)))
        except WebhooksOff as error:
            logger.warning("%s", error.sentence)
            return Keys(token, None)

    async def _key(self, name: str, size: int) -> bytes:
        if self._documents is None:
            return secrets.token_bytes(size)
        kept = (await self._documents.load_documents(documents.KEYS)).get(name)
        if kept is None:
            kept = secrets.token_bytes(size)
            await self._documents.store_document(documents.KEYS, name, kept)
        if len(kept) != size:
            raise StoreDamaged(f"key {name}", f"it has {len(kept)} bytes")
        return kept

    async def tail(self, name: str) -> Offset | None:
        """Say where a stream ends; None where there is none."""
        try:
            head, _ = await self._backend.head(name)
        except (StreamNotFound, StreamGone):
            return None
        return head.tail_offset

    @property
    def forgets_silently(self) -> bool:
        """Whether a stream can expire without anybody here hearing of it."""
        return not isinstance(self._backend, ReadsNow)

    async def every_stream(self) -> AsyncGenerator[tuple[str, Head]]:
        """Give every stream, where the backend can list them."""
        if isinstance(self._backend, Lists):
            after = ""
            while page := await self._backend.list("", after, PAGE):
                for listed in page:
                    yield listed.name, listed.head
                after = page[-1].name
                await asyncio.sleep(0)  # a store in memory lists without waiting

    async def followed_streams(self, following: Following) -> AsyncGenerator[tuple[str, Head]]:
        """Give every stream there is that could be followed: those that are, at least."""
        if isinstance(self._backend, Lists):
            async for found in self.every_stream():
                yield found
            return
        for name in {name for sub in following.subscriptions.values() for name in sub.links}:
            with suppress(StreamNotFound, StreamGone):
                head, _ = await self._backend.head(name)
                yield name, head

    # writing

    async def store(self, following: Following) -> None:
        """Store every change made until now. Returns after commit. Raises StoreFailed, DiskFull.

        One at a time: what is taken is in the order it was made, and a later caller finds its
        change stored already, or takes it.
        """
        async with self._is_storing:
            changes = following.take_changes()
            try:
                if self._documents is not None:
                    await self._write(self._documents, following, changes)
            except BaseException:
                following.not_stored()
                raise
            following.stored()

    async def _write(self, store: Documents, following: Following, changes: Changes) -> None:
        """Write in an order that a crash may break off anywhere: no subscription is without its
        cursors, since it would then begin with everything that its pattern means."""
        now, wall = self._clock(), self._wall_clock()
        bodies = {
            id: documents.encode_subscription(following, id, now, wall)
            for id in changes.subscriptions
        }
        cursors = {
            documents.cursor_name(id, name): documents.encode_cursor(following, id, name)
            for id, name in changes.cursors
        }
        gone = {id: body for id, body in bodies.items() if body is None}
        there = {id: body for id, body in bodies.items() if body is not None}
        await _write_all(store, documents.SUBSCRIPTIONS, gone)
        await _write_all(store, documents.CURSORS, cursors)
        await _write_all(store, documents.SUBSCRIPTIONS, there)


async def _write_all(store: Documents, kind: str, bodies: Mapping[str, bytes | None]) -> None:
    todo = list(bodies.items())
    for start in range(0, len(todo), STORES_AT_ONCE):
        results = await asyncio.gather(
            *(store.store_document(kind, *item) for item in todo[start : start + STORES_AT_ONCE]),
            return_exceptions=True,  # so that none of them is under way when this raises
        )
        for result in results:
            if result is not None:
                raise result

"""Requests to a server that dies: asked again, or not, and never taken for answered when they
were not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress

from crash.served import Served
from penstock.core.cursor import Offset, parse_offset
from raw_http import Answer, BodyCut, Connection, connect

FRESH_S = 3.0
"""Idleness after which a connection is opened anew: the server closes idle ones after five."""
AGAIN_S = 0.01


class Line:
    """One client's connection, opened again whenever it has to be."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._connection: Connection | None = None
        self._stack = AsyncExitStack()
        self._used_at = 0.0

    async def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer | None:
        """Ask once, when there is a server. None: it died first, and nobody knows what it did."""
        connection = await self._connected()
        try:
            answer = await connection.ask(method, target, headers, body)
        except TimeoutError:
            raise AssertionError(f"no answer to {method} {target}") from None
        except (OSError, BodyCut, asyncio.IncompleteReadError):
            await self.hang_up()
            return None
        self._used_at = asyncio.get_running_loop().time()
        if answer.all("connection") == ["close"]:
            await self.hang_up()
        return answer

    async def cut(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        """Ask, and hang up before there can be an answer."""
        connection = await self._connected()
        with suppress(OSError):
            await connection.send(method, target, headers, body)
            await asyncio.sleep(0)
        await self.hang_up()

    async def insist(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[Answer, bool]:
        """Ask until there is an answer; also says whether an earlier attempt may have been heard.

        503 is no answer: the server is going away and did nothing.
        """
        may_be_heard = False
        while True:
            answer = await self.ask(method, target, headers, body)
            if answer is None:
                may_be_heard = True
            elif answer.status != 503:
                return answer, may_be_heard
            await asyncio.sleep(AGAIN_S)

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._connection is not None and loop.time() - self._used_at > FRESH_S:
            await self.hang_up()
        while self._connection is None:
            await self._served.up.wait()
            try:
                self._connection = await self._stack.enter_async_context(connect(self._served.port))
            except OSError:
                await asyncio.sleep(AGAIN_S)
        return self._connection

    async def hang_up(self) -> None:
        self._connection = None
        await self._stack.aclose()


def offset_of(answer: Answer) -> Offset:
    """The offset that an answer gives."""
    return parse_offset(answer["stream-next-offset"])


def path_of(name: str) -> str:
    return f"/v1/stream/{name}"

"""Connections to providers: made, kept and lent by aiohttp's connector.

It knows names, addresses of both families, TLS and which idle connection is still good, and that
is all that is taken from it. What goes over a connection is `exchange.py`'s: aiohttp's own reader
of answers costs twice as much a token (11 µs against 5, of which the kernel has most), and waits
for ever where the framing of a body breaks (aiohttp 3.14). How many connections there may be is
`slots.py`'s to say, not the pool's.
"""

from __future__ import annotations

import asyncio
from weakref import WeakSet

import aiohttp
from aiohttp.connector import BaseConnector, Connection
from yarl import URL

from penstock.core.limits import UPSTREAM_DNS_S, UPSTREAM_KEEP_ALIVE_S


class Lent:
    """A connection that nobody else has until it is given back or closed.

    Attributes:
        transport: to be spoken over. Its protocol is the borrower's to set.
        is_reused: another request had it before. It may be dead, and nobody could know.
    """

    __slots__ = ("_connection", "_keeper", "_others", "is_reused", "transport")

    def __init__(
        self,
        connection: Connection,
        keeper: asyncio.Protocol,
        transport: asyncio.Transport,
        others: set[Lent],
        *,
        is_reused: bool,
    ) -> None:
        self._connection, self._keeper = connection, keeper
        self.transport, self.is_reused = transport, is_reused
        self._others = others
        others.add(self)

    def give_back(self) -> None:
        """Let another request have it. Nothing may be on its way in either direction."""
        self._others.discard(self)
        self.transport.set_protocol(self._keeper)
        self._connection.release()

    def abort(self) -> None:
        """Close it now. Closing alone would wait until what is to be sent was taken."""
        self._others.discard(self)
        self.transport.set_protocol(self._keeper)
        self.transport.abort()
        self._connection.close()

    def lost(self, error: Exception | None) -> None:
        """It is gone; whoever keeps it is told."""
        self._others.discard(self)
        self._keeper.connection_lost(error)
        self._connection.close()


class Connections:
    """The pool. `connector` lends one of somebody else's; without it, this has its own."""

    def __init__(self, connector: BaseConnector | None = None) -> None:
        self._is_own = connector is None
        self._connector = connector or _make_connector()
        self._known: WeakSet[asyncio.Protocol] = WeakSet()
        self._lent: set[Lent] = set()

    @property
    def lent(self) -> int:
        """Connections that somebody has."""
        return len(self._lent)

    async def take(self, url: URL, within_s: float) -> Lent:
        """A connection to where `url` is. Cancelling leaves none behind.

        Raises:
            TimeoutError: there was none in time.
            aiohttp.ClientError: there is none to be had.
        """
        request = aiohttp.ClientRequest("GET", url, loop=asyncio.get_running_loop())
        timeout = aiohttp.ClientTimeout(total=None, connect=within_s)
        while True:
            connection = await self._connector.connect(request, [], timeout)
            keeper, transport = connection.protocol, connection.transport
            if keeper is None or transport is None or keeper.should_close:
                # It said something while it was idle: good-bye, as a rule.
                connection.close()
                continue
            is_reused = keeper in self._known
            self._known.add(keeper)
            return Lent(connection, keeper, transport, self._lent, is_reused=is_reused)

    async def close(self) -> None:
        """Close all of them."""
        for lent in [*self._lent]:
            lent.abort()
        if self._is_own:
            await self._connector.close()


def _make_connector() -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(  # pyright: ignore[reportUnknownMemberType]  # a bare tuple in it
        limit=0,
        ttl_dns_cache=int(UPSTREAM_DNS_S),
        keepalive_timeout=UPSTREAM_KEEP_ALIVE_S,
    )

"""One request and its answer over one connection: HTTP/1.1, spoken by llhttp.

The connection is borrowed: for the time of the exchange its transport speaks to this protocol,
afterwards to its keeper again. The answer's body is bytes in the order in which they came; there is
no task, no timer and no copy. What is unread is bounded, by pausing the connection.

A body ends when HTTP says so, when the connection ends, or when what comes is not HTTP any more.
Which of these it was makes no difference to who reads it: a dialect knows itself what it lacks.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Final

import httptools
from yarl import URL

from penstock.core.limits import HEADER_BYTES, UPSTREAM_BUFFER_BYTES
from penstock.gateway.connections import Lent

# Nothing that comes from a caller may begin a header of its own.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def head_of(method: str, url: URL, headers: Mapping[str, str], body_bytes: int) -> bytes:
    """A request's head."""
    lines = [f"{method} {url.raw_path_qs} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {body_bytes}"]
    return "".join(f"{_CONTROLS.sub(' ', line)}\r\n" for line in lines).encode() + b"\r\n"


class HttpExchange(asyncio.Protocol):
    """A request that was sent, and what comes back.

    Attributes:
        status: of the answer; 0 until its head is there.
        reason: the words beside it.
        headers: of the answer, names in lower case.
        is_ended: nothing more will come.
        is_malformed: what came is not HTTP.
        on_data: called when something came that is waited for, and the answer goes on; where it
            says that this was dealt with, nobody is woken.
    """

    __slots__ = (
        "_held",
        "_is_discarding",
        "_is_keepable",
        "_is_paused",
        "_lent",
        "_make_future",
        "_parser",
        "_pieces",
        "_silent",
        "_waiter",
        "headers",
        "is_ended",
        "is_malformed",
        "on_data",
        "reason",
        "status",
    )

    def __init__(self, lent: Lent, head: bytes, body: bytes) -> None:
        """Sends the request."""
        self.status, self.reason = 0, ""
        self.headers: dict[str, str] = {}
        self.is_ended = self.is_malformed = False
        self._lent: Lent | None = lent
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._held = 0
        self._silent = 0  # bytes since the last that meant something
        self._is_paused = self._is_discarding = self._is_keepable = False
        self._waiter: asyncio.Future[None] | None = None
        self.on_data: Callable[[], bool] | None = None
        self._make_future = asyncio.get_running_loop().create_future
        lent.transport.set_protocol(self)
        lent.transport.writelines([head, body])

    def take(self) -> bytes:
        """What came since the last call; nothing where that is nothing."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        if self._is_paused:
            self._resume()
        return data

    def more(self) -> asyncio.Future[None]:
        """Done when there is more to take, or the head is there, or nothing more will come.

        Not to be called once the exchange is ended; one at a time may wait.
        """
        self._waiter = waiter = self._make_future()
        return waiter

    def discard(self) -> None:
        """Throw away what still comes. A body that ends soon gives its connection back."""
        self._is_discarding = True
        self.take()

    def abort(self) -> None:
        """Close the connection at once, unless it was given back."""
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.abort()
        self._end()

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        self._silent += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_malformed = not self.is_ended
            self.abort()
            return
        # An endless header, chunk extension or trailer says nothing, at any length.
        if self._silent > HEADER_BYTES and not self.is_ended:
            self.is_malformed = True
            self.abort()
        elif self.is_ended:
            self._let_go()
        elif self._waiter is not None and self._pieces:
            if self.on_data is None or not self.on_data():
                self._wake()
        elif self._held > 2 * UPSTREAM_BUFFER_BYTES and not self._is_paused:
            self._hold_up()

    def connection_lost(self, exc: Exception | None) -> None:
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.lost(exc)
        self._end()

    # What the parser calls.

    def on_status(self, status: bytes) -> None:
        if not self.is_ended:
            self.reason += status.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else a trailer
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.is_ended:
            return
        if status < 200:  # "100 Continue" and its like, before the answer
            self.headers, self.reason = {}, ""
            return
        self.status = status
        self._silent = 0
        self._wake()

    def on_body(self, body: bytes) -> None:
        self._silent = 0
        self._held += len(body)
        if self._is_discarding or self.is_ended:
            return
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self.status and not self.is_ended:
            self._is_keepable = self._parser.should_keep_alive()
            self._end()

    def on_message_begin(self) -> None:
        # Behind the whole answer comes another, which nobody asked for.
        if self.is_ended:
            self._is_keepable = False

    def _let_go(self) -> None:
        """Gives the connection back after a whole answer, or closes it."""
        lent = self._lent
        if lent is None:
            return
        if not self._is_keepable or lent.transport.get_write_buffer_size():
            self.abort()
            return
        self._lent = None
        if self._is_paused:
            lent.transport.resume_reading()
        lent.give_back()

    def _end(self) -> None:
        self.is_ended = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _hold_up(self) -> None:
        """More is unread than may be; of what nobody will read, more came than is waited for."""
        if self._is_discarding:
            self.abort()
        elif self._lent is not None:
            self._is_paused = True
            self._lent.transport.pause_reading()

    def _resume(self) -> None:
        self._is_paused = False
        if self._lent is not None:
            self._lent.transport.resume_reading()

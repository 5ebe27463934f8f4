"""The portable path: a reader served by ASGI `send`, under any ASGI server.

The same cursor, the same bytes, the same behaviour as the fast path; it costs a task and one
`await send` per reader and write. One watcher listens to `receive()`, because after a hang-up
`send()` succeeds silently on every server measured. Each send has a deadline, and gives the loop a
turn afterwards: on uvicorn a send that does not pause never yields.
"""

from __future__ import annotations

import asyncio

from penstock.core.subscription import Subscription
from penstock.server.asgi import Receive, Send
from penstock.server.reader import Reader
from penstock.server.stream import Stream
from penstock.server.view import View


class PortableReader(Reader):
    """A reader whose task sleeps while it is level, and is woken by the view."""

    __slots__ = (
        "_deadline",
        "_drain_ms",
        "_drain_reason",
        "_heartbeat_due",
        "_is_gone",
        "_wakeup",
    )

    transport_name = "portable"

    def __init__(
        self,
        stream: Stream,
        view: View,
        subscription: Subscription,
        *,
        opened_at: float,
        is_visible: bool = False,
        ends_at: float | None = None,
    ) -> None:
        super().__init__(
            stream,
            view,
            subscription,
            opened_at=opened_at,
            is_visible=is_visible,
            ends_at=ends_at,
        )
        self._wakeup: asyncio.Future[None] | None = None
        self._heartbeat_due = False
        self._is_gone = False
        self._drain_ms: int | None = None
        self._drain_reason = "drained"
        self._deadline: asyncio.Timeout | None = None  # of the send that is under way

    async def run(self, receive: Receive, send: Send, preamble: bytes) -> None:
        """Serve until the end, the hang-up, a drain or a stall; the head has been sent."""
        hub = self.stream.hub
        watcher = asyncio.create_task(self._watch(receive))
        hub.reader_opened(self)
        reason = "gone"
        try:
            reason = await self._serve(send, preamble)
        except TimeoutError:
            reason = "stalled"
            raise
        finally:
            self.view.sleepers.pop(self, None)
            hub.reader_closed(self, reason)
            watcher.cancel()
            await asyncio.wait([watcher])

    async def _serve(self, send: Send, preamble: bytes) -> str:
        hub = self.stream.hub
        if hub.is_draining:  # admitted just before the drain began, and not among those it told
            self._drain_ms = hub.draw_retry_ms()
        if preamble:
            await self._send(send, preamble)
        while not self._is_gone:
            if self._drain_ms is not None:
                last = self.view.form.drain(self._drain_ms, self.place)
                await self._send(send, last, more=False)
                return self._drain_reason
            body = None if self.is_loading else self.step()
            if body or self.is_done:
                await self._send(send, body or b"", more=not self.is_done)
                if self.is_done:
                    return "ended"
            elif body is not None and not self.is_loading:
                await asyncio.sleep(0)  # a step that says nothing, maybe after work
            elif self._heartbeat_due:
                self._heartbeat_due = False
                await self._send(send, self.heartbeat_bytes())
            else:
                await self._sleep()
        return "gone"

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(self.stream.hub.settings.stall_s) as self._deadline:
            await send({"type": "http.response.body", "body": body, "more_body": more})
        self._deadline = None
        await asyncio.sleep(0)

    async def _sleep(self) -> None:
        """Wait to be woken. There is no deadline here: the view wakes for every heartbeat, and the
        store answers every load."""
        self._wakeup = asyncio.get_running_loop().create_future()
        if not self.is_loading:
            self.view.sleepers[self] = None
        try:
            await self._wakeup
        finally:
            self.view.sleepers.pop(self, None)
            self._wakeup = None

    async def _watch(self, receive: Receive) -> None:
        """Wait for the hang-up. Ends with the reader."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self.wake()

    def wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def heartbeat(self) -> None:
        self._heartbeat_due = True
        self.wake()

    def drain(self, retry_ms: int, reason: str = "drained") -> None:
        self._drain_ms, self._drain_reason = retry_ms, reason
        self.wake()

    def abort(self) -> None:
        self._is_gone = True
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(0.0)  # a send that waits for a stuck client ends now
        self.wake()

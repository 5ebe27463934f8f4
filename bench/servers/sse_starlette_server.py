"""sse-starlette, as its documentation uses it: a queue for each subscriber, on uvicorn with uvloop.

The separator is set to LF (its default is CRLF), so that the bytes are those of the other servers.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from bench.servers import pacing


class Server:
    """One channel: every event is put into the queue of every subscriber."""

    def __init__(self) -> None:
        self.settings = pacing.Settings.from_environment()
        self.listener = pacing.listen()
        self.queues: set[asyncio.Queue[ServerSentEvent]] = set()

    def event(self, index: int) -> ServerSentEvent:
        data = pacing.payload(index, self.settings.payload_bytes).decode()
        return ServerSentEvent(data=data, id=f"{index + 1:010d}", sep="\n")

    def emit(self, index: int) -> None:
        event = self.event(index)
        for queue in self.queues:
            queue.put_nowait(event)

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue()
        self.queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.queues.discard(queue)

    async def own_events(self) -> AsyncIterator[ServerSentEvent]:
        """A stream of its own for each request: the generator is the publisher."""
        for index in itertools.count():
            await asyncio.sleep(1 / self.settings.rate)
            yield self.event(index)

    async def endpoint(self, request: Request) -> EventSourceResponse:
        events = self.own_events() if self.settings.streams else self.events()
        return EventSourceResponse(events, sep="\n")

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncGenerator[None]:
        publisher = asyncio.create_task(pacing.publish(self.settings, self.emit))
        pacing.announce(self.listener.getsockname()[1])
        yield
        publisher.cancel()

    def run(self) -> None:
        app = Starlette(
            routes=[Route("/events", self.endpoint), Route("/events/{number}", self.endpoint)],
            lifespan=self.lifespan,
        )
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, backlog=4096, loop="uvloop"
        )
        uvicorn.Server(config).run(sockets=[self.listener])


if __name__ == "__main__":
    Server().run()

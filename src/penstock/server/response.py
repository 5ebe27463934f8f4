"""A stream as a response: what an endpoint of anybody's application returns.

FastAPI and Starlette pass a response through untouched only when it is one of Starlette's, so
where Starlette is installed it is; elsewhere it is a plain ASGI application. Both do the same.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

from penstock.core.errors import PenstockError
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.problem import send_problem

if TYPE_CHECKING:
    from penstock.server.stream import Stream


class StreamResponse:
    """An ASGI application that streams one stream to whoever made the request."""

    def __init__(self, stream: Stream, last_event_id: str | None = None) -> None:
        self.stream = stream
        self.last_event_id = last_event_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the end or the hang-up; the fast path returns at once."""
        from penstock.server.endpoints.read import ReadRequest, serve_events

        try:
            request = ReadRequest.of_response(scope, self.last_event_id)
            await serve_events(self.stream, request, scope, receive, send)
        except PenstockError as error:
            await send_problem(send, error)


def make_response(stream: Stream, last_event_id: str | None) -> StreamResponse:
    """Make the response: of Starlette's kind where Starlette is in use."""
    if "starlette" in sys.modules:
        return _starlette_response()(stream, last_event_id)
    return StreamResponse(stream, last_event_id)


@cache
def _starlette_response() -> type[StreamResponse]:
    from starlette.responses import Response

    class StarletteStreamResponse(StreamResponse, Response):
        """Starlette's `Response` in name, so that frameworks hand it through."""

        def __init__(self, stream: Stream, last_event_id: str | None = None) -> None:
            Response.__init__(self, media_type="text/event-stream")
            StreamResponse.__init__(self, stream, last_event_id)

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await StreamResponse.__call__(self, scope, receive, send)
            if self.background is not None:
                await self.background()

    return StarletteStreamResponse

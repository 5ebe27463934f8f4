"""One request to the gateway: what came, and how it is answered in its dialect.

Whatever goes wrong before a response has begun is told as the client's SDK knows it: the right
status and the dialect's own error, so that the SDK raises its own exception. A program that speaks
none of them, or the native one, is told a problem (RFC 9457), as everywhere else here.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import msgspec

from penstock.core.errors import Draining, MethodNotAllowed, Overloaded, PenstockError
from penstock.core.gateway_errors import BudgetExhausted, KeyRefused, UpstreamBusy
from penstock.gateway.answers import Answers, Caller
from penstock.llm.events import Failure
from penstock.llm.write.dialects import OutDialect
from penstock.llm.write.writer import JSON, Body, http_status
from penstock.server.asgi import Message, Receive, Scope, Send
from penstock.server.fastpath import EXTENSION
from penstock.server.hub import Hub
from penstock.server.problem import RETRY_AFTER_S
from penstock.wire import http

PROBLEM: Final = "application/problem+json"


class Exchange:
    """One request and its response. `name` is what its address names, decoded; "" for nothing.

    `has_started` says whether the response's head is out: from then on nothing can be told.
    """

    __slots__ = (
        "_hang_up",
        "_send",
        "answers",
        "dialect",
        "has_started",
        "name",
        "receive",
        "scope",
    )

    def __init__(
        self,
        answers: Answers,
        dialect: OutDialect,
        name: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self.answers = answers
        self.dialect = dialect
        self.name = name
        self.scope = scope
        self.receive = receive
        self.has_started = False
        self._send = send
        self._hang_up: asyncio.Task[None] | None = None

    @property
    def hub(self) -> Hub:
        """Where answers are kept."""
        return self.answers.hub

    @property
    def root(self) -> str:
        """The path that the gateway is mounted at; "" for none."""
        return quote(self.scope.get("root_path") or "")

    def caller(self) -> Caller:
        """Who asks. Raises KeyRefused."""
        return self.answers.caller(self.scope)

    def header(self, name: bytes) -> str | None:
        """A header of the request."""
        return http.header(self.scope["headers"], name)

    def query(self) -> dict[str, str]:
        """The request's query. Raises QueryMalformed."""
        return http.query_parameters(self.scope["query_string"])

    def watch(self) -> asyncio.Task[None]:
        """Watch for the client's hang-up: the task that ends with it, always the same. Meanwhile
        nobody else may call `receive`."""
        if self._hang_up is None:
            self._hang_up = asyncio.create_task(_hang_up(self.receive))
        return self._hang_up

    async def stop_watching(self) -> None:
        """Watch no longer, and let others call `receive`."""
        if self._hang_up is not None:
            self._hang_up.cancel()
            # Who takes the transport over calls it no more, and need not wait a turn of the loop.
            if EXTENSION not in self.scope.get("extensions", {}):
                await asyncio.wait([self._hang_up])

    async def close(self) -> None:
        """Let go of everything; the last to be called."""
        if self._hang_up is not None:
            self._hang_up.cancel()
            await asyncio.wait([self._hang_up])

    async def send(self, message: Message) -> None:
        """Send an ASGI message."""
        self.has_started = self.has_started or message["type"] == "http.response.start"
        await self._send(message)

    async def respond(self, body: Body, headers: http.Headers | None = None) -> None:
        """Send a whole response."""
        all_headers: http.Headers = [
            (b"content-type", body.media_type.encode()),
            (b"content-length", b"%d" % len(body.data)),
            (b"cache-control", b"no-store"),
            *http.SECURITY_HEADERS,
            *(headers or ()),
        ]
        start = {"type": "http.response.start", "status": body.status, "headers": all_headers}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body.data, "more_body": False})

    async def respond_json(
        self, value: object, *, status: int = 200, headers: http.Headers | None = None
    ) -> None:
        """Send a value as JSON."""
        body = Body(status=status, media_type=JSON, data=msgspec.json.encode(value))
        await self.respond(body, headers)

    async def respond_empty(self, headers: http.Headers | None = None) -> None:
        """Send that there is nothing to send: 204."""
        all_headers: http.Headers = [(b"cache-control", b"no-store"), *(headers or ())]
        await self.send({"type": "http.response.start", "status": 204, "headers": all_headers})
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, error: PenstockError) -> None:
        """Send what went wrong before there was an answer."""
        failure = Failure(message=error.sentence, code=error.code, status=error.status)
        await self.fail(failure, _headers_of(error))

    async def fail(self, failure: Failure, headers: http.Headers | None = None) -> None:
        """Send what an answer failed of."""
        if failure.retry_after_s is not None:
            headers = [*(headers or ()), (b"retry-after", b"%d" % failure.retry_after_s)]
        write = self.dialect.write_error
        await self.respond(_problem(failure) if write is None else write(failure), headers)


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _problem(failure: Failure) -> Body:
    status = http_status(failure)
    known = status in {each.value for each in HTTPStatus}
    value = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase if known else "Error",
        "status": status,
        "code": failure.code,
        "detail": failure.message,
    }
    return Body(status=status, media_type=PROBLEM, data=msgspec.json.encode(value))


def _headers_of(error: PenstockError) -> http.Headers:
    match error:
        case MethodNotAllowed():
            return [(b"allow", error.allowed.encode())]
        case KeyRefused():
            return [(b"www-authenticate", b"Bearer")]
        case BudgetExhausted():
            # The vendors' SDKs try a 429 again at once where the time to wait is long; this header
            # of theirs stops that.
            headers: http.Headers = [(b"x-should-retry", b"false")]
            if error.retry_after_s:  # else waiting does not help
                headers.append((b"retry-after", b"%d" % error.retry_after_s))
            return headers
        case Draining() | Overloaded() | UpstreamBusy():
            return [(b"retry-after", b"%d" % RETRY_AFTER_S)]
        case _:
            return []

"""The gateway as an ASGI application: which address speaks which dialect.

Addresses are those that the vendors' SDKs and the pages' libraries know, so that a client needs a
base URL and nothing else. Everything that is not the gateway's is the server's below it: streams,
cancel, health, metrics. The rules of who may ask from where are the server's too.

`GatewayApp` is what `penstock serve` runs when its configuration has upstreams. `Gateway` is the
same for somebody else's application: mount its `asgi`, and run it by its `lifespan`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from penstock.core.errors import (
    MethodNotAllowed,
    PenstockError,
    RouteNotFound,
    SettingInvalid,
)
from penstock.gateway.answers import Answers
from penstock.gateway.config import GatewayConfig, read_config
from penstock.gateway.endpoints import (
    agui,
    completions,
    models,
    native,
    responses,
    usage,
    vercel,
)
from penstock.gateway.endpoints.answering import ClientGone
from penstock.gateway.endpoints.exchange import Exchange
from penstock.llm.write import anthropic
from penstock.llm.write.dialects import OutDialect, find_out_dialect
from penstock.server.app import ServerApp, check_request, relative_path, with_cors
from penstock.server.asgi import Message, Receive, Scope, Send
from penstock.server.config import read_tables
from penstock.server.hub import Hub
from penstock.server.problem import internal
from penstock.wire import http

Endpoint = Callable[[Exchange], Awaitable[None]]


class Route(NamedTuple):
    """An address: its dialect, and what answers each method. `holds_slash`: names may have one."""

    dialect: str
    methods: Mapping[str, Endpoint]
    holds_slash: bool = False


_STOP: Final = {"POST": vercel.stop, "DELETE": vercel.stop}

FIXED: Final[dict[bytes, Route]] = {
    b"/v1/chat/completions": Route("openai-chat", {"POST": completions.create}),
    b"/v1/messages": Route("anthropic-messages", {"POST": completions.create}),
    b"/v1/responses": Route("openai-responses", {"POST": responses.create}),
    b"/v1/models": Route("openai-chat", {"GET": models.list_models}),
    b"/v1/answers": Route("native", {"POST": native.create}),
    b"/v1/answers/cancel": Route("native", {"POST": native.cancel_by_key}),
    b"/v1/usage": Route("native", {"GET": usage.export}),
    b"/api/chat": Route("vercel", {"POST": vercel.create}),
    b"/api/agui": Route("agui", {"POST": agui.create}),
}

# What comes before a name, and after it. The first that fits stands.
NAMED: Final[tuple[tuple[bytes, bytes, Route], ...]] = (
    (b"/v1/chat/completions/", b"", Route("openai-chat", {})),
    (b"/v1/messages/", b"", Route("anthropic-messages", {})),
    (b"/v1/responses/", b"/cancel", Route("openai-responses", {"POST": responses.cancel})),
    (
        b"/v1/responses/",
        b"",
        Route("openai-responses", {"GET": responses.retrieve, "DELETE": responses.delete}),
    ),
    (b"/v1/models/", b"", Route("openai-chat", {"GET": models.retrieve}, holds_slash=True)),
    (b"/v1/answers/", b"/cancel", Route("native", {"POST": native.cancel})),
    (
        b"/v1/answers/",
        b"",
        Route("native", {"GET": native.retrieve, "DELETE": native.delete}),
    ),
    (b"/api/chat/", b"/stream", Route("vercel", {"GET": vercel.resume}, holds_slash=True)),
    (b"/api/chat/", b"/stop", Route("vercel", _STOP, holds_slash=True)),
    (b"/api/agui/", b"/stop", Route("agui", {"POST": agui.stop}, holds_slash=True)),
)

# For pages of allowed origins: what they may see, and send, beside what the server's own rules say.
_CORS: Final = {
    b"access-control-expose-headers": (
        b", link, penstock-joined, penstock-stream, preference-applied, request-id, "
        b"x-request-id, x-should-retry, x-vercel-ai-ui-message-stream"
    ),
    b"access-control-allow-headers": (
        b", anthropic-beta, anthropic-dangerous-direct-browser-access, anthropic-version, "
        b"api-key, idempotency-key, openai-beta, openai-organization, openai-project, prefer, "
        b"user-agent, x-api-key, x-stainless-arch, x-stainless-helper-method, x-stainless-lang, "
        b"x-stainless-os, x-stainless-package-version, x-stainless-retry-count, "
        b"x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout"
    ),
}


class GatewayApp:
    """Answers every client's dialect, and what the server answers beside it."""

    def __init__(self, hub: Hub, answers: Answers) -> None:
        self.hub = hub
        self.answers = answers
        self._server = ServerApp(hub)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; under `lifespan`, run the hub and the gateway."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        path = relative_path(scope)
        found = _find(path) if scope["type"] == "http" else None
        if found is None:
            # Below a mount the server finds its own addresses by the path that is left.
            below = {**scope, "path": unquote(path.decode("latin-1"))}
            await self._server(below, receive, send)
            return
        route, name = found
        send = _with_cors(self.hub, scope, send)
        exchange = Exchange(self.answers, _dialect(route, path, scope), name, scope, receive, send)
        await self._answer(exchange, route)

    async def _answer(self, exchange: Exchange, route: Route) -> None:
        """Run an endpoint; whatever it raises before its head was sent is told in the dialect."""
        try:
            check_request(self.hub, exchange.scope)
            await self._route(exchange, route)
        except ClientGone:
            pass
        except PenstockError as error:
            if exchange.has_started:
                raise
            await exchange.refuse(error)
        except TimeoutError:
            # A reader that took nothing until its deadline: nobody is there to be told.
            if not exchange.has_started:
                raise
        except Exception as error:
            # A request's outermost edge: logged with its path, told without its insides.
            if exchange.has_started:
                raise
            await exchange.refuse(internal(error, exchange.scope.get("path", "")))
        finally:
            await exchange.close()

    async def _route(self, exchange: Exchange, route: Route) -> None:
        method: str = exchange.scope["method"]
        if not route.methods:
            raise RouteNotFound(exchange.scope["path"])
        allowed = ", ".join([*route.methods, "OPTIONS"])
        if method == "OPTIONS":
            await exchange.respond_empty([(b"allow", allowed.encode())])
            return
        endpoint = route.methods.get(method)
        if endpoint is None:
            raise MethodNotAllowed(method, allowed)
        await endpoint(exchange)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Speak ASGI's lifespan."""
        await receive()
        is_up = False
        try:
            async with running(self.hub, self.answers):
                is_up = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except PenstockError as error:
            if is_up:
                raise
            # Raised, it would say that there is no lifespan, and the server would go on without.
            await send({"type": "lifespan.startup.failed", "message": error.sentence})
            return
        await send({"type": "lifespan.shutdown.complete"})


class Gateway:
    """A gateway in somebody else's application.

    `hub` is where answers are kept; `config` is a `GatewayConfig`, or the file that has one
    (`penstock.toml`). Raises SettingInvalid for a file without upstreams, or with a wrong value.
    Mount `asgi`, and give `lifespan` to FastAPI or Starlette: it runs the hub too, so the hub's own
    need not be given. Or use it as an async context manager, which touches no signals.
    """

    def __init__(self, hub: Hub, config: GatewayConfig | str | os.PathLike[str]) -> None:
        self.hub = hub
        self.answers = Answers(
            hub, config if isinstance(config, GatewayConfig) else _load(Path(config))
        )
        self.asgi = GatewayApp(hub, self.answers)
        self._life = AsyncExitStack()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """Run the hub and the gateway for the lifetime of an application, and drain the hub first
        on Ctrl-C. See `Hub.lifespan`."""
        async with running(self.hub.lifespan(app), self.answers):
            yield

    async def __aenter__(self) -> Gateway:
        await self._life.enter_async_context(running(self.hub, self.answers))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._life.aclose()


@asynccontextmanager
async def running(
    hub: AbstractAsyncContextManager[object], answers: Answers
) -> AsyncGenerator[None]:
    """Run a hub and the answers in it. What still runs at the end is ended by the hub, and settled,
    before the books and the connections are closed."""
    try:
        async with hub:
            await answers.open()
            yield
    finally:
        await answers.close()


def _load(file: Path) -> GatewayConfig:
    config = read_config(read_tables(file))
    if config is None:
        raise SettingInvalid("upstreams", f"has no table in {str(file)!r}; name at least one")
    return config


def _find(path: bytes) -> tuple[Route, str] | None:
    route = FIXED.get(path)
    if route is not None:
        return route, ""
    for prefix, suffix, named in NAMED:
        if not (path.startswith(prefix) and path.endswith(suffix)):
            continue
        raw = path[len(prefix) : len(path) - len(suffix)]
        if raw and (named.holds_slash or b"/" not in raw or not named.methods):
            return named, unquote_to_bytes(raw).decode("utf-8", "replace")
    return None


def _dialect(route: Route, path: bytes, scope: Scope) -> OutDialect:
    name = route.dialect
    if path.startswith(b"/v1/models") and http.header(scope["headers"], b"anthropic-version"):
        name = anthropic.DIALECT
    return find_out_dialect(name)


def _with_cors(hub: Hub, scope: Scope, send: Send) -> Send:
    """The server's rule for pages of other origins, with the gateway's headers among those that
    may be seen and sent."""

    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value + _CORS.get(name, b"")) for name, value in message["headers"]]
            message = {**message, "headers": headers}
        await send(message)

    return with_cors(hub, scope, send_more)

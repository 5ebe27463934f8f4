"""The HTTP surface as ASGI applications: what is at which address, and who may ask.

`App` is what a hub mounts (`/stream/{path}`, `/cancel/{path}`, `/streams`); `ServerApp` is what
`penstock serve` runs: that at `/v1`, with health and metrics beside it. Addresses are read from
the raw path, decoded once. Every error leaves as problem+json; no traceback does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from penstock.core.errors import (
    HostRefused,
    MethodNotAllowed,
    NameMalformed,
    OperatorOnly,
    OriginRefused,
    PenstockError,
    RouteNotFound,
)
from penstock.server.asgi import Message, Receive, Scope, Send
from penstock.server.config import is_loopback
from penstock.server.endpoints import inspect, publish, read, subscriptions
from penstock.server.hub import Hub
from penstock.server.problem import internal, send_problem
from penstock.telemetry.prometheus import CONTENT_TYPE, PrometheusHooks
from penstock.wire import http

Endpoint = Callable[[Hub, str, Scope, Receive, Send], Awaitable[None]]

RESERVED: Final = b"/stream/__ds/"
OWN: Final = "__"
"""What the names of the server's own streams begin with."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
FORWARDED: Final = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})

EXPOSED: Final = (
    b"allow, etag, location, producer-epoch, producer-expected-seq, producer-received-seq, "
    b"producer-seq, retry-after, stream-closed, stream-cursor, stream-earliest-offset, "
    b"stream-end-reason, stream-expires-at, stream-next-offset, stream-sse-data-encoding, "
    b"stream-ttl, stream-up-to-date"
)
ACCEPTED: Final = (
    b"authorization, content-type, if-none-match, last-event-id, producer-epoch, producer-id, "
    b"producer-seq, record-key, record-type, stream-closed, stream-expires-at, stream-fork-offset, "
    b"stream-fork-sub-offset, stream-forked-from, stream-seq, stream-ttl"
)

STREAM: Final[dict[str, Endpoint]] = {
    "GET": read.read,
    "HEAD": read.read,
    "PUT": publish.create,
    "POST": publish.publish,
    "DELETE": publish.delete,
}
CANCEL: Final[dict[str, Endpoint]] = {"POST": publish.cancel}
LIST: Final[dict[str, Endpoint]] = {"GET": inspect.list_streams, "HEAD": inspect.list_streams}
INSPECT: Final[dict[str, Endpoint]] = {"GET": inspect.inspect, "HEAD": inspect.inspect}


class App:
    """A hub's addresses. Mount it anywhere; `/v1` is what clients expect."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; under `lifespan`, run the hub."""
        if scope["type"] == "lifespan":
            await run_lifespan(self.hub, receive, send)
            return
        if scope["type"] != "http":
            await _refuse_scope(scope, send)
            return
        # Around everything, so that a page of an allowed origin can read errors too.
        await answer(self._route, scope, receive, with_cors(self.hub, scope, send))

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_request(self.hub, scope)
        path = relative_path(scope)
        if path.startswith(RESERVED):
            await subscriptions.serve(self.hub, path[len(RESERVED) - 1 :], scope, receive, send)
            return
        endpoints, raw_name = _find(path)
        if scope["method"] == "OPTIONS":
            await _answer_options(endpoints, send)
            return
        if endpoints is LIST or endpoints is INSPECT:
            refuse_strangers(scope)
        endpoint = endpoints.get(scope["method"])
        if endpoint is None:
            raise MethodNotAllowed(scope["method"], ", ".join(endpoints))
        name = http.stream_name(raw_name) if endpoints is not LIST else ""
        refuse_own(name, scope)
        await endpoint(self.hub, name, scope, receive, send)


class MetricsApp:
    """Answers Prometheus: the hub's metrics as text."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one scrape."""
        if scope["type"] == "http":
            await answer(self._route, scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_request(self.hub, scope)
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed(scope["method"], "GET, HEAD")
        hooks = self.hub.hooks
        if not isinstance(hooks, PrometheusHooks):
            raise RouteNotFound(scope["path"])
        await send_text(send, 200, hooks.text(), CONTENT_TYPE)


class ServerApp:
    """What `penstock serve` answers: `/v1`, `/healthz`, `/readyz`, `/metrics`."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._v1 = App(hub)
        self._metrics = MetricsApp(hub)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; under `lifespan`, run the hub."""
        if scope["type"] == "lifespan":
            await run_lifespan(self.hub, receive, send)
            return
        path = scope.get("path", "")
        if path == "/v1" or path.startswith("/v1/"):
            child = {**scope, "root_path": scope.get("root_path", "") + "/v1"}
            await self._v1(child, receive, send)
        elif path == "/metrics":
            await self._metrics(scope, receive, send)
        elif scope["type"] == "http":
            await answer(self._health, scope, receive, send)
        else:
            await _refuse_scope(scope, send)

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path not in ("/healthz", "/readyz"):
            raise RouteNotFound(path)
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed(scope["method"], "GET, HEAD")
        # A draining server is alive, and not to be sent anybody new.
        is_ready = path == "/healthz" or not self.hub.is_draining
        await send_text(send, 200 if is_ready else 503, b"ok\n" if is_ready else b"draining\n")


async def answer(
    route: Callable[[Scope, Receive, Send], Awaitable[None]],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Run a route; whatever it raises before its head was sent becomes a problem."""
    has_started = False

    async def watched(message: Message) -> None:
        nonlocal has_started
        has_started = has_started or message["type"] == "http.response.start"
        await send(message)

    try:
        await route(scope, receive, watched)
    except PenstockError as error:
        if has_started:
            raise
        await send_problem(send, error)
    except TimeoutError:
        # A reader that took nothing until its deadline: nobody is there to be told.
        if not has_started:
            raise
    except Exception as error:
        # A request's outermost edge: logged with its path, told without its insides.
        if has_started:
            raise
        await send_problem(send, internal(error, scope.get("path", "")))


def relative_path(scope: Scope) -> bytes:
    """The raw path below the mount point. Servers that give none have decoded it already."""
    raw = scope.get("raw_path")
    path: bytes = raw.split(b"?", 1)[0] if raw else quote(scope["path"]).encode()
    root = quote(scope.get("root_path") or "").encode()
    return path[len(root) :] if root and path.startswith(root) else path


def _find(path: bytes) -> tuple[dict[str, Endpoint], bytes]:
    for prefix, endpoints in (
        (b"/stream/", STREAM),
        (b"/cancel/", CANCEL),
        (b"/streams/", INSPECT),
    ):
        if path.startswith(prefix):
            return endpoints, path[len(prefix) :]
    if path == b"/streams":
        return LIST, b""
    raise RouteNotFound(path.decode("ascii", "backslashreplace"))


def check_request(hub: Hub, scope: Scope) -> None:
    """Refuse what another site's page could make a browser do here.

    Raises HostRefused for a name that is not ours (DNS rebinding), OriginRefused for an unsafe
    method from a foreign origin.
    """
    settings = hub.settings
    headers: http.Headers = scope["headers"]
    host = (http.header(headers, b"host") or "").lower()
    if "*" not in settings.allowed_hosts and _without_port(host) not in settings.allowed_hosts:
        raise HostRefused(host)
    if scope["method"] in SAFE_METHODS:
        return
    origin = http.header(headers, b"origin")
    if origin is not None and not _is_allowed(hub, origin, host):
        raise OriginRefused(origin)


def _is_allowed(hub: Hub, origin: str, host: str) -> bool:
    allowed = hub.settings.allowed_origins
    own = (f"http://{host}", f"https://{host}")
    return "*" in allowed or origin in allowed or origin.lower() in own


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.rsplit(":", 1)[0] if ":" in host else host


def refuse_strangers(scope: Scope) -> None:
    """Let only this machine list and inspect: a stream's name may be the right to read it.

    A request that a proxy passed on comes from somebody else. Raises OperatorOnly.
    """
    client = scope.get("client")
    is_forwarded = any(name in FORWARDED for name, _ in scope["headers"])
    if is_forwarded or client is None or not is_loopback(client[0]):
        raise OperatorOnly(scope["path"])


def refuse_own(name: str, scope: Scope) -> None:
    """Keep the server's own streams from the network: those whose names begin with `__`, by their
    address, and by a fork of them. Raises NameMalformed."""
    source = http.header(scope["headers"], b"stream-forked-from") or ""
    raw = source.split("/stream/", 1)[-1].removeprefix("/")
    forked = unquote_to_bytes(raw).decode("utf-8", "replace")
    for asked in (name, forked):
        if asked.startswith(OWN):
            raise NameMalformed(asked, f"begins with {OWN!r}, which the server keeps for itself")


def with_cors(hub: Hub, scope: Scope, send: Send) -> Send:
    """Let pages of allowed origins see the response (Fetch 3.2). Own pages need nothing."""
    origin = http.header(scope["headers"], b"origin")
    allowed = hub.settings.allowed_origins
    if origin is None or not ("*" in allowed or origin in allowed):
        return send
    extra: http.Headers = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", EXPOSED),
        (b"access-control-allow-methods", b"GET, HEAD, PUT, POST, DELETE"),
        (b"access-control-allow-headers", ACCEPTED),
        (b"vary", b"origin"),
    ]

    async def send_with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return send_with_cors


async def _answer_options(endpoints: dict[str, Endpoint], send: Send) -> None:
    allow = ", ".join([*endpoints, "OPTIONS"]).encode()
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow)]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_text(
    send: Send, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8"
) -> None:
    """Answer with a short text."""
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def run_lifespan(hub: Hub, receive: Receive, send: Send) -> None:
    """Speak ASGI's lifespan: the hub runs between startup and shutdown."""
    await receive()
    try:
        await hub.open()
    except PenstockError as error:
        # Raised, it would say that there is no lifespan, and the server would go on without a hub.
        await send({"type": "lifespan.startup.failed", "message": error.sentence})
        return
    async with hub:
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _refuse_scope(scope: Scope, send: Send) -> None:
    """Refuse a WebSocket handshake: this version has no such transport."""
    if scope["type"] != "websocket":
        raise ValueError(f"this application does not know the ASGI scope {scope['type']!r}")
    await send({"type": "websocket.close", "code": 1002})

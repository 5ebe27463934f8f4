"""The reserved addresses of Durable Streams, `/stream/__ds/…`: subscriptions and the keys that
webhooks are signed with.

Bodies are JSON both ways. Streams in them are names, as they are after decoding an address. An
error is a problem like any other, with the member `error` besides, whose `code` is the protocol's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from penstock.core.errors import (
    AckInvalid,
    BodyMalformed,
    MethodNotAllowed,
    NameMalformed,
    NothingPending,
    PenstockError,
    RouteNotFound,
    SubscriptionConflict,
    SubscriptionInvalid,
    SubscriptionNotFound,
    WakeClaimed,
    WakeFenced,
    WakeTokenInvalid,
    WebhookUrlRejected,
)
from penstock.core.limits import (
    LEASE_MS,
    MAX_ID_BYTES,
    MAX_LEASE_MS,
    MAX_TEXT_BYTES,
    MIN_LEASE_MS,
)
from penstock.server.asgi import Receive, Scope, Send
from penstock.server.endpoints.publish import read_body
from penstock.server.hub import Hub
from penstock.server.problem import send_problem
from penstock.server.subscriptions.machine import Ack, Answer
from penstock.server.subscriptions.model import Config, Kind, Subscription, info
from penstock.wire import http

PROTOCOL_CODES: Final[Mapping[type[PenstockError], str]] = {
    BodyMalformed: "INVALID_REQUEST",
    NameMalformed: "INVALID_REQUEST",
    SubscriptionInvalid: "INVALID_REQUEST",
    SubscriptionNotFound: "SUBSCRIPTION_NOT_FOUND",
    SubscriptionConflict: "SUBSCRIPTION_ALREADY_EXISTS",
    WebhookUrlRejected: "WEBHOOK_URL_REJECTED",
    WakeTokenInvalid: "TOKEN_INVALID",
    WakeFenced: "FENCED",
    WakeClaimed: "ALREADY_CLAIMED",
    NothingPending: "NO_PENDING_WORK",
    AckInvalid: "INVALID_OFFSET",
}
"""What Durable Streams calls them. Others go by our own code, in capitals."""

Body = TypeVar("Body")
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT_BYTES)]


class _Webhook(msgspec.Struct):
    url: str


class _Create(msgspec.Struct):
    type: Literal["webhook", "pull-wake"]
    pattern: str | None = None
    streams: list[str] | None = None
    webhook: _Webhook | None = None
    wake_stream: str | None = None
    lease_ttl_ms: Annotated[int, msgspec.Meta(ge=MIN_LEASE_MS, le=MAX_LEASE_MS)] = LEASE_MS
    description: Text | None = None


class _Streams(msgspec.Struct):
    streams: list[str]


class _Claim(msgspec.Struct):
    worker: Annotated[Text, msgspec.Meta(min_length=1)]


class _Ack(msgspec.Struct):
    offset: str
    stream: str = ""
    path: str = ""


class _Answer(msgspec.Struct):
    wake_id: str = ""
    generation: int = -1
    acks: list[_Ack] | None = None
    done: bool = False


async def serve(hub: Hub, path: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request for `path`, which is raw and begins after `/stream/__ds`."""
    try:
        await _route(hub, path, scope, receive, send)
    except PenstockError as error:
        await send_problem(send, error, members={"error": _error_members(error)})


async def _route(hub: Hub, path: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    parts = path.removeprefix(b"/").split(b"/")
    methods: dict[str, Callable[[], Awaitable[None]]]
    match parts:
        case [b"jwks.json"]:
            methods = {"GET": lambda: _jwks(hub, scope, send)}
        case [b"subscriptions", raw_id]:
            id = _read_id(raw_id)
            methods = {
                "GET": lambda: _get(hub, id, scope, send),
                "PUT": lambda: _create(hub, id, scope, receive, send),
                "DELETE": lambda: _delete(hub, id, send),
            }
        case [b"subscriptions", raw_id, b"streams"]:
            id = _read_id(raw_id)
            methods = {"POST": lambda: _follow(hub, id, scope, receive, send)}
        case [b"subscriptions", raw_id, b"streams", *rest]:
            id, name = _read_id(raw_id), _read_name(b"/".join(rest))
            methods = {"DELETE": lambda: _unfollow(hub, id, name, send)}
        case [b"subscriptions", raw_id, b"claim"]:
            id = _read_id(raw_id)
            methods = {"POST": lambda: _claim(hub, id, scope, receive, send)}
        case [b"subscriptions", raw_id, b"ack" | b"callback" as which]:
            id, kind = _read_id(raw_id), Kind.PULL_WAKE if which == b"ack" else Kind.WEBHOOK
            methods = {"POST": lambda: _acknowledge(hub, id, kind, scope, receive, send)}
        case [b"subscriptions", raw_id, b"release"]:
            id = _read_id(raw_id)
            methods = {"POST": lambda: _release(hub, id, scope, receive, send)}
        case _:
            raise RouteNotFound("__ds/" + path.decode("ascii", "backslashreplace").lstrip("/"))
    await _dispatch(methods, scope["method"], send)


async def _dispatch(
    methods: dict[str, Callable[[], Awaitable[None]]], method: str, send: Send
) -> None:
    if "GET" in methods:
        methods["HEAD"] = methods["GET"]
    if method == "OPTIONS":
        allow = ", ".join([*methods, "OPTIONS"]).encode()
        await _send_empty(send, [(b"allow", allow)])
        return
    if method not in methods:
        raise MethodNotAllowed(method, ", ".join(methods))
    await methods[method]()


# --- the addresses ------------------------------------------------------------------------------


async def _jwks(hub: Hub, scope: Scope, send: Send) -> None:
    key = hub.subscriptions.key
    await _send_json(
        send,
        scope,
        200,
        {"keys": [] if key is None else [key.jwk]},
        content_type=b"application/jwk-set+json",
        cache_control=b"public, max-age=300",
    )


async def _get(hub: Hub, id: str, scope: Scope, send: Send) -> None:
    sub = hub.subscriptions.get(id)
    await _send_json(send, scope, 200, _describe(hub, sub, scope))


async def _create(hub: Hub, id: str, scope: Scope, receive: Receive, send: Send) -> None:
    config = _config(await _read(hub, scope, receive, _Create))
    sub, is_new = await hub.subscriptions.create(id, config, _streams_url(hub, scope))
    await _send_json(send, scope, 201 if is_new else 200, _describe(hub, sub, scope))


async def _delete(hub: Hub, id: str, send: Send) -> None:
    await hub.subscriptions.delete(id)
    await _send_empty(send)


async def _follow(hub: Hub, id: str, scope: Scope, receive: Receive, send: Send) -> None:
    body = await _read(hub, scope, receive, _Streams)
    await hub.subscriptions.follow(id, _names(body.streams))
    await _send_empty(send)


async def _unfollow(hub: Hub, id: str, name: str, send: Send) -> None:
    await hub.subscriptions.unfollow(id, name)
    await _send_empty(send)


async def _claim(hub: Hub, id: str, scope: Scope, receive: Receive, send: Send) -> None:
    body = await _read(hub, scope, receive, _Claim)
    claimed = await hub.subscriptions.claim(id, body.worker)
    answer = {
        "wake_id": claimed.wake_id,
        "generation": claimed.generation,
        "token": claimed.token,
        "streams": [stream._asdict() for stream in claimed.streams],
        "lease_ttl_ms": claimed.lease_ms,
    }
    await _send_json(send, scope, 200, answer)


async def _acknowledge(
    hub: Hub, id: str, kind: Kind, scope: Scope, receive: Receive, send: Send
) -> None:
    answer = await _read_answer(hub, scope, receive)
    has_next = await hub.subscriptions.acknowledge(id, kind, answer)
    await _send_json(send, scope, 200, {"ok": True, "next_wake": has_next})


async def _release(hub: Hub, id: str, scope: Scope, receive: Receive, send: Send) -> None:
    await hub.subscriptions.release(id, await _read_answer(hub, scope, receive))
    await _send_empty(send)


# --- reading ------------------------------------------------------------------------------------


def _read_id(raw: bytes) -> str:
    try:
        id = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise SubscriptionInvalid("has an id that is no UTF-8") from None
    if not id or len(id.encode()) > MAX_ID_BYTES:
        raise SubscriptionInvalid(f"has an id that is empty or longer than {MAX_ID_BYTES} bytes")
    if not id.isprintable() or id in (".", "..") or "/" in id or "\\" in id:
        raise SubscriptionInvalid("has an id with a slash or with characters that are not printed")
    return id


def _read_name(raw: bytes) -> str:
    """A stream's name in an address. Here its slashes may be encoded: it is one segment then."""
    try:
        return _name(unquote_to_bytes(raw).decode())
    except UnicodeDecodeError:
        shown = raw[:200].decode("ascii", "backslashreplace")
        raise NameMalformed(shown, "is no UTF-8") from None


def _name(text: str) -> str:
    name = text.strip("/")
    http.check_name(name)
    if name.startswith("__"):
        raise NameMalformed(name, "begins with '__', which the server keeps for itself")
    return name


def _names(texts: list[str]) -> tuple[str, ...]:
    return tuple(sorted({_name(text) for text in texts}))


def _config(body: _Create) -> Config:
    """What is asked for. Raises SubscriptionInvalid, NameMalformed."""
    pattern = (body.pattern or "").strip("/")
    streams = _names(body.streams or [])
    if not pattern and not streams:
        raise SubscriptionInvalid("has no 'pattern' and no 'streams'; give one of them")
    is_webhook = body.type == "webhook"
    if is_webhook and (body.webhook is None or not body.webhook.url):
        raise SubscriptionInvalid("of type 'webhook' has no 'webhook.url'")
    if not is_webhook and not body.wake_stream:
        raise SubscriptionInvalid("of type 'pull-wake' has no 'wake_stream'")
    return Config(
        type=Kind(body.type),
        pattern=pattern,
        streams=streams,
        url=body.webhook.url if is_webhook and body.webhook else "",
        wake_stream="" if is_webhook or not body.wake_stream else _name(body.wake_stream),
        lease_ms=body.lease_ttl_ms,
        description=body.description or "",
    )


async def _read_answer(hub: Hub, scope: Scope, receive: Receive) -> Answer:
    scheme, _, token = (http.header(scope["headers"], b"authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise WakeTokenInvalid
    body = await _read(hub, scope, receive, _Answer)
    return Answer(
        token=token.strip(),
        wake_id=body.wake_id,
        generation=body.generation,
        acks=[Ack((ack.stream or ack.path).strip("/"), ack.offset) for ack in body.acks or ()],
        is_done=body.done,
    )


async def _read(hub: Hub, scope: Scope, receive: Receive, kind: type[Body]) -> Body:
    body = await read_body(hub, http.by_name(scope["headers"]), receive)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise BodyMalformed(f"is not what this address takes: {error}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BodyMalformed(f"is no JSON: {error}") from None


# --- answering ----------------------------------------------------------------------------------


def _describe(hub: Hub, sub: Subscription, scope: Scope) -> dict[str, Any]:
    config, key = sub.config, hub.subscriptions.key
    shown: dict[str, Any] = {
        "id": sub.id,
        "subscription_id": sub.id,
        "type": config.type.value,
        "pattern": config.pattern or None,
        "streams": [_link(sub, name) for name in sub.links],
        "wake_stream": config.wake_stream or None,
        "lease_ttl_ms": config.lease_ms,
        "created_at": sub.created_at,
        "status": "failed" if sub.is_failing else "active",
        "description": config.description or None,
    }
    if config.url:
        webhook: dict[str, Any] = {"url": config.url}
        if key is not None:
            jwks_url = f"{_streams_url(hub, scope)}/__ds/jwks.json"
            webhook["signing"] = {"alg": "ed25519", "kid": key.kid, "jwks_url": jwks_url}
        shown["webhook"] = webhook
    return shown


def _link(sub: Subscription, name: str) -> dict[str, str]:
    shown = info(name, sub.links[name])
    return {
        "path": shown.path,
        "link_type": shown.link_type,
        "acked_offset": shown.acked_offset,
    }


def _streams_url(hub: Hub, scope: Scope) -> str:
    """Where the caller reaches the streams of this server: callbacks come back there."""
    if hub.subscriptions.public_url:
        return f"{hub.subscriptions.public_url}/stream"
    host = http.header(scope["headers"], b"host") or ""
    return f"{scope.get('scheme', 'http')}://{host}{scope.get('root_path', '')}/stream"


def _error_members(error: PenstockError) -> dict[str, Any]:
    code = PROTOCOL_CODES.get(type(error)) or error.code.upper().replace("-", "_")
    members: dict[str, Any] = {"code": code, "message": error.sentence}
    if isinstance(error, WakeClaimed):
        members |= {"current_holder": error.holder, "generation": error.generation}
    return members


async def _send_json(
    send: Send,
    scope: Scope,
    status: int,
    body: dict[str, Any],
    *,
    content_type: bytes = b"application/json",
    cache_control: bytes = b"no-store",
) -> None:
    data = msgspec.json.encode(body)
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(data)),
        (b"cache-control", cache_control),
        *http.SECURITY_HEADERS,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    data = b"" if scope["method"] == "HEAD" else data
    await send({"type": "http.response.body", "body": data, "more_body": False})


async def _send_empty(send: Send, headers: http.Headers | None = None) -> None:
    all_headers = [(b"cache-control", b"no-store"), *http.SECURITY_HEADERS, *(headers or [])]
    await send({"type": "http.response.start", "status": 204, "headers": all_headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})

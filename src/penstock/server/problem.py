"""Errors as responses: `application/problem+json` (RFC 9457) with a stable code.

The codes are those of `spec/errors.toml`. What a client is told is the error's own sentence;
what is not one of ours is logged here and told as `internal`, never as a traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from penstock.core.errors import (
    Draining,
    MethodNotAllowed,
    OffsetGone,
    Overloaded,
    PenstockError,
    ProducerFenced,
    ProducerGap,
    StreamEnded,
    WakeTokenInvalid,
)
from penstock.server.asgi import Send
from penstock.wire.http import SECURITY_HEADERS, Headers

logger = logging.getLogger("penstock")
RETRY_AFTER_S = 5


async def send_problem(
    send: Send,
    error: PenstockError,
    headers: Headers | None = None,
    members: Mapping[str, object] | None = None,
) -> None:
    """Answer a request with an error; `members` are said beside the usual ones."""
    status, all_headers, body = problem(error, headers, members)
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def problem(
    error: PenstockError,
    headers: Headers | None = None,
    members: Mapping[str, object] | None = None,
) -> tuple[int, Headers, bytes]:
    """The status, headers and body that tell of an error."""
    status = error.status
    body = msgspec.json.encode(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "code": error.code,
            "detail": error.sentence,
            **(members or {}),
        }
    )
    all_headers: Headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *SECURITY_HEADERS,
        *_own_headers(error),
        *(headers or []),
    ]
    return status, all_headers, body


def internal(error: Exception, path: str) -> PenstockError:
    """Log what is none of our errors, and give what a client may know of it."""
    logger.error("a request for %r failed", path, exc_info=error)
    return PenstockError("something failed here; it is in the server's log")


def _own_headers(error: PenstockError) -> Headers:
    match error:
        case MethodNotAllowed():
            return [(b"allow", error.allowed.encode())]
        case Draining() | Overloaded():
            return [(b"retry-after", b"%d" % RETRY_AFTER_S)]
        case StreamEnded():
            return [(b"stream-closed", b"true"), (b"stream-end-reason", error.reason.encode())]
        case WakeTokenInvalid():
            return [(b"www-authenticate", b"Bearer")]
        case ProducerFenced():
            return [(b"producer-epoch", b"%d" % error.epoch)]
        case ProducerGap():
            return [
                (b"producer-expected-seq", b"%d" % error.expected),
                (b"producer-received-seq", b"%d" % error.received),
            ]
        case OffsetGone():
            return [(b"stream-earliest-offset", error.earliest.encode())]
        case _:
            return []

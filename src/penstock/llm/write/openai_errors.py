"""Errors as OpenAI's two dialects have them: one object, in a stream or as a whole body.

The SDKs choose the exception by the HTTP status, and show `message`; `code` is what a program
asks for. Source: the provider's reference ("Error codes") and its SDK's types.
"""

from __future__ import annotations

from penstock.llm.events import Failure, Json
from penstock.llm.write.writer import JSON, Body, as_wire_json, http_status, is_cancelled


def error_object(error: Failure) -> dict[str, Json]:
    """The object under `error`."""
    return {
        "message": error.message,
        "type": "server_error" if is_cancelled(error) else _type(http_status(error)),
        "param": None,
        "code": error.code,
    }


def write_error(error: Failure) -> Body:
    """An error as a whole body."""
    data = as_wire_json({"error": error_object(error)})
    return Body(status=http_status(error), media_type=JSON, data=data)


def _type(status: int) -> str:
    match status:
        case 401:
            return "authentication_error"
        case 403:
            return "permission_error"
        case 429:
            return "rate_limit_error"
        case _:
            return "invalid_request_error" if status < 500 else "server_error"

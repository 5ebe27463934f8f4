"""Payloads: what a caller hands over, as the bytes a stream of that type stores.

JSON streams store one JSON value a record, without raw line ends, so that an event shows it in one
line; values are kept as they were written (a number of forty digits stays one). Text streams store
UTF-8, binary ones anything.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.errors import BodyMalformed
from penstock.core.record import NewRecord
from penstock.wire.http import is_json, is_text

Payload = bytes | str | int | float | bool | list[Any] | dict[str, Any] | None
"""What can be appended: for a JSON stream any JSON value, or bytes that are JSON already."""

_JSON_SPACE = b" \t\r\n"
_encode = msgspec.json.Encoder().encode
_decode_value = msgspec.json.Decoder().decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def encode_payload(payload: Payload, content_type: str) -> bytes:
    """Turn a payload into what is stored. Raises BodyMalformed when it does not fit the type.

    Bytes for a JSON stream are trusted to be one JSON value: they come from this process. What
    comes from outside goes through `split_body`.
    """
    if isinstance(payload, bytes):
        return payload
    if is_json(content_type):
        try:
            return _encode(payload)
        except (TypeError, ValueError, RecursionError) as error:
            raise BodyMalformed(f"is no JSON value: {error}") from None
    if isinstance(payload, str) and is_text(content_type):
        try:
            return payload.encode()
        except UnicodeEncodeError:
            raise BodyMalformed("has half a character: an unpaired surrogate") from None
    raise BodyMalformed(f"of a {content_type!r} stream is bytes, not {type(payload).__name__}")


def json_record(value: Payload, *, type: str = "", key: str = "") -> NewRecord:
    """Make a record of a JSON value, with a type or key: what a producer's source may yield.

    Raises BodyMalformed when it is no JSON value.
    """
    return NewRecord(encode_payload(value, "application/json"), type, key)


def split_body(body: bytes, content_type: str, *, allow_none: bool = False) -> list[bytes]:
    """Turn a request's body into records' payloads: of a JSON array, one for each element.

    Raises BodyMalformed: empty, no JSON, an empty array (unless `allow_none`), or text that is no
    UTF-8.
    """
    if not body:
        raise BodyMalformed("is empty; send at least one record")
    if is_text(content_type) and not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            raise BodyMalformed("is no UTF-8") from None
    if not is_json(content_type):
        return [body]
    try:
        if not body.lstrip(_JSON_SPACE).startswith(b"["):
            _decode_value(body)
            return [_one_line(body.strip(_JSON_SPACE))]
        # The elements are cut out as they stand, and each is checked.
        items = [bytes(item) for item in _decode_array(body)]
        _decode_value(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BodyMalformed(f"is no JSON: {error}") from None
    if not items and not allow_none:
        raise BodyMalformed("is an empty array; send at least one record")
    return [_one_line(item) for item in items]


def _one_line(value: bytes) -> bytes:
    """Take line ends between tokens out of a JSON value; within strings they are escaped."""
    if b"\n" in value or b"\r" in value:
        return bytes(msgspec.json.format(value, indent=-1))
    return value

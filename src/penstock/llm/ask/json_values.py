"""JSON that may be carried on, and data URLs: what readers and writers of requests both need.

JSON from a client goes on to a provider, inside a body or out of a text in it. So what Python reads
and could not write again is none: numbers that are not finite, and what is nested so deep that a
writer would run out of stack. No dialect's field names here.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Final, NoReturn, cast
from urllib.parse import unquote_to_bytes

from penstock.core.limits import MAX_REQUEST_DEPTH
from penstock.llm.events import Json


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity, which are not JSON


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)
_TOO_DEEP: Final = f"is nested deeper than {MAX_REQUEST_DEPTH}"


def parse_json(text: str) -> Json:
    """The value that `text` is.

    Raises:
        ValueError: it is none that can be carried on; the message says why, without quoting.
    """
    try:
        value = cast("Json", _DECODER.decode(text))
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError:  # also a whole number of more digits than Python reads
        raise ValueError("is not JSON") from None
    check_json(value)
    return value


def check_json(value: Json) -> None:
    """Refuses a value that cannot be carried on.

    Raises:
        ValueError: it is one; the message says why.
    """
    level: list[list[Json] | dict[str, Json]] = [[value]]
    for _ in range(MAX_REQUEST_DEPTH + 1):
        below: list[list[Json] | dict[str, Json]] = []
        for container in level:
            for item in container.values() if isinstance(container, dict) else container:
                if isinstance(item, dict | list):
                    below.append(item)
                elif isinstance(item, float) and not abs(item) < float("inf"):
                    raise ValueError("has a number that is not finite")
        if not below:
            return
        level = below
    raise ValueError(_TOO_DEEP)


def read_data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 of a `data:` URL (RFC 2397); None where it is another, or broken."""
    if url[:5].lower() != "data:":
        return None
    head, comma, data = url[5:].partition(",")
    kind, *parameters = head.split(";")
    # Section 3 of the RFC: without a type, it is plain text.
    kind = kind.strip().lower() or "text/plain"
    if not comma:
        return None
    if parameters and parameters[-1].strip().lower() == "base64":
        return kind, data
    try:
        return kind, b64encode(unquote_to_bytes(data)).decode()
    except UnicodeEncodeError:  # half a character
        return None

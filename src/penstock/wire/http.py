"""What every HTTP transport shares: names in URLs, headers, and what a request asks for.

Nothing here reads or writes a socket, and nothing here knows ASGI: raw paths and header values
come in, names and values go out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from penstock.core.errors import NameMalformed, QueryMalformed
from penstock.core.limits import MAX_NAME_BYTES

Headers = list[tuple[bytes, bytes]]

STREAM_HEADERS: Final[Headers] = [
    # Exactly this, no charset: Chromium fails the connection for any charset but UTF-8.
    (b"content-type", b"text/event-stream"),
    # Without no-store Chromium reads 60 MB ahead of the page; no-transform keeps compressors off.
    (b"cache-control", b"no-cache, no-store, no-transform"),
    # nginx and those who follow it: do not buffer this response.
    (b"x-accel-buffering", b"no"),
    # The Incremental field of HTTP: pass each part of the body on as it comes.
    (b"incremental", b"?1"),
    # The same URL gives the log's bytes to whoever does not ask for events.
    (b"vary", b"accept"),
]

SECURITY_HEADERS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

_LAST_EVENT_ID: Final = b"last-event-id"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


LAST_CHUNK: Final = b"0\r\n\r\n"
"""What ends a body in chunks."""


def chunk(body: bytes) -> bytes:
    """Put body bytes, at least one, into one chunk (RFC 9112 7.1)."""
    return b"%x\r\n%b\r\n" % (len(body), body)


@lru_cache(maxsize=4096)
def stream_name(raw: bytes) -> str:
    """Read a stream's name from the raw path below its address, decoding it once.

    Names are compared after this, case-sensitive. Raises NameMalformed for what two hops could
    understand differently: `%2F`, `.` and `..` as segments, empty segments, control characters,
    bytes that are no UTF-8, and more than 512 bytes.
    """
    shown = raw[:200].decode("ascii", "backslashreplace")
    lowered = raw.lower()
    if b"%2f" in lowered or b"%5c" in lowered:
        raise NameMalformed(shown, "has an encoded slash")
    try:
        name = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise NameMalformed(shown, "is no UTF-8") from None
    check_name(name)
    return name


def check_name(name: str) -> None:
    """Refuse a name that could not be an address. Raises NameMalformed."""
    if not name or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise NameMalformed(name, f"is empty or longer than {MAX_NAME_BYTES} bytes")
    if not name.isprintable():
        raise NameMalformed(name, "has control characters")
    if "\\" in name:
        raise NameMalformed(name, "has a backslash")
    for segment in name.split("/"):
        if segment in ("", ".", ".."):
            raise NameMalformed(name, "has an empty, '.' or '..' segment")
    if name.split("/", 1)[0] == "__ds":
        raise NameMalformed(name, "begins with '__ds', which the protocol keeps for itself")


def stream_path(name: str) -> str:
    """Write a name as the path that `stream_name` reads back."""
    return quote(name, safe="/-._~!$&'()*+,;=:@")


def query_parameters(query: bytes) -> dict[str, str]:
    """Read a query string; of a parameter given twice the first stands, as `URLSearchParams.get`
    has it. Raises QueryMalformed when it is no UTF-8 or has control characters."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise QueryMalformed("query", query[:64].decode("latin-1"), "UTF-8 text") from None
    found: dict[str, str] = {}
    for key, value in pairs:
        found.setdefault(key, value)
    return found


def refuse_many_offsets(query: bytes) -> None:
    """Refuse a query with two offsets, or an empty one: a reader that means two places, or lost
    its own, must not be given the beginning. Raises QueryMalformed."""
    offsets = [part for part in query.split(b"&") if part.partition(b"=")[0] == b"offset"]
    if len(offsets) > 1 or offsets in ([b"offset"], [b"offset="]):
        raise QueryMalformed("offset", query.decode("latin-1"), "one offset")


def by_name(headers: Headers) -> dict[bytes, bytes]:
    """Headers by their names, which are lower case; of those given twice the first stands."""
    return dict(reversed(headers))


def text_of(given: Mapping[bytes, bytes], name: bytes) -> str | None:
    """Give a header's value as text, or None."""
    value = given.get(name)
    return None if value is None else value.decode("latin-1").strip(" \t")


def header(headers: Headers, name: bytes) -> str | None:
    """Give a header's value as text, or None. Names in ASGI are lower case; the first stands."""
    for key, value in headers:
        if key == name:
            # Optional white space is these two (RFC 9110 5.6.3); str.strip() takes more.
            return value.decode("latin-1").strip(" \t")
    return None


def accepts_events(accept: str | None) -> bool:
    """Whether an Accept names `text/event-stream`, with a weight above 0. `*/*` does not: a
    browser's address bar and `curl` want the log's bytes (RFC 9110 12.5.1)."""
    for item in (accept or "").lower().split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        if media == "text/event-stream":
            return not any(re.fullmatch(r"q=0(\.0{0,3})?", part) for part in parameters)
    return False


@lru_cache(maxsize=256)
def content_type(value: str | None, default: str) -> str:
    """Reduce a Content-Type to `type/subtype` in lower case. Raises QueryMalformed otherwise."""
    if value is None or not value.strip():
        return default
    media = value.split(";", 1)[0].strip().lower()
    if not _TOKEN.match(media):
        raise QueryMalformed("content-type", value, "a media type such as 'application/json'")
    return media


def is_json(media: str) -> bool:
    """Whether a stream of this type holds JSON values, one a record."""
    return media == "application/json" or media.endswith("+json")


def is_text(media: str) -> bool:
    """Whether payloads of this type go into events as they are: text, and JSON."""
    return media.startswith("text/") or is_json(media) or media == "application/x-ndjson"


def last_event_id(headers: Headers, query: dict[str, str]) -> tuple[str | None, bool]:
    """What a reader says it has seen, and whether the header said so: header beats query.

    An empty header is none: browsers omit it, and some clients send it empty. A header's bytes
    are UTF-8 by the standard; what is not becomes text that no offset equals.
    """
    for key, value in headers:
        if key == _LAST_EVENT_ID and value.strip():
            return value.decode("utf-8", "replace").strip(), True
    for parameter in ("last_event_id", "offset"):
        if query.get(parameter):
            return query[parameter], False
    return None, False

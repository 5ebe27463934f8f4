"""What a provider's failure is, and what may be said about it.

Every provider has its own shape for an error, a proxy before it has another, and some quote the key
back. What comes out is a `Failure` with the provider's own sentence, word and status: bounded,
printable, without any secret. Nothing here raises for what a provider sends.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Final, cast

import aiohttp
from yarl import URL

from penstock.gateway.config import UpstreamSettings
from penstock.llm.events import FAILED, MALFORMED, Failure, Json, as_list, as_object, as_text
from penstock.llm.reader import NO_MESSAGE, read_error

UNREACHABLE: Final = "upstream-unreachable"
TIMEOUT: Final = "upstream-timeout"

MAX_SENTENCE: Final = 1_000
MAX_WORD: Final = 64

# A header's value that is shorter is no secret, and taking it out of sentences would garble them.
_LEAST_SECRET: Final = 8

_TITLE: Final = re.compile(r"<title[^>]*>([^<]{1,300})", re.IGNORECASE)
_SECONDS: Final = re.compile(r"\d{1,6}(\.\d+)?")

_UNSTREAMED: Final = frozenset({"text/html", "application/xhtml+xml", "text/xml"})


def secrets_of(settings: UpstreamSettings) -> tuple[str, ...]:
    """What may be in no message of this upstream: longest first, so that none leaves a rest."""
    secrets = {settings.api_key, URL(settings.base_url).password or ""}
    secrets |= {settings.access_key_id, settings.secret_access_key, settings.session_token}
    for value in settings.headers.values():
        secrets |= {value, value.rpartition(" ")[2]} if len(value) >= _LEAST_SECRET else set()
    return tuple(sorted((secret for secret in secrets if secret), key=len, reverse=True))


def cleaned(failure: Failure, secrets: Iterable[str]) -> Failure:
    """A failure as it may be shown to anybody."""
    message = _clean(failure.message, secrets, MAX_SENTENCE)
    return replace(failure, message=message, code=_clean(failure.code, secrets, MAX_WORD))


def refusal(status: int, reason: str, headers: Mapping[str, str], body: bytes) -> Failure:
    """The failure that a response with an error status is. `body` is its beginning."""
    error = _json_of(body)
    message, word, _ = read_error(error)
    if error is None or message == NO_MESSAGE:
        message = _sentence_of(body, headers) if error is None else ""
        said = reason or responses.get(status, "")
        message = message or f"the provider answered {status} {said}".rstrip()
    # AWS: "ThrottlingException:http://internal.amazon.com/coral/...".
    named = headers.get("x-amzn-errortype", "").partition(":")[0]
    return Failure(message=message, code=named or word or FAILED, status=status)


def refused_body(headers: Mapping[str, str]) -> Failure | None:
    """Why the body under a 200 cannot be a stream, as far as its head says; None where it can."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        return _malformed(f"the provider answered in {encoding[:40]}, which was not asked for")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _UNSTREAMED:
        return _malformed(f"the provider answered {kind} where a stream was asked for")
    return None


def retry_after_s(headers: Mapping[str, str], body: bytes, now: float) -> float | None:
    """For how long the provider wants to be left alone; None where it does not say.

    `retry-after-ms` (OpenAI, Azure), `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), and
    Google's `RetryInfo` in the error itself.
    """
    if (milliseconds := _seconds(headers.get("retry-after-ms", ""))) is not None:
        return milliseconds / 1000
    said = headers.get("retry-after", "").strip()
    if not said:
        return _retry_info(body)
    if (seconds := _seconds(said)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def no_connection(error: Exception, connect_s: float) -> Failure:
    """Why there is no connection, without addresses: they are nobody's business outside."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            why = "its name is not known"
        case aiohttp.ClientConnectorCertificateError():
            why = "its certificate is not valid"
        case aiohttp.ClientSSLError():
            why = "it does not speak TLS as it should"
        case TimeoutError(errno=None):
            why = f"no connection within {connect_s:g} s"
        case OSError(errno=int() as number) if number > 0:
            why = os.strerror(number).lower()
        case _:
            why = "the connection was lost"
    return _unreachable(why)


def no_answer(*, is_http: bool) -> Failure:
    """Why there is no answer over a connection."""
    if not is_http:
        said = "the provider's answer is not HTTP"
        return Failure(message=said, code=MALFORMED, status=502)
    return _unreachable("it closed the connection without an answer")


def _retry_info(body: bytes) -> float | None:
    error = _json_of(body)
    items = as_list(error)
    fields = as_object(as_object(items[0] if items else error).get("error"))
    for detail in as_list(fields.get("details")):
        delay = as_text(as_object(detail).get("retryDelay"))
        if delay.endswith("s"):
            return _seconds(delay[:-1])
    return None


def _seconds(text: str) -> float | None:
    text = text.strip()
    return float(text) if _SECONDS.fullmatch(text) else None


def _json_of(body: bytes) -> Json:
    """The JSON that a body is, also the first line of several; None where it is none."""
    text = body.decode("utf-8-sig", "replace").strip()
    for part in (text, text.partition("\n")[0]):
        try:
            return cast("Json", json.loads(part))
        except (ValueError, RecursionError):
            continue
    return None


def _sentence_of(body: bytes, headers: Mapping[str, str]) -> str:
    """A sentence from a body that is no JSON: a page's title, or a short text as it is."""
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        return ""
    text = body.decode("utf-8", "replace").strip()
    if found := _TITLE.search(text):
        return html.unescape(found[1]).strip()
    # An error in the form of a stream, which vLLM and some proxies send under an error status.
    if text.startswith(("data:", "event:")):
        data = "\n".join(line[5:] for line in text.split("\n") if line.startswith("data:"))
        message, _, _ = read_error(_json_of(data.encode()))
        return "" if message == NO_MESSAGE else message
    return "" if text.startswith("<") else text[:MAX_SENTENCE]


def _malformed(sentence: str) -> Failure:
    return Failure(message=sentence, code=MALFORMED)


def _clean(text: str, secrets: Iterable[str], most: int) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    text = "".join(c if c.isprintable() else " " for c in text[: 2 * most])
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _unreachable(why: str) -> Failure:
    return Failure(message=f"the provider cannot be reached: {why}", code=UNREACHABLE, status=502)

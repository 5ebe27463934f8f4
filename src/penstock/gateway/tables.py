"""What `penstock.toml` may say to a gateway: its tables, their keys, their defaults.

Each class is a table as it stands in the file; its fields' descriptions are the reference's. Here
is what one value can be by itself. What values mean together, where they come from (`env:NAME`) and
what they become is `config.py`. No message here quotes a value: any of them may be a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Final, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

from penstock.core import limits
from penstock.llm.ask.dialects import WRITERS
from penstock.llm.dialects import ACCENTS
from penstock.llm.events import Json
from penstock.llm.meter_prices import Money

MAX_TEXT: Final = 8_192
"""Longest text of any value: a session token of AWS has up to 4 KiB."""
MAX_NAME: Final = 64
NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}")
"""What an upstream or a key may be called: it stands in logs, metrics and documents."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110 5.6.2
_OURS: Final = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-length", "content-type", "expect"),
        *("host", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
_OFFSET: Final = re.compile(r"([+-])(0[0-9]|1[0-4]):([0-5][0-9])")


def _text(text: str) -> str:
    if not text or len(text) > MAX_TEXT or not text.isprintable():
        raise ValueError(f"must be 1 to {MAX_TEXT} printable characters")
    return text


def _pattern(text: str) -> str:
    if not text or len(text) > limits.MAX_MODEL_CHARACTERS or not text.isprintable():
        most = limits.MAX_MODEL_CHARACTERS
        raise ValueError(f"must be a model's name of 1 to {most} characters, '*' for any of them")
    return text


def _dialect(name: str) -> str:
    if name in WRITERS or name in ACCENTS:
        return name
    raise ValueError(f"is {name[:MAX_NAME]!r}; there are {', '.join([*WRITERS, *sorted(ACCENTS)])}")


def _base_url(text: str) -> str:
    """An address without its last slash. A key in it would be in every log on its way."""
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # raises where it is none
    except ValueError:
        is_address, parts = False, None
    if not is_address or parts is None or not text.isascii() or re.search(r"[\s\\\x00-\x1f]", text):
        raise ValueError("must be an address, http://host/path or https://host/path")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password; say api_key or headers")
    if "?" in text or "#" in text:
        raise ValueError("must end with its path, without '?' or '#'")
    return text.rstrip("/")


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name in headers:
        if not _TOKEN.fullmatch(name):
            raise ValueError("has a name that no header can have")
        if name.lower() in _OURS:
            raise ValueError(f"must leave {name!r} to the gateway")
    return headers


def _extra(value: object) -> dict[str, object]:
    fields: dict[str, object] = {**as_json_object(value)}
    for name in ("model", "stream"):
        if name in fields:
            raise ValueError(f"must leave {name!r} to the gateway")
    return fields


def as_json_object(value: object) -> dict[str, Json]:
    """A table as an object of JSON. Raises ValueError for what JSON cannot say."""
    if not isinstance(value, dict):
        raise ValueError("must be a table")
    table = cast("dict[str, object]", value)
    return {name: _as_json(item, 0) for name, item in table.items()}


def _as_json(value: object, depth: int) -> Json:
    if depth > limits.MAX_REQUEST_DEPTH:
        raise ValueError(f"must not be nested deeper than {limits.MAX_REQUEST_DEPTH}")
    if isinstance(value, dict):
        table = cast("dict[str, object]", value)
        return {name: _as_json(item, depth + 1) for name, item in table.items()}
    if isinstance(value, list):
        return [_as_json(item, depth + 1) for item in cast("list[object]", value)]
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError("must be what JSON can say: no dates, no inf, no nan")


def _money(value: object) -> Money:
    text = value if isinstance(value, str) else ""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**15:
        text = str(value)
    try:
        return Money.read(text)
    except ValueError:
        raise ValueError('must be an amount as a string, such as "0.50"') from None


def _offset_s(text: object) -> int:
    found = _OFFSET.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError('must be an offset from UTC as a string, such as "+01:00"')
    seconds = 3600 * int(found[2]) + 60 * int(found[3])
    return -seconds if found[1] == "-" else seconds


Text = Annotated[str, AfterValidator(_text)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Patterns = Annotated[list[Pattern], Field(min_length=1, max_length=1_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Tokens = Annotated[int, Field(ge=1, le=10**15)]
Fallbacks = Annotated[list[str], Field(max_length=16)]
Retries = Annotated[int, Field(ge=0, le=10)]

_EMPTY: Final[Callable[[], dict[str, str]]] = dict[str, str]


class Table(BaseModel):
    """A table of the file. Nothing is converted, and nothing else may stand in it."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True
    )


class GatewayTable(Table):
    """`[gateway]`"""

    default_model: Text = Field(
        "", description="The model of requests that name none, as pages' may."
    )
    unread_s: Annotated[float, Field(ge=0)] = Field(
        limits.UNREAD_S,
        description="How long an answer goes on that nobody reads; inf: to its end.",
    )
    head_wait_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        limits.HEAD_WAIT_S,
        description="How long the first word is awaited before the response head goes out.",
    )


class UpstreamTable(Table):
    """`[upstreams.NAME]`"""

    dialect: Annotated[str, AfterValidator(_dialect)] = Field(
        description="What the provider speaks, or the provider's own name."
    )
    base_url: Annotated[str, AfterValidator(_base_url)] = Field(
        description="Where the provider is; the dialect's path follows it."
    )
    api_key: Text = Field("", description="The provider's key; env:NAME takes it from there.")
    models: Patterns = Field(["*"], description="The models it serves; * is any characters.")
    rename: dict[Pattern, Pattern] = Field(
        default_factory=_EMPTY, description="Names that clients use, and the provider's for them."
    )
    connect_s: Seconds = Field(
        limits.UPSTREAM_CONNECT_S, description="Time for a connection, TLS included."
    )
    first_token_s: Seconds = Field(
        limits.FIRST_TOKEN_S, description="Time from the request to the first word or thought."
    )
    between_tokens_s: Seconds = Field(
        limits.BETWEEN_TOKENS_S, description="Silence in the middle of an answer."
    )
    whole_s: Seconds = Field(limits.WHOLE_ANSWER_S, description="Time for the whole answer.")
    retries: Retries = Field(
        limits.UPSTREAM_RETRIES, description="Further tries, before the first word only."
    )
    fallback: Fallbacks = Field(
        [], description="Upstreams to ask next, by name, before the first word only."
    )
    max_concurrent: Count = Field(
        limits.UPSTREAM_CONCURRENT, description="Answers that it gives at once."
    )
    max_waiting: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        limits.UPSTREAM_WAITING, description="Answers that may wait for it; more are refused."
    )
    wait_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        limits.UPSTREAM_WAIT_S, description="Longest time one waits."
    )
    max_output_tokens: Tokens | None = Field(
        None, description="Most output tokens of an answer, whatever its caller asks for."
    )
    headers: Annotated[dict[str, Text], AfterValidator(_headers)] = Field(
        default_factory=_EMPTY, description="Sent with each request; env:NAME works here too."
    )
    extra: Annotated[dict[str, object], PlainValidator(_extra)] = Field(
        default_factory=dict[str, object], description="Fields put into each request's body."
    )
    may_drop: list[Text] = Field(
        [], description="What may be left out of a request that the provider has no words for."
    )
    region: Text = Field("", description="AWS region, for dialect bedrock with the keys below.")
    access_key_id: Text = Field("", description="AWS access key id, or env:NAME.")
    secret_access_key: Text = Field("", description="AWS secret access key, or env:NAME.")
    session_token: Text = Field("", description="AWS session token, or env:NAME.")


class LimitsTable(Table):
    """`[budgets.answer]`, `[budgets.user]`, `[budgets.key]`, `[budgets.all]`"""

    output_tokens: Tokens | None = Field(None, description="Tokens written, thoughts included.")
    total_tokens: Tokens | None = Field(None, description="Tokens read and written.")
    money: Annotated[Money, PlainValidator(_money)] | None = Field(
        None, description='What they cost by [prices], as a string: "5.00".'
    )


def _no_limits() -> LimitsTable:
    return LimitsTable.model_validate({})


class BudgetsTable(Table):
    """`[budgets]`"""

    answer: LimitsTable = Field(default_factory=_no_limits, description="Of each answer.")
    user: LimitsTable = Field(default_factory=_no_limits, description="Of each user and day.")
    key: LimitsTable = Field(default_factory=_no_limits, description="Of each key and day.")
    all: LimitsTable = Field(
        default_factory=_no_limits, description="Of all answers of a day together."
    )
    day_starts_at: Annotated[int, PlainValidator(_offset_s)] = Field(
        0, description='The offset from UTC at whose midnight days begin: "+01:00".'
    )
    reserve_output_tokens: Tokens = Field(
        limits.RESERVE_OUTPUT_TOKENS,
        description="What an answer holds at a time when its caller names no maximum.",
    )


class KeyTable(Table):
    """`[keys.NAME]`"""

    secret: Text = Field(description="What callers present; env:NAME takes it from there.")
    user: Text = Field(
        "", description="Whom its answers are charged to; keys without one share one."
    )
    models: Patterns = Field(["*"], description="The models it may ask; * is any characters.")

"""The gateway's configuration: what `penstock.toml` says to it, as values.

    [gateway]                how answers go on
    [upstreams.NAME]         the providers, in the order in which they are looked for a model
    [[filters]]              what answers pass before anybody sees them
    [prices."PATTERN"]       what models cost
    [budgets]                how much may be used
    [keys.NAME]              who may ask

`tables.py` says what each value can be; here they are read, resolved and compared with each other.
Everything that is wrong is found when the server starts, and is named by its place in the file; no
message and no `repr` holds a secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from pydantic import ValidationError

from penstock.core import limits
from penstock.core.errors import SettingInvalid
from penstock.gateway.tables import (
    MAX_NAME,
    NAME,
    BudgetsTable,
    GatewayTable,
    KeyTable,
    LimitsTable,
    Table,
    UpstreamTable,
    as_json_object,
)
from penstock.llm.budget import Limits
from penstock.llm.events import Json
from penstock.llm.filters.chain import Chain, EventFunction
from penstock.llm.filters.table import read_filters
from penstock.llm.meter_prices import PriceTable, matches
from penstock.server.config import GATEWAY_TABLES, Settings

MAX_UPSTREAMS: Final = 100
MAX_KEYS: Final = 10_000
"""Each presented credential is compared with all of them: 3 ms for so many."""

_ENV: Final = "env:"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a key or a header's value may consist of (RFC 9110 5.5), without the obsolete upper half.
_SENDABLE: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_NO_LIMITS: Final = Limits()
# What is wrong, by pydantic's name for it, where its own words speak of Python.
_REASONS: Final = {
    "extra_forbidden": "is not known here; look for a typing error",
    "missing": "must be named",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "list_type": "must be a list",
    "too_short": "must name at least one",
    "too_long": "names too many",
}
_T = TypeVar("_T", bound=Table)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """One provider: where it is, what it serves, and how long it is waited for."""

    name: str
    dialect: str
    base_url: str
    api_key: str = field(default="", repr=False)
    models: tuple[str, ...] = ("*",)
    rename: Mapping[str, str] = field(default_factory=dict[str, str])
    connect_s: float = limits.UPSTREAM_CONNECT_S
    first_token_s: float = limits.FIRST_TOKEN_S
    between_tokens_s: float = limits.BETWEEN_TOKENS_S
    whole_s: float = limits.WHOLE_ANSWER_S
    retries: int = limits.UPSTREAM_RETRIES
    fallback: tuple[str, ...] = ()
    max_concurrent: int = limits.UPSTREAM_CONCURRENT
    max_waiting: int = limits.UPSTREAM_WAITING
    wait_s: float = limits.UPSTREAM_WAIT_S
    max_output_tokens: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    extra: Mapping[str, Json] = field(default_factory=dict[str, Json], repr=False)
    may_drop: frozenset[str] = frozenset()
    region: str = ""
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """Who may ask: the name of a key, what is presented for it, and what it is for."""

    name: str
    secret: str = field(repr=False)
    user: str = ""
    models: tuple[str, ...] = ("*",)
    digest: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self.secret))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """How much may be used: by an answer, and in a day by a user, by a key and by everybody."""

    answer: Limits = _NO_LIMITS
    user: Limits = _NO_LIMITS
    key: Limits = _NO_LIMITS
    all: Limits = _NO_LIMITS
    utc_offset_s: int = 0
    reserve_output_tokens: int = limits.RESERVE_OUTPUT_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """What a gateway was told.

    Attributes:
        upstreams: by name, in the file's order.
        make_chain: makes the filters of one answer.
        keys: none, and nobody is asked who they are.
        default_model: the model of requests that name none; "" is the first that has a name.
        unread_s: how long an answer goes on without readers; inf is to its end.
        head_wait_s: how long the first content is awaited before a response head goes out.
    """

    upstreams: Mapping[str, UpstreamSettings]
    make_chain: Callable[[], Chain] = field(default=lambda: Chain([]), repr=False)
    prices: PriceTable = field(default_factory=lambda: PriceTable({}))
    budgets: Budgets = Budgets()
    keys: Mapping[str, KeySettings] = field(default_factory=dict[str, KeySettings])
    default_model: str = ""
    unread_s: float = limits.UNREAD_S
    head_wait_s: float = limits.HEAD_WAIT_S

    def upstreams_for(self, model: str) -> list[UpstreamSettings]:
        """Whom to ask for a model, in turn: the first that serves it, then its fallbacks, each
        followed by its own. Nobody where none serves it."""
        serving = (
            one
            for one in self.upstreams.values()
            if model in one.rename or any(matches(pattern, model) for pattern in one.models)
        )
        found: dict[str, UpstreamSettings] = {}
        waiting = [one.name for one in [next(serving, None)] if one is not None]
        while waiting:
            name = waiting.pop(0)
            if name not in found:
                found[name] = self.upstreams[name]
                waiting[:0] = found[name].fallback
        return list(found.values())

    def find_key(self, presented: str) -> KeySettings | None:
        """The key whose secret this is. Takes the same time whichever it is, or if none."""
        digest = _digest(presented)
        found: KeySettings | None = None
        for key in self.keys.values():
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def read_config(
    tables: Mapping[str, object],
    *,
    environment: Mapping[str, str] = os.environ,
    functions: Mapping[str, EventFunction] | None = None,
) -> GatewayConfig | None:
    """Read the gateway's tables of a file (`server.config.read_tables`); None where it has none.

    `functions` are filters of the caller's own, by the `kind` that names them. The settings of the
    server beside the tables are not looked at.

    Raises:
        SettingInvalid: something cannot be so; the error names its place, `upstreams.fast.models`.
    """
    unknown = [name for name in tables if name not in GATEWAY_TABLES + tuple(Settings.model_fields)]
    if unknown:
        raise SettingInvalid(unknown[0][:MAX_NAME], "is neither a setting nor a gateway's table")
    said = {name: tables[name] for name in GATEWAY_TABLES if name in tables}
    if not said:
        return None
    upstreams = _read_upstreams(said.get("upstreams", {}), environment)
    if not upstreams:
        raise SettingInvalid(
            next(iter(said)), "needs an upstream; say whom to ask, [upstreams.NAME]"
        )
    general = _read(GatewayTable, "gateway", said.get("gateway", {}))
    return GatewayConfig(
        upstreams=upstreams,
        make_chain=_read_chain(said.get("filters", []), functions or {}),
        prices=_read_prices(said.get("prices", {})),
        budgets=_read_budgets(said.get("budgets", {})),
        keys=_read_keys(said.get("keys", {}), environment),
        default_model=general.default_model,
        unread_s=general.unread_s,
        head_wait_s=general.head_wait_s,
    )


def _read_upstreams(value: object, environment: Mapping[str, str]) -> dict[str, UpstreamSettings]:
    upstreams: dict[str, UpstreamSettings] = {}
    for name, settings in _named("upstreams", value, MAX_UPSTREAMS):
        place = f"upstreams.{name}"
        upstreams[name] = _read_upstream(name, _read(UpstreamTable, place, settings), environment)
    for upstream in upstreams.values():
        _check_fallback(upstream, upstreams)
    return upstreams


def _read_upstream(
    name: str, table: UpstreamTable, environment: Mapping[str, str]
) -> UpstreamSettings:
    place = f"upstreams.{name}"

    def resolved(key: str, text: str) -> str:
        return _resolve(text, f"{place}.{key}", environment) if text else ""

    settings = UpstreamSettings(
        name=name,
        dialect=table.dialect,
        base_url=table.base_url,
        api_key=resolved("api_key", table.api_key),
        models=tuple(table.models),
        rename=dict(table.rename),
        connect_s=table.connect_s,
        first_token_s=table.first_token_s,
        between_tokens_s=table.between_tokens_s,
        whole_s=table.whole_s,
        retries=table.retries,
        fallback=tuple(table.fallback),
        max_concurrent=table.max_concurrent,
        max_waiting=table.max_waiting,
        wait_s=table.wait_s,
        max_output_tokens=table.max_output_tokens,
        headers={key: resolved(f"headers.{key}", text) for key, text in table.headers.items()},
        extra=as_json_object(table.extra),
        may_drop=frozenset(table.may_drop),
        region=resolved("region", table.region),
        access_key_id=resolved("access_key_id", table.access_key_id),
        secret_access_key=resolved("secret_access_key", table.secret_access_key),
        session_token=resolved("session_token", table.session_token),
    )
    _check_aws(place, settings)
    return settings


def _check_aws(place: str, settings: UpstreamSettings) -> None:
    """Keys of AWS are whole, and for who takes them."""
    pair = {
        "access_key_id": settings.access_key_id,
        "secret_access_key": settings.secret_access_key,
        "region": settings.region,
    }
    named = [key for key in (*pair, "session_token") if pair.get(key, settings.session_token)]
    if settings.dialect != "bedrock":
        if named:
            raise SettingInvalid(f"{place}.{named[0]}", "is for the dialect 'bedrock' alone")
        return
    if settings.api_key and set(named) - {"region"}:
        raise SettingInvalid(f"{place}.api_key", "must not stand beside the keys of AWS")
    missing = [key for key, text in pair.items() if not text]
    if missing and not settings.api_key:
        raise SettingInvalid(f"{place}.{missing[0]}", "must be named, or api_key in its place")


def _check_fallback(start: UpstreamSettings, upstreams: Mapping[str, UpstreamSettings]) -> None:
    """Every fallback is there, and no way along them comes back."""
    place = f"upstreams.{start.name}.fallback"
    for name in start.fallback:
        if name not in upstreams:
            known = ", ".join(upstreams)
            raise SettingInvalid(place, f"names {name[:MAX_NAME]!r}; there are {known}")
    if len(set(start.fallback)) < len(start.fallback):
        raise SettingInvalid(place, "names an upstream twice")
    seen: set[str] = set()
    waiting = [*start.fallback]
    while waiting:
        name = waiting.pop()
        if name == start.name:
            raise SettingInvalid(place, "comes back to this upstream; let one of them end there")
        if name not in seen and name in upstreams:
            seen.add(name)
            waiting += upstreams[name].fallback


def _read_chain(value: object, functions: Mapping[str, EventFunction]) -> Callable[[], Chain]:
    items = cast("list[object]", value) if isinstance(value, list) else None
    if items is None or not all(isinstance(item, dict) for item in items):
        raise SettingInvalid("filters", "must be tables; write [[filters]] before each")
    settings: list[dict[str, Json]] = []
    for place, item in enumerate(items):
        try:
            settings.append(as_json_object(item))
        except ValueError as error:
            raise SettingInvalid(f"filters[{place}]", str(error)) from None
    return read_filters(settings, functions)


def _read_prices(value: object) -> PriceTable:
    prices: dict[str, dict[str, object]] = {}
    for pattern, value_of in _as_table("prices", value, '[prices."PATTERN"]').items():
        place = f"prices.{pattern[:MAX_NAME]}"
        kinds = _as_table(place, value_of, '[prices."PATTERN"]')
        if not pattern:
            raise SettingInvalid("prices", "has a pattern of nothing; '*' is any model")
        try:
            PriceTable.read({pattern: kinds})
        except SettingInvalid as error:
            setting = place if error.setting == "prices" else error.setting
            raise SettingInvalid(setting, error.reason) from None
        prices[pattern] = kinds
    return PriceTable.read(prices)


def _read_budgets(value: object) -> Budgets:
    table = _read(BudgetsTable, "budgets", value)
    return Budgets(
        answer=_limits(table.answer),
        user=_limits(table.user),
        key=_limits(table.key),
        all=_limits(table.all),
        utc_offset_s=table.day_starts_at,
        reserve_output_tokens=table.reserve_output_tokens,
    )


def _limits(table: LimitsTable) -> Limits:
    return Limits(
        output_tokens=table.output_tokens, total_tokens=table.total_tokens, money=table.money
    )


def _read_keys(value: object, environment: Mapping[str, str]) -> dict[str, KeySettings]:
    keys: dict[str, KeySettings] = {}
    names: dict[str, str] = {}
    for name, settings in _named("keys", value, MAX_KEYS):
        place = f"keys.{name}"
        table = _read(KeyTable, place, settings)
        secret = _resolve(table.secret, f"{place}.secret", environment)
        other = names.setdefault(secret, name)
        if other != name:
            raise SettingInvalid(f"{place}.secret", f"is that of the key {other!r} too")
        keys[name] = KeySettings(
            name=name, secret=secret, user=table.user, models=tuple(table.models)
        )
    return keys


def _read(kind: type[_T], place: str, value: object) -> _T:
    """One table. Raises SettingInvalid, which quotes nothing of it."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where, reason = place, first["msg"].removeprefix("Value error, ")
        for part in first["loc"]:
            where += f"[{part}]" if isinstance(part, int) else f".{part[:MAX_NAME]}"
        reason = _REASONS.get(first["type"], reason)
        raise SettingInvalid(where, _said(reason)) from None


def _said(reason: str) -> str:
    """What pydantic says, as our errors do: 'setting … must be a valid string'."""
    return f"{reason[:1].lower()}{reason[1:]}".replace("input should be", "must be")


def _named(place: str, value: object, most: int) -> list[tuple[str, object]]:
    """The tables of a table, each under a name that can be one."""
    tables = _as_table(place, value, f"[{place}.NAME]")
    if len(tables) > most:
        raise SettingInvalid(place, f"has more than {most} tables")
    if not all(NAME.fullmatch(name) for name in tables):
        reason = f"has a name that is none; use 1 to {MAX_NAME} letters, digits, '.', '_', '-'"
        raise SettingInvalid(place, reason)
    return list(tables.items())


def _as_table(place: str, value: object, written: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise SettingInvalid(place, f"must be a table; write {written}")
    return cast("dict[str, object]", value)


def _resolve(text: str, place: str, environment: Mapping[str, str]) -> str:
    """A value, or what the environment has for it. It is in no message: it may be a secret."""
    if text.startswith(_ENV):
        name = text.removeprefix(_ENV)
        if not _VARIABLE.fullmatch(name):
            raise SettingInvalid(place, "names no variable of the environment; write env:NAME")
        text = environment.get(name, "")
        if not text:
            raise SettingInvalid(place, f"is {_ENV}{name[:MAX_NAME]}, which is not set")
    if not _SENDABLE.fullmatch(text):
        raise SettingInvalid(place, "has characters that no header can carry; remove them")
    return text


def _digest(secret: str) -> bytes:
    # Of one length whatever was presented, so that comparing tells nothing of the secret's.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()

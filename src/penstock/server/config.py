"""Configuration, defined once: flags, environment and file all come from `Settings`.

Precedence: flags of the command, then `PENSTOCK_…` in the environment, then `penstock.toml` (or
the file given), then the defaults, which are those of `core/limits.py`. An unknown key in a file is
an error: a typo must not silently mean the default.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from penstock.core import limits
from penstock.core.errors import SettingInvalid
from penstock.core.log import Retention

ENVIRONMENT_PREFIX = "PENSTOCK_"
DEFAULT_FILE = "penstock.toml"

GATEWAY_TABLES: Final = ("gateway", "upstreams", "filters", "prices", "budgets", "keys")
"""What of a file is the gateway's: `penstock.gateway.config` reads it, and nobody here does."""

SQLITE: Final = "sqlite:///"


def _backend_known(url: str) -> str:
    if url == "memory://" or (url.startswith(SQLITE) and len(url) > len(SQLITE)):
        return url
    raise ValueError("is no backend; use 'memory://' or 'sqlite:///path'")


def _hosts_plain(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        if "/" in host or not host:
            raise ValueError(f"takes host names, not {host!r}")
    return tuple(host.lower() for host in hosts)


class Settings(BaseModel):
    """What a hub and a server can be told. Times are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # where
    backend: Annotated[str, AfterValidator(_backend_known)] = Field(
        "memory://", description="Where logs are kept: memory:// or sqlite:///path."
    )
    durability: Literal["process", "disk", "eager"] = Field(
        "process",
        description="What a shown record survives: process, disk (a power cut) or eager (neither).",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(4437, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allow_unauthenticated: bool = Field(
        False,
        description="Listen beyond loopback although nobody is asked who they are.",
    )

    # who
    allowed_hosts: Annotated[tuple[str, ...], AfterValidator(_hosts_plain)] = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description="Host names answered to, without port; '*' answers to any.",
    )
    allowed_origins: tuple[str, ...] = Field(
        (), description="Origins whose pages may read and write, beside the server's own."
    )

    # readers
    heartbeat_s: float = Field(limits.HEARTBEAT_S, gt=0, description="Silence before a heartbeat.")
    retry_ms: int = Field(
        limits.RETRY_MS, ge=100, description="Middle of the jittered reconnection time, in ms."
    )
    max_readers: int = Field(limits.MAX_READERS, ge=1, description="Open readers taken at once.")
    stall_s: float = Field(
        limits.STALL_S, gt=0, description="How long a reader may take nothing before it is cut."
    )
    view_tail_bytes: int = Field(
        limits.VIEW_TAIL_BYTES, ge=0, description="Encoded bytes kept ready of each stream."
    )
    long_poll_s: float = Field(
        limits.LONG_POLL_S, gt=0, description="How long a long-poll waits for something to come."
    )
    sse_lifetime_s: float = Field(
        limits.SSE_LIFETIME_S, gt=0, description="Age at which a live=sse body ends, to be resumed."
    )

    shared_caches: bool = Field(
        False, description="Let shared caches keep catch-up and long-poll reads."
    )

    # streams
    max_record_bytes: int = Field(limits.MAX_RECORD_BYTES, ge=1, description="Largest record.")
    max_body_bytes: int = Field(limits.MAX_BODY_BYTES, ge=1, description="Largest request body.")
    max_streams: int = Field(limits.MAX_STREAMS, ge=1, description="Streams kept at once.")
    max_store_bytes: int = Field(
        limits.MAX_STORE_BYTES, ge=1, description="Bytes kept over all streams."
    )
    retain_records: int = Field(limits.RETAIN_RECORDS, ge=1, description="Records kept a stream.")
    retain_bytes: int = Field(limits.RETAIN_BYTES, ge=1, description="Bytes kept a stream.")
    retain_age_s: float | None = Field(None, gt=0, description="Age a record is kept; none: any.")
    ended_ttl_s: float = Field(
        limits.ENDED_TTL_S, ge=0, description="How long an ended stream of a producer is kept."
    )
    rest_after_s: float = Field(
        limits.REST_AFTER_S,
        gt=0,
        description="Idleness after which a stored stream leaves memory.",
    )

    # requests
    header_bytes: int = Field(limits.HEADER_BYTES, ge=512, description="Largest request head.")
    header_s: float = Field(limits.HEADER_S, gt=0, description="Time for a request head.")
    keep_alive_s: int = Field(
        limits.KEEP_ALIVE_S, ge=0, description="How long an idle connection is kept."
    )

    # subscriptions
    webhooks: Literal["off", "loopback", "public"] = Field(
        "off", description="How far webhooks may reach: off, loopback or public (https only)."
    )
    webhook_hosts: Annotated[tuple[str, ...], AfterValidator(_hosts_plain)] = Field(
        (), description="Hosts that webhooks may call besides, whatever their address."
    )
    public_url: str | None = Field(
        None, description="Where /v1 is reached from outside, for callbacks; none: as each asks."
    )

    # going away
    drain_s: float = Field(limits.DRAIN_S, ge=0, description="Time readers get when stopping.")
    cancel_s: float = Field(limits.CANCEL_S, gt=0, description="Time a cancelled producer gets.")

    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="debug, info, warning, error or critical."
    )

    @property
    def retention(self) -> Retention:
        """The retention of streams that are not given one of their own."""
        return Retention(
            max_records=self.retain_records,
            max_bytes=self.retain_bytes,
            max_age_s=self.retain_age_s,
        )


def make_settings(**values: object) -> Settings:
    """Make settings of plain values. Raises SettingInvalid, naming the setting and why."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        raise SettingInvalid(name, f"{first['msg'][:1].lower()}{first['msg'][1:]}") from None


def load_settings(
    flags: Mapping[str, object],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Merge flags, environment and file, in this order of precedence.

    A flag of None was not given. `file` must exist when named; otherwise `penstock.toml` in the
    working directory is read where there is one. Lists in the environment are comma-separated. The
    tables of the gateway are left to it. Raises SettingInvalid.
    """
    tables = read_tables(file)
    values = {name: value for name, value in tables.items() if name not in GATEWAY_TABLES}
    values.update(_from_environment(os.environ if environment is None else environment))
    values.update({name: value for name, value in flags.items() if value is not None})
    return make_settings(**values)


def read_tables(file: Path | None = None) -> Mapping[str, object]:
    """Everything that a file says, the gateway's tables too; nothing where there is none.

    `file` must exist when named; otherwise `penstock.toml` in the working directory is read.
    Raises SettingInvalid.
    """
    path = file or Path(DEFAULT_FILE)
    if not path.is_file():
        if file is None:
            return {}
        raise SettingInvalid("config", f"names {str(file)!r}, which is no file")
    try:
        tables: Mapping[str, object] = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingInvalid("config", f"{str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingInvalid("config", f"{str(path)!r} is no TOML: {error}") from None
    return tables


def refuse_open_door(settings: Settings) -> None:
    """Refuse to listen beyond loopback without being told so in as many words.

    Raises SettingInvalid.
    """
    if settings.allow_unauthenticated or is_loopback(settings.host):
        return
    raise SettingInvalid(
        "host",
        f"{settings.host!r} is reachable from other machines and nobody is asked who they are; "
        "put a proxy that authenticates in front, or say --allow-unauthenticated",
    )


def is_loopback(host: str) -> bool:
    """Whether an address or host name is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, field in Settings.model_fields.items():
        text = environment.get(ENVIRONMENT_PREFIX + name.upper())
        if text is None:
            continue
        is_list = "tuple" in str(field.annotation)
        values[name] = tuple(p.strip() for p in text.split(",") if p.strip()) if is_list else text
    return values

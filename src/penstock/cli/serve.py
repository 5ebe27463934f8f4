"""`penstock serve`: streams over HTTP, and answers of the configured upstreams, until a signal."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from penstock.gateway.answers import Answers
from penstock.gateway.app import GatewayApp
from penstock.gateway.config import read_config
from penstock.server.config import Settings, load_settings, read_tables
from penstock.server.serve import Server, make_hub, make_server, run


def _about(name: str) -> str:
    field = Settings.model_fields[name]
    return f"{field.description} [default: {field.default}]"


def serve(
    host: Annotated[str | None, typer.Option(help=_about("host"))] = None,
    port: Annotated[int | None, typer.Option(help=_about("port"))] = None,
    backend: Annotated[str | None, typer.Option(help=_about("backend"))] = None,
    durability: Annotated[str | None, typer.Option(help=_about("durability"))] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings. [default: penstock.toml, if any]")
    ] = None,
    allow_unauthenticated: Annotated[
        bool | None, typer.Option(help=_about("allow_unauthenticated"))
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Answer to this host name too. Repeatable.")
    ] = None,
    allowed_origin: Annotated[
        list[str] | None, typer.Option(help="Let pages of this origin read and write. Repeatable.")
    ] = None,
    webhooks: Annotated[str | None, typer.Option(help=_about("webhooks"))] = None,
    log_level: Annotated[str | None, typer.Option(help=_about("log_level"))] = None,
    portable: Annotated[
        bool, typer.Option("--portable", help="Leave the fast path out.", hidden=True)
    ] = False,
) -> None:
    """Serve streams over HTTP, and model answers where penstock.toml names upstreams.

    Every setting can also be given as PENSTOCK_NAME in the environment or in penstock.toml.
    """
    hosts = Settings.model_fields["allowed_hosts"].default
    settings = load_settings(
        {
            "host": host,
            "port": port,
            "backend": backend,
            "durability": durability,
            "webhooks": webhooks,
            "allow_unauthenticated": allow_unauthenticated,
            "allowed_hosts": (*hosts, *allowed_host) if allowed_host else None,
            "allowed_origins": tuple(allowed_origin) if allowed_origin else None,
            "log_level": log_level,
        },
        file=config,
    )
    _log_to_terminal(settings.log_level)
    server = _make_server(settings, config, fast=not portable)
    run(server, on_ready=lambda address: print(f"penstock serves at {address}", flush=True))


def _log_to_terminal(level: str) -> None:
    """Show what is logged here on stderr; of everybody else's, only warnings."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s:     %(message)s")
    logging.getLogger("penstock").setLevel(level.upper())


def _make_server(settings: Settings, file: Path | None, *, fast: bool) -> Server:
    """The server, with the gateway in front of it where the file has upstreams."""
    gateway = read_config(read_tables(file))
    if gateway is None:
        return make_server(settings, fast=fast)
    hub = make_hub(settings)
    app = GatewayApp(hub, Answers(hub, gateway))
    # Appends to streams are the hub's own under it, as they are without it.
    return make_server(settings, hub=hub, app=app, fast=fast, has_lane=True)

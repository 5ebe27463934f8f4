"""`penstock`: puts the subcommands together, and turns our errors into one line and a status."""

from __future__ import annotations

import sys
from importlib.metadata import version

import typer

from penstock.cli import backup, demo, publish, serve, tail, usage
from penstock.core.errors import CallerError, PenstockError

app = typer.Typer(
    name="penstock",
    help="Streams of model tokens and events, resumable, to every browser, app and agent.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("serve")(serve.serve)
app.command("publish")(publish.publish)
app.command("tail")(tail.tail)
app.command("demo")(demo.demo)
app.command("backup")(backup.backup)
app.command("usage")(usage.usage)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(version("penstock"))
        raise typer.Exit


@app.callback()
def root(
    show: bool = typer.Option(
        False, "--version", help="Show the version.", callback=_show_version, is_eager=True
    ),
) -> None:
    """Streams of model tokens and events, resumable, to every browser, app and agent."""


def main() -> None:
    """Run the command. Exit status: 0 done, 1 it failed, 2 it was called wrongly."""
    try:
        app()
    except PenstockError as error:
        print(f"penstock: {error.sentence}", file=sys.stderr)
        sys.exit(2 if isinstance(error, CallerError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)

"""`penstock demo`: model output into a browser, the whole way, on this machine.

A recorded upstream (a process of its own) or a real one, the caller that reads its dialect, the
hub's logs, and a page. `demo_app.py` is the application.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.demo_app import DemoApp, Models
from penstock.core.errors import SettingInvalid, Unreachable
from penstock.gateway.upstream import detect
from penstock.server.config import load_settings
from penstock.server.hub import Hub
from penstock.server.serve import make_server, run

DEFAULT_PORT = 4437


def demo(
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 takes a free one.")
    ] = DEFAULT_PORT,
    backend: Annotated[
        str, typer.Option(help="Where answers are kept: memory:// or sqlite:///path.")
    ] = "memory://",
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Use the recorded upstream even where a key is set.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="What the recorded upstream answers the chat with.")
    ] = "built-in:chat",
    pace: Annotated[
        float, typer.Option(min=0, help="Tokens a second of the recorded upstream; 0: at once.")
    ] = 40.0,
    first_token_s: Annotated[
        float, typer.Option(min=0, help="Seconds before the recorded upstream's first token.")
    ] = 0.6,
    upstream_log: Annotated[
        Path | None,
        typer.Option(
            writable=True,
            dir_okay=False,
            help="File for the recorded upstream's log, a JSON line each.",
        ),
    ] = None,
) -> None:
    """Watch model output stream into a browser; reload in the middle, and lose nothing.

    Without OPENAI_API_KEY, ANTHROPIC_API_KEY or OLLAMA_HOST the answers are recorded ones.
    """
    flags = {"port": port, "backend": backend, "log_level": "warning"}
    settings = load_settings(flags, environment={})
    real = None if recorded else detect()
    with contextlib.ExitStack() as stack:
        if real is not None:
            models = Models.real(real)
        else:
            address = stack.enter_context(_recorded_upstream(upstream_log))
            knobs = {"tokens_per_s": pace, "first_token_s": first_token_s}
            models = Models.recorded(address, model, knobs)
        hub = Hub(settings=settings)
        server = make_server(settings, hub=hub, app=DemoApp(hub, models))
        run(server, on_ready=lambda address: _welcome(address, models))


@contextlib.contextmanager
def _writable(file: Path) -> Generator[None]:
    """Find out here that a file cannot be written, where it can be said in one line."""
    try:
        with file.open("a", encoding="utf-8"):
            yield
    except OSError as error:
        raise SettingInvalid("upstream_log", f"{str(file)!r}: {error.strerror}") from None


def _welcome(address: str, models: Models) -> None:
    source = "recorded answers" if models.kind == "recorded" else f"{models.kind}, {models.model}"
    print(f"Penstock demo: open {address}/ in a browser ({source}). Ctrl-C stops it.", flush=True)


@contextlib.contextmanager
def _recorded_upstream(log: Path | None) -> Generator[str]:
    """Run the recorded upstream as a process; gives its address. Ends it at the end."""
    command = [sys.executable, "-m", "penstock.testing.upstream", "--port", "0"]
    if log is not None:
        with _writable(log):
            command += ["--log", str(log)]
    # In a session of its own, so that Ctrl-C comes to us alone, and we end it when we are done.
    process = subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise Unreachable("the recorded upstream", "it did not start")
        yield f"http://127.0.0.1:{json.loads(line)['port']}"
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

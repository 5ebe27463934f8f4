"""Starting and ending a server.

A server is started anew for every round, pinned to the server's core, and ended by its own pid.
For Penstock it is also checked that it is what the figure says: metrics on, readers on the fast
path.
"""

import contextlib
import functools
import json
import os
import re
import select
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from bench import build, machine
from bench.peers import NCHAN, PEERS, Peer, Workload, nchan_module

ROOT = build.HERE.parent
START_PATIENCE_S = 30.0
STOP_PATIENCE_S = 5.0
NO_WORK = Workload(rate=1)
"""For servers that publish nothing by themselves."""


class ServerFailed(Exception):
    """A server did not start, or is not what it must be for its figure to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A started server: where it listens, and the processes that are its cost."""

    port: int
    pids: tuple[int, ...]


@contextlib.contextmanager
def running(
    peer: Peer, workload: Workload = NO_WORK, *, store: Path | None = None
) -> Generator[Running]:
    """Start the server on its core, and end it afterwards. Raises ServerFailed.

    What it keeps it keeps in a new folder, which goes with it: in `store`, or among the system's
    temporary files.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=store) as folder,
        contextlib.ExitStack() as stack,
    ):
        start = _start_nginx if peer.name == NCHAN else _start
        process, server = start(peer, workload, Path(folder))
        stack.callback(_stop, process, server)
        if peer.is_ours:
            check_fast_path(server)
        yield server


def check_fast_path(server: Running) -> None:
    """Raise ServerFailed unless metrics are on and say that the fast path is."""
    if _gauge(server, "penstock_fast_path_active") != 1:
        raise ServerFailed("its metrics do not say penstock_fast_path_active 1")


def check_readers(server: Running) -> None:
    """Raise ServerFailed unless the readers that are connected now are all on the fast path."""
    fast = _gauge(server, 'penstock_readers{transport="fast"}')
    portable = _gauge(server, 'penstock_readers{transport="portable"}')
    if not fast or portable:
        raise ServerFailed(f"readers on the fast path: {fast}, on the portable path: {portable}")


def _gauge(server: Running, sample: str) -> float | None:
    """One sample of Penstock's metrics."""
    found = re.search(rf"^{re.escape(sample)} (\S+)$", fetch(server, "/metrics"), re.MULTILINE)
    return float(found.group(1)) if found else None


def nchan_version() -> str:
    """The version nchan gives of itself: nginx does not list modules' versions."""
    with running(PEERS[NCHAN]) as server:
        found = re.search(r"nchan version: (\S+)", fetch(server, "/status"))
    return found.group(1) if found else "unknown"


def fetch(server: Running, path: str) -> str:
    """GET a small page from a running server. Raises ServerFailed."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.read().decode()
    except OSError as error:
        raise ServerFailed(f"GET {path}: {error}") from error


def _spawn(
    command: list[str], environment: dict[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    core = machine.cores()[0]
    with (folder / "stderr").open("wb") as errors:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            preexec_fn=functools.partial(machine.take_core, core),
        )


def _start(peer: Peer, workload: Workload, folder: Path) -> tuple[subprocess.Popen[bytes], Running]:
    command = peer.command()
    assert command is not None, "missing() is asked first"
    environment = {**workload.environment(), **dict(peer.environment), "BENCH_FOLDER": str(folder)}
    process = _spawn(command, environment, folder)
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_PATIENCE_S)
    line = process.stdout.readline() if readable else b""
    if not line:
        _stop(process, Running(port=0, pids=(process.pid,)))
        raise ServerFailed(f"did not start: {_last_words(folder)}")
    ready = json.loads(line)
    return process, Running(port=ready["port"], pids=(ready["pid"],))


def _start_nginx(
    peer: Peer, workload: Workload, folder: Path
) -> tuple[subprocess.Popen[bytes], Running]:
    command, port = peer.command(), _free_port()
    assert command is not None, "missing() is asked first"
    folder.chmod(0o755)  # the worker is another user when nginx is started by root
    limit = machine.raise_descriptor_limit()
    values = {
        "MODULE": str(nchan_module()),
        "DIR": str(folder),
        "PORT": str(port),
        "NOFILE": str(limit),
        "CONNECTIONS": str(limit - 1000),
    }
    text = (build.SERVERS / "nchan.conf").read_text()
    text = re.sub(r"@([A-Z]{3,})@", lambda name: values.get(name.group(1), name.group()), text)
    (folder / "nginx.conf").write_text(text)
    process = _spawn([*command, "-p", str(folder), "-c", "nginx.conf"], {}, folder)
    server = Running(port=port, pids=(process.pid,))
    deadline = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if _accepts(port) and (workers := _children(process.pid)):
            return process, Running(port=port, pids=(process.pid, *workers))
        time.sleep(0.02)
    _stop(process, server)
    raise ServerFailed(f"did not start: {_last_words(folder)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _stop(process: subprocess.Popen[bytes], server: Running) -> None:
    """End the process that we started; nginx ends its worker itself."""
    process.terminate()
    try:
        process.wait(STOP_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        for pid in server.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_words(folder: Path) -> str:
    """The end of what the server complained; results name no place of this machine."""
    text = (folder / "stderr").read_text(errors="replace").strip()[-600:]
    return text.replace(str(ROOT), ".").replace(str(folder), ".") or "it said nothing"

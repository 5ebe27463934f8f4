"""Builds the C and Go programs into `bench/build/`, when they are missing or older than the source.

A compiler that is not installed is not an error here: the program is then missing, and the runner
says so where it counts.
"""

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
SERVERS = HERE / "servers"


class BuildFailed(Exception):
    """A compiler is there and did not like the source; the text is what it said."""


def find_go() -> str | None:
    """The Go command, from PATH or from where Go's own installer puts it."""
    return shutil.which("go") or shutil.which("/usr/local/go/bin/go")


def find_cc() -> str | None:
    """A C compiler: `$CC`, or the usual names."""
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def load_client() -> Path:
    """The load client. Raises BuildFailed when there is no C compiler: nothing runs without it."""
    program = _compile_c(HERE / "load.c", HERE / "load_decode.h", HERE / "load_stats.h")
    if program is None:
        raise BuildFailed("the load client needs a C compiler; install gcc or clang")
    return program


def floor() -> Path | None:
    """The C server, or None without a C compiler."""
    return _compile_c(SERVERS / "floor.c")


def go_server() -> Path | None:
    """The Go server, or None without Go."""
    go, source, program = find_go(), SERVERS / "go", BUILD / "gofan"
    if go is None:
        return None
    if _is_stale(program, source / "main.go", source / "go.mod"):
        # Only the standard library is used, so nothing is fetched.
        environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
        _run([go, "build", "-o", str(program), "."], cwd=source, environment=environment)
    return program


def _compile_c(source: Path, *headers: Path) -> Path | None:
    compiler, program = find_cc(), BUILD / source.stem
    if compiler is None:
        return None
    if _is_stale(program, source, *headers):
        _run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)])
    return program


def _is_stale(program: Path, *sources: Path) -> bool:
    if not program.exists():
        return True
    return program.stat().st_mtime < max(source.stat().st_mtime for source in sources)


def _run(
    command: list[str], *, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> None:
    BUILD.mkdir(exist_ok=True)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(command)}\n{done.stderr}")

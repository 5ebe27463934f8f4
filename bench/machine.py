"""The machine: what it is, which core belongs to whom, and whether it is quiet.

Server and client each get a core and a scheduler group of their own, so that a run depends on what
else the machine does as little as can be had without a machine of its own. What others used
meanwhile is measured with every run, and reported with it.
"""

import contextlib
import json
import os
import platform
import re
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from bench import build

AUTOGROUP_NICE = "-5"  # best effort: needs privileges
QUIET_BUSY_PCT = 30.0  # of one core
QUIET_PATIENCE_S = 10.0
_QUIET_SAMPLE_S = 0.25


def cores() -> tuple[int, int]:
    """The core of the server and the core of the client; the same one if there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[1 % len(allowed)]


def take_core(core: int) -> None:
    """Make the calling process and its children leader of a scheduler group on one core.

    Runs between fork and exec of a measured process.
    """
    os.setsid()
    os.sched_setaffinity(0, {core})
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(AUTOGROUP_NICE)


def raise_descriptor_limit() -> int:
    """Raise the limit of open files to the hard limit, and return it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def busy_pct(sample_s: float = _QUIET_SAMPLE_S) -> float:
    """How busy the machine is now, 100 being one core."""
    before = _cpu_ticks()
    time.sleep(sample_s)
    after = _cpu_ticks()
    total = max(after[0] - before[0], 1)
    return 100.0 * (os.cpu_count() or 1) * (after[1] - before[1]) / total


def wait_until_quiet(patience_s: float = QUIET_PATIENCE_S) -> float:
    """Wait until the machine is nearly idle, a bounded time; returns how busy it still is."""
    deadline = time.monotonic() + patience_s
    while (busy := busy_pct()) > QUIET_BUSY_PCT and time.monotonic() < deadline:
        time.sleep(0.25)
    return busy


def _cpu_ticks() -> tuple[int, int]:
    """Ticks since boot of all cores: all, and those that were not idle."""
    line = Path("/proc/stat").read_text().split("\n", 1)[0]
    ticks = [int(field) for field in line.split()[1:9]]
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4]


def memory_mib(pids: Sequence[int]) -> tuple[float, float]:
    """Resident memory of processes in MiB: all of it, and what is not the content of files."""
    fields = {"VmRSS": 0.0, "RssAnon": 0.0}
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        for field in fields:
            found = re.search(rf"^{field}:\s*(\d+) kB", status, re.MULTILINE)
            fields[field] += int(found.group(1)) / 1024 if found else 0
    return fields["VmRSS"], fields["RssAnon"]


def facts() -> dict[str, str]:
    """What somebody needs to know to compare: hardware, kernel, and what Penstock runs on.

    No host name, no user, no paths.
    """
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory_kib = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    found = {
        "cpu": cpu.group(1) if cpu else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory_kib.group(1)) / 2**20:.0f} GiB" if memory_kib else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "python": platform.python_version(),
    }
    for package in ("penstock", "uvicorn", "uvloop", "httptools"):
        found |= _package(package)
    return found


def publishers() -> dict[str, str]:
    """Versions of the servers that publish by themselves."""
    return {
        **_package("starlette"),
        **_package("sse-starlette"),
        "node": _says(["node", "--version"], r"v(\S+)"),
        "go": _says([build.find_go() or "go", "version"], r"go(\d\S*)"),
        "c compiler": _says([build.find_cc() or "cc", "--version"], r"(.+)"),
        "nginx": _says(["nginx", "-v"], r"nginx/(\S+)"),
    }


def stores() -> dict[str, str]:
    """Versions of what keeps durable streams, and the file system that files are on."""
    manifest = json.loads((build.SERVERS / "durable_streams" / "package.json").read_text())
    node = build.find_node()
    return {
        "@durable-streams/server": manifest["dependencies"]["@durable-streams/server"],
        "node": _says([str(node), "--version"], r"v(\S+)") if node else "not installed",
        "sqlite": sqlite3.sqlite_version,
        "file system": _file_system(build.HERE),
    }


def relays() -> dict[str, str]:
    """Versions of what stands between a provider and its clients."""
    return {
        "litellm": build.litellm_version() or "not installed",
        **_package("fastapi"),
        **_package("starlette"),
        **_package("httpx"),
        **_package("aiohttp"),
        "go": _says([build.find_go() or "go", "version"], r"go(\d\S*)"),
        "nginx": _says([build.find_nginx() or "nginx", "-v"], r"nginx/(\S+)"),
        "c compiler": _says([build.find_cc() or "cc", "--version"], r"(.+)"),
    }


def _package(name: str) -> dict[str, str]:
    try:
        return {name: metadata.version(name)}
    except metadata.PackageNotFoundError:
        return {}


def _file_system(folder: Path) -> str:
    """The type of the file system that a folder is on."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    around = [(len(at), kind) for _, at, kind, *_ in mounts if folder.is_relative_to(at)]
    return max(around, default=(0, "unknown"), key=lambda found: found[0])[1]


def _says(command: list[str], pattern: str) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.search(pattern, done.stdout + done.stderr)
    return match.group(1) if match else "unknown"

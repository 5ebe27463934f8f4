"""What is shipped, and what is public."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import penstock
import penstock.client

ROOT = Path(__file__).parents[2]

PUBLIC = [
    "CallerError",
    "EndReason",
    "Hub",
    "NewRecord",
    "Offset",
    "PeerError",
    "PenstockError",
    "Retention",
    "Stream",
    "WorldError",
    "connect",
    "json_record",
]


def test_the_public_names_are_these() -> None:
    """A name that comes or goes is a decision, and shows in this list."""
    assert penstock.__all__ == PUBLIC
    assert all(getattr(penstock, name) is not None for name in PUBLIC)
    assert all(getattr(penstock.client, name) is not None for name in penstock.client.__all__)


def test_the_wheel_holds_the_package_its_page_and_its_streams_and_nothing_else(
    tmp_path: Path,
) -> None:
    """What a user installs runs the demo, is typed, and has none of our tools in it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "penstock/py.typed",
        "penstock/web/index.html",
        "penstock/web/assets/app.js",
        "penstock/testing/streams/chat.txt",
    ):
        assert wanted in names
    assert all(name.startswith(("penstock/", "penstock-0.")) for name in names)
    assert not [name for name in names if name.endswith("ruff.toml")]


def test_importing_the_library_loads_no_web_framework_and_no_command_line() -> None:
    """An application pays for what it uses."""
    code = (
        "import sys, penstock; "
        "print([m for m in ('starlette', 'fastapi', 'typer', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"

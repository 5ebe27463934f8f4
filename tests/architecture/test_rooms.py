"""The rooms without IO import nothing that does IO, tells the time, draws numbers or logs.

The import contracts name what is forbidden; this test names what is allowed, so that a module
nobody thought of is refused too. It reads the source with `ast`, which also sees imports inside
functions and the calls that need no import at all.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"

# Pure modules of the standard library: values in, values out. Add one when it is needed and pure.
PURE = {
    "__future__",
    "base64",
    "bisect",
    "binascii",
    "codecs",
    "collections",
    "collections.abc",
    "copy",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "struct",
    "typing",
    "urllib.parse",
    "zlib",
}
# Each room may also use these rooms of ours.
ROOMS = {
    "core": {"core"},
    "wire": {"core", "wire"},
    "llm": {"core", "wire", "llm"},
}
# What `core` itself needs is less: it never looks into a payload.
PURE_IN = {
    "core": PURE
    & {"__future__", "bisect", "collections.abc", "dataclasses", "enum", "functools", "typing"},
    "wire": PURE | {"datetime"},  # to read and write moments; what asks for the time is refused
    "llm": PURE,
}
# What the folders' own ruff.toml must refuse, and one of the rules that hold everywhere.
LINTED = [
    ("import time\n\ntime.sleep(1)\n", "TID251"),
    ("from random import random\n\nrandom()\n", "TID251"),
    ("import asyncio\n\nasyncio.run\n", "TID251"),
    ("import os.path\n\nos.path.exists\n", "TID251"),
    ("import logging\n\nlogging.DEBUG\n", "TID251"),
    ("import importlib\n\nimportlib.reload\n", "TID251"),
    ("from datetime import UTC, datetime\n\ndatetime.now(UTC)\n", "TID251"),
    ("def late():\n    import socket\n\n    return socket.socket\n", "TID251"),
    ("print(1)\n", "T201"),
    ("import json\n", "F401"),
]
FORBIDDEN_NAMES = {
    *("open", "print", "input", "breakpoint"),
    *("eval", "exec", "compile", "__import__", "globals"),
}
FORBIDDEN_ATTRIBUTES = {
    *("now", "utcnow", "today", "fromtimestamp", "import_module", "read_text", "write_text"),
    *("perf_counter", "monotonic", "urandom", "getrandbits"),
}


def modules_of(room: str) -> list[Path]:
    return sorted((SRC / "penstock" / room).rglob("*.py"))


ALL = [
    pytest.param(room, path, id=f"{room}/{path.name}")
    for room in ROOMS
    for path in modules_of(room)
]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every module that is imported anywhere in a file, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield node.lineno, node.module or ""


def room_of(module: str) -> str | None:
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "penstock" else None


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_without_io_is_there(room: str) -> None:
    assert modules_of(room)


@pytest.mark.parametrize(("room", "path"), ALL)
def test_a_module_imports_only_what_is_allowed(room: str, path: Path) -> None:
    refused = [
        f"line {line}: {module}"
        for line, module in imports_of(tree_of(path))
        if module not in PURE_IN[room] and room_of(module) not in ROOMS[room]
    ]
    assert not refused, f"{path.relative_to(SRC)} imports {refused}"


@pytest.mark.parametrize(("room", "path"), ALL)
def test_a_module_calls_nothing_that_reaches_outside(room: str, path: Path) -> None:
    refused: list[str] = []
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in FORBIDDEN_NAMES:
            refused.append(f"line {node.lineno}: {called.id}()")
        if isinstance(called, ast.Attribute) and called.attr in FORBIDDEN_ATTRIBUTES:
            refused.append(f"line {node.lineno}: .{called.attr}()")
    assert not refused, f"{path.relative_to(SRC)} calls {refused}"


@pytest.mark.parametrize(("room", "path"), ALL)
def test_a_module_awaits_nothing(room: str, path: Path) -> None:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    lines = [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, waiting)]
    assert not lines, f"{path.relative_to(SRC)} waits in lines {lines}"


@pytest.mark.parametrize(("room", "path"), ALL)
def test_importing_a_module_only_defines(room: str, path: Path) -> None:
    """No loop, no call for its effect, no `global`: a module is the same whoever met it first."""
    tree = tree_of(path)
    definitions = (
        *(ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef),
        *(ast.Assign, ast.AnnAssign, ast.If),
    )
    for node in tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert is_docstring or isinstance(node, definitions), f"line {node.lineno} does something"
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Global)]
    assert not lines, f"{path.relative_to(SRC)} changes a global in lines {lines}"


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from random import random",
        "def late():\n    import socket",
        "import penstock.server.hub",
        "from penstock.telemetry import names",
        "from penstock import Hub",
        "import collections_extra",
    ],
)
def test_the_rule_itself_sees_what_it_must_refuse(source: str) -> None:
    for room, rooms in ROOMS.items():
        found = [module for _, module in imports_of(ast.parse(source))]
        assert [m for m in found if m not in PURE_IN[room] and room_of(m) not in rooms]


@pytest.mark.parametrize(("source", "rule"), LINTED, ids=[repr(source) for source, _ in LINTED])
@pytest.mark.parametrize("room", ROOMS)
def test_the_linter_refuses_it_while_it_is_being_written(room: str, source: str, rule: str) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed: `make install` brings it")
    name = SRC / "penstock" / room / "unwritten.py"
    command = [ruff, "check", "--no-cache", "--output-format=json", "--stdin-filename", name, "-"]
    said = subprocess.run(command, input=source.encode(), capture_output=True, check=False)
    assert rule in {finding["code"] for finding in json.loads(said.stdout)}

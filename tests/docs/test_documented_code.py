"""Every Python block in the documentation is Python, and the complete ones do what they say.

A block that makes an `app` is served by uvicorn as the pages say; one that begins with an import is
a program and is run, with the addresses of the pages replaced by those of a live server; the rest
are fragments, and compile.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import running_programs
from docs.documents import (
    PAGES,
    ROOT,
    Block,
    blocks,
    environment,
    gateway,
    require,
    serving,
    uvicorn,
)

PATIENCE_S = 60
INTEROP = ROOT / "tests" / "interop"
NODE_PACKAGES = {ROOT / "docs" / "build" / "vendor-sdks.md": INTEROP / "llm_sdks"}
"""By page: where the npm packages are that its scripts import, if elsewhere than usual."""
PYTHON = [block for page in PAGES for block in blocks(page, "python")]
SCRIPTS = [block for page in PAGES for block in blocks(page, "js")]
APPLICATIONS = [
    b for b in PYTHON if re.search(r"^(app\b.*=|async def app\()", b.text, re.MULTILINE)
]
PROGRAMS = [
    block
    for block in PYTHON
    if block not in APPLICATIONS
    and block.text.startswith(("import ", "from "))
    and "from mine import" not in block.text
]
MODULES = [block for block in SCRIPTS if re.search(r"^import ", block.text, re.MULTILINE)]
HALVES = [block for block in MODULES if re.search(r"^export ", block.text, re.MULTILINE)]
"""One half of a chat each: the application's, then its page's."""


def where(block: Block) -> str:
    return block.where


@pytest.mark.parametrize("block", PYTHON, ids=where)
def test_a_python_block_compiles(block: Block) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compile(block.text, block.where, "exec", flags=flags, dont_inherit=True)


@pytest.mark.parametrize("block", SCRIPTS, ids=where)
def test_a_script_for_the_browser_parses(block: Block, tmp_path: Path) -> None:
    require("node")
    (tmp_path / "script.mjs").write_text(block.text, "utf-8")
    done = subprocess.run(
        ["node", "--check", "script.mjs"],
        cwd=tmp_path,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("block", PROGRAMS, ids=where)
def test_a_program_of_the_documentation_runs(block: Block, server: str, tmp_path: Path) -> None:
    for package in re.findall(r"^(?:import|from) (\w+)", block.text, re.MULTILINE):
        require_package(package)
    (tmp_path / "program.py").write_text(at(server, block), "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"{block.where}:\n{done.stderr.decode()}"


@pytest.mark.parametrize("block", [b for b in MODULES if b not in HALVES], ids=where)
def test_a_script_that_imports_a_package_runs(block: Block, server: str, tmp_path: Path) -> None:
    node = running_programs.node()
    program = module(tmp_path, "program", at(server, block), block.page)
    done = run_node(node, str(program))
    assert done.returncode == 0, f"{block.where}:\n{done.stderr.decode()}"


@pytest.mark.parametrize("kit", ["aisdk", "tanstack"])
def test_a_chat_of_the_documentation_answers(kit: str, server: str, tmp_path: Path) -> None:
    node = running_programs.node()
    application, page = (
        module(tmp_path, f"half-{number}", at(server, half), half.page)
        for number, half in enumerate(HALVES)
        if kit in half.text
    )
    script = module(tmp_path, "chat", (ROOT / "tests/docs/chat_of_a_page.mjs").read_text("utf-8"))
    done = run_node(node, str(script), kit, str(application), str(page))
    assert done.returncode == 0, done.stderr.decode()
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers == ["You asked: Why?"] * (2 if kit == "aisdk" else 1)


@pytest.mark.parametrize("block", APPLICATIONS, ids=where)
def test_an_application_of_the_documentation_serves_streams(block: Block, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(block.text, "utf-8")
    (tmp_path / "penstock.toml").write_text(gateway("http://127.0.0.1:9"), "utf-8")
    with serving(uvicorn("main"), tmp_path) as address:
        answers = [get(f"{address}{prefix}/stream/nobody") for prefix in ("/v1", "", "/llm/v1")]
    assert any(b'"stream-not-found"' in body for _, body in answers), answers


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "portable"])
def test_the_readmes_application_streams_an_answer_and_resumes_it(
    fast: bool, tmp_path: Path
) -> None:
    (block,) = [block for block in APPLICATIONS if block.page == ROOT / "README.md"]
    (tmp_path / "main.py").write_text(block.text, "utf-8")
    with serving(uvicorn("main", fast=fast), tmp_path) as address:
        status, body = get(f"{address}/chat/42?prompt=hello+again", method="POST")
        assert status == 200
        ids = re.findall(rb"^id: (\S+)$", body, re.MULTILINE)
        assert re.findall(rb"^data: (.*)$", body, re.MULTILINE) == [
            b'"hello"',
            b'"again"',
            b'{"reason":"complete"}',
        ]
        url = f"{address}/v1/stream/chat/42"
        _, rest = get(
            url, headers={"Accept": "text/event-stream", "Last-Event-ID": ids[0].decode()}
        )
        assert re.findall(rb"^id: (\S+)$", rest, re.MULTILINE) == ids[1:]
        _, whole = get(url)
        assert json.loads(whole) == ["hello", "again"]


def test_the_backend_of_the_documentation_keeps_the_contract_and_serves(tmp_path: Path) -> None:
    backend, contract = blocks(ROOT / "docs/build/write-a-backend.md", "python")
    (tmp_path / "mine.py").write_text(backend.text, "utf-8")
    (tmp_path / "test_mine.py").write_text(contract.text, "utf-8")
    (tmp_path / "main.py").write_text(HUB_ON_MINE, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_mine.py", *("-p", "no:cacheprovider")],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()
    assert b" passed, " in done.stdout  # and what needs a capability is skipped
    with serving(uvicorn("main"), tmp_path) as address:
        url = f"{address}/stream/a"
        headers = {"Content-Type": "application/json"}
        assert get(url, method="PUT", headers=headers)[0] == 201
        assert get(url, method="POST", headers=headers, body=b"[1,2]")[0] == 204
        assert get(url) == (200, b"[1,2]")
        assert get(f"{address}/streams")[0] == 501
        fork = {"Stream-Forked-From": "/stream/a"}
        assert get(f"{address}/stream/b", method="PUT", headers=fork)[0] == 501


HUB_ON_MINE = """
import time
from mine import DictBackend
from penstock import Hub

app = Hub(DictBackend(time.time)).asgi
"""


def at(server: str, block: Block) -> str:
    """A block's text with the address of a server that runs."""
    return re.sub(r"http://127\.0\.0\.1:(4437|8000)", server, block.text)


def module(folder: Path, name: str, text: str, page: Path | None = None) -> Path:
    """Write a module of JavaScript where it finds the packages that it imports."""
    if not (folder / "node_modules").exists():
        packages = NODE_PACKAGES.get(page or ROOT, INTEROP / "durable_streams")
        (folder / "node_modules").symlink_to(packages / "node_modules")
    path = folder / f"{name}.mjs"
    path.write_text(text, "utf-8")
    return path


def run_node(*command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )


def require_package(package: str) -> None:
    """Skip, loudly, without a package that a page uses; under PENSTOCK_STRICT=1, fail."""
    if importlib.util.find_spec(package) is not None:
        return
    message = f"needs {package!r}: install the development dependencies (make install)"
    if os.environ.get("PENSTOCK_STRICT") == "1":
        pytest.fail(message)
    pytest.skip(message)


def get(
    url: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> tuple[int, bytes]:
    """Ask, and give status and body, also of an error."""
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()

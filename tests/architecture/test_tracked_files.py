"""What is in the repository belongs there: small, explained, and free of anybody's own machine.

The files are those that git tracks or would add. Outside a git checkout there is nothing to say,
and the tests skip.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_BYTES = 1_000_000
MAX_SOURCE_LINES = 600
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "stuff"}

# Each pattern is written so that it does not match itself.
UNWANTED = {
    "a developer's absolute path": re.compile(r"(?<![\w.~/:*-])/(?:work|root|home|Users)/[\w.]"),
    "a package index by name": re.compile(
        r"\b(?:pypi\.org|pythonhosted\.org|registry\.npmjs\.org|registry\.yarnpkg\.com"
        r"|proxy\.golang\.org|static\.crates\.io)\b"
    ),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE[ ]KEY-----"),
    "a provider's key": re.compile(r"\b(?:sk-(?:ant-|proj-)?[A-Za-z0-9]{24,}|AKIA[0-9A-Z]{16})\b"),
    "an unresolved merge": re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE),
    "work left for later": re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X])\b(?!['\"`])"),
}


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that git tracks or would add, that is still there."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: clone the repository to check what it tracks")
    listed = subprocess.run(
        [git, "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
    )
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return tuple(path for path in paths if path.is_file())


@cache
def text_of(path: Path) -> str | None:
    """A file's text; None for what is not text."""
    content = path.read_bytes()
    if b"\0" in content[:8192]:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def under(*parts: str) -> list[Path]:
    folder = ROOT.joinpath(*parts)
    return [path for path in tracked() if path.is_relative_to(folder)]


def test_no_file_is_larger_than_a_megabyte() -> None:
    large = {named(path): path.stat().st_size for path in tracked()}
    assert not {name: size for name, size in large.items() if size > MAX_FILE_BYTES}


@pytest.mark.parametrize("what", UNWANTED)
def test_no_text_holds(what: str) -> None:
    found = [
        f"{named(path)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}"
        for path in tracked()
        if (text := text_of(path)) is not None
        for match in UNWANTED[what].finditer(text)
    ]
    assert not found, f"{what}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a developer's absolute path", "open('" + "/".join(["", "home", "ada", "x"]) + "')"),
        ("a developer's absolute path", "/".join(["", "work", "main"])),
        ("a package index by name", "https://" + "pypi" + ".org/simple"),
        ("a private key", "-----BEGIN RSA PRIVATE" + " KEY-----"),
        ("an unresolved merge", "<" * 7 + " HEAD"),
        ("work left for later", "# TO" + "DO: later"),
    ],
)
def test_the_rule_itself_sees_what_it_must_refuse(what: str, text: str) -> None:
    assert UNWANTED[what].search(text)


@pytest.mark.parametrize(
    "text",
    ["docs/wor" + "k/flow.md", "https://example.com/home/page", "~/wor" + "k/x", "a /working day"],
)
def test_the_rule_itself_lets_other_paths_be(text: str) -> None:
    assert not UNWANTED["a developer's absolute path"].search(text)


def test_every_source_file_opens_with_what_it_is() -> None:
    """A module's first statement is a docstring. An empty `__init__.py` has nothing to say."""
    silent = [
        named(path)
        for path in [*under("src"), *under("tests"), *under("bench"), *under("examples")]
        if path.suffix == ".py"
        and (text := text_of(path) or "").strip()
        and not ast.get_docstring(ast.parse(text))
    ]
    assert not silent


def test_every_script_for_the_browser_opens_with_what_it_is() -> None:
    silent = [
        named(path)
        for path in [*under("src", "penstock", "web"), *under("clients", "typescript", "src")]
        if path.suffix in {".js", ".ts", ".css"}
        and ".min." not in path.name
        and not (text_of(path) or "").lstrip().startswith(("/*", "//"))
    ]
    assert not silent


def test_no_source_file_is_longer_than_a_reader_can_hold() -> None:
    lines = {
        named(path): (text_of(path) or "").count("\n")
        for path in under("src")
        if path.suffix == ".py"
    }
    assert not {name: count for name, count in lines.items() if count > MAX_SOURCE_LINES}


def test_no_file_has_a_name_that_could_hold_anything() -> None:
    assert not [named(path) for path in tracked() if path.stem.lstrip("_") in VAGUE]


def test_a_test_files_name_is_unique() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in under("tests"):
        if path.name.startswith("test_"):
            places[path.name].append(named(path))
    assert not {name: where for name, where in places.items() if len(where) > 1}


def test_text_ends_with_one_line_end_and_holds_no_carriage_return() -> None:
    # Recorded bytes and vectors may hold what they like; what people write may not.
    written = {".py", ".md", ".toml", ".yaml", ".yml", ".js", ".ts", ".css", ".html", ".sh"}
    odd = [
        named(path)
        for path in tracked()
        if path.suffix in written
        and (text := text_of(path))
        and ("\r" in text or not text.endswith("\n") or text.endswith("\n\n"))
    ]
    assert not odd

"""The vendors' SDKs as their page points them: a chat of the AI SDK that is loaded again and
stopped, and versions that are those of the tests.

The page's other programs are run by `test_documented_code.py` and `test_documented_commands.py`.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path

import running_programs
from docs.documents import ROOT, blocks, table
from docs.test_documented_code import at, module, run_node
from penstock.testing.recordings import built_in

PAGE = ROOT / "docs" / "build" / "vendor-sdks.md"
SDKS = ROOT / "tests" / "interop" / "llm_sdks"


def test_a_chat_of_the_page_is_resumed_and_stopped(server: str, tmp_path: Path) -> None:
    node = running_programs.node()
    (half,) = (block for block in blocks(PAGE, "js") if "export " in block.text)
    page = module(tmp_path, "page", at(server, half), PAGE)
    driver = (ROOT / "tests/docs/chat_of_the_gateway.mjs").read_text("utf-8")
    script = module(tmp_path, "chat", driver, PAGE)
    done = run_node(node, str(script), str(page))
    assert done.returncode == 0, done.stderr.decode()
    asked, resumed, after = (json.loads(line) for line in done.stdout.splitlines())
    whole = built_in("granite").turns[0]
    assert asked == resumed
    assert whole.startswith(asked)
    assert 0 < len(asked) < len(whole)
    assert after is None  # nothing runs: there is nothing to resume


def test_the_versions_are_those_that_are_tested() -> None:
    rows = {
        cell.split(" ")[0].strip(",") + (" npm" if " of npm" in cell else ""): versions
        for cell, versions in table("docs/build/vendor-sdks.md", "Package", "Versions")
    }
    npm = json.loads((SDKS / "package.json").read_text("utf-8"))["dependencies"]
    npm = {name: found.rpartition("@")[2] for name, found in npm.items()}
    before = dict(re.findall(r"^(\w+)==(\S+)", (SDKS / "previous.txt").read_text("utf-8"), re.M))

    def short(*versions: str) -> str:
        return ", ".join(".".join(found.split(".")[:2]) for found in versions)

    assert rows == {
        "openai": short(version("openai"), before["openai"]),
        "anthropic": short(version("anthropic"), before["anthropic"]),
        "openai npm": short(npm["openai"]),
        "@anthropic-ai/sdk": short(npm["@anthropic-ai/sdk"]),
        "ai": short(npm["ai"], npm["ai-6"], npm["ai-5"]),
        "@ag-ui/client": short(npm["@ag-ui/client"]),
    }

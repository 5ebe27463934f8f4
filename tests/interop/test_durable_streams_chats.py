"""A chat survives a closed page, with the Durable Streams transports of two AI toolkits.

The Vercel AI SDK, TanStack AI, their transports and the protocol's client are the published ones,
and are used as their authors' guides say: an application writes the answer into a stream, and the
page reads it from there. What runs is in `durable_streams/`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interop.durable_streams.serving import serving
from running_programs import Program, program

PROGRAMS = Path(__file__).parent / "durable_streams"
PIECES = ["Über ", "den ", "Strom ", "— ", "流れ ", "🌊", "\n", "und ", "zurück. "] * 4
HALF = "".join(PIECES[: len(PIECES) // 2])
WHOLE = "".join(PIECES)


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.parametrize("kit", ["aisdk", "tanstack"])
async def test_a_page_that_comes_back_gets_the_whole_answer(
    kit: str, backend: str, tmp_path: Path
) -> None:
    """The page is killed in the middle of the answer; where streams are stored, the server too."""
    page = PROGRAMS / f"chat_{kit}.mjs"
    with serving(backend, tmp_path) as server:
        answering = (kit, f"{server.streams}/chats", json.dumps(PIECES))
        async with program(PROGRAMS / "app.mjs", *answering) as application:
            chat = f"{(await application.line())['address']}/chat/one"
            async with program(page, chat, "ask") as asking:
                await _grows_to_half(asking)
            if backend == "sqlite":
                server.kill()
                server.start_again()
            async with program(page, chat, "resume") as resuming:
                await _grows_to_half(resuming)
                await application.say("go on")
                *growing, last = [next(iter(line.items())) for line in await resuming.rest()]
    assert last == ("whole", WHOLE)
    texts = [text for _, text in growing]
    assert texts == sorted(texts, key=len)
    assert all(WHOLE.startswith(text) for text in texts)


async def _grows_to_half(page: Program) -> None:
    """The page shows the first half of the answer, and nothing that is not in it."""
    text = ""
    while text != HALF:
        text = (await page.line())["text"]
        assert HALF.startswith(text)

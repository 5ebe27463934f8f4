"""Writes the pictures of the documentation, from the real demo: `make screenshots`.

Each picture is one place of one run of the demo, in a browser without a window, and comes out
smaller than 200 KB. The chat's are taken in the middle of an answer, after one reload.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.async_api import Browser, Page, ViewportSize

from browser.chromium import launched, patient, until
from browser.demo_page import join_arena, reach, send_board, send_chat
from browser.processes import Penstock, demo

FOLDER = Path(__file__).parents[2] / "docs" / "images"
DESK: ViewportSize = {"width": 1280, "height": 860}
PHONE: ViewportSize = {"width": 390, "height": 844}
MAX_BYTES = 200_000
COLOURS = 128
TO_TOP = """() => new Promise((done) => {
  // Twice, a frame apart: the page follows its tail until it has seen that somebody scrolled away.
  const top = () => scrollTo({ top: 0, behavior: "instant" });
  top();
  requestAnimationFrame(() => {
    top();
    requestAnimationFrame(() => requestAnimationFrame(done));
  });
})"""


async def save(page: Page, name: str) -> None:
    """Write the page as it is, in a palette: nothing here is a photograph."""
    raw = await page.screenshot(animations="disabled", caret="hide")
    path = FOLDER / f"{name}.png"
    picture = Image.open(io.BytesIO(raw)).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.name}: {size / 1000:.0f} kB")
    assert size < MAX_BYTES, path


@asynccontextmanager
async def tab(
    browser: Browser, size: ViewportSize = DESK, scheme: Literal["light", "dark"] = "light"
) -> AsyncGenerator[Page]:
    context = patient(
        await browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1)
    )
    yield await context.new_page()
    await context.close()


async def chat(
    page: Page, server: Penstock, name: str, *, reload_at: int = 240, until_at: int = 430
) -> None:
    """In the middle of an answer, with the mark of a reload at the text's length `reload_at`."""
    await send_chat(page, server)
    await reach(page, reload_at)
    await page.evaluate(TO_TOP)
    await page.reload()
    await page.get_by_test_id("chat-resumed").wait_for(state="visible")
    await until(page, "document.querySelector('[data-testid=chat-readers]').textContent === '1'")
    await reach(page, until_at)
    await page.evaluate(TO_TOP)
    await save(page, name)
    await page.get_by_test_id("chat-stop").click()


async def arena(page: Page, server: Penstock) -> None:
    await join_arena(page, server)
    await until(
        page, "penstockDemo.arena.turns.length >= 3 && penstockDemo.arena.turns[2].words > 20"
    )
    await page.evaluate(TO_TOP)
    await save(page, "arena")


async def board(page: Page, server: Penstock) -> None:
    await send_board(page, server)
    await until(page, "(penstockDemo.board.texts.granite ?? '').length > 500")
    await page.evaluate(TO_TOP)
    await save(page, "board")


async def panel(page: Page, server: Penstock) -> None:
    """A minute's lines need some seconds of something to show."""
    await page.goto(f"{server.url}/#panel")
    await until(page, "document.querySelectorAll('.spark-line').length > 0")
    await page.wait_for_timeout(12_000)
    await save(page, "panel")


async def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with demo(tokens_per_s=40, first_token_s=0.6) as server, launched() as browser:
        async with tab(browser) as page:
            await chat(page, server, "chat-light")
        async with tab(browser, scheme="dark") as page:
            await chat(page, server, "chat-dark")
        async with tab(browser, PHONE) as page:
            await chat(page, server, "phone", reload_at=150, until_at=300)
        async with tab(browser) as watching, tab(browser) as asking, tab(browser) as reading:
            debate = asyncio.create_task(arena(watching, server))
            await board(asking, server)
            await panel(reading, server)
            await debate


if __name__ == "__main__":
    asyncio.run(main())

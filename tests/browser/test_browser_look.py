"""The page is usable: on a phone, in light and dark, with a keyboard, by a screen reader.

And it is quiet: every test of this folder that asks for `page` also asserts that no script of the
page failed, nothing was missing and nothing broke the content security policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page

from browser.chromium import Complaints, patient, until
from browser.demo_page import join_arena, reach_state, send_board, send_chat
from browser.processes import Penstock

pytestmark = pytest.mark.asyncio(loop_scope="session")

PARTS = ("chat", "arena", "board", "panel")
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 860}

TOO_WIDE = """() => {
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const culprits = wide <= 0 ? [] : [...document.querySelectorAll("body *")]
    .filter((node) => node.getBoundingClientRect().right > document.documentElement.clientWidth)
    .map((node) => `${node.tagName}.${node.className}`);
  return [wide, culprits.slice(0, 5)];
}"""

# The focused control, and whether it or the field around it is outlined.
FOCUSED = """() => {
  const node = document.activeElement;
  if (node === document.body) return null;
  const rings = [node, node.parentElement].some((each) => {
    const { outlineStyle, outlineWidth } = getComputedStyle(each);
    return outlineStyle !== "none" && parseFloat(outlineWidth) > 0;
  });
  const { top, bottom, left, right, width } = node.getBoundingClientRect();
  const seen = width > 0 && top >= 0 && left >= 0 && bottom <= innerHeight && right <= innerWidth;
  return [node.dataset.testid ?? node.id ?? node.textContent, rings, seen];
}"""

# Text and the nearest background behind it, and how far apart they are by WCAG 2.2, 1.4.3.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b]
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const colour = rgba(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const faint = [];
  for (const node of document.querySelectorAll("main *, header *, footer *")) {
    const isText = [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim() !== "");
    if (!isText || !node.checkVisibility() || node.matches(":disabled, .md, svg *")) continue;
    const [one, other] = [light(rgba(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const size = parseFloat(getComputedStyle(node).fontSize);
    if (ratio < (size >= 24 ? 3 : 4.5)) {
      faint.push(`${ratio.toFixed(2)}: ${node.tagName}.${node.className} ${node.textContent}`);
    }
  }
  return faint;
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def addresses(chromium: Browser, demo: Penstock) -> dict[str, str]:
    """Each part with something in it: an answer, a debate that was stopped, a board, numbers."""
    context = patient(await chromium.new_context())
    chat, arena, board = [await context.new_page() for _ in range(3)]
    await asyncio.gather(send_chat(chat, demo), join_arena(arena, demo), send_board(board, demo))
    await reach_state(chat, "complete")
    await reach_state(board, "complete", "board")
    await until(arena, "penstockDemo.arena.turns.length >= 2")
    await arena.get_by_test_id("arena-stop").click()
    await reach_state(arena, "cancelled", "arena")
    found = {
        "chat": chat.url,
        "arena": arena.url,
        "board": board.url,
        "panel": f"{demo.url}/#panel",
    }
    await context.close()
    return found


@pytest_asyncio.fixture(loop_scope="session", params=["light", "dark"])
async def themed(
    request: pytest.FixtureRequest, chromium: Browser
) -> AsyncGenerator[BrowserContext]:
    """A profile whose system prefers light or dark."""
    scheme: Literal["light", "dark"] = request.param
    context = patient(await chromium.new_context(color_scheme=scheme))
    complaints = Complaints(context)
    yield context
    await context.close()
    assert complaints.said == []


async def visit(page: Page, address: str, part: str) -> None:
    """Go to a part and wait until it shows what it has."""
    await page.goto("about:blank")  # or a new hash would be no new page
    await page.goto(address)
    ends = ["complete", "cancelled"]
    if part == "panel":
        await until(page, "penstockDemo.panel.source !== ''")
    else:
        claim = "([part, ends]) => ends.includes(window.penstockDemo?.[part].state)"
        await until(page, claim, [part, ends])


async def test_every_part_fits_and_reads_well(themed: BrowserContext, addresses: dict[str, str]):
    """No part is wider than a phone or a desk, and no text too faint, in light or dark."""
    page = await themed.new_page()
    for part in PARTS:
        await page.set_viewport_size(DESK)
        await visit(page, addresses[part], part)
        assert await page.evaluate(TOO_WIDE) == [0, []], (part, "desk")
        assert await page.evaluate(CONTRAST) == [], part
        await page.set_viewport_size(PHONE)
        assert await page.evaluate(TOO_WIDE) == [0, []], (part, "phone")
    await page.set_viewport_size(PHONE)
    await page.goto(addresses["chat"].partition("#")[0])
    assert await page.evaluate(TOO_WIDE) == [0, []], "before the first question"


async def test_the_theme_can_be_chosen_and_is_kept(page: Page, demo: Penstock):
    await page.goto(f"{demo.url}/")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(paper)
    await page.get_by_role("button", name="Dark theme").click()
    dark = await page.evaluate(paper)
    assert dark != light
    await page.reload()
    assert await page.evaluate(paper) == dark


async def test_every_control_has_a_name_and_every_part_one_heading(
    page: Page, addresses: dict[str, str]
):
    wanted = {"button", "link", "textbox", "checkbox", "region", "navigation", "article"}
    session = await page.context.new_cdp_session(page)
    for part in PARTS:
        await visit(page, addresses[part], part)
        tree: dict[str, Any] = await session.send("Accessibility.getFullAXTree")
        nodes = [node for node in tree["nodes"] if not node["ignored"]]
        roles = [node["role"]["value"] for node in nodes]
        nameless = [
            node["role"]["value"]
            for node in nodes
            if node["role"]["value"] in wanted and not node.get("name", {}).get("value")
        ]
        assert nameless == [], part
        assert roles.count("main") == 1
        assert roles.count("button") >= 1
        assert await page.locator("h1:visible").count() == 1, part
        assert await page.evaluate("document.documentElement.lang") == "en"


async def test_the_keyboard_reaches_every_control_and_its_focus_is_seen(
    page: Page, addresses: dict[str, str]
):
    await page.set_viewport_size(DESK)
    for part in ("chat", "arena", "board"):
        await visit(page, addresses[part], part)
        await page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
        reached: list[str] = []
        for _ in range(40):
            await page.keyboard.press("Tab")
            focused = await page.evaluate(FOCUSED)
            if focused is None:
                break
            name, is_ringed, is_seen = focused
            assert is_ringed, (part, name)
            assert is_seen, (part, name)
            reached.append(name)
        controls = f"#part-{part} :is(button, a, input, textarea):not(:disabled)"
        visible = await page.locator(f"{controls}:visible").count()
        assert len(reached) >= visible + 6, (part, reached)


@pytest.mark.parametrize("share", [0.0, 0.4])
async def test_a_reload_leaves_the_page_where_it_was(page: Page, unhurried: Penstock, share: float):
    """At the top it stays at the top, with the headline in sight; elsewhere it comes back there."""
    await page.set_viewport_size({"width": 1280, "height": 420})
    await send_chat(page, unhurried)
    await until(page, "penstockDemo.chat.text.length > 300")
    scroll = """share => {
      scrollTo({ top: share * (document.body.scrollHeight - innerHeight), behavior: "instant" });
      return Math.round(scrollY);
    }"""
    top_px = await page.evaluate(scroll, share)
    assert (top_px > 0) == (share > 0)
    await page.reload()
    await page.get_by_test_id("chat-resumed").wait_for(state="visible")
    length = await page.evaluate("penstockDemo.chat.text.length")
    await until(page, "n => penstockDemo.chat.text.length > n + 40", length)
    assert await page.evaluate("Math.round(scrollY)") == top_px
    header = "document.querySelector('.masthead').getBoundingClientRect().bottom"
    title = "document.getElementById('title-chat').getBoundingClientRect().top"
    if share == 0:
        assert await page.evaluate(title) >= await page.evaluate(header)
    await page.get_by_test_id("chat-stop").click()
    await reach_state(page, "cancelled")

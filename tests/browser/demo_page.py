"""What a person does on the demo's page, and what the page then holds."""

from __future__ import annotations

from playwright.async_api import Page

from browser.chromium import until
from browser.processes import Penstock

QUESTION = "Why is a stream a log?"


async def send_chat(page: Page, demo: Penstock, question: str = QUESTION) -> str:
    """Ask the chat; gives the stream's name as soon as the address bar has it."""
    await page.goto(f"{demo.url}/")
    await page.get_by_test_id("chat-prompt").fill(question)
    await page.get_by_test_id("chat-send").click()
    await until(page, "location.hash.startsWith('#chat=')")
    return f"demo/chat/{(await page.evaluate('location.hash')).removeprefix('#chat=')}"


async def send_board(page: Page, demo: Penstock, question: str = QUESTION) -> None:
    """Ask the board."""
    await page.goto(f"{demo.url}/#board")
    await page.get_by_test_id("board-prompt").fill(question)
    await page.get_by_test_id("board-send").click()
    await until(page, "location.hash.startsWith('#board=')")


async def join_arena(page: Page, demo: Penstock) -> None:
    """Start the debate, or join the one that runs."""
    await page.goto(f"{demo.url}/#arena")
    await page.get_by_test_id("arena-start").click()
    await until(page, "location.hash === '#arena=live'")


async def reach(page: Page, length: int, part: str = "chat") -> None:
    """Wait until a part's text is this long, in UTF-16 units as the page counts."""
    claim = "([part, n]) => window.penstockDemo?.[part].text.length >= n"
    await until(page, claim, [part, length])


async def reach_state(page: Page, state: str, part: str = "chat") -> None:
    """Wait for a part's state."""
    claim = "([part, s]) => window.penstockDemo?.[part].state === s"
    await until(page, claim, [part, state])


async def text_of(page: Page, part: str = "chat") -> str:
    """Exactly the text deltas that the page has received, joined."""
    return str(await page.evaluate("part => penstockDemo[part].text", part))


async def progress(page: Page, part: str = "chat") -> tuple[str, str]:
    """The state and the text, of one moment."""
    both = "part => [penstockDemo[part].state, penstockDemo[part].text]"
    state, text = await page.evaluate(both, part)
    return state, text

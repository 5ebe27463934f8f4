"""The real browser: Chromium as the system packages it, driven over its own protocol.

`launched()` runs it; `Complaints` listens to what its pages complain of. `PENSTOCK_CHROMIUM` names
another binary. Where there is none, or no driver, every test of this folder says so and is skipped;
under PENSTOCK_STRICT=1 that is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    WebError,
    async_playwright,
)

PATIENCE_S = 25.0
"""How long to wait for something that takes milliseconds when nothing else runs."""

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

NETWORK_WENT = "Failed to load resource: "
"""How Chromium begins what it says of a connection that was cut, or of an error's status."""


def require() -> str:
    """The path of Chromium; skips or fails without one."""
    path = os.environ.get("PENSTOCK_CHROMIUM") or shutil.which("chromium")
    if path and os.access(path, os.X_OK):
        return path
    message = "needs Chromium: apt-get install chromium, or name the binary in PENSTOCK_CHROMIUM"
    if os.environ.get("PENSTOCK_STRICT") == "1":
        pytest.fail(message)
    pytest.skip(message)


@asynccontextmanager
async def launched() -> AsyncGenerator[Browser]:
    """A browser without a window, until the block ends."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=require(), args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


def patient(context: BrowserContext) -> BrowserContext:
    """Give every wait of a context the patience of this folder."""
    context.set_default_timeout(PATIENCE_S * 1000)
    return context


class Complaints:
    """Console errors, uncaught exceptions and policy violations of every page of a context."""

    def __init__(self, context: BrowserContext) -> None:
        self.said: list[str] = []
        self._forgiven = ""
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type != "error" or (self._forgiven and message.text.startswith(self._forgiven)):
            return
        self.said.append(f"{message.text} ({message.location.get('url')})")

    def _on_error(self, error: WebError) -> None:
        self.said.append(f"uncaught: {error.error}")

    @contextmanager
    def forgiving_network(self) -> Generator[None]:
        """Let connections fail in this block: the test takes the server away."""
        self._forgiven = NETWORK_WENT
        try:
            yield
        finally:
            self._forgiven = ""


async def until(page: Page, claim: str, argument: object = None) -> None:
    """Wait until an expression, or a function of `argument`, is true on the page."""
    # As a function: an expression would be evaluated by the page, whose policy forbids that.
    function = claim if "=>" in claim else f"() => {claim}"
    await page.wait_for_function(function, arg=argument, timeout=PATIENCE_S * 1000)

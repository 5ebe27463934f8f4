"""One browser and one demo for the whole folder; a fresh profile, and no complaints, a test."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import pytest_asyncio

from browser import processes

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page

    from browser.chromium import Complaints

HAS_DRIVER = importlib.util.find_spec("playwright") is not None
WITHOUT_DRIVER = "needs 'playwright': install the development dependencies (make install)"

if not HAS_DRIVER:
    if os.environ.get("PENSTOCK_STRICT") == "1":
        raise ModuleNotFoundError(WITHOUT_DRIVER)
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str | None:
    """Say at the top what is left out without the driver: the files cannot even be imported."""
    return None if HAS_DRIVER else f"tests/browser: SKIPPED, {WITHOUT_DRIVER}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncGenerator[Browser]:
    from browser.chromium import launched

    async with launched() as browser:
        yield browser


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def demo() -> AsyncGenerator[processes.Penstock]:
    async with processes.demo() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def unhurried() -> AsyncGenerator[processes.Penstock]:
    """A demo at a model's own pace, for what must be seen while answers stream."""
    async with processes.demo(tokens_per_s=40) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def profile(chromium: Browser) -> AsyncGenerator[BrowserContext]:
    """A browser context of the test's own."""
    from browser.chromium import patient

    # Small, since every pixel is drawn by the processor; who looks at the page sets a size.
    context = patient(await chromium.new_context(viewport={"width": 800, "height": 500}))
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def complaints(profile: BrowserContext) -> AsyncGenerator[Complaints]:
    """What the profile's pages complain of; anything fails the test at its end."""
    from browser.chromium import Complaints

    complaints = Complaints(profile)
    yield complaints
    assert complaints.said == []


@pytest_asyncio.fixture(loop_scope="session")
async def page(profile: BrowserContext, complaints: Complaints) -> Page:
    """A tab of a profile whose complaints are watched."""
    return await profile.new_page()

"""Arena, board and panel show what the logs and the metrics hold; three tabs share one server.

A debate has one log and any number of watchers, a board one log and three columns, and the panel
no number that is not in `/metrics`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Request

from browser.chromium import Complaints, patient, until
from browser.demo_page import (
    join_arena,
    progress,
    reach,
    reach_state,
    send_board,
    send_chat,
    text_of,
)
from browser.processes import Penstock, samples, total
from penstock.telemetry.names import SECONDS
from penstock.testing.recordings import built_in

pytestmark = pytest.mark.asyncio(loop_scope="session")

SPEAKERS = ("Moderator", "Aggressor", "Defender")
PROMPTLY_MS = 2_000
FIRST_TOKEN_S = 0.3
"""What the folder's demos are started with."""

COUNT_SOURCES = """
window.openSources = new Set();
window.EventSource = class extends EventSource {
  constructor(...given) { super(...given); openSources.add(this); }
  close() { super.close(); openSources.delete(this); }
};
"""


ASK = """async () => {
  const asked_ms = performance.now();
  await fetch("/demo/about");
  return performance.now() - asked_ms;
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def elsewhere(chromium: Browser) -> AsyncGenerator[Page]:
    """A tab of somebody else: another profile, with a connection pool of its own."""
    context = patient(await chromium.new_context())
    complaints = Complaints(context)
    yield await context.new_page()
    await context.close()
    assert complaints.said == []


def debate(turns: int) -> str:
    """What the page calls its text, of so many whole turns."""
    voices = [SPEAKERS[turn % 3] for turn in range(turns)]
    texts = [built_in(name.lower()).turns[turn // 3] for turn, name in enumerate(voices)]
    return "\n".join(f"{name}: {text}" for name, text in zip(voices, texts, strict=True))


async def test_every_watcher_of_the_arena_sees_the_same_debate(
    page: Page, elsewhere: Page, demo: Penstock
):
    """One joins late and reads from the first word; one presses Stop, and it ends for both."""
    await join_arena(page, demo)
    await until(page, "penstockDemo.arena.turns.length >= 2")
    _, before = await progress(page, "arena")
    await join_arena(elsewhere, demo)
    await reach(elsewhere, len(before), "arena")
    assert (await text_of(elsewhere, "arena")).startswith(before)
    await until(elsewhere, "penstockDemo.arena.turns.length >= 3")
    await elsewhere.get_by_test_id("arena-stop").click()
    for tab in (page, elsewhere):
        await reach_state(tab, "cancelled", "arena")
    texts = [await text_of(tab, "arena") for tab in (page, elsewhere)]
    assert texts[0] == texts[1]
    assert debate(4).startswith(texts[0])
    records = [await tab.evaluate("penstockDemo.arena.records") for tab in (page, elsewhere)]
    assert records[0] == records[1]


async def test_the_board_s_columns_are_the_models_answers(page: Page, demo: Penstock):
    await send_board(page, demo)
    await reach_state(page, "complete", "board")
    texts: dict[str, str] = await page.evaluate("penstockDemo.board.texts")
    voices = ("granite", "brook", "magpie")
    assert texts == {name: built_in(name).turns[0] for name in voices}
    for name in voices:
        column = page.get_by_test_id(f"board-column-{name}")
        assert "complete" in await column.inner_text()


async def next_scrape(page: Page) -> None:
    """Wait until the page has once more read the metrics."""
    async with page.expect_request_finished(lambda request: "/metrics" in request.url):
        pass


class InFlight:
    """The requests of a page that have no end yet: what holds a connection."""

    def __init__(self, page: Page) -> None:
        self.open: set[Request] = set()
        self.most = 0
        page.on("request", self._began)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)

    def _began(self, request: Request) -> None:
        self.open.add(request)
        self.most = max(self.most, len(self.open))

    def _ended(self, request: Request) -> None:
        self.open.discard(request)


async def test_three_tabs_stream_at_once_and_leave_room(
    profile: BrowserContext, page: Page, unhurried: Penstock
):
    """Six connections to a host are all a browser has: three tabs take no more than two each."""
    await profile.add_init_script(COUNT_SOURCES)
    tabs = {"chat": page, "arena": await profile.new_page(), "board": await profile.new_page()}
    await asyncio.gather(
        send_chat(tabs["chat"], unhurried),
        join_arena(tabs["arena"], unhurried),
        send_board(tabs["board"], unhurried),
    )
    in_flight = [InFlight(tab) for tab in tabs.values()]
    records = "part => penstockDemo[part].records"
    before = {part: await tab.evaluate(records, part) for part, tab in tabs.items()}
    for part, tab in tabs.items():
        await reach_state(tab, "streaming", part)
        await until(tab, "([part, n]) => penstockDemo[part].records > n + 20", [part, before[part]])

    assert total(await unhurried.metrics(), "penstock_readers") == len(tabs)
    for tab in tabs.values():
        assert await tab.evaluate("openSources.size") == 1
    fourth = await profile.new_page()
    await fourth.goto(f"{unhurried.url}/#panel", timeout=2 * PROMPTLY_MS)
    assert await fourth.evaluate(ASK) < PROMPTLY_MS
    # Each tab asks for the metrics beside its stream; after that nothing is missing in the count.
    await asyncio.gather(*(next_scrape(tab) for tab in tabs.values()))
    # The stream of each tab began before the counting did.
    assert max(counted.most for counted in in_flight) + 1 <= 2

    await tabs["arena"].get_by_test_id("arena-stop").click()
    await tabs["board"].get_by_test_id("board-stop").click()
    await tabs["chat"].get_by_test_id("chat-stop").click()
    for part, tab in tabs.items():
        await reach_state(tab, "cancelled", part)


async def tiles(panel: Page) -> tuple[dict[str, float], str]:
    """The numbers on the tiles, and the scrape that they were made of."""
    read = """() => [
      Object.fromEntries([...document.querySelectorAll(".tile output")]
        .map((tile) => [tile.dataset.testid, tile.dataset.value])),
      penstockDemo.panel.source,
    ]"""
    shown: tuple[dict[str, str], str] = await panel.evaluate(read)
    return {name: float(value) for name, value in shown[0].items() if value}, shown[1]


COUNTERS = {
    "panel-appended": "penstock_appended_records_total",
    "panel-delivered": "penstock_delivered_records_total",
    "panel-resumes": "penstock_resumes_total",
}
GAUGES = {
    "panel-streams": 'penstock_streams{state="running"}',
    "panel-readers": "penstock_readers",
    "panel-lag": "penstock_reader_lag_records_max",
}


async def test_the_panel_s_numbers_are_those_of_the_metrics(
    profile: BrowserContext, page: Page, unhurried: Penstock
):
    """Taken while an answer streams, between two scrapes of our own."""
    panel = await profile.new_page()
    await panel.goto(f"{unhurried.url}/#panel")
    await send_chat(page, unhurried)
    await reach(page, 100)
    before = await unhurried.metrics()
    await next_scrape(panel)  # one that may have been on its way
    async with panel.expect_response("**/metrics") as answering:
        pass
    text = await (await answering.value).text()
    await until(panel, "text => penstockDemo.panel.source === text", text)
    shown, source = await tiles(panel)
    after = await unhurried.metrics()
    state, _ = await progress(page)
    assert state == "streaming", "the numbers were taken while they moved"

    scraped = samples(source)
    for tile, metric in (COUNTERS | GAUGES).items():
        own = scraped[metric] if "{" in metric else total(scraped, metric)
        assert shown[tile] == own, tile
    for tile, metric in COUNTERS.items():
        assert total(before, metric) <= shown[tile] <= total(after, metric), tile
    assert shown["panel-readers"] == total(before, GAUGES["panel-readers"]) >= 1
    assert shown["panel-streams"] == before[GAUGES["panel-streams"]] >= 1
    assert shown["panel-appended"] > total(before, COUNTERS["panel-appended"])
    await page.get_by_test_id("chat-stop").click()
    await reach_state(page, "cancelled")
    near(shown["panel-ttft"], FIRST_TOKEN_S)
    remark = await panel.get_by_test_id("panel-ttft-remark").inner_text()
    assert re.search(r"median, p95 [\d.]+ m?s", remark)


def near(shown_s: float, real_s: float) -> None:
    """A quantile of a histogram is as exact as its buckets: in that of the value, or the next."""
    lower = max(bound for bound in (0.0, *SECONDS) if bound <= real_s)
    upper = min(bound for bound in SECONDS if bound > real_s)
    print(f"the first token after {shown_s:.3f} s, set to {real_s} s")
    assert lower <= shown_s <= upper, (lower, shown_s, upper)


async def test_the_panel_says_so_when_nobody_answers(
    profile: BrowserContext, page: Page, complaints: Complaints, demo: Penstock
):
    await page.goto(f"{demo.url}/#panel")
    await until(page, "document.querySelector('[data-testid=panel-status]').textContent === 'live'")
    with complaints.forgiving_network():
        await profile.set_offline(True)
        said = "document.querySelector('[data-testid=panel-status]').textContent === 'no answer'"
        await until(page, said)
        await profile.set_offline(False)
        await until(page, said.replace("no answer", "live"))

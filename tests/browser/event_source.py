"""The browser's own `EventSource` on a bare page, and a list of what it heard."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page

OPEN = """([url, types]) => {
  const source = new EventSource(url);
  const watched = { events: [], opens: 0, errors: 0, source };
  source.addEventListener("open", () => { watched.opens += 1; });
  source.addEventListener("error", () => { watched.errors += 1; });
  for (const type of types) {
    source.addEventListener(type, ({ data, lastEventId }) => {
      watched.events.push({ type, data, last_event_id: lastEventId });
    });
  }
  window.watched = watched;
}"""

IS_OVER = "() => watched.source.readyState === EventSource.CLOSED"
TYPES = ("message", "end", "gap", "drain", "status")


async def open_source(page: Page, url: str, types: tuple[str, ...] = TYPES) -> None:
    """Open an `EventSource` and keep what it hears."""
    await page.evaluate(OPEN, [url, list(types)])


async def heard(page: Page) -> list[dict[str, Any]]:
    """The events so far, each `{type, data, last_event_id}`."""
    events: list[dict[str, Any]] = await page.evaluate("watched.events")
    return events

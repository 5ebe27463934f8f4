"""Chromium's own `EventSource` hears of every decoding vector just what the vector says.

So the vectors are the standard as the browsers have it, and not our reading of it. Each case is a
raw answer to an `EventSource` of its own, all of them at once; when the body ends, the browser
comes back after the `retry:` of the case with its last event id, and 204 sends it away for good.

Left out: `limits`, which bounds our decoder alone, and cases that begin with an id, which no fresh
`EventSource` has.
"""

from __future__ import annotations

import asyncio
import json
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext

from browser.chromium import until
from browser.front import PAGE

pytestmark = pytest.mark.asyncio(loop_scope="session")

DIRECTORY = Path(__file__).parents[2] / "spec" / "vectors" / "sse"
LEFT_OUT = {"encode", "limits"}

# Chromium drops the BOM and, with it, the meaning of the byte behind: a line end there becomes the
# first character of the next line, whose field is then unknown. The standard has an empty line
# there. Nobody is hurt: what writes a BOM goes on with a field or a comment.
DIFFERENT_IN_CHROMIUM = {"bom: a BOM before a blank line is dropped"}

COMES_BACK_WITHIN_MS = 1_000
"""A case with a longer time is not waited for: its events are known at the end of its body."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
GONE = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"

WATCH = """([count, types, isWaitedFor]) => {
  window.cases = Array.from({ length: count }, (_, i) => {
    const kept = { events: [], isOver: false };
    const source = new EventSource(`/case/${i}`);
    for (const type of types) {
      source.addEventListener(type, (event) => {
        if (event.lastEventId === undefined) return; // the browser's own open and error
        kept.events.push({ type, data: event.data, last_event_id: event.lastEventId });
      });
    }
    source.addEventListener("error", (event) => {
      if (event.lastEventId !== undefined) return;
      if (!isWaitedFor[i]) source.close();
      kept.isOver = source.readyState === EventSource.CLOSED;
    });
    return kept;
  });
}"""


def decoding_cases() -> dict[str, dict[str, Any]]:
    """Every case that a fresh `EventSource` can be given, by family and name."""
    families = [json.loads(path.read_text("utf-8")) for path in sorted(DIRECTORY.glob("*.json"))]
    return {
        f"{family['family']}: {case['name']}": case
        for family in families
        if family["family"] not in LEFT_OUT
        for case in family["cases"]
        if "last_event_id" not in case
    }


CASES = decoding_cases()


class Answers:
    """A raw server: `/case/<n>` is the case's bytes the first time, and 204 the second."""

    def __init__(self, bodies: list[list[bytes]]) -> None:
        self.bodies = bodies
        self.ended_s: dict[int, float] = {}
        self.came_back_s: dict[int, float] = {}
        self.last_event_ids: dict[int, str] = {}

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode()
            if target == "/":
                writer.write(HEAD.replace(b"event-stream", b"html") + PAGE)
            elif (index := int(target.rpartition("/")[2])) in self.ended_s:
                self._on_return(index, head)
                writer.write(GONE)
            else:
                await self._send(index, writer)
            await writer.drain()
        finally:
            writer.close()

    async def _send(self, index: int, writer: StreamWriter) -> None:
        writer.write(HEAD)
        for chunk in self.bodies[index]:
            writer.write(chunk)
            await writer.drain()
        self.ended_s[index] = time.monotonic()

    def _on_return(self, index: int, head: bytes) -> None:
        self.came_back_s[index] = time.monotonic()
        for line in head.decode("utf-8").split("\r\n"):
            name, _, value = line.partition(":")
            if name.lower() == "last-event-id":
                self.last_event_ids[index] = value.strip(" ")


@asynccontextmanager
async def answering(answers: Answers) -> AsyncGenerator[str]:
    server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def body_of(case: dict[str, Any]) -> list[bytes]:
    if "text" in case:
        return [case["text"].encode()]
    return [bytes.fromhex(chunk) for chunk in case["chunks_hex"]]


async def test_chromium_hears_what_the_vectors_say(profile: BrowserContext):
    expected = [case["expected"] for case in CASES.values()]
    types = {event["type"] for outcome in expected for event in outcome["events"]} | {"message"}
    waits_ms = [outcome["retry_ms"] for outcome in expected]
    is_waited_for = [wait is not None and wait <= COMES_BACK_WITHIN_MS for wait in waits_ms]
    answers = Answers([body_of(case) for case in CASES.values()])
    async with answering(answers) as address:
        page = await profile.new_page()
        await page.goto(address)
        await page.evaluate(WATCH, [len(CASES), sorted(types), is_waited_for])
        await until(page, "cases.every(({ isOver }) => isOver)")
        heard = await page.evaluate("cases.map(({ events }) => events)")
        await page.close()
    assert len(CASES) > 100
    different = {
        name: (events, outcome["events"])
        for name, events, outcome in zip(CASES, heard, expected, strict=True)
        if events != outcome["events"]
    }
    assert different.keys() <= DIFFERENT_IN_CHROMIUM, different
    for index, (name, outcome) in enumerate(zip(CASES, expected, strict=True)):
        if is_waited_for[index] and name not in DIFFERENT_IN_CHROMIUM:
            assert answers.last_event_ids.get(index, "") == outcome["last_event_id"], name
            waited_s = answers.came_back_s[index] - answers.ended_s[index]
            assert waited_s > outcome["retry_ms"] / 1000 - 0.02, name

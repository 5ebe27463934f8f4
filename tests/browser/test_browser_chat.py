"""The chat keeps an answer's every byte through reloads, cuts and second tabs, and Stop stops.

The page is real, and so are the server and the upstream, each a process of its own. What an answer
must be is taken from the recording's bytes here, by a reading of its dialect that shares nothing
with the product's.
"""

from __future__ import annotations

import json
import random
import signal
import time

import pytest
from playwright.async_api import BrowserContext, Page

from browser import processes
from browser.chromium import Complaints, until
from browser.demo_page import progress, reach, reach_state, send_chat, text_of
from browser.processes import Penstock
from penstock.testing.recordings import built_in, load

pytestmark = pytest.mark.asyncio(loop_scope="session")

STOPPED_WITHIN_S = 1.0
SEED = 20_260
CHAT = built_in("chat").turns[0]


def text_in(body: bytes) -> str:
    """The text of an answer in OpenAI's chat dialect, straight from its bytes."""
    words: list[str] = []
    for line in body.decode().splitlines():
        if line.startswith("data:") and "[DONE]" not in line:
            for choice in json.loads(line[5:]).get("choices", []):
                words.append(choice["delta"].get("content") or "")
    return "".join(words)


def long_recording() -> tuple[int, str]:
    """The place and the text of the longest real answer that is one text from end to end."""
    recordings = load("openai-chat")
    if not recordings:
        pytest.skip("needs the real recordings in ../shared/recordings (or PENSTOCK_RECORDINGS)")
    answers = {
        index: text_in(recording.body)
        for index, recording in enumerate(recordings)
        if recording.status == 200
        and recording.body.rstrip().endswith(b"data: [DONE]")
        and b"tool_calls" not in recording.body
        and b"reasoning" not in recording.body
        and b'"index":1' not in recording.body.replace(b" ", b"")
    }
    return max(answers.items(), key=lambda item: len(item[1]))


def units(text: str) -> int:
    """The length as JavaScript counts it."""
    return len(text.encode("utf-16-le")) // 2


async def reload_twice(page: Page, whole: str) -> None:
    """Reload at two random moments in the middle of an answer."""
    seed = random.Random(SEED).randrange(1 << 32)
    moments = random.Random(seed)
    for share in (moments.uniform(0.05, 0.25), moments.uniform(0.35, 0.6)):
        await reach(page, int(share * units(whole)))
        state, before = await progress(page)
        print(f"seed {seed}: reloaded after {len(before)} of {len(whole)} characters")
        assert state == "streaming"
        assert whole.startswith(before)
        await page.reload()
        await reach(page, units(before))
        await page.get_by_test_id("chat-resumed").wait_for(state="visible")


async def test_a_built_in_answer_is_whole_after_two_reloads(page: Page, demo: Penstock):
    await send_chat(page, demo)
    await reload_twice(page, CHAT)
    await reach_state(page, "complete")
    assert (await text_of(page)).encode() == CHAT.encode()
    await page.get_by_test_id("chat-verify").click()
    await until(page, "document.querySelector('[data-testid=chat-verdict]').dataset.same")
    assert "Identical" in await page.get_by_test_id("chat-verdict").inner_text()
    # And so is what is on the screen, once its formatting is shown as what was sent.
    await page.get_by_test_id("chat-plain").check()
    shown = "document.querySelector('[data-testid=chat-answer]').textContent"
    assert (await page.evaluate(shown)).strip() == CHAT.strip()


async def test_a_real_answer_is_whole_after_two_reloads(page: Page):
    index, whole = long_recording()
    async with processes.demo(model=f"recorded:{index}", tokens_per_s=200) as demo:
        await send_chat(page, demo)
        await reload_twice(page, whole)
        await reach_state(page, "complete")
        assert (await text_of(page)).encode() == whole.encode()
        await page.goto("about:blank")


async def test_stop_ends_the_call_to_the_model_within_a_second(page: Page, unhurried: Penstock):
    await send_chat(page, unhurried)
    await reach(page, 100)
    request = (await unhurried.upstream_said("first-byte"))["request"]
    await stopped_in_time(page, unhurried, request)
    text = await text_of(page)
    assert CHAT.startswith(text)
    assert len(text) < len(CHAT)


async def test_stop_before_the_first_token_ends_the_call_within_a_second(page: Page):
    async with processes.demo(first_token_s=30) as demo:
        await send_chat(page, demo)
        request = (await demo.upstream_said("start"))["request"]
        await stopped_in_time(page, demo, request)
        assert await text_of(page) == ""
        assert [entry["event"] for entry in demo.upstream_log()] == ["start", "gone"]
        await page.goto("about:blank")


async def stopped_in_time(page: Page, demo: Penstock, request: int) -> None:
    stop = page.get_by_test_id("chat-stop")
    await until(page, "!document.querySelector('[data-testid=chat-stop]').disabled")
    clicked_s = time.time()
    await stop.click()
    gone = await demo.upstream_said("gone", request=request)
    took_s = gone["wall_s"] - clicked_s
    print(f"the upstream was let go {took_s:.3f} s after the click")
    assert 0 <= took_s < STOPPED_WITHIN_S
    await reach_state(page, "cancelled")
    assert await page.get_by_test_id("chat-status").inner_text() == "cancelled"


async def test_closing_the_tab_does_not_end_the_answer(profile: BrowserContext, demo: Penstock):
    page = await profile.new_page()
    await send_chat(page, demo)
    await reach(page, 200)
    request = (await demo.upstream_said("first-byte"))["request"]
    address = page.url
    await page.close()
    finished = await demo.upstream_said("finished", request=request)
    assert finished["events_sent"] == finished["events"]
    later = await profile.new_page()
    await later.goto(address)
    await reach_state(later, "complete")
    assert await text_of(later) == CHAT


async def test_a_second_tab_shows_the_same_text(
    profile: BrowserContext, page: Page, demo: Penstock
):
    await send_chat(page, demo)
    await reach(page, units(CHAT) // 4)
    async with profile.expect_page() as opening:
        await page.get_by_test_id("chat-second-tab").click()
    second = await opening.value
    _, before = await progress(page)
    await reach(second, units(before))
    state, joined = await progress(second)
    assert state == "streaming", "the second tab joined in the middle"
    assert joined.startswith(before)
    for tab in (page, second):
        await reach_state(tab, "complete")
        assert await text_of(tab) == CHAT


async def test_nothing_is_lost_over_a_cut_connection(page: Page, demo: Penstock):
    await send_chat(page, demo)
    await reach(page, units(CHAT) // 5)
    await page.get_by_test_id("chat-cut").click()
    await reach_state(page, "cut")
    _, before = await progress(page)
    await until(page, "penstockDemo.chat.resumes === 1")
    assert before == CHAT[: len(before)]
    await reach_state(page, "complete")
    assert await text_of(page) == CHAT
    assert "cut" in await page.get_by_test_id("chat-journal").inner_text()


async def test_a_restart_is_announced_and_a_lost_stream_named(page: Page, complaints: Complaints):
    with complaints.forgiving_network():
        async with processes.demo(tokens_per_s=40) as demo:
            await send_chat(page, demo)
            await reach(page, 100)
            demo.process.send_signal(signal.SIGINT)
            notice = page.get_by_test_id("chat-notice")
            await notice.filter(has_text="Server restarting, back in").wait_for(state="visible")
            _, before = await progress(page)
            assert CHAT.startswith(before)
            assert await demo.stop(signal.SIGINT) == 0
        async with processes.demo(port=demo.port):
            await reach_state(page, "lost")
            assert await text_of(page) == before
            await page.goto("about:blank")

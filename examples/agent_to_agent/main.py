"""An agent that reads another one's answer while it is written: a translator, sentence by sentence.

`POST /translate/{id}` starts it on the answer `answers/<id>` of a gateway (`penstock serve`); its
own work is the stream `translations/<id>`. `GATEWAY` and `MODEL` in the environment say whom it
asks. Run it with `uvicorn main:app`.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import aiohttp
from fastapi import FastAPI, HTTPException

from penstock import Hub, NewRecord, connect, json_record
from penstock.client import Events
from penstock.core.errors import StreamExists

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:4437")
MODEL = os.environ.get("MODEL", "gpt-4o-mini")
UNREAD_S = 60
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

hub = Hub()
app = FastAPI(lifespan=hub.lifespan)
app.mount("/v1", hub.asgi)


class NotWhole(Exception):
    """An answer that was needed did not end as complete."""


@app.post("/translate/{id}", status_code=202)
async def start(id: str) -> dict[str, str]:
    """Start the translation of an answer. It ends when that does, or when nobody reads it."""
    records = translate(f"{GATEWAY}/v1/stream/answers/{id}")
    try:
        stream = await hub.start(f"translations/{id}", records, cancel_unread_after_s=UNREAD_S)
    except StreamExists:
        raise HTTPException(409, "this translation was started already") from None
    return {"url": f"/v1{stream.path}"}


async def translate(url: str) -> AsyncGenerator[NewRecord]:
    """Read an answer, and write each sentence of it in German before the next one is read."""
    async with (
        aiohttp.ClientSession() as session,
        connect(url, session=session) as answer,
        aclosing(sentences(answer)) as parts,
    ):
        async for sentence in parts:
            async with asking(session, f"Translate into German: {sentence}") as translation:
                async for event in translation:
                    if event.type == "text":
                        yield json_record(event.json(), type="text")
            if translation.end_reason != "complete":
                raise NotWhole(f"a translation ended as {translation.end_reason}")
    if answer.end_reason != "complete":
        raise NotWhole(f"the answer ended as {answer.end_reason}")


async def sentences(answer: Events) -> AsyncGenerator[str]:
    """Give an answer's sentences, each as soon as it is whole."""
    text = ""
    async for event in answer:
        if event.type == "text":
            *whole, text = SENTENCE_END.split(text + event.json()["text"])
            for sentence in whole:
                yield sentence
    if text.strip():
        yield text


@asynccontextmanager
async def asking(session: aiohttp.ClientSession, prompt: str) -> AsyncGenerator[Events]:
    """Ask the gateway, and read its answer; left before its end, the answer is cancelled."""
    question = {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}
    wish = {"Prefer": "respond-async"}  # its address at once, not the answer
    async with session.post(f"{GATEWAY}/v1/answers", json=question, headers=wish) as response:
        response.raise_for_status()
        address: str = (await response.json())["url"]
    async with connect(GATEWAY + address, session=session) as events:
        try:
            yield events
        finally:
            if events.end_reason is None:
                await session.post(GATEWAY + address.replace("/stream/", "/cancel/", 1))

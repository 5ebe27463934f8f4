"""A user's own FastAPI application, as the README shows it: POST starts an answer and streams it.

`TEST_WITNESS` names a file that notes when an answer's source was closed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel

from penstock import Hub

hub = Hub()
app = FastAPI(lifespan=hub.lifespan)
app.mount("/v1", hub.asgi)


class Prompt(BaseModel):
    """What a page sends."""

    id: str
    text: str
    gap_s: float = 0.0
    is_endless: bool = False


@app.post("/chat")
async def chat(prompt: Prompt):
    """Start an answer and stream it; a reload resumes at `/v1/stream/chat/<id>`."""
    stream = await hub.start(f"chat/{prompt.id}", answer(prompt))
    return stream.response()


@app.get("/healthz")
async def health() -> str:
    """Say that the server is up."""
    return "ok"


async def answer(prompt: Prompt) -> AsyncIterator[str]:
    """Give the prompt back, word by word."""
    try:
        for word in prompt.text.split():
            yield word
            await asyncio.sleep(prompt.gap_s)
        while prompt.is_endless:
            yield "more"
            await asyncio.sleep(max(prompt.gap_s, 0.01))
    finally:
        if witness := os.environ.get("TEST_WITNESS"):
            with Path(witness).open("a", encoding="utf-8") as file:
                file.write(f"closed {prompt.id}\n")

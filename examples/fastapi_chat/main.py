"""A chat in FastAPI whose answers survive a reload: POST starts one, GET reads it, POST stops it.

Asks the provider that the environment is set up for (OPENAI_API_KEY, ANTHROPIC_API_KEY or
OLLAMA_HOST); without one it answers with words of its own. Run it with
`uvicorn main:app --http penstock.server.fastpath:Protocol`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from penstock import Hub, NewRecord, json_record
from penstock.core.errors import StreamExists
from penstock.gateway.upstream import answer, detect
from penstock.llm.events import Stop, Text, TokenEvent, to_record

WORDS_A_SECOND = 20
PAGE = """<!doctype html>
<meta charset="utf-8"><title>Chat</title>
<form><input name="text" value="Why do logs help?"><button>Ask</button></form>
<button id="stop">Stop</button><p id="answer"></p>
<script>
const show = (id) => {
  const out = document.querySelector("#answer");
  [location.hash, out.textContent] = [id, ""];
  const source = new EventSource(`/v1/stream/chat/${id}`);
  source.addEventListener("text", (event) => out.append(JSON.parse(event.data).text));
  source.addEventListener("end", (event) => {
    source.close();
    out.append(` [${JSON.parse(event.data).reason}]`);
  });
  document.querySelector("#stop").onclick = () => fetch(`/v1/cancel/chat/${id}`, {method: "POST"});
};
document.querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  const id = crypto.randomUUID();
  const body = JSON.stringify({id, text: event.target.text.value});
  await fetch("/chat", {method: "POST", headers: {"Content-Type": "application/json"}, body});
  show(id);
};
if (location.hash) show(location.hash.slice(1));
</script>
"""

hub = Hub()
app = FastAPI(lifespan=hub.lifespan)
app.mount("/v1", hub.asgi)


class Prompt(BaseModel):
    """What the page sends."""

    id: str
    text: str


@app.get("/")
async def page() -> HTMLResponse:
    """Give the page; it shows the answer in its address, if there is one."""
    return HTMLResponse(PAGE)


@app.post("/chat", status_code=202)
async def chat(prompt: Prompt) -> dict[str, str]:
    """Start an answer. It goes on whether or not anybody reads it."""
    try:
        stream = await hub.start(f"chat/{prompt.id}", records(prompt.text))
    except StreamExists:
        raise HTTPException(409, "this answer was started already") from None
    return {"url": f"/v1{stream.path}"}


async def records(text: str) -> AsyncGenerator[NewRecord]:
    """Turn an answer's token events into records."""
    async with aclosing(tokens(text)) as events:
        async for event in events:
            type_, payload = to_record(event)
            yield json_record(payload, type=type_)


def tokens(text: str) -> AsyncGenerator[TokenEvent]:
    """Ask the provider of this machine, or nobody."""
    upstream = detect()
    return answer(upstream, [{"role": "user", "content": text}]) if upstream else echo(text)


async def echo(text: str) -> AsyncGenerator[TokenEvent]:
    """Answer with words of our own."""
    for word in f"You asked: {text} This is an answer of forty words or so.".split():
        yield Text(text=f"{word} ")
        await asyncio.sleep(1 / WORDS_A_SECOND)
    yield Stop(reason="stop", raw="")

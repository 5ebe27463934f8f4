"""The relay that anybody would write: FastAPI, and the upstream's bytes handed on as they come.

`BENCH_CLIENT` says who reads them, `httpx` or `aiohttp`; `BENCH_UPSTREAM` is where they come from.
Nothing of an answer is looked at, kept or counted, and neither client is held to its default of
100 connections.
"""

import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Callable

import aiohttp
import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from bench.servers import pacing

URL = os.environ["BENCH_UPSTREAM"] + "/v1/chat/completions"
HEADERS = {"Authorization": "Bearer sk-upstream", "Content-Type": "application/json"}

Chunks = AsyncGenerator[bytes]
Ask = Callable[[bytes], Chunks]


@contextlib.asynccontextmanager
async def with_httpx(app: FastAPI) -> AsyncGenerator[None]:
    """One client for the whole process."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=None) as client:

        async def ask(body: bytes) -> Chunks:
            async with client.stream("POST", URL, content=body, headers=HEADERS) as answer:
                async for chunk in answer.aiter_raw():
                    yield chunk

        app.state.ask = ask
        yield


@contextlib.asynccontextmanager
async def with_aiohttp(app: FastAPI) -> AsyncGenerator[None]:
    """One session for the whole process."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def ask(body: bytes) -> Chunks:
            async with session.post(URL, data=body, headers=HEADERS) as answer:
                async for chunk in answer.content.iter_any():
                    yield chunk

        app.state.ask = ask
        yield


LIFESPANS = {"httpx": with_httpx, "aiohttp": with_aiohttp}
app = FastAPI(lifespan=LIFESPANS[os.environ["BENCH_CLIENT"]])


@app.post("/v1/chat/completions")
async def chat(request: Request) -> StreamingResponse:
    """Hand the answer on."""
    ask: Ask = request.app.state.ask
    return StreamingResponse(ask(await request.body()), media_type="text/event-stream")


class Server(uvicorn.Server):
    """uvicorn, which says when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        assert sockets is not None
        pacing.announce(sockets[0].getsockname()[1])


def main() -> None:
    """Serve until a signal."""
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
    Server(config).run(sockets=[pacing.listen()])


if __name__ == "__main__":
    main()

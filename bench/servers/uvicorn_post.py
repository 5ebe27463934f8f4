"""What ASGI costs by itself: reads each request's body, keeps nothing, answers 204 with the headers
that an append is answered with."""

import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from bench.servers import pacing

Message = MutableMapping[str, Any]
HEADERS = [
    (b"stream-next-offset", b"0123456789"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Take a request and forget it."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b""})


class Server(uvicorn.Server):
    """uvicorn, which says when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        assert sockets is not None
        pacing.announce(sockets[0].getsockname()[1])


def main() -> None:
    """Serve until a signal."""
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning"
    )
    Server(config).run(sockets=[pacing.listen()])


if __name__ == "__main__":
    main()

"""A name of the client's own for its answers: a chat's id, a run's.

Pages know the chat they show, and no answer's id. So each name has a log, a stream of the hub like
any other, whose records name the answers begun under it, newest last. It belongs to the caller: two
callers' chats of the same id are two. A log that nobody asks for is forgotten as answers are.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.errors import BodyMalformed, StreamGone, StreamNotFound
from penstock.core.log import Retention
from penstock.core.record import Record
from penstock.gateway.answers import Answers
from penstock.gateway.endpoints.exchange import Exchange
from penstock.llm.events import as_text, parse_object
from penstock.server.stream import Stream

MAX_NAME: Final = 512
"""Longest name of a client's own, in characters: clients make theirs of 16 to 40."""

KEPT: Final = 16
"""Answers of one name that are remembered: a chat has one that runs, or a few that ran on."""

_TYPE: Final = "answer_id"
_LOG: Final = Retention(max_records=KEPT, max_bytes=64 * 1024)


def is_name(text: str) -> bool:
    """Whether a client may name something so."""
    return 0 < len(text) <= MAX_NAME and text.isprintable()


async def remember(exchange: Exchange, log_name: str, stream: Stream) -> None:
    """Note an answer as the newest of its name."""
    hub = exchange.hub
    try:
        log = await hub.get(log_name)
    except (StreamNotFound, StreamGone):
        ttl_s = max(1, int(hub.settings.ended_ttl_s))
        log = await hub.create(log_name, retention=_LOG, ttl_s=ttl_s)
    await log.append(msgspec.json.encode({"id": Answers.id_of(stream)}), type=_TYPE)


async def running(exchange: Exchange, log_name: str) -> list[Stream]:
    """The answers of a name that run, newest last."""
    try:
        log = await exchange.hub.get(log_name)
    except (StreamNotFound, StreamGone):
        return []
    log.touch()
    found: dict[str, Stream] = {}
    for record in await log.records(log.head.earliest):
        stream = await _answer(exchange, record)
        if stream is not None and stream.end is None:
            found[stream.name] = stream
    return list(found.values())


async def _answer(exchange: Exchange, record: Record) -> Stream | None:
    try:
        id = as_text((parse_object(record.payload.decode()) or {}).get("id"))
        return await exchange.hub.get(Answers.name_of(id))
    except (StreamNotFound, StreamGone, BodyMalformed, UnicodeDecodeError):
        return None

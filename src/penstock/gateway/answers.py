"""Answers: what a client asked for, started or joined, as a stream of the hub.

An answer is the stream `answers/<id>`. Its first record says what it is (`llm/write/about.py`),
then there is a record for each token event, then its typed end. Everything that clients do with an
answer is done with that stream: reading it in any dialect, from any device, now or later;
cancelling it; joining it by the key under which it was asked for.

Names are unguessable, since knowing one is the right to read it: they are random, or made with a
secret of this gateway from the caller's own key. What a caller presented as a credential is kept
nowhere, only a keyed hash of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from penstock.backends.interface import Counts, Documents
from penstock.core.errors import Draining, StreamGone, StreamNotFound
from penstock.core.gateway_errors import IdempotencyMismatch, KeyRefused, ModelUnknown
from penstock.core.limits import MAX_ANSWER_BYTES, MAX_ANSWER_RECORDS, MAX_RECORD_BYTES
from penstock.core.log import Retention
from penstock.core.record import EndReason
from penstock.gateway.account import MAX_USER, Account, Caller, estimate_input
from penstock.gateway.calls import Call, Calls
from penstock.gateway.config import GatewayConfig, UpstreamSettings
from penstock.gateway.figures import Attempts
from penstock.gateway.records import is_content
from penstock.gateway.relay import Relay
from penstock.gateway.usage import Books
from penstock.llm.ask.request import Request
from penstock.llm.budget import Limits
from penstock.llm.events import Json
from penstock.llm.filters.chain import Chain
from penstock.llm.meter import Meter
from penstock.llm.write.about import About
from penstock.server.asgi import Scope
from penstock.server.hub import Hub
from penstock.server.stream import Stream
from penstock.telemetry.hooks import Places
from penstock.wire import http

PREFIX: Final = "answers/"
CHATS: Final = "chats/"
_DOCUMENT: Final = "gateway"  # its kind and its name: the secret that names are made with
_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 16
# A dialect is written from an answer's beginning, so nothing of one is dropped while it is kept.
RETENTION: Final = Retention(max_records=MAX_ANSWER_RECORDS, max_bytes=2 * MAX_ANSWER_BYTES)
# An answer that ended so and said nothing is worth nothing. What is said of it is a few records.
_FAILED: Final = (EndReason.FAILED, EndReason.LOST)
# Of what the store may keep, beyond which the oldest answers go; so many for each that comes.
_NEARLY_FULL: Final = 0.9
_FORGOTTEN_AT_ONCE: Final = 4

_LOOK_RECORDS: Final = 64
_LOOK_BYTES: Final = 2 * MAX_RECORD_BYTES


class Answers:
    """Every answer of one gateway. Open it before it is asked, and close it after the hub."""

    def __init__(
        self,
        hub: Hub,
        config: GatewayConfig,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.hub = hub
        self.config = config
        self.books = Books(hub, config, clock)
        self.calls = Calls()
        self._clock = clock
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        # Answers that are being started, by name: whoever asks for one again waits for it.
        self._starting: dict[str, asyncio.Future[None]] = {}
        # Answers that are over, oldest first: they make room for new ones.
        self._over: deque[str] = deque(maxlen=hub.settings.max_streams)
        self._is_open = False

    async def open(self) -> None:
        """Open the connections' pool and the books. The hub must be open."""
        if self._is_open:
            return
        await self._load_secret()
        await self.books.open()
        await self.calls.__aenter__()
        self._is_open = True
        self.hub.hooks.attach_places(self._places)

    async def close(self) -> None:
        """Close every connection to providers, and the books."""
        if not self._is_open:
            return
        self._is_open = False
        await self.calls.__aexit__(None, None, None)
        await self.books.close()

    def caller(self, scope: Scope) -> Caller:
        """Who makes this request, by its `Authorization: Bearer`, `x-api-key` or `api-key`.

        Raises KeyRefused where the configuration has keys and this is none of them.
        """
        presented = _presented(scope["headers"])
        credential = self._hash("credential", presented)
        if not self.config.keys:
            return Caller(credential=credential)
        key = self.config.find_key(presented)
        if key is None:
            raise KeyRefused
        return Caller(key=key.name, credential=credential, user=key.user, models=key.models)

    async def start(
        self,
        request: Request,
        caller: Caller,
        *,
        dialect: str,
        options: Mapping[str, Json] | None = None,
        idempotency_key: str | None = None,
        unread_s: float | None = None,
    ) -> tuple[Stream, bool]:
        """The stream of the answer to a request, and whether this call began it.

        With an `idempotency_key`, the answer that the same caller asked for with it is joined,
        while it is kept; one that failed before it said anything is begun anew, or trying again
        would never help. `unread_s` is how long it goes on without readers; None is as configured.

        Raises ModelUnknown, BudgetExhausted, PriceUnknown, IdempotencyMismatch, Draining, and what
        the hub raises where it cannot keep more.
        """
        if idempotency_key is None:
            return await self._begin(request, caller, _new_id(), dialect, options, "", unread_s)
        id = self._keyed_id(caller, idempotency_key)
        fingerprint = self._fingerprint(request, dialect)
        name = self.name_of(id)
        while (other := self._starting.get(name)) is not None:
            await asyncio.wait([other])
        # From here to the mark nothing waits: of all who ask at once, one begins.
        mark = self._starting[name] = asyncio.get_running_loop().create_future()
        try:
            stream = await self._find(name, fingerprint)
            if stream is not None:
                return stream, False
            return await self._begin(request, caller, id, dialect, options, fingerprint, unread_s)
        finally:
            del self._starting[name]
            mark.set_result(None)

    async def find(self, caller: Caller, idempotency_key: str) -> Stream:
        """The answer that this caller asked for with a key. Raises StreamNotFound."""
        return await self.hub.get(self.name_of(self._keyed_id(caller, idempotency_key)))

    @staticmethod
    def name_of(id: str) -> str:
        """The name of an answer's stream."""
        return PREFIX + id

    @staticmethod
    def id_of(stream: Stream) -> str:
        """An answer's id."""
        return stream.name.removeprefix(PREFIX)

    def chat_name(self, caller: Caller, chat_id: str) -> str:
        """The name of the log of a chat's answers."""
        return CHATS + self._hash("chat", caller.credential, chat_id)

    def models(self, caller: Caller | None = None) -> list[str]:
        """The models that can be asked for by name, in the configuration's order."""
        names: dict[str, None] = {}
        for upstream in self.config.upstreams.values():
            for name in (*upstream.rename, *upstream.models):
                if "*" not in name and (caller is None or caller.may_ask(name)):
                    names[name] = None
        return list(names)

    def _places(self) -> dict[str, Places]:
        found: dict[str, Places] = {}
        for upstream in self.config.upstreams.values():
            slots = self.calls.slots(upstream)
            found[upstream.name] = Places(
                used=upstream.max_concurrent - slots.free, waiting=slots.waiting
            )
        return found

    async def _find(self, name: str, fingerprint: str) -> Stream | None:
        """The answer of this name, if there is one to join. Raises IdempotencyMismatch."""
        try:
            stream = await self.hub.get(name)
            records = await self.hub.backend.read(name, 0, _LOOK_RECORDS, _LOOK_BYTES)
            about = About.from_record(records[0]) if records else None
            if about is None or not hmac.compare_digest(about.fingerprint, fingerprint):
                raise IdempotencyMismatch
            is_all = records[-1].position == stream.head.tail
            said_nothing = is_all and not any(map(is_content, records))
            # While somebody is being told what it failed of, it is there for others too.
            if stream.end in _FAILED and said_nothing and stream.is_resting:
                await self.hub.delete(name)
                return None
        except (StreamNotFound, StreamGone):
            return None
        return stream

    async def _begin(
        self,
        request: Request,
        caller: Caller,
        id: str,
        dialect: str,
        options: Mapping[str, Json] | None,
        fingerprint: str,
        unread_s: float | None,
    ) -> tuple[Stream, bool]:
        if self.hub.is_draining:
            raise Draining
        upstreams = self._upstreams_for(request, caller)
        chain = self.config.make_chain()
        about = About(
            id=id,
            created_at=int(self._clock()),
            model=request.model,
            dialect=dialect,
            options=options or {},
            fingerprint=fingerprint,
        )
        await self._make_room()
        account = await self._reserve(id, request, caller)
        relay = self._relay(account, chain, request, upstreams)
        unread = self.config.unread_s if unread_s is None else unread_s
        try:
            stream = await self.hub.start(
                self.name_of(id),
                relay,
                opening=[about.to_record()],
                cancel_unread_after_s=None if math.isinf(unread) else unread,
                retention=RETENTION,
                last_words=relay.last_words,
                is_guarded=True,
            )
        except BaseException:
            await relay.aclose()
            raise
        return stream, True

    async def _make_room(self) -> None:
        """Forget the oldest answers that are over and not read, where the store is nearly full: an
        answer is kept for those who come back to it, not to keep others from theirs."""
        backend, settings = self.hub.backend, self.hub.settings
        for _ in range(min(len(self._over), _FORGOTTEN_AT_ONCE)):
            if not isinstance(backend, Counts):
                return
            counts = backend.counts
            is_crowded = counts.running + counts.ended >= settings.max_streams - 1
            if not is_crowded and counts.bytes < _NEARLY_FULL * settings.max_store_bytes:
                return
            name = self._over.popleft()
            stream = self.hub.stream_now(name)
            if stream is not None and not stream.is_resting:
                self._over.append(name)
                continue
            with suppress(StreamNotFound, StreamGone):
                await self.hub.delete(name)

    def _upstreams_for(self, request: Request, caller: Caller) -> list[UpstreamSettings]:
        model = request.model
        upstreams = self.config.upstreams_for(model) if caller.may_ask(model) else []
        if not upstreams:
            raise ModelUnknown(model)
        return upstreams

    async def _reserve(self, id: str, request: Request, caller: Caller) -> Account:
        """Hold what the answer may use. Raises BudgetExhausted, PriceUnknown."""
        price = self.config.prices.find(request.model)
        input_tokens = estimate_input(request)
        hold = await self.books.reserve(
            id,
            caller=caller,
            model=request.model,
            price=price,
            ask_output=request.max_output_tokens,
            input_tokens=input_tokens,
        )
        limits = Limits() if hold is None else hold.limits
        meter = Meter(input_tokens=input_tokens, price=price, limits=limits)
        told = None if hold is None else self.books.told(hold, request.max_output_tokens)
        # Whom the caller says it is for is noted, and is no account: it could say anything.
        caller = caller if caller.user else replace(caller, user=request.user[:MAX_USER])
        return Account(
            self.books,
            self.hub.hooks,
            id,
            request.model,
            caller,
            meter,
            told,
            self._clock(),
            on_over=lambda: self._over.append(self.name_of(id)),
        )

    def _relay(
        self, account: Account, chain: Chain, request: Request, upstreams: list[UpstreamSettings]
    ) -> Relay:
        asked, told = request.max_output_tokens, account.told
        most = {one.name: one.max_output_tokens for one in upstreams}
        attempts = Attempts(self.hub.hooks)

        async def ask() -> Call:
            return await self.calls.ask(
                request, upstreams, max_output_tokens=told, on_attempt=attempts
            )

        def is_lowered(upstream: str) -> bool:
            others = [count for count in (asked, most.get(upstream)) if count is not None]
            return told is not None and all(told < count for count in others)

        return Relay(
            ask,
            chain,
            account.meter,
            account,
            is_lowered=is_lowered,
            clock=self.hub.clock,
            max_record_bytes=self.hub.settings.max_record_bytes,
        )

    def _keyed_id(self, caller: Caller, idempotency_key: str) -> str:
        return self._hash("idempotency", caller.credential, idempotency_key)

    def _fingerprint(self, request: Request, dialect: str) -> str:
        body = request.origin if request.origin is not None else repr(request)
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), default=str)
        return self._hash("request", dialect, text)

    def _hash(self, *parts: str) -> str:
        """A keyed hash of texts, 128 bits as hexadecimal; no two rows of texts are one."""
        digest = hmac.new(self._secret, digestmod=hashlib.sha256)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(data))
            digest.update(data)
        return digest.hexdigest()[: 2 * _ID_BYTES]

    async def _load_secret(self) -> None:
        """Take the secret that the store keeps, so that a restart knows keys and chats again."""
        backend = self.hub.backend
        if not isinstance(backend, Documents):
            return
        known = (await backend.load_documents(_DOCUMENT)).get(_DOCUMENT)
        if known is None:
            await backend.store_document(_DOCUMENT, _DOCUMENT, self._secret)
        else:
            self._secret = known


def _new_id() -> str:
    return secrets.token_hex(_ID_BYTES)


def _presented(headers: http.Headers) -> str:
    """What a request presents as its credential, "" for nothing."""
    authorization = http.header(headers, b"authorization") or ""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return http.header(headers, b"x-api-key") or http.header(headers, b"api-key") or ""

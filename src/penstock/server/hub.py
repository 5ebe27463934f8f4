"""The hub: named streams, their producers, and everybody who reads them.

A commit marks the stream's view dirty; one flush per turn of the event loop hands what came to
all level readers. Once a second the hub looks at what time asks for: heartbeats, readers that take
nothing, streams that are old. A hub lives in one event loop. Read `stream.py` next.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from penstock.backends.interface import (
    AppendsNow,
    Backend,
    CommitsNow,
    Counted,
    Counts,
    Forks,
    Joins,
    Opens,
    ReadsNow,
    StreamConfig,
    Sweeps,
)
from penstock.core.errors import (
    Draining,
    NotSupported,
    Overloaded,
    PenstockError,
    StreamExists,
)
from penstock.core.limits import RETRY_JITTER
from penstock.core.log import Head, Retention
from penstock.core.merge import Merge, Merges
from penstock.core.record import EndReason, NewRecord, checked
from penstock.llm.merging import MERGES
from penstock.server.config import Settings, make_settings
from penstock.server.ear import Ear
from penstock.server.production import Item, LastWords, close_source
from penstock.server.store import make_backend
from penstock.server.stream import Poll, Stream
from penstock.server.subscriptions.addresses import WebhookRules
from penstock.server.subscriptions.service import Subscriptions
from penstock.server.view import View
from penstock.telemetry.hooks import Hooks, Snapshot
from penstock.telemetry.prometheus import PrometheusHooks
from penstock.wire import http

if TYPE_CHECKING:
    from penstock.server.app import App, MetricsApp
    from penstock.server.reader import Reader

logger = logging.getLogger("penstock")

TICK_S: Final = 1.0
"""How often heartbeats, stalls and retention are looked at."""
SWEEP_STREAMS_A_TICK: Final = 200
NAME_BYTES: Final = 16
"""Randomness of an unnamed stream's name: 128 bits, so that knowing it is the right to read it."""


class Hub:
    """Streams of one process. Use it as an async context manager, or give `hub.lifespan` to
    FastAPI or Starlette; mount `hub.asgi` where streams are to be read.

    `backend` is an address (`memory://`, `sqlite:///path`) or a `Backend`, opened when the hub is;
    `merges` adds functions that merge records of a type (`core.merge`) to those of token events;
    `settings` and keyword arguments are those of `penstock.server.config.Settings`. Raises
    SettingInvalid.
    """

    def __init__(
        self,
        backend: str | Backend | None = None,
        *,
        settings: Settings | None = None,
        hooks: Hooks | None = None,
        merges: Mapping[str, Merge] | None = None,
        clock: Callable[[], float] = time.monotonic,
        **overrides: Any,
    ) -> None:
        values = settings.model_dump() if settings is not None else {}
        if isinstance(backend, str):
            values["backend"] = backend
        self.settings = make_settings(**values, **overrides)
        self.clock = clock
        self.hooks = hooks or PrometheusHooks()
        self.merges = Merges({**MERGES, **(merges or {})})
        if backend is None or isinstance(backend, str):
            backend = make_backend(self.settings, clock)
        self.backend: Backend = backend
        # What it can do beyond: asked once, since asking costs microseconds.
        self.appends_now = backend if isinstance(backend, AppendsNow) else None
        self.commits_now = backend if isinstance(backend, CommitsNow) else None
        self.joins = backend if isinstance(backend, Joins) else None
        self.reads_now = backend if isinstance(backend, ReadsNow) else None
        self.sweeps = backend if isinstance(backend, Sweeps) else None
        self.is_draining = False
        self.fast_path_active = False
        self._streams: dict[str, Stream] = {}
        # Streams that rest: only whoever holds one keeps it in memory.
        self._resting: weakref.WeakValueDictionary[str, Stream] = weakref.WeakValueDictionary()
        self._rests = self.reads_now is None
        self._readers: set[Reader] = set()
        self._polls = 0
        self._all_gone = asyncio.Event()
        self._paused: dict[Reader, float] = {}
        self._dirty: dict[View, None] = {}
        self._is_flush_due = False
        self._in_dialects: set[Stream] = set()  # streams that have views in dialects
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._users = 0
        self.subscriptions = Subscriptions(
            self,
            rules=WebhookRules(
                reach=self.settings.webhooks, hosts=frozenset(self.settings.webhook_hosts)
            ),
            public_url=self.settings.public_url or "",
        )
        self.hooks.attach(self.snapshot)

    # streams

    async def create(
        self,
        name: str | None = None,
        *,
        content_type: str = "application/json",
        retention: Retention | None = None,
        ttl_s: int | None = None,
    ) -> Stream:
        """Create an open stream that anybody with the name may append to, or give the one there.

        Without a name it gets an unguessable one. With `ttl_s` it is forgotten when it was neither
        read nor appended to for that long. Raises StreamConflict, StoreFull, NameMalformed.
        """
        config = StreamConfig(
            content_type=content_type,
            retention=retention or self.settings.retention,
            ttl_s=ttl_s,
        )
        stream, _ = await self.create_or_get(name, config)
        return stream

    async def create_or_get(
        self,
        name: str | None,
        config: StreamConfig,
        opening: Sequence[NewRecord] = (),
        *,
        end: EndReason | None = None,
    ) -> tuple[Stream, bool]:
        """Create a stream with its first records in one commit, or give the one there; also says
        whether it is new. `config.fork` makes it a fork. Raises as `Backend.create` and `Forks`."""
        if name is None:
            name = secrets.token_urlsafe(NAME_BYTES)
        http.check_name(name)
        if config.fork is None:
            head, is_new = await self.backend.create(name, config, opening, end=end)
        elif isinstance(self.backend, Forks):
            head, config, is_new = await self.backend.fork(
                name, config.fork, config, opening, end=end
            )
        else:
            raise NotSupported("fork streams")
        stream = self._adopt(name, head, config)
        if is_new:
            self.subscriptions.created(name, stream.head)
        if is_new and opening:
            self.hooks.appended(len(opening), sum(len(record.payload) for record in opening))
        if is_new and end is not None:
            self.hooks.stream_ended(end)
        return stream, is_new

    async def start(
        self,
        name: str | None,
        source: AsyncIterable[Item],
        *,
        join: bool = False,
        opening: Sequence[NewRecord] = (),
        cancel_unread_after_s: float | None = None,
        content_type: str = "application/json",
        retention: Retention | None = None,
        last_words: LastWords | None = None,
        is_guarded: bool = False,
    ) -> Stream:
        """Create a stream and feed it from `source` in a task that the hub owns.

        `opening` are records that come before the source's (a question, before its answer); they
        are there when this returns. What the source yields is appended: a JSON value, a `NewRecord`
        with a type or key, or a `Batch` of these in one commit, which can bring the end with it.
        The source's own end is `complete`; an exception makes it `failed` (logged, never shown to
        readers); a cancel closes the source, which must release what it holds. Whoever else ends
        the stream, `last_words` is asked, with the reason, for records to commit with that end.

        Without readers the source goes on, unless `cancel_unread_after_s` says for how long,
        counted from the start and from each time the last reader leaves. Once ended it can be read
        for `ended_ttl_s`; after a restart of the process it is `lost`. With `is_guarded` nobody
        else appends to it over the network, nor closes it but by a cancel.

        Raises StreamExists when the name is taken; with `join` the stream there is given instead
        and the new source is closed without being iterated. Raises Draining, and of the opening
        records what `Stream.append_batch` raises; then there is no stream.
        """
        if self.is_draining:
            raise Draining
        await self._ensure_ticking()
        limit = self.settings.max_record_bytes
        first = [checked(new.payload, new.type, new.key, limit) for new in opening]
        config = StreamConfig(
            content_type=content_type,
            retention=retention or self.settings.retention,
            ended_ttl_s=self.settings.ended_ttl_s,
            is_produced=True,
        )
        stream, is_new = await self._create_or_undo(name, config, first)
        if not is_new:
            await close_source(aiter(source))
            if join:
                return stream
            raise StreamExists(stream.name)
        stream.is_guarded = is_guarded
        stream.produce(source, cancel_unread_after_s, last_words)
        return stream

    async def _create_or_undo(
        self, name: str | None, config: StreamConfig, opening: Sequence[NewRecord]
    ) -> tuple[Stream, bool]:
        """Create a stream, or give the one there. Cancelled while the store is at it, it is waited
        for and deleted again: a stream that nobody feeds would never end."""
        if self.commits_now is not None:  # there is nothing to be cancelled in
            return await self.create_or_get(name, config, opening)
        creating = asyncio.ensure_future(self.create_or_get(name, config, opening))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            with suppress(PenstockError):
                stream, is_new = await creating
                if is_new:
                    await self.delete(stream.name)
            raise

    async def get(self, name: str) -> Stream:
        """Give a stream. Raises StreamNotFound, and StreamGone for one that was deleted while
        forks of it live on."""
        stream = self.stream_now(name)
        if stream is not None and not stream.may_be_over:
            return stream
        head, config = await self.backend.head(name)
        was_here = name in self._streams
        stream = self._adopt(name, head, config)
        if self._rests and not was_here:
            # Between the answer and the registration it may have been deleted, and made again;
            # from here on that would be heard.
            stream = self._adopt(name, *await self.backend.head(name))
        return stream

    def stream_now(self, name: str) -> Stream | None:
        """Give a stream that is in use here, without asking the backend; None for any other."""
        stream = self._streams.get(name)
        if stream is None and self._rests:
            stream = self._resting.pop(name, None)
            if stream is not None:
                self._streams[name] = stream
        if stream is not None:
            stream.used_at = self.clock()
        return stream

    def streams(self) -> list[Stream]:
        """Every stream in use here, oldest first: on `memory://` every one there is."""
        return list(self._streams.values())

    @property
    def streams_in_use(self) -> Mapping[str, Stream]:
        """Those of `streams`, by name."""
        return self._streams

    async def delete(self, name: str) -> None:
        """Forget a stream; its producer is cancelled, its readers are told it is `cancelled`.

        Raises StreamNotFound, StreamGone.
        """
        stream = await self.get(name)
        await stream.cancel()
        if not stream.is_deleted:  # by nobody else, while its producer stopped
            await self.backend.delete(name)

    def _adopt(self, name: str, head: Head, config: StreamConfig) -> Stream:
        """Give the one `Stream` of a name, made when it is first asked for."""
        stream = self.stream_now(name)
        if stream is not None and stream.head.epoch < head.epoch:
            # That was another log, of whose end nobody was there to hear.
            stream.ended(stream.head._replace(end=stream.end or EndReason.LOST))
            stream.deleted()
            stream = None
        if stream is None:
            stream = self._streams[name] = Stream(self, name, head, config)
            listener = Ear(stream) if self._rests else stream
            watch = self.backend.watch(name, head.tail, listener)
            stream.begin(watch)
            if self._rests:
                # When nobody holds it while it rests it is gone, and its registration with it.
                weakref.finalize(stream, watch.cancel).atexit = False
        return stream

    def stream_deleted(self, stream: Stream) -> None:
        """Forget a stream that the backend has forgotten."""
        if self._streams.get(stream.name) is stream:
            del self._streams[stream.name]
        self._resting.pop(stream.name, None)
        stream.forget()
        self.subscriptions.deleted(stream.name)
        if stream.is_produced:
            self.spawn(stream.stop_producer())

    def send_away(self, stream: Stream) -> None:
        """End the bodies of a stream's readers, who come back at their places."""
        for reader in [reader for reader in self._readers if reader.stream is stream]:
            reader.drain(self.draw_retry_ms())

    # living

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """Run the hub for the lifetime of an application, and drain it first on Ctrl-C.

        Chains the signal handlers that are installed, so that the server's own still run. Use
        `async with hub` to have no signals touched.
        """
        from penstock.server.signals import drain_on_signals

        async with self:
            with drain_on_signals(self):
                yield

    async def __aenter__(self) -> Hub:
        await self.open()
        await self._ensure_ticking()
        self._users += 1
        return self

    async def open(self) -> None:
        """Open the backend, where it has to be: before anything else, or by `async with`.

        Raises StoreLocked, StoreForeign, StoreDamaged, StoreFailed."""
        if isinstance(self.backend, Opens):
            await self.backend.open()
        await self.subscriptions.open()

    async def __aexit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            await self.stop()

    async def drain(self, within_s: float | None = None) -> None:
        """Tell every reader when to come back, end their bodies, and wait until they have gone.

        New readers are sent away from now on. Readers that have not taken their last bytes by
        the deadline are cut; cancelling the drain cuts them at once. Producers go on. Safe to call
        twice.
        """
        self.is_draining = True
        for reader in list(self._readers):
            reader.drain(self.draw_retry_ms())
        for stream in self.streams():
            for poll in list(stream.polls):
                poll.wake()
        try:
            if self._readers:
                self._all_gone.clear()
                wait_s = self.settings.drain_s if within_s is None else within_s
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._all_gone.wait()
        finally:
            for reader in list(self._readers):
                reader.abort()
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """Drain, then cancel producers, and end what they fed. The hub can be started again."""
        await self.drain()
        running = [stream for stream in self._streams.values() if stream.is_produced]
        # Their producers vanish with this process: that is what `lost` says.
        ends = (stream.close(EndReason.LOST) for stream in running)
        for stream, error in zip(running, await gathered(ends), strict=True):
            if error is not None:
                logger.error("the end of %r could not be stored: %s", stream.name, error)
        tasks = [task for task in (self._ticker, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self.settings.cancel_s)
        self._ticker, self.is_draining = None, False
        await self.subscriptions.close()
        if isinstance(self.backend, Opens):
            await self.backend.close()
            self._streams.clear()
            self._resting.clear()

    def spawn(self, work: Any) -> None:
        """Run a coroutine in a task that the hub owns until it ends or the hub stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the hub failed", exc_info=error)

    # flushing

    def has_dialects(self, stream: Stream) -> None:
        """Note that a stream is read in dialects: a tick lets go of what nobody reads any more."""
        self._in_dialects.add(stream)

    def mark_dirty(self, view: View) -> None:
        """Have a view flushed at the end of this turn of the loop."""
        self._dirty[view] = None
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        dirty, self._dirty = self._dirty, {}
        now = self.clock()
        views = iter(dirty)
        try:
            for view in views:
                view.flush(now)
        finally:
            for view in views:  # behind one that raised: in the next turn
                self.mark_dirty(view)

    # readers

    def admit(self) -> None:
        """Make sure there is room for one more reader. Raises Draining, Overloaded."""
        if self.is_draining:
            raise Draining
        if len(self._readers) + self._polls >= self.settings.max_readers:
            self.hooks.reader_ended("refused")
            raise Overloaded(self.settings.max_readers)

    def draw_retry_ms(self) -> int:
        """A reconnection time with jitter, so that readers do not come back together."""
        middle = self.settings.retry_ms
        return int(middle * (1 + RETRY_JITTER * random.uniform(-1, 1)))  # noqa: S311

    def reader_opened(self, reader: Reader) -> None:
        """Count a reader. It must call `reader_closed`, once."""
        self._readers.add(reader)
        reader.view.readers += 1
        self.stream_now(reader.stream.name)  # one that rested is in use again
        reader.stream.reader_count_changed(1)

    def reader_closed(self, reader: Reader, reason: str) -> None:
        """Forget a reader."""
        self._readers.discard(reader)
        reader.view.readers -= 1
        reader.view.used_at = self.clock()
        self._paused.pop(reader, None)
        if not self._readers:
            self._all_gone.set()
        reader.stream.reader_count_changed(-1)
        self.hooks.reader_ended(reason)

    def poll_opened(self, stream: Stream, poll: Poll) -> None:
        """Count who waits for the next commit. It must call `poll_closed`, once."""
        stream.polls.add(poll)
        stream.attending(1)
        self._polls += 1

    def poll_closed(self, stream: Stream, poll: Poll) -> None:
        """Forget who waited."""
        stream.polls.discard(poll)
        stream.attending(-1)
        self._polls -= 1

    def reader_paused(self, reader: Reader) -> None:
        """Note that a reader takes nothing; it is cut when that lasts too long."""
        self._paused.setdefault(reader, self.clock())

    def reader_resumed(self, reader: Reader) -> None:
        """Note that a reader takes bytes again."""
        self._paused.pop(reader, None)

    reader_closing = reader_paused  # a closing transport that never empties is a stall too

    def snapshot(self) -> Snapshot:
        """Count what is open now. O(readers + streams)."""
        lags = [lag for reader in self._readers if (lag := reader.lag)]
        fast = sum(reader.transport_name == "fast" for reader in self._readers)
        counted = self.backend.counts if isinstance(self.backend, Counts) else Counted(0, 0, 0, 0)
        return Snapshot(
            readers_fast=fast,
            readers_portable=len(self._readers) - fast,
            polls=self._polls,
            streams_running=counted.running,
            streams_ended=counted.ended,
            streams_in_use=len(self._streams),
            stored_bytes=counted.bytes,
            commits=counted.commits,
            lag_max=max(lags, default=0),
            lagging=len(lags),
            fast_path_active=self.fast_path_active,
        )

    # time

    async def _ensure_ticking(self) -> None:
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick_for_ever(), name="penstock:ticker")

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick(self.clock())
            except Exception:
                # The task's outermost edge: without it nobody would have heartbeats any more.
                logger.exception("the hub's tick failed")

    async def tick(self, now: float) -> None:
        """Do what time asks for: heartbeats, cutting stalled readers, ending old bodies, letting
        idle streams rest, forgetting old ones."""
        for stream in self.streams():
            if not stream.is_resting:
                stream.used_at = now
                stream.heartbeat(now)
                stream.keep()
            elif self._rests and now - stream.used_at >= self.settings.rest_after_s:
                self._let_rest(stream)
        rest_s = self.settings.rest_after_s
        for stream in list(self._in_dialects):
            if not stream.drop_unread(now, rest_s):
                self._in_dialects.discard(stream)
        for reader in list(self._readers):
            if reader.ends_at is not None and now >= reader.ends_at:
                reader.drain(self.draw_retry_ms(), "aged")
        for reader, since in list(self._paused.items()):
            if now - since >= self.settings.stall_s:
                reader.abort()
        self.subscriptions.tick(now)
        if self.sweeps is not None:
            await self.sweeps.sweep(SWEEP_STREAMS_A_TICK)

    def _let_rest(self, stream: Stream) -> None:
        del self._streams[stream.name]
        stream.rest()
        self._resting[stream.name] = stream

    # addresses

    @property
    def asgi(self) -> App:
        """The ASGI application to mount: streams, cancel, list. See `server/app.py`."""
        from penstock.server.app import App

        return App(self)

    @property
    def metrics_asgi(self) -> MetricsApp:
        """An ASGI application that answers Prometheus, to mount at `/metrics`."""
        from penstock.server.app import MetricsApp

        return MetricsApp(self)

    def with_retention(self, **bounds: Any) -> Retention:
        """The hub's retention with some bounds replaced (see `core.log.Retention`)."""
        return replace(self.settings.retention, **bounds)


async def gathered(works: Any) -> list[BaseException | None]:
    """Run coroutines side by side; gives each one's error."""
    results = await asyncio.gather(*works, return_exceptions=True)
    return [result if isinstance(result, BaseException) else None for result in results]

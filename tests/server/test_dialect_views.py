"""A stream in a client's dialect: the same bytes from every place, for whoever came there, however.

The oracle is one writer that is fed every record: what it gives for each is what every reader gets,
from its place on. Readers here have transports whose peers read when told to, so that every
interleaving can be had.
"""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inprocess import HeldTransport, call, turns
from penstock.core.record import EndReason
from penstock.core.subscription import Subscription
from penstock.llm.write.writer import HEARTBEAT
from penstock.server.dialects import DialectKind
from penstock.server.fastpath import Writer
from penstock.server.hub import Hub, Stream
from server.dialect_oracle import KINDS, Oracle, records_of, small_steps, without_heartbeats


class Peer:
    """A reader with a transport, and what it must have been given in the end."""

    def __init__(self, stream: Stream, kind: DialectKind, place: int, high: int = 500) -> None:
        self.kind, self.place = kind, place
        self.is_gone = False
        self.transport = HeldTransport(high)
        self.writer = Writer(
            stream, stream.view(kind), Subscription(place), self.transport, opened_at=0.0
        )
        self.writer.begin(HEARTBEAT)

    def hang_up(self) -> None:
        self.transport.hang_up()
        self.is_gone = True

    def check(self, oracle: Oracle, *, is_ended: bool) -> None:
        got = without_heartbeats(self.transport.body)
        wanted = oracle.after(self.kind, self.place)
        if self.is_gone:
            assert wanted.startswith(got), (self.kind, self.place)
        else:
            assert got == wanted, (self.kind, self.place)
            assert self.transport.is_closing() is is_ended


# --- the property -------------------------------------------------------------------------------

STEPS = ["append", "append", "append3", "flush", "turn", "turn", "settle", "join", "join", "resume"]
STEPS += ["now", "read", "read", "read some", "hang up", "heartbeat", "pause", "portable", "forget"]


async def play(script: list[tuple[str, int]], seed: int, end: EndReason | None) -> None:
    """Have readers come, read and go while a stream grows, and check what each of them got."""
    with small_steps():
        hub = Hub(view_tail_bytes=(0, 2000, 1 << 20)[seed % 3])
        stream = await hub.create("a")
        waiting = records_of(seed)
        peers: list[Peer] = []
        kinds = random.Random(seed).sample(KINDS, 3)
        for step, number in script:
            peer = peers[number % len(peers)] if peers else None
            kind, tail = kinds[number % 3], stream.head.tail
            if step in ("append", "append3") and waiting:
                count = 1 if step == "append" else 3
                batch, waiting = waiting[:count], waiting[count:]
                await stream.append_batch(batch)
            elif step == "flush":
                hub._flush()
            elif step == "turn":
                await turns(1)
            elif step == "settle":
                await turns(number % 10)
            elif step in ("join", "resume", "now") and len(peers) < 12:
                place = {"join": 0, "now": tail}.get(step, min(number % 20, tail))
                peers.append(Peer(stream, kind, place))
            elif step == "heartbeat":
                stream.view(kind).heartbeat(0.0)
            elif step == "forget":
                stream.drop_unread(hub.clock(), 0.0)
            elif step == "portable":
                # A reader of the other kind, whose leaving is a matter of task turns.
                await call(hub.asgi, "GET", f"/stream/a?dialect={kind.name}&offset=now")
            elif peer is None or peer.is_gone:
                continue
            elif step == "read":
                peer.transport.take()
            elif step == "read some":
                peer.transport.take(10 * number)
            elif step == "pause" and not peer.writer.is_paused:
                peer.writer.pause_writing()  # of its own accord, as TLS may
                peer.transport._paused = True
            elif step == "hang up":
                peer.hang_up()
        if end is not None:
            await stream.close(end)
        for _ in range(120):
            await turns(3)
            for peer in peers:
                peer.transport.take()
        oracle = Oracle(stream, await stream.records())
        for peer in peers:
            peer.check(oracle, is_ended=end is not None)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 99)), max_size=80),
    st.integers(0, 2**32),
    st.sampled_from([None, *EndReason]),
)
async def test_no_interleaving_changes_a_byte(
    script: list[tuple[str, int]], seed: int, end: EndReason | None
) -> None:
    """Each reader gets exactly what follows its place, whoever else came when and how."""
    await play(script, seed, end)


async def test_no_long_interleaving_changes_a_byte_either() -> None:
    for _ in range(100):
        seed = random.randrange(2**32)
        print(f"seed {seed}")
        draw = random.Random(seed)
        script = [(draw.choice(STEPS), draw.randrange(100)) for _ in range(draw.randrange(300))]
        await play(script, seed, draw.choice([None, *EndReason]))

"""Every default number, with its unit, its reason and its source.

The server's heartbeat, the client's patience and the edges' timeouts all come from here, so they
cannot disagree. A number that is not here is a number nobody agreed on. Nothing but constants may
live in this file.
"""

from __future__ import annotations

from typing import Final

# --- time on the wire ---------------------------------------------------------------------------

HEARTBEAT_S: Final = 15.0
"""Silence after which a reader is sent a comment, in seconds.

Half of the shortest idle timeout met in the field (30 s: some cloud load balancers and mobile
carriers), and what the HTML standard itself advises (9.2.7: a comment every 15 seconds or so).
"""

PATIENCE_S: Final = 2.5 * HEARTBEAT_S
"""Silence after which a client takes its connection for dead: two heartbeats lost, and a half."""

RETRY_MS: Final = 3_000
"""Middle of the `retry:` a server sends, in milliseconds. Chromium's own default is 3 s."""

RETRY_JITTER: Final = 0.5
"""`retry:` is drawn from RETRY_MS × (1 ± this), so that readers who left together do not come
back together (Chromium obeys the value exactly, and adds nothing of its own)."""

BACKOFF_BASE_MS: Final = 500
"""First ceiling of a client's back-off; Firefox never reconnects sooner than this either."""

BACKOFF_CAP_MS: Final = 30_000
"""Highest ceiling of a client's back-off: a deploy is over by then."""

# --- bytes in one step --------------------------------------------------------------------------

WRITE_BYTES: Final = 256 * 1024
"""Most bytes given to a transport in one call. Measured: larger writes gain nothing, and a reader
that stops in the middle of one pins it."""

WRITE_HIGH_WATER_BYTES: Final = 64 * 1024
"""A transport with more than this unsent is paused; asyncio's own default."""

NOTSENT_LOWAT_BYTES: Final = 16 * 1024
"""TCP_NOTSENT_LOWAT of a stream's socket: a stuck reader pins about 100 KiB of kernel memory
instead of 3 MB. A small SO_SNDBUF would do that too, and throttle replay from 4.6 GB/s to 2 MB/s.
"""

VIEW_TAIL_BYTES: Final = 1024 * 1024
"""Encoded bytes that a view keeps of each stream, so that readers a little behind are served
without encoding again. Anything older is encoded from the log."""

# --- records and streams ------------------------------------------------------------------------

MAX_RECORD_BYTES: Final = 1024 * 1024
"""Largest payload of one record. The largest event seen in recorded provider streams is 101 KB;
MCP clients refuse events above 1 MiB."""

RECORD_OVERHEAD_BYTES: Final = 200
"""What a record of the memory backend costs beside its payload: object, offset, list entry.
Counted against every byte limit, so that a million tiny records cannot cost 200 MB unnoticed."""

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
"""Largest event a decoder accepts: the largest record in base64 with room to spare."""

MAX_TYPE_BYTES: Final = 64
"""Longest record type: it is repeated in every event."""

MAX_KEY_BYTES: Final = 256
"""Longest record key: a name with a path in it fits, a document does not."""

MAX_NAME_BYTES: Final = 512
"""Longest stream name, decoded. Percent-encoded it still fits in any proxy's request line."""

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""Largest request body: eight of the largest records in a batch."""

RETAIN_BYTES: Final = 16 * 1024 * 1024
"""Payload bytes kept of one stream: about 100,000 tokens with their JSON."""

RETAIN_RECORDS: Final = 262_144
"""Records kept of one stream."""

ENDED_TTL_S: Final = 3_600.0
"""How long an ended stream of `hub.start` can still be read: a reload an hour later finds it."""

MAX_STREAMS: Final = 10_000
"""Streams one server keeps; above it a new one is refused with 507."""

MAX_STORE_BYTES: Final = 1024 * 1024 * 1024
"""Bytes one server keeps over all streams, overhead included; above it appends get 507."""

MAX_READERS: Final = 20_000
"""Open readers one server takes; above it a reader is told to come back later."""

# --- requests -----------------------------------------------------------------------------------

HEADER_BYTES: Final = 32 * 1024
"""Largest request head. nginx's default is 4 × 8 KiB."""

HEADER_S: Final = 10.0
"""Time in which a request head must have arrived, from its connection or its first byte."""

# --- upstreams ----------------------------------------------------------------------------------

UPSTREAM_CONNECT_S: Final = 10.0
"""Time for a connection to a provider, TLS included: three lost SYNs are 7 s."""

FIRST_TOKEN_S: Final = 180.0
"""Time from a request to the first word or thought. Reasoning models can take minutes."""

BETWEEN_TOKENS_S: Final = 60.0
"""Silence in the middle of an answer after which it is taken for dead."""

# --- going away ---------------------------------------------------------------------------------

DRAIN_S: Final = 3.0
"""Time readers get to take their last bytes when the server stops; then they are aborted. Below
the 5 s in which `penstock serve` must be gone, and far below any platform's kill."""

CANCEL_S: Final = 1.0
"""Time a producer gets to stop after a cancel, before it is left behind with a warning."""

STALL_S: Final = 300.0
"""Time a reader may take nothing at all before its connection is given up. It can come back to
its place: the log, not the connection, holds its data."""

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

MAX_PRODUCERS: Final = 10_000
"""Idempotent producers remembered a stream; above it the one that appended longest ago is
forgotten. Two megabytes where they are all in memory."""

# --- the embedded store -------------------------------------------------------------------------

APPEND_WINDOW_BYTES: Final = 16 * 1024 * 1024
"""Payload bytes that may wait for their commit, over all streams; then appends wait, or are
refused where they cannot. At 100 MB/s to a disk that is a sixth of a second."""

APPEND_WINDOW: Final = 8_192
"""Appends that may wait for their commit, over all streams."""

GROUP_RECORDS: Final = 4_096
"""Most records of one commit: about 5 ms of work, the ceiling of a group."""

OPEN_LOGS: Final = 2_048
"""Logs whose state an embedded store keeps in memory; others are read from the file when they
are asked for. About 1 KB each."""

REST_AFTER_S: Final = 10.0
"""Time after which a stream that nobody reads or feeds leaves memory, where a store keeps it."""

FEED_BYTES: Final = 256 * 1024
"""Payload bytes a producer may be ahead of the store's commits; then it waits."""

# --- durable streams ----------------------------------------------------------------------------

LONG_POLL_S: Final = 20.0
"""Time a long-poll waits for something to come: below the 30 s of the shortest idle timeouts."""

SSE_LIFETIME_S: Final = 60.0
"""Age at which a `live=sse` body ends, so that caches collapse readers (Durable Streams 8.2)."""

CURSOR_INTERVAL_S: Final = 20
"""Length of the intervals that a caching cursor counts (Durable Streams 8.1)."""

CATCH_UP_BYTES: Final = 1024 * 1024
"""Payload bytes of one catch-up response; a larger record goes alone."""

# --- subscriptions ------------------------------------------------------------------------------

LEASE_MS: Final = 30_000
"""How long a worker may be silent before its work is given to another (Durable Streams 6.2)."""

MIN_LEASE_MS: Final = 1_000
"""Shortest lease that can be asked for."""

MAX_LEASE_MS: Final = 600_000
"""Longest lease that can be asked for."""

WEBHOOK_RETRY_BASE_S: Final = 1.0
"""Time until a failed delivery is tried again for the first time; then it doubles."""

WEBHOOK_RETRY_CAP_S: Final = 60.0
"""Longest time until a failed delivery is tried again (Durable Streams 7.1)."""

WEBHOOK_RETRY_JITTER: Final = 0.2
"""That time is drawn from itself × (1 ± this)."""

MAX_SUBSCRIPTIONS: Final = 1_000
"""Subscriptions one server keeps. Each new stream is compared with every pattern: half a
millisecond for this many."""

MAX_FOLLOWED: Final = 10_000
"""Streams one subscription follows; as many as a server keeps by default."""

MAX_FOLLOWED_IN_ALL: Final = 100_000
"""Streams followed, summed over all subscriptions: 42 MB (418 bytes each, measured)."""

MAX_ID_BYTES: Final = 128
"""Longest id of a subscription: it is part of an address."""

MAX_URL_BYTES: Final = 2_048
"""Longest address of a webhook; what the oldest HTTP clients and proxies take."""

MAX_TEXT_BYTES: Final = 1_024
"""Longest description, and longest name of a worker."""

WAKE_STREAMS: Final = 1_000
"""Streams named in one wake, those with work first: about 150 KB. More of them make another."""

WAKES_AT_ONCE: Final = 16
"""Webhooks and wake records under way at once. More wait in turn, one a subscription."""

ANNOUNCE_S: Final = 30.0
"""Longest time one delivery may take, the answer included; less where the lease is shorter. A
receiver that needs longer answers at once and calls back."""

ANSWER_BYTES: Final = 64 * 1024
"""What is read of a webhook's answer: `{"done": true}` is 14 bytes."""

STORES_AT_ONCE: Final = 256
"""Documents given to the backend at once, which are one or a few of its commits."""

CHECKED_A_TICK: Final = 20
"""Followed streams that are looked up each tick where a store can forget one without a word."""

# --- requests -----------------------------------------------------------------------------------

HEADER_BYTES: Final = 32 * 1024
"""Largest request head. nginx's default is 4 × 8 KiB."""

HEADER_S: Final = 10.0
"""Time in which a request head must have arrived, from its connection or its first byte."""

KEEP_ALIVE_S: Final = 75
"""Time an idle connection is kept for its next request: longer than proxies and publishers keep
theirs (60 s), so that it is they who close it, never we under a request on its way."""

# --- requests to models -------------------------------------------------------------------------

MAX_REQUEST_BYTES: Final = 32 * 1024 * 1024
"""Largest body that asks a model: what Anthropic takes, with pictures inside as base64. OpenAI and
Gemini take 20 MB and more."""

MAX_REQUEST_DEPTH: Final = 96
"""Deepest nesting of one: the schema of a tool, itself inside five, has room; what recurses over it
does too."""

MAX_REQUEST_ITEMS: Final = 20_000
"""Most messages, tools, or parts of one message. Anthropic takes 100,000 messages, but no
conversation has as many."""

MAX_MODEL_CHARACTERS: Final = 512
"""Longest name of a model: Bedrock's ARNs may have 2,048 and have about 150."""

MAX_DIALECT_HEADER_CHARACTERS: Final = 1_024
"""Longest header that belongs to a client's dialect: a list of thirty betas fits."""

# --- upstreams ----------------------------------------------------------------------------------

UPSTREAM_CONNECT_S: Final = 10.0
"""Time for a connection to a provider, TLS included: three lost SYNs are 7 s."""

FIRST_TOKEN_S: Final = 180.0
"""Time from a request to the first word or thought. Reasoning models can take minutes."""

BETWEEN_TOKENS_S: Final = 60.0
"""Silence in the middle of an answer after which it is taken for dead."""

UPSTREAM_RETRY_BASE_S: Final = 0.25
"""First ceiling of the time before another try, drawn from nothing to it; then it doubles."""

UPSTREAM_RETRY_CAP_S: Final = 4.0
"""Highest ceiling of that time: somebody waits for the first word."""

RETRY_AFTER_MAX_S: Final = 10.0
"""Longest `Retry-After` of a provider that is waited out. One that asks for more is left, and its
wish handed on: the caller can wait as well as we can."""

UPSTREAM_KEEP_ALIVE_S: Final = 30.0
"""Time an idle connection to a provider is kept for the next request. The large ones close theirs
after 60 s and more; below that, we are the ones who do."""

UPSTREAM_DNS_S: Final = 30.0
"""Time the address of a provider's name is kept: the usual TTL of cloud load balancers is 60 s."""

UPSTREAM_BUFFER_BYTES: Final = 64 * 1024
"""What is read of an answer ahead of its reader; at twice this much the provider's connection is
paused."""

UPSTREAM_LINGER_S: Final = 1.0
"""Time the body of a finished answer gets to end, so that its connection can be used again."""

ERROR_BODY_BYTES: Final = 16 * 1024
"""What is read of a provider's error: its sentence is near the front."""

ERROR_BODY_S: Final = 5.0
"""Time in which that must have come: the status says enough without it."""

MAX_SILENT_EVENTS: Final = 1_024
"""Token events of an answer that are held back before any content; then they are shown."""

MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""Largest answer a gateway relays, as its records: a million tokens of text are 30 MB. Its stream
keeps all of it, since a dialect can only be written from an answer's beginning."""

MAX_ANSWER_RECORDS: Final = 2_000_000
"""Most records of an answer's stream: so many of the smallest events are as many bytes."""

UNREAD_S: Final = 60.0
"""How long an answer goes on that nobody reads: a page that is reloaded, a phone in a tunnel."""

HEAD_WAIT_S: Final = 10.0
"""How long an answer's first word is awaited before the response head goes out, so that what goes
wrong before it has a status of its own. Below the 15 s after which a heartbeat is due."""

WHOLE_ANSWER_S: Final = 3_600.0
"""Longest time a provider may take for an answer: the 128,000 tokens that the largest models write
are 43 minutes at 50 a second."""

UPSTREAM_RETRIES: Final = 2
"""Further tries of an upstream that failed before its first word; what the SDKs of OpenAI and
Anthropic do by default."""

UPSTREAM_CONCURRENT: Final = 256
"""Answers that one upstream gives at once. More wait for a slot, in order."""

UPSTREAM_WAITING: Final = 1_024
"""Answers that may wait for a slot of one upstream; more are refused at once."""

UPSTREAM_WAIT_S: Final = 30.0
"""Longest time an answer waits for a slot."""

# --- budgets ------------------------------------------------------------------------------------

RESERVE_OUTPUT_TOKENS: Final = 2_048
"""What an answer holds of its budgets when its caller names no maximum, and takes more of while it
runs: three pages of text."""

TOLD_OUTPUT_TOKENS: Final = 4_096
"""Largest maximum a provider is told that its caller did not ask for. Providers refuse one above
their model's own, and 4,096 is the least of those in use (GPT-4 Turbo, Claude 3)."""

USAGE_RECORDS: Final = 100_000
"""Usage records kept, about 500 bytes each: a day at one answer a second."""

USAGE_BYTES: Final = 64 * 1024 * 1024
"""And their bytes, at most."""

USAGE_WAITING: Final = 10_000
"""Usage records that wait for a store that fails. Of more the oldest are in the log alone."""

# --- going away ---------------------------------------------------------------------------------

DRAIN_S: Final = 3.0
"""Time readers get to take their last bytes when the server stops; then they are aborted. Below
the 5 s in which `penstock serve` must be gone, and far below any platform's kill."""

CANCEL_S: Final = 1.0
"""Time a producer gets to stop after a cancel, before it is left behind with a warning."""

STALL_S: Final = 300.0
"""Time a reader may take nothing at all before its connection is given up. It can come back to
its place: the log, not the connection, holds its data."""

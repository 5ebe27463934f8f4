"""Every metric: name, kind, labels, unit and a sentence. Nothing is exported that is not here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric, as Prometheus names it (counters are exported with `_total`)."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    sentence: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# Tokens come every 5 to 100 ms, first tokens after 0.2 to 30 s, events on a LAN within 1 ms.
SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
)  # fmt: skip

READERS: Final = Metric(
    name="penstock_readers",
    kind="gauge",
    labels=("transport",),
    sentence="Open readers: fast (our own writes), portable (ASGI send), poll (waiting requests).",
)
STREAMS: Final = Metric(
    name="penstock_streams",
    kind="gauge",
    labels=("state",),
    sentence="Streams kept: running (their log is open) or ended.",
)
STREAMS_IN_USE: Final = Metric(
    name="penstock_streams_in_use",
    kind="gauge",
    sentence="Streams in this process's memory; a store keeps the others on disk alone.",
)
STORED_BYTES: Final = Metric(
    name="penstock_stored_bytes",
    kind="gauge",
    sentence="Bytes the backend keeps, the overhead of records included.",
)
COMMITS: Final = Metric(
    name="penstock_backend_commits",
    kind="counter",
    sentence="Writes to the store, each a group of appends: against the appended records it is the "
    "write amplification.",
)
APPENDED_RECORDS: Final = Metric(
    name="penstock_appended_records", kind="counter", sentence="Records committed to logs."
)
APPENDED_BYTES: Final = Metric(
    name="penstock_appended_bytes", kind="counter", sentence="Payload bytes committed to logs."
)
DELIVERED_RECORDS: Final = Metric(
    name="penstock_delivered_records",
    kind="counter",
    sentence="Records handed to readers' transports: each record counts once per reader.",
)
DELIVERED_BYTES: Final = Metric(
    name="penstock_delivered_bytes",
    kind="counter",
    sentence="Body bytes handed to readers' transports.",
)
READER_LAG_MAX: Final = Metric(
    name="penstock_reader_lag_records_max",
    kind="gauge",
    sentence="Records that the slowest open reader is behind its stream's tail.",
)
READERS_LAGGING: Final = Metric(
    name="penstock_readers_lagging",
    kind="gauge",
    sentence="Open readers that are behind their stream's tail.",
)
FIRST_RECORD: Final = Metric(
    name="penstock_first_record_seconds",
    kind="histogram",
    buckets=SECONDS,
    sentence="From the start of a hub's producer to its first record: the time to first token.",
)
RECORD_GAP: Final = Metric(
    name="penstock_record_gap_seconds",
    kind="histogram",
    buckets=SECONDS,
    sentence="Between two appends to one stream by a hub's producer: the inter-token gap.",
)
FIRST_EVENT: Final = Metric(
    name="penstock_first_event_seconds",
    kind="histogram",
    buckets=SECONDS,
    sentence="From a reader's request to the first record handed to its transport.",
)
RESUMES: Final = Metric(
    name="penstock_resumes",
    kind="counter",
    labels=("outcome",),
    sentence="Readers that came back with an id: exact, gap, lost (unknown stream) or ended.",
)
STREAM_ENDS: Final = Metric(
    name="penstock_stream_ends",
    kind="counter",
    labels=("reason",),
    sentence="Streams that ended, by reason.",
)
READER_ENDS: Final = Metric(
    name="penstock_reader_ends",
    kind="counter",
    labels=("reason",),
    sentence="Readers that left: ended (saw the end), gone (hung up), drained, aged (resumed), "
    "stalled, refused.",
)
GAPS: Final = Metric(
    name="penstock_gaps",
    kind="counter",
    labels=("reason",),
    sentence="Explicit gaps told to readers: trimmed, epoch, ahead or malformed.",
)
FAST_PATH_ACTIVE: Final = Metric(
    name="penstock_fast_path_active",
    kind="gauge",
    sentence="1 when readers are served by our own writes, 0 when only by ASGI send.",
)

METRICS: Final = (
    READERS,
    STREAMS,
    STREAMS_IN_USE,
    STORED_BYTES,
    COMMITS,
    APPENDED_RECORDS,
    APPENDED_BYTES,
    DELIVERED_RECORDS,
    DELIVERED_BYTES,
    READER_LAG_MAX,
    READERS_LAGGING,
    FIRST_RECORD,
    RECORD_GAP,
    FIRST_EVENT,
    RESUMES,
    STREAM_ENDS,
    READER_ENDS,
    GAPS,
    FAST_PATH_ACTIVE,
)

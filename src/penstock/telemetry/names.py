"""Every metric: name, kind, labels, unit and a sentence. Nothing is exported that is not here.

What OpenTelemetry has a name for in its conventions for generative AI
(open-telemetry/semantic-conventions-genai, gen-ai-metrics) has that name, as Prometheus spells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric, as Prometheus names it (counters are exported with `_total`).

    `values` are those a label can have, where they are known. Of the others at most so many are
    exported that a metric has `MAX_LABEL_SETS` combinations; what comes later is "other".
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    sentence: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict[str, tuple[str, ...]], hash=False
    )


# Tokens come every 5 to 100 ms, first tokens after 0.2 to 30 s, events on a LAN within 1 ms.
SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
)  # fmt: skip

MAX_LABEL_SETS: Final = 200
"""Combinations of labels that a metric has at most: callers name models, and could name any."""

# The conventions' own bounds, and beyond them those that models which think for minutes need.
FIRST_TOKEN_SECONDS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0,
)  # fmt: skip
OUTPUT_TOKEN_SECONDS: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
REQUEST_SECONDS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    163.84, 327.68, 655.36,
)  # fmt: skip
TOKENS: Final = (
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
)  # fmt: skip
TOKENS_PER_SECOND: Final = (1, 2, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000, 2000)

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

GEN_AI: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
_CHAT: Final = {"gen_ai_operation_name": ("chat",)}

GEN_AI_TOKENS: Final = Metric(
    name="gen_ai_client_token_usage",
    kind="histogram",
    labels=(*GEN_AI, "gen_ai_token_type"),
    buckets=TOKENS,
    values={**_CHAT, "gen_ai_token_type": ("input", "output")},
    sentence="Tokens of an answer, as its provider counted them; estimates are left out.",
)
GEN_AI_DURATION: Final = Metric(
    name="gen_ai_server_request_duration_seconds",
    kind="histogram",
    labels=(*GEN_AI, "error_type"),
    buckets=REQUEST_SECONDS,
    values={**_CHAT, "error_type": ("", "cancelled", "failed", "lost")},
    sentence="From an answer's start to its end; error_type is how it ended, where not as asked.",
)
GEN_AI_FIRST_TOKEN: Final = Metric(
    name="gen_ai_server_time_to_first_token_seconds",
    kind="histogram",
    labels=GEN_AI,
    buckets=FIRST_TOKEN_SECONDS,
    values=_CHAT,
    sentence="From an answer's start to the first thing its model wrote, waiting included.",
)
GEN_AI_OUTPUT_TOKEN: Final = Metric(
    name="gen_ai_server_time_per_output_token_seconds",
    kind="histogram",
    labels=GEN_AI,
    buckets=OUTPUT_TOKEN_SECONDS,
    values=_CHAT,
    sentence="Time for each output token after the first, averaged over an answer: the inter-token "
    "gap.",
)
GATEWAY_ANSWERS: Final = Metric(
    name="penstock_gateway_answers",
    kind="counter",
    labels=("upstream", "end"),
    values={"end": ("complete", "cancelled", "failed", "limit", "lost")},
    sentence="Answers that ended, by upstream (empty where none answered) and by how.",
)
GATEWAY_RUNNING: Final = Metric(
    name="penstock_gateway_running_answers", kind="gauge", sentence="Answers that are under way."
)
GATEWAY_PLACES: Final = Metric(
    name="penstock_gateway_places",
    kind="gauge",
    labels=("upstream", "state"),
    values={"state": ("used", "waiting")},
    sentence="Places at an upstream that are used, and answers that wait for one.",
)
GATEWAY_ATTEMPTS: Final = Metric(
    name="penstock_gateway_attempts",
    kind="counter",
    labels=("upstream", "kind", "outcome"),
    values={"kind": ("first", "retry", "fallback"), "outcome": ("answered", "failed")},
    sentence="Times that an upstream was asked: first, again or in another's place; until its "
    "first content it answered or failed.",
)
GATEWAY_CUT_OFFS: Final = Metric(
    name="penstock_gateway_cut_offs",
    kind="counter",
    labels=("limit",),
    values={"limit": ("output_tokens", "total_tokens", "money")},
    sentence="Answers that a budget ended, by the limit they met.",
)
GATEWAY_REFUSALS: Final = Metric(
    name="penstock_gateway_budget_refusals",
    kind="counter",
    labels=("budget", "limit"),
    values={
        "budget": ("answer", "user", "key", "all"),
        "limit": ("output_tokens", "total_tokens", "money"),
    },
    sentence="Answers that were not begun, since a budget left nothing.",
)
GATEWAY_ADDED: Final = Metric(
    name="penstock_gateway_added_seconds",
    kind="histogram",
    labels=("upstream",),
    buckets=SECONDS,
    sentence="From the arrival of an answer's first content to its commit: what the gateway adds.",
)
GATEWAY_SPEED: Final = Metric(
    name="penstock_gateway_tokens_per_second",
    kind="histogram",
    labels=("upstream", "model"),
    buckets=TOKENS_PER_SECOND,
    sentence="Output tokens a second of an answer, from its first to its end.",
)
GATEWAY_TOKENS: Final = Metric(
    name="penstock_gateway_tokens",
    kind="counter",
    labels=("upstream", "type", "source"),
    values={
        "type": ("input", "output", "reasoning", "cached"),
        "source": ("reported", "estimated"),
    },
    sentence="Tokens charged: reported by the provider, or estimated where it did not say. "
    "Reasoning is part of the output, cached of the input.",
)
GATEWAY_MONEY: Final = Metric(
    name="penstock_gateway_money",
    kind="counter",
    labels=("upstream",),
    sentence="What was charged by the table of prices, in its currency.",
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
    GEN_AI_TOKENS,
    GEN_AI_DURATION,
    GEN_AI_FIRST_TOKEN,
    GEN_AI_OUTPUT_TOKEN,
    GATEWAY_ANSWERS,
    GATEWAY_RUNNING,
    GATEWAY_PLACES,
    GATEWAY_ATTEMPTS,
    GATEWAY_CUT_OFFS,
    GATEWAY_REFUSALS,
    GATEWAY_ADDED,
    GATEWAY_SPEED,
    GATEWAY_TOKENS,
    GATEWAY_MONEY,
)

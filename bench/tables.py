"""What the tables show of each scenario, and what one round says in one line."""

from collections.abc import Callable, Mapping

from bench.client import Round

Column = tuple[str, Callable[[Mapping[str, float]], str]]


def ms(value: float) -> str:
    """A time in milliseconds, with as many digits as mean something."""
    return f"{value:,.2f}" if value < 1 else f"{value:,.1f}"


_BUSY: list[Column] = [
    ("server %", lambda m: f"{m['server_cpu_pct']:.0f}"),
    ("client %", lambda m: f"{m['client_cpu_pct']:.0f}"),
    ("others %", lambda m: f"{m['other_cpu_pct']:.0f}"),
    ("rounds", lambda m: f"{m['rounds']:.0f}"),
]
_SPREAD: Column = ("min-max", lambda m: f"{m['cpu_us_min']:.2f}-{m['cpu_us_max']:.2f}")
_LATENCY: list[Column] = [
    ("p50 ms", lambda m: ms(m["p50_ms"])),
    ("p99 ms", lambda m: ms(m["p99_ms"])),
]
_LOST: Column = ("lost", lambda m: f"{m['missing']:,.0f}")
FANOUT: list[Column] = [
    ("µs CPU/event", lambda m: f"{m['cpu_us_per_event']:.2f}"),
    _SPREAD,
    ("events/s", lambda m: f"{m['events_s']:,.0f}"),
    *_LATENCY,
    ("events/read", lambda m: f"{m['events_per_read']:.1f}"),
    ("bytes/event", lambda m: f"{m['body_bytes_per_event']:.0f}"),
    _LOST,
    *_BUSY,
]
_APPEND: list[Column] = [
    ("µs CPU/append", lambda m: f"{m['cpu_us_per_event']:.1f}"),
    ("min-max", lambda m: f"{m['cpu_us_min']:.1f}-{m['cpu_us_max']:.1f}"),
    ("appends/core s", lambda m: f"{1e6 / m['cpu_us_per_event']:,.0f}"),
    ("appends/s", lambda m: f"{m['events_s']:,.0f}"),
    *_LATENCY,
    ("refused", lambda m: f"{m['refused']:,.0f}"),
    _LOST,
    ("not acknowledged, but there", lambda m: f"{m['repeated']:,.0f}"),
    *_BUSY,
]
_CATCH_UP: list[Column] = [
    ("MB/core s", lambda m: f"{1e6 / m['cpu_us_per_mb']:,.0f}"),
    ("MB/s", lambda m: f"{m['body_mb_s']:,.0f}"),
    ("ms CPU/MB", lambda m: f"{m['cpu_us_per_mb'] / 1000:.2f}"),
    ("ms, first time", lambda m: f"{m['first_pass_s'] * 1000:,.0f}"),
    ("pages", lambda m: f"{m['pages'] / m['passes']:,.0f}"),
    _LOST,
    *_BUSY,
]

_RELAY: list[Column] = [
    ("µs CPU/token", lambda m: f"{m['cpu_us_per_event']:.1f}"),
    ("min-max", lambda m: f"{m['cpu_us_min']:.1f}-{m['cpu_us_max']:.1f}"),
    ("delivered", lambda m: f"{m['delivered']:.1%}"),
    ("first p50 ms", lambda m: ms(m["first_p50_ms"])),
    ("first p99 ms", lambda m: ms(m["first_p99_ms"])),
    ("token p50 ms", lambda m: ms(m["p50_ms"])),
    ("token p99 ms", lambda m: ms(m["p99_ms"])),
    ("tokens/read", lambda m: f"{m['tokens_per_read']:.2f}"),
    ("bytes/token", lambda m: f"{m['body_bytes_per_event']:.0f}"),
    ("MiB", lambda m: f"{m['rss_end_mib']:.0f}"),
    _LOST,
    *_BUSY,
]

_COLUMNS: dict[str, list[Column]] = {
    "sequence": [
        ("missing", lambda m: f"{m['missing']:.0f}"),
        ("repeated", lambda m: f"{m['repeated']:.0f}"),
        ("events", lambda m: f"{m['events']:,.0f}"),
        ("bytes/event", lambda m: f"{m['body_bytes_per_event']:.1f}"),
    ],
    "idle": [
        ("KiB/connection", lambda m: f"{m['kib_per_connection']:.2f}"),
        ("MiB before", lambda m: f"{m['rss_before_mib']:.1f}"),
        ("MiB with all", lambda m: f"{m['rss_end_mib']:.1f}"),
        ("s to connect all", lambda m: f"{m['connect_s']:.1f}"),
    ],
    "stuck": [
        ("MiB grown", lambda m: f"{m['rss_growth_mib']:.0f}"),
        ("lost silently", lambda m: f"{m['missing']:,.0f}"),
        ("announced by `gap`", lambda m: f"{m['announced_missing']:,.0f}"),
        ("came level", lambda m: "yes" if m["stuck_level"] else "no"),
        ("s for 500 MB", lambda m: f"{m['seconds']:.1f}"),
    ],
    "replay": [
        ("MB/s", lambda m: f"{m['body_mb_s']:,.0f}"),
        ("ms", lambda m: f"{m['seconds'] * 1000:.0f}"),
        ("events/s", lambda m: f"{m['events_s']:,.0f}"),
    ],
    "idle-streams": [
        ("MiB grown, at rest", lambda m: f"{m['rss_growth_mib']:.1f}"),
        ("of it not file content", lambda m: f"{m['anonymous_growth_mib']:.1f}"),
        ("MiB grown, just written", lambda m: f"{m['rss_filled_mib']:.1f}"),
        ("s to write", lambda m: f"{m['seconds']:.1f}"),
        ("s to rest", lambda m: f"{m['settled_s']:.0f}"),
        _LOST,
    ],
}


def columns(scenario: str) -> list[Column]:
    """The columns of a scenario's table."""
    if scenario in _COLUMNS:
        return _COLUMNS[scenario]
    kinds = (("append-", _APPEND), ("catch-up-", _CATCH_UP), ("relay-", _RELAY))
    return next((found for prefix, found in kinds if scenario.startswith(prefix)), FANOUT)


def one_line(scenario: str, one: Round) -> str:
    """One round in one line, for whoever watches."""
    warning = f"  DOES NOT COUNT: {one['invalid']}" if "invalid" in one else ""
    if "events_s" not in one:
        return warning.strip()
    return f"{_found(scenario, one)}  others {one['other_cpu_pct']:.0f} %{warning}"


def _found(scenario: str, one: Round) -> str:
    if scenario == "idle":
        return f"{one['kib_per_connection']:.2f} KiB/connection"
    if scenario == "stuck":
        return (
            f"grew {one['rss_growth_mib']:.0f} MiB, silently lost {one['missing']}, "
            f"announced {one['announced_missing']}, came level: {one['stuck_level']}"
        )
    if scenario == "replay":
        return f"{one['body_mb_s']:.0f} MB/s"
    if scenario == "sequence":
        return f"{one['missing']} missing, {one['repeated']} repeated, {one['events']} events"
    if scenario == "idle-streams":
        return f"grew {one['rss_growth_mib']:.1f} MiB ({one['rss_filled_mib']:.1f} just written)"
    if scenario.startswith("catch-up-"):
        return f"{one['body_mb_s']:7.0f} MB/s  {float(one['cpu_us_per_mb']) / 1000:7.2f} ms CPU/MB"
    if scenario.startswith("relay-"):
        return (
            f"{one['cpu_us_per_event']:7.1f} µs/token  {float(one['delivered']):6.1%} delivered  "
            f"first p50 {one['first_p50_ms']:8.2f}  p99 {one['first_p99_ms']:8.2f}  "
            f"token p50 {one['p50_ms']:8.2f}  p99 {one['p99_ms']:8.2f} ms"
        )
    return (
        f"{one['cpu_us_per_event']:7.2f} µs/event  {one['events_s']:9,.0f} events/s  "
        f"p50 {one['p50_ms']:8.2f}  p99 {one['p99_ms']:8.2f} ms"
    )

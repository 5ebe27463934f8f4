"""What is written: one JSON file with every round, one Markdown page with the medians."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.bars import Bar
from bench.peers import PEERS
from bench.scenarios import SCENARIOS, Round

Rounds = Mapping[str, Mapping[str, Sequence[Round]]]
"""Scenario, server, the rounds in the order in which they ran."""

DISTURBED_PCT = 20.0
Column = tuple[str, Callable[[Mapping[str, float]], str]]


def medians(rounds: Rounds) -> dict[str, dict[str, dict[str, float]]]:
    """The median of each metric over the valid rounds; a server without one is left out."""
    return {
        scenario: {
            server: _median_of(valid)
            for server, all_rounds in servers.items()
            if (valid := [r for r in all_rounds if "invalid" not in r])
        }
        for scenario, servers in rounds.items()
    }


def _median_of(rounds: Sequence[Round]) -> dict[str, float]:
    numeric = {key for key, value in rounds[0].items() if not isinstance(value, str)}
    found = {key: statistics.median(float(r[key]) for r in rounds) for key in sorted(numeric)}
    costs = [float(r["cpu_us_per_event"]) for r in rounds]
    return {
        **found,
        "cpu_us_min": min(costs),
        "cpu_us_max": max(costs),
        "rounds": len(rounds),
        # Whatever was lost in any round was lost.
        "missing": max(float(r["missing"]) for r in rounds),
        "repeated": max(float(r["repeated"]) for r in rounds),
    }


def write(
    folder: Path,
    name: str,
    *,
    header: Mapping[str, Any],
    rounds: Rounds,
    bars: Sequence[Bar],
) -> tuple[Path, Path]:
    """Write `<name>.json` and `<name>.md`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    middle = medians(rounds)
    document = {
        **header,
        "bars": [
            {"claim": b.claim, "value": b.value, b.at: b.limit, "verdict": b.verdict} for b in bars
        ],
        "medians": middle,
        "rounds": rounds,
    }
    as_json, as_markdown = folder / f"{name}.json", folder / f"{name}.md"
    as_json.write_text(json.dumps(document, indent=1) + "\n")
    as_markdown.write_text(markdown(header, rounds, bars))
    return as_json, as_markdown


def disturbed(rounds: Rounds) -> str:
    """How many rounds had others at work beside them, in one sentence."""
    every = [one for servers in rounds.values() for all_of in servers.values() for one in all_of]
    those = [one for one in every if float(one.get("other_cpu_pct", 0)) > DISTURBED_PCT]
    limit = f"{DISTURBED_PCT:.0f} % of a core"
    return f"Others used more than {limit} in {len(those)} of {len(every)} rounds."


def markdown(header: Mapping[str, Any], rounds: Rounds, bars: Sequence[Bar]) -> str:
    """The page: what was broken or missing first, then the bars, the tables and the machine."""
    lines = ["# Measurements", ""]
    if header["incomplete"]:
        lines += ["**INCOMPLETE: these figures do not count.**", ""]
        lines += [f"- {reason}" for reason in header["incomplete"]] + [""]
    lines += [*bar_table(bars), ""]
    lines += [disturbed(rounds), ""]
    middle = medians(rounds)
    for scenario in rounds:
        lines += [f"## {scenario}: {SCENARIOS[scenario].title}", ""]
        lines += [*scenario_table(scenario, middle[scenario]), ""]
        lines += _invalid_lines(rounds[scenario])
    lines += ["## Machine and versions", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in header["machine"].items()]
    lines += ["", f"Taken {header['taken']}, {header['settings']}.", ""]
    return "\n".join(lines)


def bar_table(bars: Sequence[Bar]) -> list[str]:
    """The bars as Markdown."""
    rows = ["| bar | measured | limit | |", "|---|--:|--:|---|"]
    for bar in bars:
        value = "-" if bar.value is None else _shown(bar.value)
        rows.append(f"| {bar.claim} | {value} | at {bar.at} {_shown(bar.limit)} | {bar.verdict} |")
    return rows


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def _ms(value: float) -> str:
    return f"{value:,.2f}" if value < 1 else f"{value:,.1f}"


_FANOUT: list[Column] = [
    ("µs CPU/event", lambda m: f"{m['cpu_us_per_event']:.2f}"),
    ("min-max", lambda m: f"{m['cpu_us_min']:.2f}-{m['cpu_us_max']:.2f}"),
    ("events/s", lambda m: f"{m['events_s']:,.0f}"),
    ("p50 ms", lambda m: _ms(m["p50_ms"])),
    ("p99 ms", lambda m: _ms(m["p99_ms"])),
    ("events/read", lambda m: f"{m['events_per_read']:.1f}"),
    ("bytes/event", lambda m: f"{m['body_bytes_per_event']:.0f}"),
    ("lost", lambda m: f"{m['missing']:,.0f}"),
    ("server %", lambda m: f"{m['server_cpu_pct']:.0f}"),
    ("client %", lambda m: f"{m['client_cpu_pct']:.0f}"),
    ("others %", lambda m: f"{m['other_cpu_pct']:.0f}"),
    ("rounds", lambda m: f"{m['rounds']:.0f}"),
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
}


def scenario_table(scenario: str, servers: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One scenario's medians as Markdown; fan-outs also as multiples of the floor."""
    columns = _COLUMNS.get(scenario, _FANOUT)
    floor = servers.get("c", {}).get("cpu_us_per_event") if columns is _FANOUT else None
    titles = ["server", *(["× C"] if floor else []), *(title for title, _ in columns)]
    rows = [_row(titles), "|---|" + "--:|" * (len(titles) - 1)]
    for server, metrics in servers.items():
        cells = [PEERS[server].title]
        if floor:
            cells.append(f"{metrics['cpu_us_per_event'] / floor:.2f}")
        rows.append(_row([*cells, *(show(metrics) for _, show in columns)]))
    return rows


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _invalid_lines(servers: Mapping[str, Sequence[Round]]) -> list[str]:
    lines = [
        f"- {PEERS[server].title}, round {number}: does not count: {one['invalid']}"
        for server, all_rounds in servers.items()
        for number, one in enumerate(all_rounds, 1)
        if "invalid" in one
    ]
    return [*lines, ""] if lines else []

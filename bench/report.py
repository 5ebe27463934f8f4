"""What is written: one JSON file with every round, one Markdown page with the medians."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.bars import Bar
from bench.client import Round
from bench.parts import Part
from bench.peers import PEERS
from bench.tables import FANOUT, columns

Rounds = Mapping[str, Mapping[str, Sequence[Round]]]
"""Scenario, server, the rounds in the order in which they ran."""

DISTURBED_PCT = 20.0


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
    part: Part,
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
    as_markdown.write_text(markdown(part, header, rounds, bars))
    return as_json, as_markdown


def disturbed(rounds: Rounds) -> str:
    """How many rounds had others at work beside them, in one sentence."""
    every = [one for servers in rounds.values() for all_of in servers.values() for one in all_of]
    those = [one for one in every if float(one.get("other_cpu_pct", 0)) > DISTURBED_PCT]
    limit = f"{DISTURBED_PCT:.0f} % of a core"
    return f"Others used more than {limit} in {len(those)} of {len(every)} rounds."


def markdown(part: Part, header: Mapping[str, Any], rounds: Rounds, bars: Sequence[Bar]) -> str:
    """The page: what was broken or missing first, then the bars, the tables and the machine."""
    lines = [f"# {part.title}", ""]
    if header["incomplete"]:
        lines += ["**INCOMPLETE: these figures do not count.**", ""]
        lines += [f"- {reason}" for reason in header["incomplete"]] + [""]
    lines += [*bar_table(bars), ""]
    lines += [disturbed(rounds), ""]
    middle = medians(rounds)
    for scenario in rounds:
        lines += [f"## {scenario}: {part.scenarios[scenario].title}", ""]
        lines += [*scenario_table(part, scenario, middle[scenario]), ""]
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


def scenario_table(
    part: Part, scenario: str, servers: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """One scenario's medians as Markdown; fan-outs also as multiples of the floor."""
    shown = columns(scenario)
    floor = servers.get(part.floor, {}).get("cpu_us_per_event") if shown is FANOUT else None
    titles = ["server", *(["× C"] if floor else []), *(title for title, _ in shown)]
    rows = [_row(titles), "|---|" + "--:|" * (len(titles) - 1)]
    for server, metrics in servers.items():
        cells = [PEERS[server].title]
        if floor:
            cells.append(f"{metrics['cpu_us_per_event'] / floor:.2f}")
        rows.append(_row([*cells, *(show(metrics) for _, show in shown)]))
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

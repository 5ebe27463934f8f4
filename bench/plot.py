"""Pictures of the medians: horizontal bars, cheapest on top, our own in colour.

`python -m bench.plot` draws those of `bench/results/latest.json` again.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import StrMethodFormatter

from bench.bars import Medians
from bench.peers import FLOOR, FLOOR_BATCH, PEERS, PENSTOCK
from bench.scenarios import SCENARIOS

OWN, FLOOR_COLOUR, OTHER, INK, FAINT = "#0f766e", "#94a3b8", "#cbd5e1", "#1e293b", "#64748b"
ENOUGH = 0.95  # of the offered rate; below it the bar says so


def draw(folder: Path, name: str, medians: Medians) -> list[Path]:
    """Write one PNG for CPU, one for p99 and one for idle memory; returns those written."""
    fanouts = {key: value for key, value in medians.items() if key.startswith("fanout") and value}
    idle = {key: value for key, value in medians.items() if key == "idle" and value}
    pictures = (
        ("cpu", fanouts, "cpu_us_per_event", "server CPU per delivered event, µs"),
        ("p99", fanouts, "p99_ms", "99th percentile of latency, ms (logarithmic)"),
        ("idle", idle, "kib_per_connection", "process memory per idle connection, KiB"),
    )
    written: list[Path] = []
    for label, scenarios, metric, unit in pictures:
        if scenarios:
            written.append(folder / f"{name}-{label}.png")
            _panels(written[-1], scenarios, metric, unit)
    return written


def _panels(path: Path, scenarios: Medians, metric: str, unit: str) -> None:
    """One panel a scenario, one below the other."""
    rows = sum(len(servers) for servers in scenarios.values())
    layout = ConstrainedLayoutEngine(hspace=0.04, h_pad=0.12)
    figure = Figure(figsize=(9, 0.4 * rows + 1.1 * len(scenarios)), layout=layout)
    axes = figure.subplots(
        len(scenarios), 1, squeeze=False, height_ratios=[len(s) for s in scenarios.values()]
    )
    for axis, (name, servers) in zip(axes[:, 0], scenarios.items(), strict=True):
        values = {server: metrics[metric] for server, metrics in servers.items()}
        notes = {server: _shortfall(name, metrics) for server, metrics in servers.items()}
        _bars(axis, values, notes)
        _scale(axis, max(values.values()), logarithmic=metric == "p99_ms")
        axis.set_title(SCENARIOS[name].title, loc="left", fontsize=11, color=INK, pad=8)
    axes[-1, 0].set_xlabel(unit, color=FAINT, fontsize=10)
    figure.savefig(path, dpi=144, facecolor="white", metadata={"Software": None})


def _shortfall(name: str, metrics: Mapping[str, float]) -> str:
    """Say when a server delivered less than was offered: its other figures look better for it."""
    scenario = SCENARIOS[name]
    share = metrics["events_s"] / scenario.offered_per_s
    return f"   delivers {share:.0%}" if scenario.is_fanout and share < ENOUGH else ""


def _bars(axis: Axes, values: Mapping[str, float], notes: Mapping[str, str]) -> None:
    order = sorted(values, key=lambda server: values[server], reverse=True)
    lengths = [values[server] for server in order]
    drawn = axis.barh(
        [PEERS[server].title for server in order],
        lengths,
        color=[_colour(server) for server in order],
        height=0.62,
    )
    texts = [_shown(values[server]) + notes[server] for server in order]
    axis.bar_label(drawn, texts, padding=5, fontsize=10, color=INK)
    for label, server in zip(axis.get_yticklabels(), order, strict=True):
        label.set_fontweight("bold" if server == PENSTOCK else "normal")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _scale(axis: Axes, longest: float, *, logarithmic: bool) -> None:
    if logarithmic:
        axis.set_xscale("log")
        axis.set_xlim(1, max(longest * 4, 100))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    else:
        axis.set_xlim(0, longest * 1.25)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color(OTHER)
    axis.tick_params(axis="y", length=0, labelsize=10, labelcolor=INK)
    axis.tick_params(axis="x", which="both", color=OTHER, labelsize=9, labelcolor=FAINT)
    axis.grid(axis="x", color="#eef2f6", linewidth=0.8)
    axis.set_axisbelow(True)


def _colour(server: str) -> str:
    if server == PENSTOCK:
        return OWN
    return FLOOR_COLOUR if server in (FLOOR, FLOOR_BATCH) else OTHER


if __name__ == "__main__":
    source = (
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results/latest.json"
    )
    document = json.loads(source.read_text())
    for picture in draw(source.parent, source.stem, document["medians"]):
        print(picture.name)

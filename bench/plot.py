"""Pictures of the medians: horizontal bars, cheapest on top, our own in colour.

`python -m bench.plot` draws those of the reports in `bench/results/` again.
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from bench.bars import Medians
from bench.parts import PARTS, Part, Picture
from bench.peers import PEERS

OWN, FLOOR_COLOUR, OTHER, INK, FAINT = "#0f766e", "#94a3b8", "#cbd5e1", "#1e293b", "#64748b"
ENOUGH = 0.95  # of the offered rate; below it the bar says so


def draw(folder: Path, name: str, part: Part, medians: Medians) -> list[Path]:
    """Write a PNG for each of the part's pictures that has figures; returns those written."""
    written: list[Path] = []
    for picture in part.pictures:
        scenarios = {
            key: servers
            for key, servers in medians.items()
            if key.startswith(picture.scenarios) and servers
        }
        if scenarios:
            written.append(folder / f"{name}-{picture.label}.png")
            _panels(written[-1], part, picture, scenarios)
    return written


def _panels(path: Path, part: Part, picture: Picture, scenarios: Medians) -> None:
    """One panel a scenario, one below the other."""
    rows = sum(len(servers) for servers in scenarios.values())
    layout = ConstrainedLayoutEngine(hspace=0.04, h_pad=0.12)
    figure = Figure(figsize=(9, 0.4 * rows + 1.1 * len(scenarios)), layout=layout)
    axes = figure.subplots(
        len(scenarios), 1, squeeze=False, height_ratios=[len(s) for s in scenarios.values()]
    )
    for axis, (name, servers) in zip(axes[:, 0], scenarios.items(), strict=True):
        offered = part.scenarios[name].offered_per_s
        values = {server: metrics[picture.metric] for server, metrics in servers.items()}
        notes = {server: _shortfall(offered, metrics) for server, metrics in servers.items()}
        _bars(axis, values, notes)
        _scale(axis, values.values(), is_logarithmic=picture.is_logarithmic)
        axis.set_title(part.scenarios[name].title, loc="left", fontsize=11, color=INK, pad=8)
    axes[-1, 0].set_xlabel(picture.unit, color=FAINT, fontsize=10)
    figure.savefig(path, dpi=144, facecolor="white", metadata={"Software": None})


def _shortfall(offered_per_s: float, metrics: Mapping[str, float]) -> str:
    """Say when a server delivered less than was offered: its other figures look better for it."""
    share = metrics["events_s"] / offered_per_s if offered_per_s else 1
    return f"   delivers {share:.0%}" if share < ENOUGH else ""


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
        label.set_fontweight("bold" if PEERS[server].is_ours else "normal")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _scale(axis: Axes, values: Collection[float], *, is_logarithmic: bool) -> None:
    if is_logarithmic:
        # From the power of ten below the shortest bar, so that it is one.
        lowest = 10 ** math.floor(math.log10(min(1.01, *(v / 2 for v in values if v > 0))))
        axis.set_xscale("log")
        axis.set_xlim(lowest, max(max(values) * 4, lowest * 100))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    else:
        axis.set_xlim(0, max(values) * 1.25)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color(OTHER)
    axis.tick_params(axis="y", length=0, labelsize=10, labelcolor=INK)
    axis.tick_params(axis="x", which="both", color=OTHER, labelsize=9, labelcolor=FAINT)
    axis.grid(axis="x", color="#eef2f6", linewidth=0.8)
    axis.set_axisbelow(True)


def _colour(server: str) -> str:
    if PEERS[server].is_ours:
        return OWN
    return FLOOR_COLOUR if PEERS[server].is_floor else OTHER


if __name__ == "__main__":
    results = Path(__file__).parent / "results"
    for one in PARTS.values():
        source = results / f"{one.result}.json"
        if source.exists():
            document = json.loads(source.read_text())
            for picture in draw(results, one.result, one, document["medians"]):
                print(picture.name)

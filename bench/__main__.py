"""The command line of the benchmark.

Servers are interleaved: every server once, then the next round, so that a machine that gets slower
or busier does so for all of them. Leaves with 0 when every bar holds, 1 when one is broken, 2 when
the figures do not count because something was missing or invalid.
"""

import argparse
import datetime
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench import bars, build, machine, peers, plot, report, tables
from bench.client import Round
from bench.parts import PARTS, Measured, Part

RESULTS = build.HERE / "results"
CLIENTS = ("load", "append_load", "catchup_load", "gateway_load")

Rounds = dict[str, dict[str, list[Round]]]
"""Scenario, server, rounds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; of several parts the worst status counts."""
    options = _options(arguments)
    # So that servers are ended also when the benchmark is told to stop.
    signal.signal(signal.SIGTERM, _leave)
    if machine.cores()[0] == machine.cores()[1]:
        print("only one core: server and client share it; expect no useful latencies", flush=True)
    try:
        for client in CLIENTS:
            build.load_client(client)
        return max([_run_part(part, options) for part in _asked(options)], default=0)
    except build.BuildFailed as error:
        print(error, file=sys.stderr)
        return 2


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _asked(options: argparse.Namespace) -> list[Part]:
    """The parts that the command line means: those it names that have a scenario it names."""
    return [part for name in options.part if _scenarios(part := PARTS[name], options)]


def _scenarios(part: Part, options: argparse.Namespace) -> list[Measured]:
    return [scenario for name, scenario in part.scenarios.items() if name in options.scenario]


def _run_part(part: Part, options: argparse.Namespace) -> int:
    scenarios = _scenarios(part, options)
    used = {name for scenario in scenarios for name in scenario.peers}
    chosen = [name for name in options.servers if name in used]
    absent = {name: why for name in chosen if (why := peers.missing(name))}
    for why in absent.values():
        print(f"MISSING: {why}", flush=True)
    available = [name for name in chosen if name not in absent]
    rounds = options.rounds or (1 if options.quick else part.rounds)
    seconds = options.seconds or (1.5 if options.quick else part.seconds)
    found = {s.name: _run_scenario(s, available, rounds, seconds, options) for s in scenarios}
    settings = f"{rounds} interleaved rounds of {seconds:g} s"
    return _finish(part, options, settings, found, list(absent.values()))


def _run_scenario(
    scenario: Measured,
    available: Sequence[str],
    count: int,
    seconds: float,
    options: argparse.Namespace,
) -> dict[str, list[Round]]:
    servers = [name for name in scenario.peers if name in available]
    rounds: dict[str, list[Round]] = {name: [] for name in servers}
    count = 1 if scenario.once else count
    print(f"\n{scenario.name}: {scenario.title}", flush=True)
    for number in range(count):
        turn = number % max(len(servers), 1)  # nobody is always first
        for name in servers[turn:] + servers[:turn]:
            busy = machine.wait_until_quiet(options.patience)
            one = scenario.run(name, seconds)
            one["busy_before_pct"] = round(busy, 1)
            rounds[name].append(one)
            text = tables.one_line(scenario.name, one)
            print(f"  {number + 1}/{count} {name:15} {text}", flush=True)
    return rounds


def _finish(
    part: Part,
    options: argparse.Namespace,
    settings: str,
    rounds: Rounds,
    absent: Sequence[str],
) -> int:
    middle = report.medians(rounds)
    judged = bars.judge(middle)
    incomplete = list(absent) + _gaps(part, rounds)
    header = {
        "taken": datetime.date.today().isoformat(),
        "settings": settings,
        "machine": {**machine.facts(), **part.versions()},
        "incomplete": incomplete,
    }
    name = options.name or part.result
    written = report.write(options.out, name, part, header=header, rounds=rounds, bars=judged)
    pictures = plot.draw(options.out, name, part, middle)
    print()
    for scenario in rounds:
        print(f"{scenario}: {part.scenarios[scenario].title}")
        print("\n".join(report.scenario_table(part, scenario, middle[scenario])), end="\n\n")
    print("\n".join(report.bar_table(judged)))
    print(f"\n{report.disturbed(rounds)}")
    print("\nwritten:", *(path.name for path in (*written, *pictures)), "in", options.out.name)
    return _verdict(judged, incomplete, allow_missing=options.allow_missing)


def _gaps(part: Part, rounds: Rounds) -> list[str]:
    """Why the figures do not count: required servers that did not run, rounds that are invalid."""
    reasons = [
        f"{scenario}: no figure of {peers.PEERS[name].title}"
        for scenario, servers in rounds.items()
        for name in part.scenarios[scenario].required
        if not any("invalid" not in one for one in servers.get(name, []))
    ]
    for scenario, servers in rounds.items():
        for name, all_rounds in servers.items():
            invalid = sum("invalid" in one for one in all_rounds)
            if invalid:
                title = peers.PEERS[name].title
                reasons.append(f"{scenario}: {invalid} invalid round(s) of {title}")
    return reasons


def _verdict(judged: Sequence[bars.Bar], incomplete: Sequence[str], *, allow_missing: bool) -> int:
    broken = [bar.claim for bar in judged if bar.verdict == "BROKEN"]
    for claim in broken:
        print(f"BROKEN: {claim}")
    if incomplete:
        print("\nINCOMPLETE: these figures do not count.")
        for reason in incomplete:
            print(f"  - {reason}")
    if incomplete and not allow_missing:
        return 2
    return 1 if broken else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    scenarios = [name for part in PARTS.values() for name in part.scenarios]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--part", default=",".join(PARTS), help=f"comma-separated; {', '.join(PARTS)}")
    add("--scenario", default=",".join(scenarios), help=f"comma-separated; {', '.join(scenarios)}")
    add("--servers", default=",".join(peers.PEERS), help="comma-separated")
    add("--rounds", type=int, help="interleaved rounds of what varies (events: 5, else 3)")
    add("--seconds", type=float, help="length of a measured window (gateway: 10, else 4)")
    add("--patience", type=float, default=machine.QUIET_PATIENCE_S, help="wait for quiet, s (10)")
    add("--quick", action="store_true", help="one round of 1.5 s: does it work at all?")
    add("--allow-missing", action="store_true", help="leave with 0 although servers were missing")
    add("--name", help="name of the result files, for one part (latest, durable, gateway)")
    add("--out", type=Path, default=RESULTS, help="folder of the result files (bench/results)")
    options = parser.parse_args(arguments)
    options.part = _names(parser, options.part, list(PARTS))
    options.scenario = _names(parser, options.scenario, scenarios)
    options.servers = _names(parser, options.servers, list(peers.PEERS))
    if options.name and len(_asked(options)) != 1:
        parser.error("--name is for one part; say which with --part")
    if options.quick:
        options.patience = 1.0
    return options


def _names(parser: argparse.ArgumentParser, text: str, known: Sequence[str]) -> list[str]:
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            parser.error(f"{name!r} is not one of: {', '.join(known)}")
    return wanted


if __name__ == "__main__":
    sys.exit(main())

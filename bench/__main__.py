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

from bench import bars, build, launch, machine, peers, plot, report
from bench.scenarios import SCENARIOS, Round, Scenario, run_round

RESULTS = build.HERE / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    options = _options(arguments)
    # So that servers are ended also when the benchmark is told to stop.
    signal.signal(signal.SIGTERM, _leave)
    try:
        build.load_client()
        chosen = [peers.PEERS[name] for name in options.servers]
        absent = {peer.name: why for peer in chosen if (why := peers.missing(peer.name))}
    except build.BuildFailed as error:
        print(error, file=sys.stderr)
        return 2
    scenarios = [SCENARIOS[name] for name in options.scenario]
    for why in absent.values():
        print(f"MISSING: {why}", flush=True)
    if machine.cores()[0] == machine.cores()[1]:
        print("only one core: server and client share it; expect no useful latencies", flush=True)
    available = [name for name in options.servers if name not in absent]
    rounds = {s.name: _run_scenario(s, available, options) for s in scenarios}
    return _finish(options, scenarios, rounds, list(absent.values()))


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _run_scenario(
    scenario: Scenario, available: Sequence[str], options: argparse.Namespace
) -> dict[str, list[Round]]:
    servers = [name for name in scenario.peers if name in available]
    rounds: dict[str, list[Round]] = {name: [] for name in servers}
    count = 1 if scenario.once else options.rounds
    print(f"\n{scenario.name}: {scenario.title}", flush=True)
    for number in range(count):
        turn = number % max(len(servers), 1)  # nobody is always first
        for name in servers[turn:] + servers[:turn]:
            busy = machine.wait_until_quiet(options.patience)
            one = run_round(scenario, name, seconds=options.seconds)
            one["busy_before_pct"] = round(busy, 1)
            rounds[name].append(one)
            print(f"  {number + 1}/{count} {name:14} {_brief(scenario, one)}", flush=True)
    return rounds


def _brief(scenario: Scenario, one: Round) -> str:
    """One round in one line, for whoever watches."""
    warning = f"  DOES NOT COUNT: {one['invalid']}" if "invalid" in one else ""
    if "events_s" not in one:
        return warning.strip()
    if scenario.is_fanout or scenario.workload.streams:
        text = (
            f"{one['cpu_us_per_event']:7.2f} µs/event  {one['events_s']:9,.0f} events/s  "
            f"p50 {one['p50_ms']:8.2f}  p99 {one['p99_ms']:8.2f} ms"
        )
    elif scenario.name == "idle":
        text = f"{one['kib_per_connection']:.2f} KiB/connection"
    elif scenario.name == "stuck":
        text = (
            f"grew {one['rss_growth_mib']:.0f} MiB, silently lost {one['missing']}, "
            f"announced {one['announced_missing']}, came level: {one['stuck_level']}"
        )
    elif scenario.name == "replay":
        text = f"{one['body_mb_s']:.0f} MB/s"
    else:
        text = f"{one['missing']} missing, {one['repeated']} repeated, {one['events']} events"
    return f"{text}  others {one['other_cpu_pct']:.0f} %{warning}"


def _finish(
    options: argparse.Namespace,
    scenarios: Sequence[Scenario],
    rounds: dict[str, dict[str, list[Round]]],
    absent: Sequence[str],
) -> int:
    middle = report.medians(rounds)
    judged = bars.judge(middle)
    incomplete = list(absent) + _gaps(scenarios, rounds)
    header = {
        "taken": datetime.date.today().isoformat(),
        "settings": f"{options.rounds} interleaved rounds of {options.seconds:g} s",
        "machine": {**machine.facts(), "nchan": _nchan_version(rounds)},
        "incomplete": incomplete,
    }
    written = report.write(options.out, options.name, header=header, rounds=rounds, bars=judged)
    pictures = plot.draw(options.out, options.name, middle)
    print()
    for name in rounds:
        print(f"{name}: {SCENARIOS[name].title}")
        print("\n".join(report.scenario_table(name, middle[name])), end="\n\n")
    print("\n".join(report.bar_table(judged)))
    print(f"\n{report.disturbed(rounds)}")
    print("\nwritten:", *(path.name for path in (*written, *pictures)), "in", options.out.name)
    return _verdict(judged, incomplete, allow_missing=options.allow_missing)


def _gaps(scenarios: Sequence[Scenario], rounds: dict[str, dict[str, list[Round]]]) -> list[str]:
    """Why the figures do not count: required servers that did not run, rounds that are invalid."""
    reasons = [
        f"{scenario.name}: no figure of {peers.PEERS[name].title}"
        for scenario in scenarios
        for name in scenario.required
        if not any("invalid" not in one for one in rounds[scenario.name].get(name, []))
    ]
    for scenario in scenarios:
        for name, all_rounds in rounds[scenario.name].items():
            invalid = sum("invalid" in one for one in all_rounds)
            if invalid:
                title = peers.PEERS[name].title
                reasons.append(f"{scenario.name}: {invalid} invalid round(s) of {title}")
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


def _nchan_version(rounds: dict[str, dict[str, list[Round]]]) -> str:
    if not any(peers.NCHAN in servers for servers in rounds.values()):
        return "not run"
    try:
        return launch.nchan_version()
    except launch.ServerFailed:
        return "unknown"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--scenario", default=",".join(SCENARIOS), help=f"comma-separated; {', '.join(SCENARIOS)}")
    add("--servers", default=",".join(peers.PEERS), help="comma-separated")
    add("--rounds", type=int, default=5, help="interleaved rounds of each fan-out (5)")
    add("--seconds", type=float, default=4.0, help="length of a measured window (4)")
    add("--patience", type=float, default=machine.QUIET_PATIENCE_S, help="wait for quiet, s (10)")
    add("--quick", action="store_true", help="one round of 1.5 s: does it work at all?")
    add("--allow-missing", action="store_true", help="leave with 0 although servers were missing")
    add("--name", default="latest", help="name of the result files (latest)")
    add("--out", type=Path, default=RESULTS, help="folder of the result files (bench/results)")
    options = parser.parse_args(arguments)
    options.scenario = _names(parser, options.scenario, list(SCENARIOS))
    options.servers = _names(parser, options.servers, list(peers.PEERS))
    if options.quick:
        options.rounds, options.seconds, options.patience = 1, 1.5, 1.0
    return options


def _names(parser: argparse.ArgumentParser, text: str, known: Sequence[str]) -> list[str]:
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            parser.error(f"{name!r} is not one of: {', '.join(known)}")
    return wanted


if __name__ == "__main__":
    sys.exit(main())

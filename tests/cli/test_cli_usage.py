"""`penstock usage` prints what answers have used, by a server or its store, and adds up exactly."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.cli.usage_sums import Answer, sum_by
from penstock.core.record import NewRecord
from penstock.gateway.keeping import RETENTION, USAGE
from penstock.llm.meter_prices import Money
from penstock.server.hub import Hub
from running_commands import Done, Running, run, running
from running_servers import free_port

DAY_S = 86_400
NOON = 20_000 * DAY_S + DAY_S / 2  # 2024-10-04
CONFIG = """
[upstreams.a]
dialect = "ollama"
base_url = "http://127.0.0.1:1"
"""


def record(number: int, **more: Any) -> dict[str, Any]:
    return {
        "request": f"answer-{number}",
        "user": "anna" if number % 2 else "bert",
        "key": "",
        "model": "gpt-5",
        "upstream": "a",
        "end": "complete",
        "cut_by": None,
        "input_tokens": 100,
        "output_tokens": number,
        "reasoning_tokens": None,
        "cached_tokens": 10,
        "cache_write_tokens": None,
        "is_estimate": False,
        "money": f"0.{number:012}",
        "started_s": NOON + number * DAY_S,
        "first_token_s": 0.25,
        "total_s": None,
        **more,
    }


RECORDS = [
    record(1),
    record(2),
    record(3, money=None, is_estimate=True, user="\x1b[2Jeve"),
    record(4, model="=1+1"),
]


async def write(path: Path, records: list[dict[str, Any]], max_records: int) -> None:
    async with Hub(f"sqlite:///{path}") as hub:
        retention = hub.with_retention(max_records=max_records, max_bytes=RETENTION.max_bytes)
        stream = await hub.create(USAGE, retention=retention)
        for each in records:
            await stream.append_batch([NewRecord(json.dumps(each).encode(), "usage")])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.db"
    asyncio.run(write(path, RECORDS, RETENTION.max_records))
    return path


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """A gateway that has the store open."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "penstock.toml").write_text(CONFIG)
    arguments = ("serve", "--port", "0", "--backend", f"sqlite:///{store}")
    with running(*arguments, folder=folder) as serving:
        assert serving.address
        yield serving


def called(*arguments: str) -> Done:
    """The command in this process: one of its own takes a second to start."""
    result = CliRunner().invoke(app, ["usage", *arguments])
    return Done(result.exit_code, result.stdout, result.stderr)


def usage(store: Path, *arguments: str) -> Done:
    return called("--backend", f"sqlite:///{store}", *arguments)


def rows(done: Done) -> list[dict[str, Any]]:
    assert (done.status, done.err) == (0, "")
    return [json.loads(line) for line in done.out.splitlines()]


def test_a_store_is_read_as_it_is(store: Path) -> None:
    before = store.read_bytes()
    found = rows(usage(store, "--json"))
    assert [{name: row[name] for name in row if name != "started"} for row in found] == RECORDS
    assert found[0]["started"] == "2024-10-05 12:00:00"
    assert store.read_bytes() == before


def test_a_server_and_its_store_say_the_same(server: Running, store: Path) -> None:
    """While the server has the store."""
    asked = run("usage", "--url", server.address, "--json", folder=server.folder)
    assert rows(asked) == rows(usage(store, "--json"))
    since = f"--since={NOON + 2 * DAY_S:.0f}"
    until = "--until=2024-10-08T13:30:00+02:00"
    asked = called("--url", server.address, since, until, "--json")
    assert [row["request"] for row in rows(asked)] == ["answer-2", "answer-3"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--since", "2024-10-07"], [3, 4]),
        (["--until", "2024-10-07"], [1, 2]),
        (["--since", "2024-10-06T12:00:00Z", "--until", "2024-10-07T12:00:00Z"], [2]),
        (["--since", "2024-10-06T14:00:01+02:00"], [3, 4]),
        (["--since", "24h"], []),
        (["--until", "7d"], [1, 2, 3, 4]),
    ],
)
def test_a_time_is_what_it_says(store: Path, arguments: list[str], expected: list[int]) -> None:
    found = rows(usage(store, "--json", *arguments))
    assert [row["output_tokens"] for row in found] == expected


def test_the_table_is_aligned_and_moves_no_cursor(store: Path) -> None:
    done = usage(store)
    assert done.status == 0
    header, *lines = done.out.splitlines()
    assert header.split() == [
        *("started", "user", "key", "model", "upstream", "end", "input", "output", "money"),
        *("first", "token", "total", "request"),
    ]
    assert len(lines) == len(RECORDS)
    place = header.index("model")
    assert [line[place:].split()[0] for line in lines] == ["gpt-5", "gpt-5", "gpt-5", "=1+1"]
    assert "\x1b" not in done.out
    assert "?[2Jeve" in done.out


def test_sums_are_exact_and_say_what_they_leave_out(store: Path) -> None:
    found = {row["user"]: row for row in rows(usage(store, "--by", "user", "--json"))}
    assert found["bert"]["money"] == "0.000000000006"
    assert found["bert"]["answers"] == 2
    assert found["bert"]["input_tokens"] == 200
    assert (found["\x1b[2Jeve"]["unpriced"], found["\x1b[2Jeve"]["estimates"]) == (1, 1)
    days = rows(usage(store, "--by", "day", "--json"))
    assert [row["day"] for row in days] == [f"2024-10-{5 + n:02}" for n in range(4)]
    shown = usage(store, "--by", "model").out.splitlines()
    total = ["total", "4", "400", "10", "0", "40", "0", "1", "0.000000000007", "1"]
    assert shown[-1].split() == total


def test_values_for_a_spreadsheet_are_values(store: Path) -> None:
    done = usage(store, "--csv")
    found = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["request"] for row in found] == [each["request"] for each in RECORDS]
    assert found[3]["model"] == "'=1+1"
    assert found[0]["money"] == RECORDS[0]["money"]
    by = list(csv.DictReader(io.StringIO(usage(store, "--csv", "--by", "key").out)))
    assert [row["answers"] for row in by] == ["4"]


def test_what_is_not_kept_and_what_is_no_record_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    asyncio.run(write(path, [record(1), record(2), record(3), {"started_s": NOON}], 3))
    done = usage(path, "--json")
    assert done.status == 0
    assert [json.loads(line)["request"] for line in done.out.splitlines()] == [
        "answer-2",
        "answer-3",
    ]
    assert done.err.splitlines() == [
        "penstock: earlier answers are not kept any more",
        "penstock: 1 lines are no usage records",
    ]


def test_a_store_without_answers_prints_a_header(tmp_path: Path) -> None:
    async def make() -> None:
        async with Hub(f"sqlite:///{tmp_path / 'store.db'}"):
            pass

    asyncio.run(make())
    done = usage(tmp_path / "store.db")
    assert (done.status, len(done.out.splitlines())) == (0, 1)
    assert usage(tmp_path / "store.db", "--csv") == Done(0, "", "")


def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path, server: Running) -> None:
    (tmp_path / "other.db").write_bytes(b"not a database" * 100)
    run("usage", "--backend", "memory://", folder=tmp_path).refuses(2, "--url")
    run("usage", "--backend", "sqlite:///none.db", folder=tmp_path).refuses(1, "no store")
    assert not (tmp_path / "none.db").exists()
    run("usage", "--backend", "sqlite:///other.db", folder=tmp_path).refuses(1, "other.db")
    nobody = f"http://127.0.0.1:{free_port()}"
    run("usage", "--url", nobody, folder=tmp_path).refuses(1, "could not be reached")
    run("usage", "--url", "example.com", folder=tmp_path).refuses(2, "url")
    run("usage", "--url", f"{server.address}/x", folder=tmp_path).refuses(1, "404")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "yesterday"],
        ["--until", "2026-13-01"],
        ["--by", "hour"],
        ["--json", "--csv"],
        ["--url", "http://127.0.0.1:1", "--backend", "sqlite:///a"],
    ],
)
def test_a_wrong_call_is_status_2(arguments: list[str]) -> None:
    done = called(*arguments)
    assert done.status == 2
    assert "Traceback" not in done.err


@settings(deadline=None, print_blob=True)
@given(st.lists(st.integers(0, 10**26).map(lambda units: str(Money(units))) | st.none()))
def test_a_sum_is_that_of_its_parts_to_the_last_digit(amounts: list[str | None]) -> None:
    answers = [Answer(**record(1, money=money)) for money in amounts]
    _, total = sum_by(answers, "model")
    units = sum(Money.read(money).units for money in amounts if money is not None)
    assert total["money"] == str(Money(units))
    assert total["unpriced"] == amounts.count(None)

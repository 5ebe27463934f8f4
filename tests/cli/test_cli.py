"""`penstock serve`, `publish` and `tail` do what their help says, and fail in one clear line."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import time
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path

import pytest

from running_commands import Done, Running, run, running
from running_servers import free_port

COMMANDS = ("serve", "publish", "tail", "demo")
STOPS_WITHIN_S = 5.0
SOON = {"PENSTOCK_RETRY_MS": "100"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """One server for all tests that only need one."""
    folder = tmp_path_factory.mktemp("serve")
    with running("serve", "--port", "0", folder=folder, variables=SOON) as serving:
        assert serving.address
        yield serving


def url(server: Running, name: str) -> str:
    return f"{server.address}/v1/stream/{name}"


def status_of(port: int, method: str, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    finally:
        connection.close()


def publish(server: Running, name: str, *arguments: str, stdin: bytes = b"") -> Done:
    return run("publish", url(server, name), *arguments, folder=server.folder, stdin=stdin)


def tail(server: Running, name: str, *arguments: str) -> Done:
    return run("tail", url(server, name), *arguments, folder=server.folder)


# --- penstock -----------------------------------------------------------------------------------


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    assert run("--version", folder=tmp_path) == Done(0, f"{version('penstock')}\n", "")


def test_help_names_every_command(tmp_path: Path) -> None:
    done = run("--help", folder=tmp_path)
    assert (done.status, done.err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", done.out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, tmp_path: Path) -> None:
    done = run(command, "--help", folder=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert f"penstock {command}" in done.out


@pytest.mark.parametrize("arguments", [["no-such-command"], ["serve", "--no-such-option"], []])
def test_a_wrong_call_is_status_2_without_a_traceback(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.status == 2
    assert "Traceback" not in done.err
    assert "Usage" in done.out + done.err


# --- penstock serve -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "path"),
    [(signal.SIGINT, ()), (signal.SIGTERM, ("--portable",))],
    ids=["fast-interrupted", "portable-terminated"],
)
def test_serve_says_where_and_stops_with_0(
    number: signal.Signals, path: tuple[str, ...], tmp_path: Path
) -> None:
    with running("serve", "--port", "0", *path, folder=tmp_path) as serving:
        assert serving.match(r"^penstock serves at http://127\.0\.0\.1:\d+\n")
        assert status_of(serving.port, "GET", "/healthz") == 200
        serving.send(number)
        assert serving.wait(STOPS_WITHIN_S) == 0
        assert "Traceback" not in serving.err


def test_serve_refuses_an_open_door(tmp_path: Path) -> None:
    """By flag and by environment alike."""
    said = run("serve", "--port", "0", "--host", "0.0.0.0", folder=tmp_path)
    said.refuses(2, "'0.0.0.0'", "--allow-unauthenticated")
    said = run("serve", folder=tmp_path, variables={"PENSTOCK_HOST": "::", "PENSTOCK_PORT": "0"})
    said.refuses(2, "'::'", "--allow-unauthenticated")


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in (["serve"], ["demo", "--recorded"]):
            run(*command, "--port", port, folder=tmp_path).refuses(2, port, "in use")


def test_flags_beat_the_environment_and_that_beats_the_file(tmp_path: Path) -> None:
    """Seen by the port that is served. A file that is named beats the one that lies there."""
    ports = {name: free_port() for name in ("lies there", "named", "environment", "flag")}
    (tmp_path / "penstock.toml").write_text(f"port = {ports['lies there']}\n")
    (tmp_path / "named.toml").write_text(f"port = {ports['named']}\n")
    variables = {"PENSTOCK_PORT": str(ports["environment"])}
    flag = ("--port", str(ports["flag"]))
    named = ("--config", "named.toml")
    cases: list[tuple[str, tuple[str, ...], dict[str, str]]] = [
        ("lies there", (), {}),
        ("named", named, {}),
        ("environment", named, variables),
        ("flag", (*named, *flag), variables),
    ]
    for winner, arguments, environment in cases:
        with running("serve", *arguments, folder=tmp_path, variables=environment) as serving:
            assert serving.port == ports[winner], winner


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("porrt = 3", ["porrt"]),
        ("port = 70000", ["port", "65535"]),
        ("port = ", ["config", "TOML"]),
        ("[readers]\nheartbeat_s = 3", ["readers"]),
    ],
)
def test_a_wrong_file_is_refused(text: str, words: list[str], tmp_path: Path) -> None:
    """A typo must not silently mean the default."""
    (tmp_path / "penstock.toml").write_text(text + "\n")
    run("serve", folder=tmp_path).refuses(2, *words)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    run("serve", "--config", "none.toml", folder=tmp_path).refuses(2, "none.toml")


def test_a_wrong_variable_is_refused(tmp_path: Path) -> None:
    variables = {"PENSTOCK_PORT": "abc"}
    run("serve", folder=tmp_path, variables=variables).refuses(2, "port")


@pytest.mark.parametrize("path", [(), ("--portable",)], ids=["fast", "portable"])
def test_ctrl_c_with_an_open_tail_stops_in_time_and_the_tail_comes_back(
    path: tuple[str, ...], tmp_path: Path
) -> None:
    """To the same address: this server's log lay in memory, so the tail learns that it is lost."""
    port = str(free_port())
    serve = ("serve", "--port", port, *path)
    with running(*serve, folder=tmp_path, variables=SOON) as first:
        address = url(first, "s")
        assert run("publish", address, "1", folder=tmp_path).status == 0
        with running("tail", address, folder=tmp_path) as reading:
            reading.match("1\n")
            assert first.interrupt(STOPS_WITHIN_S) == 0
            assert reading.process.poll() is None
            with running(*serve, folder=tmp_path, variables=SOON) as second:
                assert second.address
                assert reading.wait() == 1
            assert (reading.out, reading.err) == ("1\n", "-- end: lost\n")


# --- penstock publish ---------------------------------------------------------------------------


def test_publish_appends_its_argument_and_prints_the_offset(server: Running) -> None:
    done = publish(server, "p/1", '{"a": 1}', "--type", "order", "--key", "k", "--close")
    assert (done.status, done.err) == (0, "")
    offset = done.out.strip()
    read = tail(server, "p/1", "--ids")
    assert read == Done(0, f'{offset}\torder\t{{"a": 1}}\n', "-- end: complete\n")


@pytest.mark.parametrize("dash", [(), ("-",)], ids=["nothing", "dash"])
def test_publish_reads_standard_input(server: Running, dash: tuple[str, ...]) -> None:
    """A JSON array is a batch."""
    name = f"p/stdin{len(dash)}"
    assert publish(server, name, *dash, "--close", stdin=b'[1, "two"]\n').status == 0
    assert tail(server, name).out == '1\n"two"\n'


def test_publish_takes_text_as_one_json_string(server: Running) -> None:
    """From the argument and from standard input, whatever is in it."""
    assert publish(server, "p/text", '[1] "ü"', "--string").status == 0
    assert publish(server, "p/text", "--string", "--close", stdin=b"a\nb\n").status == 0
    lines = tail(server, "p/text").out.splitlines()
    assert [json.loads(line) for line in lines] == ['[1] "ü"', "a\nb\n"]


def test_publish_takes_other_content_types(server: Running) -> None:
    """Text of several lines is shown as one, so that a line stays an event."""
    kind = ("--content-type", "text/plain")
    assert publish(server, "p/plain", "no json", *kind).status == 0
    assert publish(server, "p/plain", "two\nlines", *kind, "--close").status == 0
    assert tail(server, "p/plain").out == 'no json\n"two\\nlines"\n'


def test_publish_after_the_end_says_so(server: Running) -> None:
    assert publish(server, "p/ended", "1", "--close").status == 0
    publish(server, "p/ended", "2").refuses(1, "409", "stream-ended")


def test_publish_of_no_json_says_so(server: Running) -> None:
    publish(server, "p/broken", "{").refuses(1, "400", "body-malformed")


def test_publish_creates_only_when_it_may(server: Running) -> None:
    publish(server, "p/none", "1", "--no-create").refuses(1, "404", "stream-not-found")


def test_publish_checks_what_it_is_told(server: Running, tmp_path: Path) -> None:
    publish(server, "p/wrong", "1", "--type", "end").refuses(2, "'end'", "reserved")
    publish(server, "p/wrong", "1", "--key", "a\nb").refuses(2, "key")
    run("publish", "no-address", "1", folder=tmp_path).refuses(2, "no-address")


def test_publish_to_nobody_is_status_1(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}/v1/stream/s"
    run("publish", address, "1", folder=tmp_path).refuses(1, address)


# --- penstock tail ------------------------------------------------------------------------------


def test_tail_replays_from_any_place(server: Running) -> None:
    assert publish(server, "t/replay", "[1,2,3]", "--close").status == 0
    lines = tail(server, "t/replay", "--ids").out.splitlines()
    ids = [line.split("\t")[0] for line in lines]
    assert tail(server, "t/replay").out == "1\n2\n3\n"
    assert tail(server, "t/replay", "--after", ids[0]).out == "2\n3\n"
    assert tail(server, "t/replay", "--after", "-1").out == "1\n2\n3\n"
    assert tail(server, "t/replay", "--after", "now").out == ""


def test_tail_follows_what_comes(server: Running) -> None:
    publish(server, "t/follow", "1")
    with running("tail", url(server, "t/follow"), folder=server.folder) as reading:
        for number in (2, 3):
            reading.match(rf"(?m)^{number - 1}\n")
            publish(server, "t/follow", str(number))
        reading.match("2\n3\n")
        publish(server, "t/follow", "4", "--close")
        assert reading.wait() == 0
        assert (reading.out, reading.err) == ("1\n2\n3\n4\n", "-- end: complete\n")


def test_tail_of_a_cancelled_stream_is_status_1(server: Running) -> None:
    publish(server, "t/cancel", "1")
    with running("tail", url(server, "t/cancel"), folder=server.folder) as reading:
        reading.match("1\n")
        assert status_of(server.port, "POST", "/v1/cancel/t/cancel") == 204
        assert reading.wait() == 1
        assert (reading.out, reading.err) == ("1\n", "-- end: cancelled\n")


def test_tail_stops_at_ctrl_c_without_a_traceback(server: Running) -> None:
    publish(server, "t/stop", "1")
    with running("tail", url(server, "t/stop"), folder=server.folder) as reading:
        reading.match("1\n")
        assert reading.interrupt(STOPS_WITHIN_S) == 130
        assert "Traceback" not in reading.err


def test_tail_of_what_is_not_there_says_so(server: Running) -> None:
    tail(server, "t/none").refuses(1, "404", "stream-not-found")


def test_tail_gives_up_when_told_to(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}/v1/stream/s"
    run("tail", address, "--max-attempts", "1", folder=tmp_path).refuses(1, address)


def test_tail_refuses_what_is_no_address_or_header(server: Running, tmp_path: Path) -> None:
    run("tail", "nowhere", folder=tmp_path).refuses(2, "nowhere")
    tail(server, "t/none", "--header", "X: a\nY: b").refuses(2, "'X'")
    done = tail(server, "t/none", "--header", "colonless")
    assert done.status == 2
    assert "colonless" in done.err
    assert "Traceback" not in done.err


def test_tail_waits_for_a_server_that_is_not_up_yet(tmp_path: Path) -> None:
    port = str(free_port())
    address = f"http://127.0.0.1:{port}/v1/stream/s"
    with running("tail", address, "--after", "1tUvL11", folder=tmp_path) as reading:
        # It has begun when its interpreter has run for a moment; whether its first try came before
        # or after the server's start, it must end in the same way.
        began = time.monotonic()
        reading.until(lambda: time.monotonic() - began > 1.0)
        with running("serve", "--port", port, folder=tmp_path):
            assert reading.wait() == 1
    assert reading.err == "-- end: lost\n"


# --- what is given wrongly ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("serve", "--port", "0", "--log-level", "nope"), b"", "setting 'log_level'"),
        (("publish", "http://127.0.0.1:9/v1/stream/a", "--string"), b"\xff", "no UTF-8"),
        (("demo", "--port", "0", "--recorded", "--pace", "-4"), b"", "--pace"),
        (("demo", "--port", "0", "--recorded", "--upstream-log", "."), b"", "--upstream-log"),
        (("demo", "--port", "0", "--recorded", "--upstream-log", "no/x"), b"", "upstream_log"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_and_status_2(
    arguments: tuple[str, ...], stdin: bytes, said: str, tmp_path: Path
) -> None:
    done = run(*arguments, folder=tmp_path, stdin=stdin)
    assert done.status == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_an_argument_that_is_no_utf_8_is_published_as_it_is(server: Running) -> None:
    """Its bytes go to the server, which says no to them for a text stream."""
    done = publish(server, "bytes", "\udcff", "--content-type", "text/plain")
    assert done.status == 1
    assert "body-malformed" in done.err

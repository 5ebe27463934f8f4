"""Settings: one definition, a fixed precedence, and every mistake named with its setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.core import limits
from penstock.core.errors import SettingInvalid
from penstock.server.config import (
    DEFAULT_FILE,
    Settings,
    is_loopback,
    load_settings,
    make_settings,
    refuse_open_door,
)


def test_defaults_are_those_of_the_limits() -> None:
    settings = Settings()
    pairs = {
        "heartbeat_s": limits.HEARTBEAT_S,
        "retry_ms": limits.RETRY_MS,
        "max_readers": limits.MAX_READERS,
        "stall_s": limits.STALL_S,
        "view_tail_bytes": limits.VIEW_TAIL_BYTES,
        "max_record_bytes": limits.MAX_RECORD_BYTES,
        "max_body_bytes": limits.MAX_BODY_BYTES,
        "max_streams": limits.MAX_STREAMS,
        "max_store_bytes": limits.MAX_STORE_BYTES,
        "retain_records": limits.RETAIN_RECORDS,
        "retain_bytes": limits.RETAIN_BYTES,
        "ended_ttl_s": limits.ENDED_TTL_S,
        "header_bytes": limits.HEADER_BYTES,
        "header_s": limits.HEADER_S,
        "drain_s": limits.DRAIN_S,
        "cancel_s": limits.CANCEL_S,
    }
    assert {name: getattr(settings, name) for name in pairs} == pairs


def test_every_setting_says_what_it_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith((".", "readers.")), name


def test_flags_beat_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text('port = 1\nhost = "file"\nretry_ms = 1000\n')
    environment = {"PENSTOCK_PORT": "2", "PENSTOCK_HOST": "environment", "UNRELATED": "x"}
    settings = load_settings({"port": 3, "host": None}, file=file, environment=environment)
    assert (settings.port, settings.host, settings.retry_ms) == (3, "environment", 1000)
    assert settings.drain_s == limits.DRAIN_S


def test_the_file_in_the_working_directory_is_read_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({}, environment={}).port == 4437
    (tmp_path / DEFAULT_FILE).write_text("port = 5\n")
    assert load_settings({}, environment={}).port == 5


def test_lists_in_the_environment_are_separated_by_commas() -> None:
    environment = {
        "PENSTOCK_ALLOWED_HOSTS": "a.example, B.example,",
        "PENSTOCK_ALLOWED_ORIGINS": "",
    }
    settings = load_settings({}, environment=environment)
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.allowed_origins == ()


@pytest.mark.parametrize(
    ("values", "setting"),
    [
        ({"port": 65536}, "port"),
        ({"port": -1}, "port"),
        ({"port": "many"}, "port"),
        ({"heartbeat_s": 0}, "heartbeat_s"),
        ({"retry_ms": 99}, "retry_ms"),
        ({"header_bytes": 511}, "header_bytes"),
        ({"retain_records": 0}, "retain_records"),
        ({"retain_age_s": 0}, "retain_age_s"),
        ({"drain_s": -1}, "drain_s"),
        ({"allowed_hosts": ("http://x/",)}, "allowed_hosts"),
        ({"allowed_hosts": ("",)}, "allowed_hosts"),
        ({"backend": "redis://x"}, "backend"),
        ({"heartbeats": 1}, "heartbeats"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], setting: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        make_settings(**values)
    assert caught.value.setting == setting
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize(
    "text", [b"port = ", b"\xff", b"prot = 4437\n"], ids=["no TOML", "no UTF-8", "unknown key"]
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "some.toml"
    file.write_bytes(text)
    with pytest.raises(SettingInvalid):
        load_settings({}, file=file, environment={})


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match="no file"):
        load_settings({}, file=tmp_path / "none.toml", environment={})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_and_nothing_that_looks_like_it(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_an_open_door_must_be_asked_for_in_as_many_words() -> None:
    refuse_open_door(make_settings(host="127.0.0.1"))
    refuse_open_door(make_settings(host="0.0.0.0", allow_unauthenticated=True))
    for host in ("0.0.0.0", "::", "192.168.0.1", "name.example"):
        with pytest.raises(SettingInvalid, match="--allow-unauthenticated"):
            refuse_open_door(make_settings(host=host))


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]


def test_retention_is_made_of_its_three_settings() -> None:
    kept = make_settings(retain_records=1, retain_bytes=2, retain_age_s=3).retention
    assert (kept.max_records, kept.max_bytes, kept.max_age_s) == (1, 2, 3)

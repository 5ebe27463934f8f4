"""The gateway's configuration: read strictly, every mistake named by its place, no secret shown."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.core import limits
from penstock.core.errors import SettingInvalid
from penstock.gateway.config import GatewayConfig, UpstreamSettings, read_config
from penstock.gateway.tables import GatewayTable, UpstreamTable
from penstock.llm.budget import Limits
from penstock.llm.events import Text, TokenEvent
from penstock.llm.meter_prices import Money
from penstock.server.config import GATEWAY_TABLES, load_settings, read_tables

SECRET = "sk-very-secret-0123456789"
WHOLE = """
port = 8080

[gateway]
unread_s = inf
head_wait_s = 2

[upstreams.fast]
dialect = "openai-chat"
base_url = "https://api.example.com/v1/"
api_key = "env:FAST_KEY"
models = ["gpt-*", "o4-mini"]
rename = { small = "gpt-4o-mini" }
connect_s = 3
first_token_s = 60
between_tokens_s = 20
whole_s = 600
retries = 0
fallback = ["aws", "here"]
max_concurrent = 8
max_waiting = 0
wait_s = 0
max_output_tokens = 4_000
headers = { "X-Team" = "env:TEAM", "X-Plain" = "a b" }
extra = { service_tier = "flex", stop = ["a", { deep = [1, 2.5, true] }] }
may_drop = ["top_k"]

[upstreams.aws]
dialect = "bedrock"
base_url = "https://bedrock-runtime.eu-central-1.amazonaws.com"
region = "eu-central-1"
access_key_id = "env:AWS_ID"
secret_access_key = "env:AWS_SECRET"
session_token = "a-token"

[upstreams.here]
dialect = "vllm"
base_url = "http://127.0.0.1:8000"

[[filters]]
kind = "strip"

[[filters]]
kind = "shout"

[prices."gpt-*"]
input = "0.15"
output = "0.60"

[prices."*"]
input = 1
output = 2

[budgets]
day_starts_at = "-05:30"
reserve_output_tokens = 100

[budgets.answer]
output_tokens = 4_000

[budgets.user]
total_tokens = 500_000
money = "5.00"

[keys.app]
secret = "env:APP_KEY"
user = "anna"
models = ["gpt-*"]

[keys.other]
secret = "another"
"""
ENVIRONMENT = {
    "FAST_KEY": SECRET,
    "TEAM": "red",
    "AWS_ID": "AKIA-very-secret",
    "AWS_SECRET": f"{SECRET}-aws",
    "APP_KEY": f"{SECRET}-app",
}
UPSTREAM: dict[str, Any] = {"dialect": "ollama", "base_url": "http://127.0.0.1:11434"}


def shout(event: TokenEvent) -> TokenEvent:
    return Text(text=event.text.upper()) if isinstance(event, Text) else event


def read(tables: Mapping[str, object], **environment: str) -> GatewayConfig:
    config = read_config(tables, environment=environment, functions={"shout": shout})
    assert config is not None
    return config


def whole() -> GatewayConfig:
    return read(tomllib.loads(WHOLE), **ENVIRONMENT)


def refusal(tables: Mapping[str, object], **environment: str) -> SettingInvalid:
    with pytest.raises(SettingInvalid) as caught:
        read_config(tables, environment=environment)
    assert "\n" not in caught.value.sentence
    return caught.value


# --- what is read -------------------------------------------------------------------------------


def test_every_key_of_every_table_becomes_a_value() -> None:
    config = whole()
    assert list(config.upstreams) == ["fast", "aws", "here"]
    fast = config.upstreams["fast"]
    assert fast == UpstreamSettings(
        name="fast",
        dialect="openai-chat",
        base_url="https://api.example.com/v1",
        api_key=SECRET,
        models=("gpt-*", "o4-mini"),
        rename={"small": "gpt-4o-mini"},
        connect_s=3,
        first_token_s=60,
        between_tokens_s=20,
        whole_s=600,
        retries=0,
        fallback=("aws", "here"),
        max_concurrent=8,
        max_waiting=0,
        wait_s=0,
        max_output_tokens=4_000,
        headers={"X-Team": "red", "X-Plain": "a b"},
        extra={"service_tier": "flex", "stop": ["a", {"deep": [1, 2.5, True]}]},
        may_drop=frozenset({"top_k"}),
    )
    aws = config.upstreams["aws"]
    assert (aws.region, aws.access_key_id) == ("eu-central-1", "AKIA-very-secret")
    assert (aws.secret_access_key, aws.session_token) == (f"{SECRET}-aws", "a-token")
    assert (config.unread_s, config.head_wait_s) == (float("inf"), 2)
    (shown,) = config.make_chain().receive_event(Text(text="hi<|im_end|>"))
    assert shown == Text(text="HI")
    price = config.prices.find("gpt-5")
    assert price is not None
    assert price.output == Money.read("0.60")
    assert config.budgets.answer == Limits(output_tokens=4_000)
    assert config.budgets.user == Limits(total_tokens=500_000, money=Money.read("5"))
    assert config.budgets.key == config.budgets.all == Limits()
    assert config.budgets.utc_offset_s == -19_800
    assert config.budgets.reserve_output_tokens == 100
    app = config.keys["app"]
    assert (app.secret, app.user, app.models) == (f"{SECRET}-app", "anna", ("gpt-*",))


def test_what_is_not_said_is_as_the_limits_have_it() -> None:
    config = read({"upstreams": {"a": UPSTREAM}})
    assert config.upstreams["a"] == UpstreamSettings(name="a", **UPSTREAM)
    assert config == GatewayConfig(
        upstreams=config.upstreams, make_chain=config.make_chain, prices=config.prices
    )
    assert (config.unread_s, config.head_wait_s) == (limits.UNREAD_S, limits.HEAD_WAIT_S)
    made = UpstreamSettings(name="a", **UPSTREAM)
    for name, field in UpstreamTable.model_fields.items():
        if not field.is_required():
            default = field.get_default(call_default_factory=True)
            value = getattr(made, name)
            assert type(value)(default) == value if default is not None else value is None, name


def test_the_server_reads_its_settings_beside_the_gateways_tables(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(WHOLE)
    assert load_settings({}, file=file, environment={}).port == 8080
    tables = read_tables(file)
    assert set(tables) == {"port", *GATEWAY_TABLES}
    assert read(tables, **ENVIRONMENT).upstreams == whole().upstreams
    file.write_text("[upstream.fast]\n")
    with pytest.raises(SettingInvalid) as caught:
        load_settings({}, file=file, environment={})
    assert caught.value.setting == "upstream"


def test_without_a_table_there_is_no_gateway_and_with_one_there_is_an_upstream() -> None:
    assert read_config({"port": 1}, environment={}) is None
    for name in GATEWAY_TABLES:
        empty: object = [] if name == "filters" else {}
        assert refusal({name: empty}).setting == name
    assert refusal({"upstream": {"a": UPSTREAM}}).setting == "upstream"


# --- whom to ask --------------------------------------------------------------------------------


def test_the_first_upstream_that_serves_a_model_is_asked_then_its_fallbacks() -> None:
    def named(model: str) -> list[str]:
        return [upstream.name for upstream in config.upstreams_for(model)]

    config = whole()
    assert named("gpt-4o") == ["fast", "aws", "here"]
    assert named("small") == ["fast", "aws", "here"]
    assert named("claude-5") == ["aws"]
    tables = {
        "a": {**UPSTREAM, "models": ["x"], "fallback": ["b", "d"]},
        "b": {**UPSTREAM, "models": ["y"], "fallback": ["c"]},
        "c": {**UPSTREAM, "models": ["z"]},
        "d": {**UPSTREAM, "models": ["z"], "fallback": ["c"]},
    }
    config = read({"upstreams": tables})
    assert named("x") == ["a", "b", "c", "d"]
    assert named("z") == ["c"]
    assert named("w") == []


def test_a_key_is_found_by_its_secret_alone() -> None:
    config = whole()
    assert config.find_key(f"{SECRET}-app") is config.keys["app"]
    assert config.find_key("another") is config.keys["other"]
    for presented in ("", SECRET, f"{SECRET}-app ", "env:APP_KEY", "\\udc80", "a" * 100_000):
        assert config.find_key(presented) is None


# --- what is refused ----------------------------------------------------------------------------


def nested(place: str, value: object) -> dict[str, Any]:
    """Tables with one working upstream, `a`, and a value at a place."""
    tables: dict[str, Any] = {"upstreams": {"a": {**UPSTREAM}, "b": {**UPSTREAM}}}
    *path, last = place.split("/")
    table = tables
    for name in path:
        table = table.setdefault(name, {})
    table[last] = value
    return tables


@pytest.mark.parametrize(
    ("place", "value", "setting"),
    [
        ("gateway/unread_s", -1, "gateway.unread_s"),
        ("gateway/unread_s", float("nan"), "gateway.unread_s"),
        ("gateway/unread_s", "60", "gateway.unread_s"),
        ("gateway/head_wait_s", float("inf"), "gateway.head_wait_s"),
        ("gateway/head_wait", 1, "gateway.head_wait"),
        ("gateway", 1, "gateway"),
        ("gateway", [], "gateway"),
        ("upstreams", [], "upstreams"),
        ("upstreams/a", "openai", "upstreams.a"),
        ("upstreams/a b", UPSTREAM, "upstreams"),
        ("upstreams/", UPSTREAM, "upstreams"),
        ("upstreams/a/dialect", "openai", "upstreams.a.dialect"),
        ("upstreams/a/dialect", "replicate", "upstreams.a.dialect"),
        ("upstreams/a/dialect", None, "upstreams.a.dialect"),
        ("upstreams/a/baseurl", "http://x", "upstreams.a.baseurl"),
        ("upstreams/a/base_url", "", "upstreams.a.base_url"),
        ("upstreams/a/base_url", "api.example.com/v1", "upstreams.a.base_url"),
        ("upstreams/a/base_url", "ftp://api.example.com", "upstreams.a.base_url"),
        ("upstreams/a/base_url", "file:///etc/passwd", "upstreams.a.base_url"),
        ("upstreams/a/base_url", f"https://u:{SECRET}@x", "upstreams.a.base_url"),
        ("upstreams/a/base_url", f"https://{SECRET}@x", "upstreams.a.base_url"),
        ("upstreams/a/base_url", f"https://x/v1?key={SECRET}", "upstreams.a.base_url"),
        ("upstreams/a/base_url", "https://x/v1#a", "upstreams.a.base_url"),
        ("upstreams/a/base_url", "https://x:99999", "upstreams.a.base_url"),
        ("upstreams/a/base_url", "https://[::1", "upstreams.a.base_url"),
        ("upstreams/a/base_url", "https://x/a b", "upstreams.a.base_url"),
        ("upstreams/a/base_url", "https://x\n/a", "upstreams.a.base_url"),
        ("upstreams/a/base_url", "https://ex\u00e4mple/a", "upstreams.a.base_url"),
        ("upstreams/a/base_url", 1, "upstreams.a.base_url"),
        ("upstreams/a/api_key", "", "upstreams.a.api_key"),
        ("upstreams/a/api_key", 7, "upstreams.a.api_key"),
        ("upstreams/a/api_key", f"{SECRET}\n", "upstreams.a.api_key"),
        ("upstreams/a/api_key", f" {SECRET}", "upstreams.a.api_key"),
        ("upstreams/a/api_key", f"{SECRET}\u00e4", "upstreams.a.api_key"),
        ("upstreams/a/api_key", f"env:{SECRET}", "upstreams.a.api_key"),
        ("upstreams/a/api_key", "env:UNSET", "upstreams.a.api_key"),
        ("upstreams/a/api_key", "env:EMPTY", "upstreams.a.api_key"),
        ("upstreams/a/api_key", "env:BROKEN", "upstreams.a.api_key"),
        ("upstreams/a/models", "gpt-*", "upstreams.a.models"),
        ("upstreams/a/models", [], "upstreams.a.models"),
        ("upstreams/a/models", ["gpt", ""], "upstreams.a.models[1]"),
        ("upstreams/a/models", ["a\nb"], "upstreams.a.models[0]"),
        ("upstreams/a/models", [1], "upstreams.a.models[0]"),
        ("upstreams/a/rename", {"a": ""}, "upstreams.a.rename.a"),
        ("upstreams/a/rename", {"a": 1}, "upstreams.a.rename.a"),
        ("upstreams/a/rename", [], "upstreams.a.rename"),
        ("upstreams/a/connect_s", 0, "upstreams.a.connect_s"),
        ("upstreams/a/connect_s", True, "upstreams.a.connect_s"),
        ("upstreams/a/first_token_s", "1", "upstreams.a.first_token_s"),
        ("upstreams/a/between_tokens_s", float("nan"), "upstreams.a.between_tokens_s"),
        ("upstreams/a/whole_s", float("inf"), "upstreams.a.whole_s"),
        ("upstreams/a/whole_s", 10**400, "upstreams.a.whole_s"),
        ("upstreams/a/retries", -1, "upstreams.a.retries"),
        ("upstreams/a/retries", 1.5, "upstreams.a.retries"),
        ("upstreams/a/fallback", ["c"], "upstreams.a.fallback"),
        ("upstreams/a/fallback", ["a"], "upstreams.a.fallback"),
        ("upstreams/a/fallback", ["b", "b"], "upstreams.a.fallback"),
        ("upstreams/a/fallback", "b", "upstreams.a.fallback"),
        ("upstreams/a/max_concurrent", 0, "upstreams.a.max_concurrent"),
        ("upstreams/a/max_output_tokens", 0, "upstreams.a.max_output_tokens"),
        ("upstreams/a/headers", {"X-A": f"{SECRET}\r\nX-B: c"}, "upstreams.a.headers.X-A"),
        ("upstreams/a/headers", {"X A": "b"}, "upstreams.a.headers"),
        ("upstreams/a/headers", {"Content-Length": "1"}, "upstreams.a.headers"),
        ("upstreams/a/headers", {"X-A": "env:UNSET"}, "upstreams.a.headers.X-A"),
        ("upstreams/a/extra", {"model": "x"}, "upstreams.a.extra"),
        ("upstreams/a/extra", {"since": date(2026, 1, 1)}, "upstreams.a.extra"),
        ("upstreams/a/extra", {"a": [float("nan")]}, "upstreams.a.extra"),
        ("upstreams/a/extra", "x", "upstreams.a.extra"),
        ("upstreams/a/may_drop", [""], "upstreams.a.may_drop[0]"),
        ("upstreams/a/region", "eu-central-1", "upstreams.a.region"),
        ("filters", {}, "filters"),
        ("filters", ["strip"], "filters"),
        ("filters", [{}], "filters[0].kind"),
        ("filters", [{"kind": "strip"}, {"kind": "Strip"}], "filters[1].kind"),
        ("filters", [{"kind": "redact", "patterns": ["a*b"]}], None),
        ("filters", [{"kind": "stop", "sequences": [date(2026, 1, 1)]}], "filters[0]"),
        ("prices", [], "prices"),
        ("prices/x", "0.1", "prices.x"),
        ("prices/", {"input": "1", "output": "1"}, "prices"),
        ("prices/x", {"input": "1"}, "prices.x"),
        ("prices/x", {"input": "1", "output": 0.1}, "prices.x.output"),
        ("prices/x", {"input": "1", "output": "0.0000001"}, "prices.x"),
        ("prices/x", {"input": "1", "output": "1", "image": "1"}, "prices.x.image"),
        ("budgets/day_starts_at", "1:00", "budgets.day_starts_at"),
        ("budgets/day_starts_at", "+15:00", "budgets.day_starts_at"),
        ("budgets/day_starts_at", 1, "budgets.day_starts_at"),
        ("budgets/reserve_output_tokens", 0, "budgets.reserve_output_tokens"),
        ("budgets/team", {}, "budgets.team"),
        ("budgets/user", 5, "budgets.user"),
        ("budgets/user/money", 0.5, "budgets.user.money"),
        ("budgets/user/money", "-1", "budgets.user.money"),
        ("budgets/user/money", True, "budgets.user.money"),
        ("budgets/user/money", 10**400, "budgets.user.money"),
        ("budgets/all/total_tokens", 0, "budgets.all.total_tokens"),
        ("budgets/all/tokens", 1, "budgets.all.tokens"),
        ("keys/app", SECRET, "keys.app"),
        ("keys/app", {}, "keys.app.secret"),
        ("keys/app", {"secret": ""}, "keys.app.secret"),
        ("keys/app", {"secret": "env:UNSET"}, "keys.app.secret"),
        ("keys/app", {"secret": SECRET, "users": "x"}, "keys.app.users"),
        ("keys/app", {"secret": SECRET, "user": "\x1b[2J"}, "keys.app.user"),
        ("keys", {"a": {"secret": SECRET}, "b": {"secret": SECRET}}, "keys.b.secret"),
        ("port2", 1, "port2"),
    ],
)
def test_what_cannot_be_is_refused_by_its_place(
    place: str, value: object, setting: str | None
) -> None:
    error = refusal(nested(place, value), EMPTY="", BROKEN=f"{SECRET}\n")
    assert error.setting == setting or setting is None
    assert SECRET not in error.sentence


@pytest.mark.parametrize(
    ("ways", "setting"),
    [
        ({"a": ["b"], "b": ["a"]}, "upstreams.a.fallback"),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, "upstreams.b.fallback"),
        ({"a": [], "b": ["c"], "c": ["d"], "d": ["a", "b"]}, "upstreams.b.fallback"),
    ],
)
def test_a_way_along_fallbacks_that_comes_back_is_refused(
    ways: dict[str, list[str]], setting: str
) -> None:
    tables = {name: {**UPSTREAM, "fallback": fallback} for name, fallback in ways.items()}
    assert refusal({"upstreams": tables}).setting == setting


@pytest.mark.parametrize(
    ("said", "setting"),
    [
        ({"region": "x"}, "access_key_id"),
        ({"access_key_id": "x", "secret_access_key": "y"}, "region"),
        ({"access_key_id": "x", "region": "y"}, "secret_access_key"),
        ({"api_key": "x", "access_key_id": "y"}, "api_key"),
    ],
)
def test_keys_of_aws_are_whole(said: dict[str, str], setting: str) -> None:
    upstream = {"dialect": "bedrock", "base_url": "https://bedrock.example.com", **said}
    assert refusal({"upstreams": {"aws": upstream}}).setting == f"upstreams.aws.{setting}"


def test_no_secret_is_shown() -> None:
    """Neither by `repr` nor by what is made of it."""
    config = whole()
    for value in (config, *config.upstreams.values(), *config.keys.values()):
        assert "secret" not in repr(value).replace("secret_access_key", "")
        assert SECRET not in repr(value)
        assert "a-token" not in repr(value)


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5_000, f"a = {'1' * 5_000}", "a = 1\na = 2"], ids=["deep", "long", "2"]
)
def test_a_file_that_no_reader_takes_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(text)
    with pytest.raises(SettingInvalid):
        read_tables(file)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
)
KEYS = st.sampled_from(
    sorted(
        {
            *(*UpstreamTable.model_fields, *GatewayTable.model_fields, *GATEWAY_TABLES),
            *("secret", "user", "answer", "money", "kind", "a", "input", "output", "patterns"),
        }
    )
) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, print_blob=True, max_examples=300)
@given(st.dictionaries(st.sampled_from(GATEWAY_TABLES), VALUES), VALUES, VALUES)
@example({"filters": [{"kind": "redact", "presets": None}]}, {}, {})
def test_garbage_is_refused_in_one_line_and_nothing_else_is_raised(
    tables: dict[str, object], upstream: object, more: object
) -> None:
    upstreams: object = {"a": {**UPSTREAM, **upstream} if isinstance(upstream, dict) else upstream}
    said = {**tables, "upstreams": upstreams, **({"keys": {"k": more}} if more else {})}
    try:
        config = read_config(said, environment={})
    except SettingInvalid as error:
        assert "\n" not in error.sentence  # noqa: PT017
    else:
        assert isinstance(config, GatewayConfig)

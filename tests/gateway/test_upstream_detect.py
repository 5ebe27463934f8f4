"""`detect()` finds the provider that the environment names, and asks nobody."""

import pytest

from penstock.core.errors import SettingInvalid
from penstock.gateway.upstream import detect


def test_nothing_set_up_is_none() -> None:
    assert detect({}) is None
    assert detect({"OPENAI_API_KEY": " ", "OLLAMA_HOST": ""}) is None


def test_openai_comes_first_with_its_own_address_and_model() -> None:
    found = detect({"OPENAI_API_KEY": "k\n", "ANTHROPIC_API_KEY": "a", "OLLAMA_HOST": "h"})
    assert found is not None
    assert (found.dialect, found.base_url) == ("openai-chat", "https://api.openai.com/v1")
    assert found.api_key == "k"
    other = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://p/v1", "OPENAI_MODEL": "m"}
    found = detect(other)
    assert found is not None
    assert (found.base_url, found.model) == ("http://p/v1", "m")


def test_anthropic_is_asked_in_its_own_dialect() -> None:
    found = detect({"ANTHROPIC_API_KEY": "a", "OLLAMA_HOST": "h"})
    assert found is not None
    assert (found.dialect, found.base_url) == ("anthropic-messages", "https://api.anthropic.com")


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434/v1"),
        ("127.0.0.1:9", "http://127.0.0.1:9/v1"),
        ("0.0.0.0:9", "http://127.0.0.1:9/v1"),
        (":9", "http://127.0.0.1:9/v1"),
        ("http://box:9/", "http://box:9/v1"),
        ("https://box", "https://box:443/v1"),
        ("https://box/ollama/", "https://box:443/ollama/v1"),
        ("[::1]:9", "http://[::1]:9/v1"),
        ("[::]", "http://127.0.0.1:11434/v1"),
    ],
)
def test_ollama_s_address_is_read_as_ollama_reads_it(host: str, base_url: str) -> None:
    found = detect({"OLLAMA_HOST": host})
    assert found is not None
    assert (found.dialect, found.base_url, found.api_key) == ("openai-chat", base_url, "")


@pytest.mark.parametrize(
    "environ",
    [
        {"OLLAMA_HOST": "box:port"},
        {"OLLAMA_HOST": "ftp://box"},
        {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "box/v1"},
        {"ANTHROPIC_API_KEY": "a\nb"},
    ],
)
def test_a_setting_that_cannot_be_used_is_said_to_be(environ: dict[str, str]) -> None:
    with pytest.raises(SettingInvalid):
        detect(environ)

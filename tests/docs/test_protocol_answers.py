"""The rules of spec/PROTOCOL.md on answers, asked of `penstock serve` with a recorded provider.

What needs a short wait, a provider's silence or a hand inside the process is shown by tests of the
gateway, which `SHOWN` names.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Generator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from docs.documents import BIN, ROOT, gateway, read, recorded_upstream, serving
from docs.test_protocol_rules import PATIENCE_S, Answer, Server
from penstock.testing.recordings import built_in

HERE = "docs/test_protocol_answers.py"
JOINING, CANCEL = "gateway/test_endpoints_joining.py", "gateway/test_endpoints_cancel.py"
CREATE, ERRORS = "gateway/test_endpoints_create.py", "gateway/test_endpoints_errors.py"
ANSWERS = "gateway/test_answers.py"

SHOWN = {
    "P-22.1": (ANSWERS, "test_an_answer_has_a_name_that_nobody_can_guess"),
    "P-22.2": (HERE, "test_p_22_2_and_p_22_3_what_an_answers_stream_holds"),
    "P-22.3": (HERE, "test_p_22_2_and_p_22_3_what_an_answers_stream_holds"),
    "P-22.4": (HERE, "test_p_22_4_how_an_answer_ends"),
    "P-22.5": (HERE, "test_p_22_5_and_p_22_17_a_cancelled_answer_says_what_it_used"),
    "P-22.6": (HERE, "test_p_22_6_every_response_names_its_stream"),
    "P-22.7": (CREATE, "test_an_accept_of_json_does_not_change_what_the_body_asks_for"),
    "P-22.8": (CREATE, "test_a_slow_answer_s_head_does_not_wait_for_it_for_ever"),
    "P-22.9": (ERRORS, "test_a_provider_s_status_goes_through"),
    "P-22.10": (HERE, "test_p_22_10_an_error_has_the_dialects_shape"),
    "P-22.11": (HERE, "test_p_22_11_to_p_22_14_keys"),
    "P-22.12": (HERE, "test_p_22_11_to_p_22_14_keys"),
    "P-22.13": (HERE, "test_p_22_11_to_p_22_14_keys"),
    "P-22.14": (HERE, "test_p_22_11_to_p_22_14_keys"),
    "P-22.15": (JOINING, "test_an_answer_that_failed_is_asked_for_again_under_its_key"),
    "P-22.16": (CANCEL, "test_an_answer_that_nobody_waits_for_is_cancelled_in_time"),
    "P-22.17": (CANCEL, "test_each_dialect_has_an_address_that_cancels"),
    "P-22.18": (CANCEL, "test_a_cancel_reaches_the_provider"),
    "P-22.19": (CANCEL, "test_a_cancel_reaches_the_provider"),
    "P-22.20": (HERE, "test_p_22_20_and_p_22_21_credentials"),
    "P-22.21": (HERE, "test_p_22_20_and_p_22_21_credentials"),
}
"""By rule: the test that shows it, and its file below `tests`."""

PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic-messages": "/v1/messages",
    "vercel": "/api/chat",
    "agui": "/api/agui",
    "native": "/v1/answers",
}
KEY, PROMPT = "sk-callers-own-key", "Why is the sky that nobody logs blue?"
TOKEN_EVENTS = {"start", "text", "reasoning", "tool_delta", "tool", "data"}
TOKEN_EVENTS |= {"usage", "stop", "failure"}
_keys = count()


class Gateway(Server):
    """`penstock serve` with a recorded provider behind it."""

    def __init__(self, address: str, log: Path) -> None:
        super().__init__(address)
        self.log = log

    def post(self, path: str, value: object, **headers: str) -> Answer:
        """Post a value; an underscore in a header's name is a hyphen."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        body = json.dumps(value).encode()
        return self.ask("POST", path, body, {"Authorization": f"Bearer {KEY}", **named})

    def chat(self, model: str, *, stream: bool = True, **headers: str) -> Answer:
        messages = [{"role": "user", "content": PROMPT}]
        asked = {"model": model, "messages": messages, "stream": stream}
        return self.post(PATHS["openai-chat"], asked, **headers)

    def records(self, answer: Answer) -> list[dict[str, str]]:
        """The events of an answer's stream, its end as the last."""
        return self.events(f"/v1/stream/{answer.headers['penstock-stream']}").blocks

    def calls(self) -> int:
        """How often the provider was asked."""
        return self.log.read_text("utf-8").count('"event":"start"')


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    folder = tmp_path_factory.mktemp("answers")
    more = f'[keys.one]\nsecret = "{KEY}"\n[keys.two]\nsecret = "sk-second"\n'
    more += "[budgets.answer]\noutput_tokens = 1000\n"
    with recorded_upstream(folder) as provider:
        (folder / "penstock.toml").write_text(gateway(provider) + more, "utf-8")
        with serving([str(BIN / "penstock"), "serve", "--port", "0"], folder) as address:
            yield Gateway(address, folder / "upstream.log")


def model(voice: str = "unicode", knobs: str = "tokens_per_s=0") -> str:
    return f"built-in:{voice}?{knobs}"


def fresh() -> str:
    return f"key-{next(_keys)}"


def test_every_rule_is_shown_by_a_test() -> None:
    rules = re.findall(r"\*\*(P-22\.\d+)\*\*", read("spec/PROTOCOL.md"))
    assert list(SHOWN) == rules
    for file, name in SHOWN.values():
        text = (ROOT / "tests" / file).read_text("utf-8")
        assert re.search(rf"def {name}\(", text), f"{file} has no {name}"


def test_p_22_2_and_p_22_3_what_an_answers_stream_holds(v1: Gateway) -> None:
    key = fresh()
    answer = v1.chat(model(), Idempotency_Key=key)
    opening, *events, end = v1.records(answer)
    about = json.loads(opening["data"])
    assert opening["event"] == "answer"
    assert about["id"] == answer.headers["penstock-stream"].removeprefix("answers/")
    assert isinstance(about["created_at"], int)
    assert (about["model"], about["dialect"]) == (model(), "openai-chat")
    assert not [said for said in (PROMPT, KEY, key) if said in opening["data"]]
    assert {event["event"] for event in events} <= TOKEN_EVENTS
    assert end["event"] == "end"
    text = [json.loads(event["data"])["text"] for event in events if event["event"] == "text"]
    assert "".join(text) == built_in("unicode").turns[0]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (model(), "complete"),
        (model(knobs="tokens_per_s=0&cut=clean&cut_after=9"), "failed"),
        (model(knobs="tokens_per_s=0&error_after=9"), "failed"),
        (model("chat", "tokens_per_s=0"), "limit"),
    ],
)
def test_p_22_4_how_an_answer_ends(v1: Gateway, asked: str, reason: str) -> None:
    *events, end = v1.records(v1.chat(asked))
    assert json.loads(end["data"]) == {"reason": reason}
    assert "usage" in {event["event"] for event in events}  # P-22.5


def test_p_22_5_and_p_22_17_a_cancelled_answer_says_what_it_used(v1: Gateway) -> None:
    slow = model(knobs="tokens_per_s=0&stall_after=9&stall_s=60")
    asked = {"model": slow, "messages": [{"role": "user", "content": PROMPT}]}
    begun = v1.post(PATHS["native"], asked, Prefer="respond-async")
    url = json.loads(begun.body)["url"]
    give_up = time.monotonic() + PATIENCE_S
    while b'"text"' not in v1.ask("GET", url).body:
        assert time.monotonic() < give_up
    assert v1.ask("POST", url.replace("/stream/", "/cancel/")).status == 204
    *_, usage, end = v1.records(begun)
    assert usage["event"] == "usage"
    assert json.loads(usage["data"])["partial"] is True
    assert json.loads(end["data"]) == {"reason": "cancelled"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("knobs", ["tokens_per_s=0", "status=400"])
def test_p_22_6_every_response_names_its_stream(v1: Gateway, stream: bool, knobs: str) -> None:
    answer = v1.chat(model(knobs=knobs), stream=stream)
    name = answer.headers["penstock-stream"]
    assert answer.headers["link"] == f'</v1/stream/{name}>; rel="alternate"'
    assert answer.status == (400 if "status" in knobs else 200)


def test_p_22_10_an_error_has_the_dialects_shape(v1: Gateway) -> None:
    """A body that is no request at all, at each address."""
    shapes: dict[str, Any] = {
        "openai-chat": lambda body: json.loads(body)["error"]["message"],
        "openai-responses": lambda body: json.loads(body)["error"]["message"],
        "anthropic-messages": lambda body: json.loads(body)["error"]["message"],
        "vercel": bytes.decode,
        "agui": lambda body: json.loads(body)["message"],
    }
    for dialect, path in PATHS.items():
        answer = v1.post(path, [])
        assert answer.status == 400
        if dialect == "native":
            assert answer.code == "request-malformed"
        else:
            assert shapes[dialect](answer.body), dialect


def test_p_22_11_to_p_22_14_keys(v1: Gateway) -> None:
    key, before = fresh(), v1.calls()
    first = v1.chat(model(), Idempotency_Key=key)
    again = v1.chat(model(), Idempotency_Key=key)
    assert again.body == first.body
    assert again.headers["penstock-stream"] == first.headers["penstock-stream"]
    assert "penstock-joined" not in first.headers
    assert again.headers["penstock-joined"] == "true"
    assert v1.calls() == before + 1
    assert v1.chat(model("thought"), Idempotency_Key=key).status == 422
    messages = [{"role": "user", "content": PROMPT}]
    same = {"model": model(), "messages": messages, "stream": True}
    assert v1.post(PATHS["native"], same, Idempotency_Key=key).code == "idempotency-mismatch"
    other = v1.chat(model(), Idempotency_Key=key, Authorization="Bearer sk-second")
    assert other.headers["penstock-stream"] != first.headers["penstock-stream"]
    assert v1.calls() == before + 2
    for none in ("", "x" * 256):
        assert v1.chat(model(), Idempotency_Key=none).status == 400


@pytest.mark.parametrize("header", ["Authorization", "x-api-key", "api-key"])
def test_p_22_20_and_p_22_21_credentials(v1: Gateway, header: str) -> None:
    before = v1.calls()
    asked = {"model": model(), "messages": [{"role": "user", "content": PROMPT}]}
    body, word = json.dumps(asked).encode(), "Bearer " if header == "Authorization" else ""
    for credential, status in ((KEY, 200), (KEY + "x", 401), ("", 401)):
        answer = v1.ask("POST", PATHS["native"], body, {header: word + credential})
        assert answer.status == status
        if status == 401:
            assert answer.code == "key-refused"
    assert v1.calls() == before + 1
    assert '"has_key":true' not in v1.log.read_text("utf-8")

"""`penstock serve` is a gateway where its file names upstreams: it answers, keeps its answers over
a restart, and stops in time while models talk."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest

from gateway.gateways import PATHS, TEXT, body, model, shown, until
from penstock.testing.upstream import RecordedUpstream
from raw_http import ask, connect
from running_commands import run, running

JSON = {"Content-Type": "application/json"}


def write_file(folder: Path, provider: RecordedUpstream) -> None:
    (folder / "penstock.toml").write_text(
        f'backend = "sqlite:///{folder}/streams.db"\n'
        "[upstreams.main]\n"
        'dialect = "openai-chat"\n'
        f'base_url = "{provider.url}/v1"\n'
        'api_key = "env:UPSTREAM_KEY"\n'
    )


@pytest.mark.parametrize("path", [[], ["--portable"]], ids=["fast", "portable"])
async def test_it_answers_and_keeps_its_answers(tmp_path: Path, path: list[str]) -> None:
    key = {"UPSTREAM_KEY": "sk-upstream"}
    async with RecordedUpstream() as provider:
        write_file(tmp_path, provider)
        serve = ("serve", "--port", "0", *path)
        with running(*serve, folder=tmp_path, variables=key) as first:
            port = await asyncio.to_thread(lambda: first.port)
            asked = json.dumps(body("openai-responses", model())).encode()
            answer = await ask(port, "POST", PATHS["openai-responses"], JSON, asked)
            assert shown("openai-responses", answer.body).text == TEXT
            assert provider.log[0]["has_key"] is True
            made = await ask(port, "PUT", "/v1/stream/mine", JSON)
            assert made.status == 201
            assert (await ask(port, "POST", "/v1/stream/mine", JSON, b"1")).status == 204
            id = answer["penstock-stream"].removeprefix("answers/")
            await until(lambda: provider.log[-1]["event"] == "finished")
            assert await asyncio.to_thread(first.interrupt) == 0
            assert "sk-upstream" not in first.out + first.err
        with running(*serve, folder=tmp_path, variables=key) as second:
            port = await asyncio.to_thread(lambda: second.port)
            again = await ask(port, "GET", f"/v1/responses/resp_{id}")
            assert again.json["output"][0]["content"][0]["text"] == TEXT
            used = await ask(port, "GET", "/v1/usage")
            assert used["content-type"] == "application/x-ndjson"
            (line,) = used.body.splitlines()
            assert json.loads(line)["request"] == id
            for query in ("until=1", "since=2999-01-01T00:00:00Z"):
                assert (await ask(port, "GET", f"/v1/usage?{query}")).body == b""
            for query in ("since=soon", "until=nan", "since=", "since=inf"):
                assert (await ask(port, "GET", f"/v1/usage?{query}")).code == "query-malformed"
            proxied = {"X-Forwarded-For": "203.0.113.9"}
            stranger = await ask(port, "GET", "/v1/usage", proxied)
            assert stranger.code == "operator-only"


async def test_it_stops_in_time_while_models_talk(tmp_path: Path) -> None:
    key = {"UPSTREAM_KEY": "sk-upstream"}
    slow = model("tokens_per_s=0&stall_after=9&stall_s=60")
    async with RecordedUpstream() as provider:
        write_file(tmp_path, provider)
        with running("serve", "--port", "0", folder=tmp_path, variables=key) as first:
            port = await asyncio.to_thread(lambda: first.port)
            async with connect(port) as reading, connect(port) as waiting:
                for connection, stream in ((reading, True), (waiting, False)):
                    asked = json.dumps(body("openai-chat", slow, stream=stream)).encode()
                    await connection.send("POST", PATHS["openai-chat"], JSON, asked)
                head = await reading.head("POST")
                await until(lambda: provider.log[-1]["request"] == 2)
                began = time.monotonic()
                first.send(signal.SIGTERM)
                text = await reading.body()
                refused = await waiting.head("POST")
                assert await asyncio.to_thread(first.wait) == 0
                assert time.monotonic() - began < 5
        # The body ended as one that broke, and who waited may come back.
        assert b'"error"' in text
        assert text.endswith(b"data: [DONE]\n\n")
        assert refused.status == 503
        assert "retry-after" in refused
        await until(lambda: sum(e["event"] == "gone" for e in provider.log) == 2)
        with running("serve", "--port", "0", folder=tmp_path, variables=key) as second:
            port = await asyncio.to_thread(lambda: second.port)
            name = head["penstock-stream"].removeprefix("answers/")
            state = await ask(port, "GET", f"/v1/answers/{name}")
            assert state.json["reason"] == "lost"
            assert TEXT.startswith(state.json["text"])
            used = await ask(port, "GET", "/v1/usage")
            assert {json.loads(line)["end"] for line in used.body.splitlines()} == {"lost"}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[upstreams.main]\n", "upstreams.main"),
        ('[upstreams.main]\ndialect = "none"\nbase_url = "http://x"\n', "dialect"),
        ("[upstream.main]\n", "upstream"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place(
    tmp_path: Path, text: str, word: str
) -> None:
    (tmp_path / "penstock.toml").write_text(text)
    run("serve", "--port", "0", folder=tmp_path).refuses(2, word)

"""The gateway's addresses: what is there, what is the server's, who may ask from where, and how it
lives in somebody else's application."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from pathlib import Path

import pytest
from fastapi import FastAPI

from docs import documents
from gateway.gateways import PATHS, TEXT, body, config, gateway, model
from inprocess import call
from penstock import Hub
from penstock.core.errors import SettingInvalid
from penstock.gateway.app import FIXED, NAMED, Gateway
from penstock.gateway.config import read_config
from penstock.gateway.endpoints.answering import REQUEST_ID
from penstock.testing.upstream import RecordedUpstream
from raw_http import PATIENCE_S, ask, events
from running_servers import in_process

JSON = {"Content-Type": "application/json"}


async def test_what_is_not_the_gateway_s_is_the_server_s() -> None:
    async with gateway() as running:
        assert (await running.get("/healthz")).status == 200
        assert (await running.get("/metrics")).status == 200
        text = {"Content-Type": "text/plain"}
        made = await ask(running.port, "PUT", "/v1/stream/mine", text, b"one")
        assert made.status == 201
        assert (await running.get("/v1/stream/mine")).body == b"one"
        for path in ("/", "/v1", "/v1/embeddings", "/v1/responses/", "/v1/responses/a/b"):
            assert (await running.get(path)).code == "route-not-found"


@pytest.mark.parametrize("path", [*PATHS.values(), "/v1/models", "/api/chat/1/stream"])
async def test_a_method_that_is_not_there_is_405(path: str) -> None:
    async with gateway() as running:
        for method in ("PUT", "PATCH", "HEAD"):
            answer = await ask(running.port, method, path)
            assert answer.status == 405
            assert "OPTIONS" in answer["allow"]
        options = await ask(running.port, "OPTIONS", path)
        assert options.status == 204
        assert "OPTIONS" in options["allow"]


async def test_a_page_of_another_site_may_not_ask() -> None:
    async with gateway() as running:
        for dialect in PATHS:
            foreign = {"Origin": "https://elsewhere.example"}
            assert (await running.create(dialect, model(), headers=foreign)).status == 403
            rebound = {"Host": "elsewhere.example"}
            assert (await running.create(dialect, model(), headers=rebound)).status == 403
            own = {"Origin": running.url.replace("127.0.0.1", "127.0.0.1"), "Host": running.url[7:]}
            assert (await running.create(dialect, model(), headers=own)).status == 200


async def test_a_page_of_an_allowed_site_may_ask_and_see() -> None:
    origin = {"Origin": "https://app.example"}
    async with gateway(hub={"allowed_origins": ("https://app.example",)}) as running:
        asked = {"Access-Control-Request-Headers": "x-api-key"}
        first = await ask(running.port, "OPTIONS", PATHS["openai-chat"], {**origin, **asked})
        allowed = first["access-control-allow-headers"].split(", ")
        assert {"authorization", "content-type", "idempotency-key", "x-api-key"} <= {*allowed}
        for dialect in PATHS:
            for name in (model(), "nobody"):
                answer = await running.create(dialect, name, headers=origin)
                assert answer["access-control-allow-origin"] == "https://app.example"
                seen = answer["access-control-expose-headers"].split(", ")
                assert {"penstock-stream", "retry-after", "link"} <= {*seen}


async def test_models_are_listed_in_the_shape_of_whoever_asks() -> None:
    async with gateway() as running:
        listed = (await running.get("/v1/models")).json
        assert listed["object"] == "list"
        assert [each["id"] for each in listed["data"]] == ["sky-1"]
        anthropic = {"anthropic-version": "2023-06-01"}
        listed = (await running.get("/v1/models", anthropic)).json
        assert listed["data"][0]["type"] == "model"
        assert (listed["first_id"], listed["has_more"]) == ("sky-1", False)
        one = await running.get("/v1/models/sky-1")
        assert one.json["id"] == "sky-1"
        assert (await running.get("/v1/models/built-in%3Aa%2Fb")).json["id"] == "built-in:a/b"
        missing = await running.get("/v1/models/no/body", anthropic)
        assert missing.json["error"]["type"] == "not_found_error"


async def test_models_are_those_that_a_key_may_ask() -> None:
    keys = {"alice": {"secret": "sk-alice", "models": ["other-*"]}}
    async with gateway(keys=keys) as running:
        assert (await running.get("/v1/models")).status == 401
        alice = {"Authorization": "Bearer sk-alice"}
        assert (await running.get("/v1/models", alice)).json["data"] == []
        assert (await running.get("/v1/models/sky-1", alice)).status == 404


async def test_any_asgi_server_serves_it() -> None:
    async with gateway() as running:
        for dialect, path in PATHS.items():
            asked = json.dumps(body(dialect, model())).encode()
            called = await call(running.app, "POST", path, body=asked, stays=True)
            assert called.status == 200
            assert called.heads == 1


@pytest.mark.parametrize("at", ["", "/llm", "/a b"])
async def test_it_lives_in_somebody_else_s_application(at: str) -> None:
    async with RecordedUpstream() as provider:
        mine = Gateway(Hub(), config(provider))
        app = FastAPI(lifespan=mine.lifespan)
        app.mount(at or "/", mine.asgi)
        root = at.replace(" ", "%20")
        async with in_process(app, is_fast=True) as port:
            asked = json.dumps(body("openai-chat", model())).encode()
            answer = await ask(port, "POST", root + PATHS["openai-chat"], JSON, asked)
            assert answer.status == 200
            path = answer["link"].partition(">")[0].removeprefix("<")
            assert path == f"{root}/v1/stream/{answer['penstock-stream']}"
            async with events(port, path) as reader:
                records = await reader.rest()
            words = [json.loads(event.data)["text"] for event in records if event.type == "text"]
            assert "".join(words) == TEXT
            prefer = {**JSON, "Prefer": "respond-async"}
            asked = json.dumps(body("native", model(), stream=False)).encode()
            accepted = await ask(port, "POST", f"{root}/v1/answers", prefer, asked)
            assert (await ask(port, "GET", accepted["location"])).status == 200
            assert (await ask(port, "GET", f"{root}/healthz")).status == 200


async def test_it_reads_the_file_that_penstock_serve_reads(tmp_path: Path) -> None:
    async with RecordedUpstream() as provider:
        file = tmp_path / "penstock.toml"
        file.write_text(
            "port = 4437\n[upstreams.main]\n"
            f'dialect = "openai-chat"\nbase_url = "{provider.url}/v1"\n'
        )
        async with Gateway(Hub(), str(file)) as mine:
            asked = json.dumps(body("openai-chat", model(), stream=False)).encode()
            called = await call(mine.asgi, "POST", PATHS["openai-chat"], body=asked, stays=True)
        assert json.loads(called.body)["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize(
    "text", ["", "port = 1\n", "[upstreams.main]\n", "no toml", "[upstreams.a]\nbase_urk = 'x'\n"]
)
async def test_a_file_without_upstreams_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(text)
    with pytest.raises(SettingInvalid):
        Gateway(Hub(), file)
    with pytest.raises(SettingInvalid):
        Gateway(Hub(), tmp_path / "nothing.toml")


async def test_leaving_it_leaves_nothing_behind() -> None:
    async with RecordedUpstream() as provider:
        before = len(asyncio.all_tasks())
        async with Gateway(Hub(), config(provider)) as mine:
            prefer = {"prefer": "respond-async"}
            slow = model("first_token_s=60")
            asked = json.dumps(body("native", slow, stream=False)).encode()
            pairs = [(name.encode(), value.encode()) for name, value in prefer.items()]
            called = await call(
                mine.asgi, "POST", "/v1/answers", headers=pairs, body=asked, stays=True
            )
            assert called.status == 202
            await provider.logged("start")
            (stream,) = [s for s in mine.hub.streams() if s.name.startswith("answers/")]
        assert stream.end == "lost"
        await provider.logged("gone")
        assert len(asyncio.all_tasks()) <= before + 1  # the provider's own, which is going


# documentation


PAGE = documents.ROOT / "docs/build/llm-gateway.md"
EXAMPLES = [b for b in documents.blocks(PAGE, "python") if "127.0.0.1:4437" in b.text]


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.where)
async def test_a_client_of_the_documentation_is_answered(block: documents.Block) -> None:
    upstreams = {"openai": {"dialect": "openai-chat", "models": ["gpt-*"]}}
    async with gateway(upstreams=upstreams) as running:
        program = block.text.replace("http://127.0.0.1:4437", running.url)
        code = compile(program, block.where, "exec")
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.to_thread(exec, code, {})
        assert await running.calls() == 1


def test_the_configuration_of_the_documentation_is_one() -> None:
    (block,) = documents.blocks(PAGE, "toml")
    keys = {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2"}
    found = read_config(tomllib.loads(block.text), environment=keys)
    assert found is not None
    assert found.upstreams_for("claude-x")[0].api_key == "sk-2"


def test_every_address_is_documented_with_its_methods_and_dialect() -> None:
    rows = documents.table("docs/reference/http.md", "Gateway address", "Methods", "Dialect")
    documented = {re.sub(r"{\w+}", "{}", path): (methods, said) for path, methods, said in rows}
    routes = {path.decode(): route for path, route in FIXED.items()}
    routes |= {f"{a.decode()}{{}}{z.decode()}": route for a, z, route in NAMED if route.methods}
    assert documented.keys() == routes.keys()
    for path, route in routes.items():
        methods, said = documented[path]
        assert methods.split(", ") == [*route.methods]
        assert said == "the same" or said.startswith(route.dialect)


def test_every_header_is_documented() -> None:
    text = (documents.ROOT / "docs/reference/http.md").read_text("utf-8").lower()
    for name in (b"penstock-stream", b"penstock-joined", *REQUEST_ID.values()):
        assert f"`{name.decode()}" in text

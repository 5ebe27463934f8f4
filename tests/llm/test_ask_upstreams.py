"""The providers that no client speaks like are written to as their references say."""

from __future__ import annotations

from typing import Any

import pytest

from llm.asking import PNG, SCHEMA, write
from penstock.core.errors import RequestInexpressible
from penstock.llm.ask.dialects import read_request
from penstock.llm.ask.request import (
    CallPart,
    Format,
    MediaPart,
    Message,
    Request,
    ResultPart,
    Sampling,
    TextPart,
    Thinking,
    Tool,
    ToolChoice,
)


def text(said: str) -> TextPart:
    return TextPart(text=said)


QUESTION = Message(role="user", parts=(text("q"),))
TALK = (
    Message(role="system", parts=(text("s"),)),
    Message(
        role="user",
        parts=(text("q"), MediaPart(kind="image", data=PNG, media_type="image/png")),
    ),
    Message(
        role="assistant",
        parts=(text("let me"), CallPart(id="a", name="f", arguments='{"x":1}')),
    ),
    Message(role="tool", parts=(ResultPart(call_id="a", content=(text("4"),)),)),
)
FULL = Request(
    model="any",
    messages=TALK,
    tools=(Tool(name="f", description="d", schema=SCHEMA),),
    tool_choice=ToolChoice(mode="auto"),
    sampling=Sampling(temperature=0.5, top_p=0.9),
    max_output_tokens=100,
    stop=("end",),
)


def short(**said: Any) -> Request:
    return Request(model="any", messages=(QUESTION,), **said)


FILE = MediaPart(kind="file", data="AA==", media_type="application/pdf")
FAR = MediaPart(kind="image", url="https://a.test/x.png")


def asking(*parts: Any) -> Request:
    return Request(model="any", messages=(Message(role="user", parts=parts),))


def test_gemini_has_contents_parts_and_a_config() -> None:
    written = write(FULL, "gemini", model="gemini-2.5-pro")
    assert written.path == "/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    image = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    result = {"functionResponse": {"name": "f", "response": {"output": "4"}}}
    call = {"functionCall": {"name": "f", "args": {"x": 1}}}
    declared = {"name": "f", "description": "d", "parametersJsonSchema": SCHEMA}
    assert written.body == {
        "contents": [
            {"role": "user", "parts": [{"text": "q"}, image]},
            {"role": "model", "parts": [{"text": "let me"}, call]},
            {"role": "user", "parts": [result]},
        ],
        "systemInstruction": {"parts": [{"text": "s"}]},
        "tools": [{"functionDeclarations": [declared]}],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "maxOutputTokens": 100,
            "stopSequences": ["end"],
        },
    }


@pytest.mark.parametrize(
    ("dialect", "model", "is_stream", "path"),
    [
        ("gemini", "models/gemini-pro", False, "/models/gemini-pro:generateContent"),
        ("gemini", "tunedModels/x", False, "/tunedModels/x:generateContent"),
        ("gemini", "a?b#c", False, "/models/a%3Fb%23c:generateContent"),
        ("bedrock", "us.amazon.nova-v1:0", True, "/model/us.amazon.nova-v1%3A0/converse-stream"),
        ("bedrock", "arn:aws:x/y", False, "/model/arn%3Aaws%3Ax%2Fy/converse"),
    ],
)
def test_the_model_is_quoted_into_the_path(
    dialect: str, model: str, is_stream: bool, path: str
) -> None:
    assert write(short(), dialect, model=model, is_stream=is_stream).path == path


def test_gemini_is_told_schema_thinking_and_the_one_tool() -> None:
    request = short(
        format=Format(kind="schema", schema=SCHEMA),
        thinking=Thinking(effort="none"),
        tools=(Tool(name="f"),),
        tool_choice=ToolChoice(mode="named", name="f"),
        user="u",
    )
    written = write(request, "gemini", max_output_tokens=7)
    assert written.body["generationConfig"] == {
        "maxOutputTokens": 7,
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
        "thinkingConfig": {"thinkingBudget": 0, "includeThoughts": False},
    }
    config = {"mode": "ANY", "allowedFunctionNames": ["f"]}
    assert written.body["toolConfig"] == {"functionCallingConfig": config}
    assert written.left_out == ("user",)


def test_ollama_has_options_and_names_results_by_their_function() -> None:
    written = write(FULL, "ollama", model="llama3.2")
    assert written.path == "/api/chat"
    function = {"name": "f", "description": "d", "parameters": SCHEMA}
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    assert written.body == {
        "model": "llama3.2",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "q", "images": [PNG]},
            {"role": "assistant", "content": "let me", "tool_calls": [call]},
            {"role": "tool", "tool_name": "f", "content": "4"},
        ],
        "tools": [{"type": "function", "function": function}],
        "options": {"temperature": 0.5, "top_p": 0.9, "num_predict": 100, "stop": ["end"]},
        "stream": True,
    }


def test_ollama_is_given_no_tools_where_none_is_to_be_called() -> None:
    request = short(tools=(Tool(name="f"),), tool_choice=ToolChoice(mode="none"))
    assert "tools" not in write(request, "ollama").body


def test_bedrock_has_blocks_and_an_inference_config() -> None:
    written = write(FULL, "bedrock", model="amazon.nova-pro-v1:0")
    image = {"image": {"format": "png", "source": {"bytes": PNG}}}
    call = {"toolUse": {"toolUseId": "a", "name": "f", "input": {"x": 1}}}
    result = {"toolUseId": "a", "content": [{"text": "4"}], "status": "success"}
    spec = {"name": "f", "description": "d", "inputSchema": {"json": SCHEMA}}
    assert written.body == {
        "messages": [
            {"role": "user", "content": [{"text": "q"}, image]},
            {"role": "assistant", "content": [{"text": "let me"}, call]},
            {"role": "user", "content": [{"toolResult": result}]},
        ],
        "system": [{"text": "s"}],
        "inferenceConfig": {
            "maxTokens": 100,
            "temperature": 0.5,
            "topP": 0.9,
            "stopSequences": ["end"],
        },
        "toolConfig": {"tools": [{"toolSpec": spec}], "toolChoice": {"auto": {}}},
    }
    assert ("Accept", "application/vnd.amazon.eventstream, application/json") in written.headers


def test_bedrocks_model_fields_are_for_the_models_that_have_them() -> None:
    request = short(thinking=Thinking(effort="low"))
    body = write(request, "bedrock", model="anthropic.claude-3-7-x", max_output_tokens=2000).body
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert body["additionalModelRequestFields"] == {"thinking": thinking}
    body = write(request, "bedrock", model="us.anthropic.claude-opus-5-v1:0").body
    word = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}
    assert body["additionalModelRequestFields"] == word
    with pytest.raises(RequestInexpressible, match="thinking"):
        write(request, "bedrock", model="amazon.nova")
    request = short(sampling=Sampling(top_k=5))
    body = write(request, "bedrock", model="anthropic.claude-opus-4-6-v1").body
    assert body["additionalModelRequestFields"] == {"top_k": 5}
    with pytest.raises(RequestInexpressible, match="top_k"):
        write(request, "bedrock", model="amazon.nova")


def test_bedrocks_documents_have_names_of_their_own() -> None:
    def named(name: str) -> MediaPart:
        return MediaPart(kind="file", data="AA==", media_type="application/pdf", name=name)

    request = asking(*map(named, ("a/b  c.pdf", "", "", "a/b c.pdf")))
    (turn,) = write(request, "bedrock").body["messages"]
    names = [block["document"]["name"] for block in turn["content"]]
    assert names == ["a-b c-pdf", "document", "document 2", "a-b c-pdf 2"]


def test_many_documents_of_one_name_cost_no_more_each() -> None:
    parts = [FILE] * 20_000
    (turn,) = write(asking(*parts), "bedrock").body["messages"]
    assert turn["content"][-1]["document"]["name"] == "document 20000"


@pytest.mark.parametrize(
    ("notes", "written"), [({"team": "a b"}, {"team": "a b"}), ({"team": "a;b"}, None)]
)
def test_notes_are_for_bedrock_where_it_takes_them(
    notes: dict[str, str], written: dict[str, str] | None
) -> None:
    given = write(short(metadata=notes), "bedrock")
    assert given.body.get("requestMetadata") == written
    assert given.left_out == (() if written else ("metadata",))


@pytest.mark.parametrize(
    ("model", "seal"),
    [
        ("gemini-2.5-pro", None),
        ("models/gemini-1.5-flash", None),
        ("gemini-3-pro-preview", "skip_thought_signature_validator"),
        ("gemini-flash-latest", "skip_thought_signature_validator"),
    ],
)
def test_the_first_call_of_a_turn_has_what_stands_for_geminis_seal(
    model: str, seal: str | None
) -> None:
    calls = (CallPart(id="a", name="f"), CallPart(id="b", name="f"))
    results = tuple(ResultPart(call_id=id, content=()) for id in ("a", "b"))
    messages = (
        QUESTION,
        Message(role="assistant", parts=calls),
        Message(role="tool", parts=results),
    )
    body = write(Request(model="any", messages=messages), "gemini", model=model).body
    first, second = body["contents"][1]["parts"]
    assert (first.get("thoughtSignature"), second.get("thoughtSignature")) == (seal, None)


@pytest.mark.parametrize("dialect", ["gemini", "bedrock"])
@pytest.mark.parametrize("model", ["..", "../../v1/keys", "a//b", "a/./b", "", "/a"])
def test_a_model_that_would_lead_elsewhere_is_refused(dialect: str, model: str) -> None:
    with pytest.raises(RequestInexpressible) as caught:
        write(short(), dialect, model=model)
    assert caught.value.field == "model"


@pytest.mark.parametrize(
    "arguments",
    [
        "[1]",
        "{",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": ' * 200 + "1" + "}" * 200,
        '{"a": ' * 100_000 + "1" + "}" * 100_000,
        '{"a": ' + "9" * 5_000 + "}",
    ],
)
@pytest.mark.parametrize("dialect", ["anthropic-messages", "gemini", "bedrock", "ollama"])
def test_arguments_that_cannot_be_carried_on_are_refused(dialect: str, arguments: str) -> None:
    called = Message(role="assistant", parts=(CallPart(id="a", name="f", arguments=arguments),))
    result = Message(role="tool", parts=(ResultPart(call_id="a", content=()),))
    request = Request(model="any", messages=(QUESTION, called, result), tools=(Tool(name="f"),))
    with pytest.raises(RequestInexpressible, match="arguments are no JSON object"):
        write(request, dialect)
    assert write(request, "openai-chat").data()


def test_cohere_is_given_the_nearest_share_that_it_takes() -> None:
    assert write(short(sampling=Sampling(top_p=1)), "cohere").body["p"] == 0.99
    assert write(short(sampling=Sampling(top_p=0)), "cohere").body["p"] == 0.01


def test_bedrock_is_given_thoughts_that_anthropic_sealed() -> None:
    turn = {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "a"},
        ],
    }
    body: dict[str, Any] = {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "q"}, turn, {"role": "user", "content": "r"}],
    }
    request = read_request("anthropic-messages", body)
    claude = write(request, "bedrock", model="eu.anthropic.claude")
    thought = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}
    assert claude.body["messages"][1]["content"][0] == thought
    assert write(request, "bedrock", model="amazon.nova").left_out == ("earlier thoughts",)


def test_cohere_keeps_instructions_in_place_and_has_words_of_its_own() -> None:
    written = write(FULL, "cohere", model="command-a")
    assert written.path == "/v2/chat"
    function = {"name": "f", "description": "d", "parameters": SCHEMA}
    called = {"name": "f", "arguments": '{"x":1}'}
    assert written.body == {
        "model": "command-a",
        "messages": [
            {"role": "system", "content": "s"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "q"},
                    {
                        "type": "image_url",
                        "image_url": {"url": f"data:image/png;base64,{PNG}"},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": "let me",
                "tool_calls": [{"id": "a", "type": "function", "function": called}],
            },
            {"role": "tool", "tool_call_id": "a", "content": "4"},
        ],
        "tools": [{"type": "function", "function": function}],
        "max_tokens": 100,
        "temperature": 0.5,
        "p": 0.9,
        "stop_sequences": ["end"],
        "stream": True,
    }


@pytest.mark.parametrize(
    ("dialect", "request_", "field"),
    [
        ("ollama", asking(FAR), "an image at a URL"),
        ("ollama", asking(FILE), "a file"),
        ("ollama", short(tool_choice=ToolChoice(mode="required")), "tool_choice"),
        ("bedrock", asking(FAR), "an image at a URL"),
        ("bedrock", short(format=Format(kind="json")), "response_format"),
        ("bedrock", short(sampling=Sampling(seed=1)), "seed"),
        ("bedrock", short(tool_choice=ToolChoice(mode="none")), "tool_choice"),
        ("bedrock", Request(model="any", messages=TALK), "tool calls without tools"),
        ("cohere", asking(FILE), "file"),
        ("cohere", short(sampling=Sampling(presence_penalty=-1)), "presence_penalty"),
        ("gemini", short(stop=tuple("abcdef")), "stop"),
        ("openai-chat", short(stop=tuple("abcde")), "stop"),
        (
            "gemini",
            Request(
                model="any",
                messages=(Message(role="tool", parts=(ResultPart(call_id="x", content=()),)),),
            ),
            "tool result without its call",
        ),
        (
            "gemini",
            Request(
                model="any",
                messages=(
                    QUESTION,
                    Message(role="assistant", parts=(CallPart(id="a", name="f", arguments="[1"),)),
                    QUESTION,
                ),
            ),
            "tool call whose arguments are no JSON object",
        ),
        ("openai-chat", asking(MediaPart(kind="file", url="https://a.test/x")), "file at a URL"),
        ("openai-responses", short(stop=("x",)), "stop"),
        ("openai-responses", short(sampling=Sampling(top_k=5)), "top_k"),
    ],
)
def test_what_a_provider_cannot_be_told_is_refused_by_name_or_let_go(
    dialect: str, request_: Request, field: str
) -> None:
    with pytest.raises(RequestInexpressible) as caught:
        write(request_, dialect)
    assert (caught.value.field, caught.value.dialect) == (field, dialect)
    assert write(request_, dialect, may_drop=frozenset({field})).left_out == (field,)


def test_unknown_dialects_are_named_with_those_there_are() -> None:
    with pytest.raises(LookupError, match="gemini"):
        write(short(), "klingon")
    with pytest.raises(LookupError, match="vercel"):
        read_request("klingon", b"{}")

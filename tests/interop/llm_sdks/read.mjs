// The npm packages as clients: `openai`, `@anthropic-ai/sdk`, `ai` in three major versions, and
// `@ag-ui/client`. Each line of input is {client, body, status?, type?}; each line of output is the
// answer as the package showed it, or the name of the error it raised. Nothing of the packages is
// changed: the `fetch` they are given answers with the body.

import { createInterface } from "node:readline";
import { HttpAgent } from "@ag-ui/client";
import Anthropic from "@anthropic-ai/sdk";
import * as ai7 from "ai";
import * as ai5 from "ai-5";
import * as ai6 from "ai-6";
import OpenAI from "openai";

const messages = [{ role: "user", content: "Well?" }];

// What the clients are told by whoever is at the other end of `fetch`: pieces cut at odd places.
function answering({ body, status = 200, type = "text/event-stream" }) {
  return async () => {
    const bytes = new TextEncoder().encode(body);
    const pieces = [];
    for (let at = 0; at < bytes.length; at += 997) pieces.push(bytes.slice(at, at + 997));
    const stream = new ReadableStream({
      start(controller) {
        for (const piece of pieces) controller.enqueue(piece);
        controller.close();
      },
    });
    return new Response(stream, { status, headers: { "content-type": type } });
  };
}

const options = (asked) => ({
  apiKey: "none",
  baseURL: "http://penstock.test",
  maxRetries: 0,
  fetch: answering(asked),
});

async function chat(asked) {
  const calls = [];
  let [text, reasoning, usage, end, failed] = ["", "", null, "failed", ""];
  try {
    const sdk = new OpenAI(options(asked));
    const stream = await sdk.chat.completions.create({ model: "m", messages, stream: true });
    for await (const chunk of stream) {
      if (chunk.usage) {
        const { prompt_tokens_details: read, completion_tokens_details: written } = chunk.usage;
        usage = [
          chunk.usage.prompt_tokens,
          chunk.usage.completion_tokens,
          written?.reasoning_tokens ?? 0,
          read?.cached_tokens ?? 0,
          read?.cache_write_tokens ?? 0,
        ];
      }
      const choice = chunk.choices[0];
      if (!choice || choice.index) continue;
      text += choice.delta.content ?? "";
      reasoning += choice.delta.reasoning_content ?? "";
      for (const call of choice.delta.tool_calls ?? []) {
        const known = (calls[call.index] ??= ["", "", ""]);
        known[0] += call.id ?? "";
        known[1] += call.function?.name ?? "";
        known[2] += call.function?.arguments ?? "";
      }
      end = choice.finish_reason ?? end;
    }
  } catch (error) {
    if (!text && asked.status) throw error;
    [end, failed] = [error.constructor.name, error.message];
  }
  return { text, reasoning, calls, usage, end, failed };
}

async function responses(asked) {
  const sdk = new OpenAI(options(asked));
  let response;
  let streamed = "";
  for await (const event of sdk.responses.stream({ model: "m", input: "Well?" })) {
    if (event.type === "response.output_text.delta") streamed += event.delta;
    if (event.response) response = event.response;
  }
  let [text, reasoning, calls] = ["", "", []];
  for (const item of response.output) {
    if (item.type === "message") for (const part of item.content) text += part.text;
    if (item.type === "reasoning") for (const part of item.summary) reasoning += part.text;
    if (item.type === "function_call") calls.push([item.call_id, item.name, item.arguments]);
  }
  if (streamed !== text) throw new Error(`streamed ${streamed} and showed ${text}`);
  const counted = response.usage;
  const usage = counted && [
    counted.input_tokens,
    counted.output_tokens,
    counted.output_tokens_details.reasoning_tokens,
    counted.input_tokens_details.cached_tokens,
    counted.input_tokens_details.cache_write_tokens,
  ];
  const why = response.incomplete_details?.reason;
  const failed = response.error?.message ?? "";
  const end = failed ? "failed" : (why ?? response.status);
  return { text, reasoning, calls, usage, end, failed };
}

async function anthropic(asked) {
  const sdk = new Anthropic(options(asked));
  const stream = sdk.messages.stream({ model: "m", max_tokens: 1, messages });
  let [failed, message] = [null, undefined];
  try {
    for await (const _ of stream) message = stream.currentMessage ?? message;
    message = await stream.finalMessage();
  } catch (error) {
    if (!message) throw error;
    failed = error;
  }
  let [text, reasoning, calls] = ["", "", []];
  for (const block of message.content) {
    if (block.type === "text") text += block.text;
    if (block.type === "thinking") reasoning += block.thinking;
    if (block.type === "tool_use") calls.push([block.id, block.name, block.input]);
  }
  const counted = message.usage;
  const read = counted.cache_read_input_tokens ?? 0;
  const written = counted.cache_creation_input_tokens ?? 0;
  const usage = [
    counted.input_tokens + read + written,
    counted.output_tokens,
    counted.output_tokens_details?.thinking_tokens ?? 0,
    read,
    written,
  ];
  const end = failed ? failed.constructor.name : message.stop_reason;
  return { text, reasoning, calls, usage, end, failed: failed?.message };
}

const vercel = (ai) => async (asked) => {
  const transport = new ai.DefaultChatTransport({
    api: "http://penstock.test/api/chat",
    fetch: answering(asked),
  });
  const parts = [{ type: "text", text: "Well?" }];
  const chunks = await transport.sendMessages({
    chatId: "c",
    messages: [{ id: "u", role: "user", parts }],
    trigger: "submit-message",
  });
  let [end, failed] = ["", ""];
  const watched = chunks.pipeThrough(
    new TransformStream({
      transform(chunk, controller) {
        if (chunk.type === "finish") end = chunk.finishReason;
        if (chunk.type === "abort") end = "abort";
        controller.enqueue(chunk);
      },
    }),
  );
  let message = { parts: [] };
  const onError = (error) => (failed = error.message);
  for await (const state of ai.readUIMessageStream({ stream: watched, onError })) message = state;
  let [text, reasoning, calls] = ["", "", []];
  for (const part of message.parts) {
    if (part.type === "text") text += part.text;
    if (part.type === "reasoning") reasoning += part.text;
    if (part.toolCallId) {
      const input = part.input ?? part.rawInput;
      calls.push([part.toolCallId, part.toolName ?? part.type.slice(5), input]);
    }
  }
  const counted = message.metadata?.usage;
  const usage = counted && [
    counted.inputTokens,
    counted.outputTokens,
    counted.reasoningTokens ?? 0,
    counted.cachedInputTokens ?? 0,
    0,
  ];
  return { text, reasoning, calls, usage: usage ?? null, end: failed ? "failed" : end, failed };
};

async function agui(asked) {
  const agent = new HttpAgent({ url: "http://penstock.test", threadId: "t" });
  globalThis.fetch = answering(asked);
  let [usage, end, failed] = [null, "", ""];
  const count = ({ usage: [counted] = [] }) => {
    usage = counted
      ? [
          counted.inputTokens,
          counted.outputTokens,
          counted.reasoningTokens ?? 0,
          counted.cachedInputTokens ?? 0,
          counted.cacheWriteInputTokens ?? 0,
        ]
      : null;
  };
  const subscriber = {
    onRunFinishedEvent({ event }) {
      count(event);
      end = event.outcome.type === "success" ? event.result.stopReason : event.outcome.type;
    },
    onRunErrorEvent({ event }) {
      count(event);
      [end, failed] = ["failed", event.message];
    },
    onRunFailed({ error }) {
      [end, failed] = ["failed", failed || error.message];
    },
  };
  try {
    await agent.runAgent({ runId: "r" }, subscriber);
  } catch (error) {
    if (!failed) throw error;
  }
  let [text, reasoning, calls] = ["", "", []];
  for (const message of agent.messages) {
    if (message.role === "assistant") text += message.content ?? "";
    if (message.role === "reasoning") reasoning += message.content;
    for (const call of message.toolCalls ?? [])
      calls.push([call.id, call.function.name, call.function.arguments]);
  }
  return { text, reasoning, calls, usage, end, failed };
}

const clients = {
  openai: chat,
  "openai responses": responses,
  "@anthropic-ai/sdk": anthropic,
  "ai 5": vercel(ai5),
  "ai 6": vercel(ai6),
  "ai 7": vercel(ai7),
  "@ag-ui/client": agui,
};

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  let said;
  try {
    said = await clients[asked.client](asked);
  } catch (error) {
    said = { raised: error.constructor.name, status: error.status, message: error.message };
  }
  process.stdout.write(`${JSON.stringify(said)}\n`);
}

// The npm packages as clients of a server: they ask, and show what they got. Lines of JSON in and
// out, as `call.py` has them; beside what stands there, a page's "chat" has an id, and "then" is
// "stop" or "resume". Nothing of the packages is changed.

import { createInterface } from "node:readline";
import { HttpAgent } from "@ag-ui/client";
import Anthropic from "@anthropic-ai/sdk";
import * as ai7 from "ai";
import * as ai5 from "ai-5";
import * as ai6 from "ai-6";
import OpenAI from "openai";

const question = "Why is the sky blue?";
const messages = [{ role: "user", content: question }];
const schema = { type: "object", properties: { city: { type: "string" } } };
const description = "The weather of a city.";
const named = { name: "get_weather", description, parameters: schema };

const options = (asked, path) => ({
  apiKey: asked.key ?? "sk-any",
  baseURL: asked.base + path,
  maxRetries: 0,
  timeout: (asked.timeout_s ?? 30) * 1000,
  defaultHeaders: asked.headers,
});

const nothing = () => ({
  text: "",
  reasoning: "",
  calls: [],
  usage: null,
  end: null,
  failed: null,
});

function fail(said, error) {
  said.end = error.constructor.name;
  said.failed = error.message;
}

async function chat(asked) {
  const said = nothing();
  const sdk = new OpenAI(options(asked, "/v1"));
  const asking = { model: asked.model, messages, tools: [{ type: "function", function: named }] };
  if (asked.max_tokens) asking.max_completion_tokens = asked.max_tokens;
  if (asked.whole) {
    const { choices, usage } = await sdk.chat.completions.create(asking);
    const { message, finish_reason } = choices[0];
    said.text = message.content ?? "";
    said.reasoning = message.reasoning_content ?? "";
    for (const call of message.tool_calls ?? [])
      said.calls.push([call.function.name, call.function.arguments]);
    said.usage = [usage.prompt_tokens, usage.completion_tokens];
    said.end = finish_reason;
    return said;
  }
  const streaming = { ...asking, stream: true, stream_options: { include_usage: true } };
  const data = await sdk.chat.completions.create(streaming);
  try {
    for await (const { choices, usage } of data) {
      if (usage) said.usage = [usage.prompt_tokens, usage.completion_tokens];
      for (const { delta, finish_reason } of choices) {
        said.text += delta.content ?? "";
        said.reasoning += delta.reasoning_content ?? "";
        for (const call of delta.tool_calls ?? []) {
          said.calls[call.index] ??= [call.function.name, ""];
          said.calls[call.index][1] += call.function.arguments ?? "";
        }
        said.end = finish_reason ?? said.end;
      }
    }
  } catch (error) {
    fail(said, error);
  }
  return said;
}

function showResponse(said, response) {
  said.text = "";
  for (const item of response.output) {
    if (item.type === "message") for (const part of item.content) said.text += part.text;
    if (item.type === "reasoning") for (const part of item.summary) said.reasoning += part.text;
    if (item.type === "function_call") said.calls.push([item.name, item.arguments]);
  }
  if (response.usage) said.usage = [response.usage.input_tokens, response.usage.output_tokens];
  said.end = response.incomplete_details?.reason ?? response.status;
  said.failed = response.error?.message ?? null;
}

async function responses(asked) {
  const said = nothing();
  const sdk = new OpenAI(options(asked, "/v1"));
  const tools = [{ type: "function", strict: false, ...named }];
  const asking = { model: asked.model, input: question, tools };
  if (asked.max_tokens) asking.max_output_tokens = asked.max_tokens;
  if (asked.whole) {
    showResponse(said, await sdk.responses.create(asking));
    return said;
  }
  const data = await sdk.responses.create({ ...asking, stream: true });
  try {
    let streamed = "";
    for await (const event of data) {
      if (event.type === "response.output_text.delta") streamed += event.delta;
      if (/^response\.(completed|incomplete|failed)$/.test(event.type)) {
        showResponse(said, event.response);
        if (said.text !== streamed) throw new Error(`streamed ${streamed}, showed ${said.text}`);
      }
      said.text = streamed;
    }
  } catch (error) {
    fail(said, error);
  }
  return said;
}

function showMessage(said, message) {
  for (const block of message.content) {
    if (block.type === "text") said.text += block.text;
    if (block.type === "thinking") said.reasoning += block.thinking;
    if (block.type === "tool_use") said.calls.push([block.name, JSON.stringify(block.input)]);
  }
  said.usage = [message.usage.input_tokens, message.usage.output_tokens];
  said.end ??= message.stop_reason;
}

async function anthropic(asked) {
  const said = nothing();
  const sdk = new Anthropic(options(asked, ""));
  const tools = [{ name: named.name, description, input_schema: schema }];
  const asking = { model: asked.model, messages, tools, max_tokens: asked.max_tokens ?? 4096 };
  if (asked.whole) {
    showMessage(said, await sdk.messages.create(asking));
    return said;
  }
  const stream = sdk.messages.stream(asking);
  let message;
  try {
    for await (const _ of stream) message = stream.currentMessage ?? message;
    message = await stream.finalMessage();
  } catch (error) {
    if (!message) throw error;
    fail(said, error);
  }
  showMessage(said, message);
  return said;
}

// What `useChat` is made of, without a page: the chat's state, and the transport it has by default,
// which here also tells what a message does not show.
function makePage(ai, asked, said) {
  const headers = { ...asked.headers };
  if (asked.key) headers.authorization = `Bearer ${asked.key}`;
  const watch = (chunks) =>
    chunks?.pipeThrough(
      new TransformStream({
        transform(chunk, controller) {
          if (chunk.type === "finish") said.end = chunk.finishReason;
          if (chunk.type === "abort") said.end = "abort";
          controller.enqueue(chunk);
        },
      }),
    ) ?? null;
  class Transport extends ai.DefaultChatTransport {
    async sendMessages(more) {
      return watch(await super.sendMessages(more));
    }
    async reconnectToStream(more) {
      return watch(await super.reconnectToStream(more));
    }
  }
  class Page extends ai.AbstractChat {}
  return new Page({
    id: asked.chat,
    transport: new Transport({ api: `${asked.base}/api/chat`, headers, body: { model: asked.model } }),
    onError: (error) => (said.failed = error.message),
    state: {
      status: "ready",
      error: undefined,
      messages: [],
      pushMessage(message) {
        this.messages.push(message);
      },
      popMessage() {
        this.messages.pop();
      },
      replaceMessage(index, message) {
        this.messages[index] = message;
        this.onChange?.(message);
      },
      snapshot: structuredClone,
    },
  });
}

const vercel = (ai) => async (asked) => {
  const said = nothing();
  const page = makePage(ai, asked, said);
  if (asked.then === "resume") {
    await page.resumeStream();
  } else if (asked.then === "stop") {
    const asking = page.sendMessage({ text: question });
    while (!page.messages.at(-1)?.parts.some(({ text }) => text && text !== question))
      await new Promise((resolve) => setTimeout(resolve, 10));
    const stopped = `${asked.base}/api/chat/${encodeURIComponent(asked.chat)}/stop`;
    await Promise.all([page.stop(), fetch(stopped, { method: "POST" })]);
    await asking;
  } else {
    await page.sendMessage({ text: question });
  }
  const message = page.messages.findLast(({ role }) => role === "assistant");
  for (const part of message?.parts ?? []) {
    if (part.type === "text") said.text += part.text;
    if (part.type === "reasoning") said.reasoning += part.text;
    if (part.toolCallId)
      said.calls.push([part.toolName ?? part.type.slice(5), JSON.stringify(part.input)]);
  }
  const counted = message?.metadata?.usage;
  said.usage = counted ? [counted.inputTokens, counted.outputTokens] : null;
  if (said.failed) said.end = "failed";
  return said;
};

async function agui(asked) {
  const said = nothing();
  const headers = { ...asked.headers };
  if (asked.key) headers.authorization = `Bearer ${asked.key}`;
  const agent = new HttpAgent({
    url: `${asked.base}/api/agui`,
    headers,
    threadId: asked.chat ?? "t",
    initialMessages: [{ id: "u", role: "user", content: question }],
  });
  const count = ({ usage }) => {
    if (usage?.length) said.usage = [usage[0].inputTokens, usage[0].outputTokens];
  };
  const subscriber = {
    onRunFinishedEvent({ event }) {
      count(event);
      said.end = event.outcome.type === "success" ? event.result.stopReason : event.outcome.type;
    },
    onRunErrorEvent({ event }) {
      count(event);
      [said.end, said.failed] = ["failed", event.message];
    },
    onRunFailed({ error }) {
      [said.end, said.failed] = ["failed", said.failed || error.message];
    },
  };
  const forwardedProps = { model: asked.model };
  try {
    await agent.runAgent({ forwardedProps, tools: [named] }, subscriber);
  } catch (error) {
    if (!said.failed) throw error;
  }
  for (const message of agent.messages) {
    if (message.role === "assistant") said.text += message.content ?? "";
    if (message.role === "reasoning") said.reasoning += message.content;
    for (const call of message.toolCalls ?? [])
      said.calls.push([call.function.name, call.function.arguments]);
  }
  return said;
}

const clients = {
  "openai-chat": chat,
  "openai-responses": responses,
  "anthropic-messages": anthropic,
  "ai 5": vercel(ai5),
  "ai 6": vercel(ai6),
  "ai 7": vercel(ai7),
  "ag-ui": agui,
};

// What fetch itself could not do has its reason beneath.
const told = (error) =>
  [error.message, error.cause?.message].filter(Boolean).join(": ").slice(0, 2000);

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  clients[asked.client](asked)
    .catch((error) => ({
      raised: error.constructor.name,
      status: error.status ?? null,
      message: told(error),
    }))
    .then((said) => process.stdout.write(`${JSON.stringify({ ...said, id: asked.id })}\n`));
}

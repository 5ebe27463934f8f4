// The server of a chat application, as the transports' authors describe one: it answers a question
// in pieces, into a durable stream of the chat's own, and waits in the middle for a line of input.
// node app.mjs aisdk|tanstack STREAMS PIECES
// STREAMS is the address under which streams are made, PIECES a JSON array of strings. It prints
// its own address first.
import { once } from "node:events"
import { createServer } from "node:http"
import { createInterface } from "node:readline"
import { toDurableStreamResponse } from "@durable-streams/aisdk-transport"
import {
  ensureDurableChatSessionStream, toDurableChatSessionResponse,
} from "@durable-streams/tanstack-ai-transport"

const [kind, streams, given] = process.argv.slice(2)
const pieces = JSON.parse(given)
const goOn = once(createInterface({ input: process.stdin }), "line")
const target = (id) => ({ writeUrl: `${streams}/${id}` })

async function* deltas() {
  for (const [number, delta] of pieces.entries()) {
    if (number === pieces.length / 2) await goOn
    yield delta
  }
}

// One answer, in the words of the AI SDK.
async function* forTheAiSdk() {
  yield { type: "start", messageId: "answer" }
  yield { type: "text-start", id: "text" }
  for await (const delta of deltas()) yield { type: "text-delta", id: "text", delta }
  yield { type: "text-end", id: "text" }
  yield { type: "finish" }
}

// The same in the words of TanStack AI.
async function* forTanStack() {
  const [run, message] = [{ threadId: "chat", runId: "run" }, { messageId: "answer" }]
  yield { type: "RUN_STARTED", ...run }
  yield { type: "TEXT_MESSAGE_START", role: "assistant", ...message }
  for await (const delta of deltas()) yield { type: "TEXT_MESSAGE_CONTENT", delta, ...message }
  yield { type: "TEXT_MESSAGE_END", ...message }
  yield { type: "RUN_FINISHED", ...run }
}

const asked = new Set()
const kinds = {
  aisdk: {
    ask(id) {
      asked.add(id)
      return toDurableStreamResponse({ source: forTheAiSdk(), stream: target(id) })
    },
    isThere: (id) => asked.has(id),
  },
  tanstack: {
    ask: (id, { messages }) => toDurableChatSessionResponse({
      stream: target(id), newMessages: [messages.at(-1)], responseStream: forTanStack(),
    }),
    // A session's stream is there before its first question.
    isThere: (id) => ensureDurableChatSessionStream(target(id)),
  },
}

// POST /chat/ID asks; GET /chat/ID/stream tells where to read.
async function answer({ method, url }, body) {
  const id = url.split("/")[2]
  if (method === "POST") return kinds[kind].ask(id, JSON.parse(body))
  if (!(await kinds[kind].isThere(id))) return new Response(null, { status: 204 })
  const { writeUrl } = target(id)
  return Response.json({ streamUrl: writeUrl }, { headers: { Location: writeUrl } })
}

const server = createServer(async (request, response) => {
  const { status, headers, body } = await answer(request, (await request.toArray()).join(""))
  response.writeHead(status, Object.fromEntries(headers))
  for await (const part of body ?? []) response.write(part)
  response.end()
})
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(JSON.stringify({ address: `http://127.0.0.1:${server.address().port}` }) + "\n")
})

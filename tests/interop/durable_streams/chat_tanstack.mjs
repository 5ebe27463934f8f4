// The page of a chat on TanStack AI, without a framework: it prints the answer as it grows,
// {"text": ...}, and {"whole": ...} at its end.
// node chat_tanstack.mjs CHAT ask|resume
// CHAT is the address of the chat in the application. Resumed, the page begins with what is there
// already, as one that was rendered on a server does, and reads on from the offset of that.
import { ChatClient } from "@tanstack/ai-client"
import {
  durableStreamConnection, materializeSnapshotFromDurableStream,
} from "@durable-streams/tanstack-ai-transport"

const [address, way] = process.argv.slice(2)
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n")
const textOf = (messages) => messages
  .filter(({ role }) => role === "assistant").flatMap(({ parts }) => parts)
  .filter(({ type }) => type === "text").map(({ content }) => content).join("")

const { streamUrl: readUrl } = await (await fetch(`${address}/stream`)).json()
const there = way === "resume" ? await materializeSnapshotFromDurableStream({ readUrl }) : { messages: [] }
say({ text: textOf(there.messages) })

let messages = there.messages
const finished = Promise.withResolvers()
const chat = new ChatClient({
  threadId: "chat",
  initialMessages: there.messages,
  connection: durableStreamConnection({ sendUrl: address, readUrl, initialOffset: there.offset }),
  onMessagesChange: (now) => say({ text: textOf(messages = now) }),
  onChunk: ({ type }) => type === "RUN_FINISHED" && finished.resolve(),
  onError: finished.reject,
})
if (way === "ask") await chat.sendMessage("Tell me.")
else chat.subscribe()
await finished.promise
chat.unsubscribe()
say({ whole: textOf(messages) })

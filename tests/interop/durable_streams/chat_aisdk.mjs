// The page of a chat on the Vercel AI SDK, without a framework: it prints the answer as it grows,
// {"text": ...}, and {"whole": ...} at its end.
// node chat_aisdk.mjs CHAT ask|resume
// CHAT is the address of the chat in the application.
import { AbstractChat } from "ai"
import { createDurableChatTransport } from "@durable-streams/aisdk-transport"

const [address, way] = process.argv.slice(2)
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n")
const textOf = ({ parts }) => parts.filter(({ type }) => type === "text").map(({ text }) => text).join("")

class Page extends AbstractChat {}
const chat = new Page({
  id: "chat",
  transport: createDurableChatTransport({ api: address, reconnectApi: `${address}/stream` }),
  state: {
    status: "ready",
    error: undefined,
    messages: [],
    pushMessage(message) {
      this.replaceMessage(this.messages.length, message)
    },
    popMessage() {
      this.messages.pop()
    },
    replaceMessage(index, message) {
      this.messages[index] = message
      if (message.role === "assistant") say({ text: textOf(message) })
    },
    snapshot: structuredClone,
  },
})

await (way === "ask" ? chat.sendMessage({ text: "Tell me." }) : chat.resumeStream())
if (chat.error) throw chat.error
say({ whole: textOf(chat.lastMessage) })

// The transport and the stop that a page of the documentation shows, in two pages of one chat: the
// second is loaded while the first one's answer runs, and stops it: node chat_of_the_gateway.mjs
// PAGE prints the text that each of the two has in the end, and what a third one finds to resume; as
// JSON, a line each. What `useChat` adds to this is React.
import { pathToFileURL } from "node:url";
import { AbstractChat } from "ai";

const { transport, stopAnswer } = await import(pathToFileURL(process.argv[2]));
const id = "chat/1";
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const moment = () => new Promise((resolve) => setTimeout(resolve, 5));

class Page extends AbstractChat {
  constructor() {
    super({
      id,
      transport,
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
        },
        snapshot: structuredClone,
      },
    });
  }

  get text() {
    const message = this.messages.findLast(({ role }) => role === "assistant");
    return message?.parts.map(({ text }) => text ?? "").join("") ?? "";
  }

  async written() {
    while (!this.text) await moment();
  }
}

const [first, second] = [new Page(), new Page()];
const asking = first.sendMessage({ text: "Why do logs help?" });
await first.written();
const resuming = second.resumeStream();
await second.written();
const stopped = await stopAnswer(id);
if (stopped.status !== 204) throw new Error(`stopping answers ${stopped.status}`);
await Promise.all([asking, resuming]);
say(first.text);
say(second.text);
say(await transport.reconnectToStream({ chatId: id }));

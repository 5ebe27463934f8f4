// Puts the two halves of a chat that a page of the documentation shows together, and asks one
// question: node chat_of_a_page.mjs aisdk|tanstack SERVER PAGE
// SERVER and PAGE are modules. Prints the answer, and with the AI SDK the answer as a page gets it
// that comes back; as JSON, a line each.
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";
import { ChatClient } from "@tanstack/ai-client";

const [kind, server, page] = process.argv.slice(2);
const handlers = await import(pathToFileURL(server));
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

// The addresses /chat/ID and /chat/ID/stream, as any framework routes them.
const application = createServer(async (incoming, outgoing) => {
  const { method, url } = incoming;
  const body = method === "POST" ? Buffer.concat(await incoming.toArray()) : undefined;
  const request = new Request(`http://localhost${url}`, { method, body });
  const response = await handlers[method](request, url.split("/")[2]);
  outgoing.writeHead(response.status, Object.fromEntries(response.headers));
  for await (const part of response.body ?? []) outgoing.write(part);
  outgoing.end();
});
await new Promise((done) => application.listen(0, "127.0.0.1", done));

// A page's addresses are relative to where it came from; Node's are not.
const origin = `http://127.0.0.1:${application.address().port}`;
const fetchFromNode = globalThis.fetch;
globalThis.fetch = (what, options) =>
  fetchFromNode(typeof what === "string" && what.startsWith("/") ? origin + what : what, options);
const half = await import(pathToFileURL(page));

async function textOf(chunks) {
  let text = "";
  for await (const chunk of chunks) if (chunk.type === "text-delta") text += chunk.delta;
  return text;
}

if (kind === "aisdk") {
  const messages = [{ id: "1", role: "user", parts: [{ type: "text", text: "Why?" }] }];
  const asked = { trigger: "submit-message", chatId: "42", messageId: undefined, messages };
  say(await textOf(await half.transport.sendMessages(asked)));
  say(await textOf(await half.transport.reconnectToStream({ chatId: "42" })));
} else {
  let messages = [];
  const finished = Promise.withResolvers();
  const chat = new ChatClient({
    threadId: "chat",
    connection: half.connection,
    onMessagesChange: (now) => (messages = now),
    onChunk: ({ type }) => type === "RUN_FINISHED" && finished.resolve(),
    onError: finished.reject,
  });
  await chat.sendMessage("Why?");
  await finished.promise;
  chat.unsubscribe();
  const answered = messages.filter(({ role }) => role === "assistant").at(-1);
  say(answered.parts.map(({ content }) => content).join(""));
}
application.close();
application.closeAllConnections();

// Reads a stream with the published TypeScript client, and prints a line for each batch:
// {"items": [...], "offset": ...} of a JSON stream; {"text": ...} or {"base64": ...} of others.
// node read.mjs URL none|long-poll|sse OFFSET
// It ends with the stream; with `none`, when it has all that is there.
import { stream } from "@durable-streams/client"

const [url, live, offset] = process.argv.slice(2)
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n")

const response = await stream({ url, offset, live: live === "none" ? false : live })
const isText = response.contentType.startsWith("text/")
if (response.contentType.startsWith("application/json")) {
  response.subscribeJson(({ items, offset }) => say({ items, offset }))
} else if (isText) {
  response.subscribeText(({ text, offset }) => say({ text, offset }))
} else {
  response.subscribeBytes(({ data, offset }) => say({ base64: Buffer.from(data).toString("base64"), offset }))
}
await response.closed

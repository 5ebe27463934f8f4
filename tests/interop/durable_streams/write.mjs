// Writes a stream with the published TypeScript client, as its standard input says.
// node write.mjs URL CONTENT_TYPE
// Each line of input is one of these, and is answered with a line {"offset": ...}:
//   {"append": [value, ...]}   appends all at once: the client makes batches of them
//   {"produce": [value, ...]}  the same through an IdempotentProducer
//   {"close": true}
// A value is JSON for a JSON stream, text for a text stream, and base64 for every other.
import { createInterface } from "node:readline"
import { createFetchWithBackoff, DurableStream, IdempotentProducer } from "@durable-streams/client"

const [url, contentType] = process.argv.slice(2)
const isText = contentType.startsWith("text/")
const isJson = contentType === "application/json"
const body = (value) => isJson ? JSON.stringify(value) : isText ? value : Buffer.from(value, "base64")
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n")

const stream = await DurableStream.create({ url, contentType })
// One batch at a time, and every request repeated until it is answered: the way to survive a server
// that goes away, since the producer itself gives up at the first failure.
const producer = new IdempotentProducer(stream, "writer", {
  maxInFlight: 1,
  maxBatchBytes: 256,
  fetch: createFetchWithBackoff((...request) => fetch(...request)),
  onError: (error) => { throw error },
})

const commands = {
  append: async (values) => {
    await Promise.all(values.map((value) => stream.append(body(value))))
    return (await stream.head()).offset
  },
  produce: async (values) => {
    for (const value of values) producer.append(body(value))
    await producer.flush()
    return producer.lastSuccessfulOffset
  },
  close: async () => (await stream.close()).finalOffset,
}

say({ offset: (await stream.head()).offset })
for await (const line of createInterface({ input: process.stdin })) {
  const [[command, argument]] = Object.entries(JSON.parse(line))
  say({ offset: await commands[command](argument) })
}

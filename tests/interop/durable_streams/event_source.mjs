// The standard's own EventSource, of Node, on a stream: a line for each event that has an id.
// node --experimental-eventsource event_source.mjs URL
const source = new EventSource(process.argv[2])
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n")
// Between two connections nothing of an EventSource keeps Node from ending.
const awake = setInterval(() => {}, 60_000)

source.addEventListener("message", ({ data, lastEventId }) => say({ data, id: lastEventId }))
source.addEventListener("end", ({ data, lastEventId }) => {
  say({ end: JSON.parse(data), id: lastEventId })
  source.close()
  clearInterval(awake)
})

// The Node server of the benchmark: node:http and nothing else. Every event is one Buffer, encoded
// once, and one response.write() for each subscriber: the recipe of Node's own documentation. What
// a slow subscriber has not taken waits in its response's own buffer.
//
// Environment: BENCH_RATE (events/s), BENCH_PAYLOAD_BYTES, BENCH_TOTAL (0: no end), BENCH_STREAMS
// (not 0: every request is a stream of its own, with its own publisher). SIGUSR2 starts the
// publisher. Readiness: one JSON line with port and pid.
import http from "node:http";

const CATCH_UP_PER_TICK = 50; // the same rule in every server of the benchmark
const rate = Number(process.env.BENCH_RATE ?? 30);
const total = Number(process.env.BENCH_TOTAL ?? 0) || Infinity;
const payloadBytes = Number(process.env.BENCH_PAYLOAD_BYTES ?? 80);

const ownStreams = Number(process.env.BENCH_STREAMS ?? 0) !== 0;

const subscribers = new Set();

const server = http.createServer((request, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  response.flushHeaders();
  request.socket.setNoDelay(true);
  if (ownStreams) return publishTo(response);
  subscribers.add(response);
  response.on("close", () => subscribers.delete(response));
});

function encode(index) {
  const payload = `{"t":${process.hrtime.bigint()},"i":${index},"d":"`.padEnd(payloadBytes - 2, "x");
  return Buffer.from(`id: ${String(index + 1).padStart(10, "0")}\ndata: ${payload}"}\n\n`);
}

function publish(event) {
  for (const response of subscribers) response.write(event);
}

function publishTo(response) {
  let published = 0;
  const timer = setInterval(() => response.write(encode(published++)), 1000 / rate);
  response.on("close", () => clearInterval(timer));
}

process.once("SIGUSR2", () => {
  const begun = process.hrtime.bigint();
  let published = 0;
  const timer = setInterval(() => {
    const elapsed = Number(process.hrtime.bigint() - begun) / 1e9;
    const due = Math.min(Math.floor(elapsed * rate + 0.5), published + CATCH_UP_PER_TICK, total);
    while (published < due) publish(encode(published++));
    if (published >= total) clearInterval(timer);
  }, Math.max(1, 1000 / rate));
});

server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => {
  console.log(JSON.stringify({ port: server.address().port, pid: process.pid }));
});

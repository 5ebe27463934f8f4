// The published reference server of the Durable Streams protocol, as its README starts it: in
// memory, or with BENCH_BACKEND=file in the folder BENCH_FOLDER. What it would print about each slow
// append is not printed. Readiness: one JSON line with port and pid.
import { DurableStreamTestServer } from "@durable-streams/server";

console.info = () => {};

const dataDir = process.env.BENCH_BACKEND === "file" ? process.env.BENCH_FOLDER : undefined;
const server = new DurableStreamTestServer({ port: 0, host: "127.0.0.1", dataDir });
const address = await server.start();
console.log(JSON.stringify({ port: Number(new URL(address).port), pid: process.pid }));

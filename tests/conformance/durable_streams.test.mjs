// Every test of the published suite, against the server whose address is in DURABLE_STREAMS_SERVER.
// The suite's own command line finds no tests under the vitest it asks for; this is what it would run.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const baseUrl = process.env.DURABLE_STREAMS_SERVER
if (!baseUrl) throw new Error("DURABLE_STREAMS_SERVER must name the server, as http://host:port")

// The server is given the same patience for a long poll (PENSTOCK_LONG_POLL_S).
runConformanceTests({ baseUrl, longPollTimeoutMs: 500, subscriptions: true })

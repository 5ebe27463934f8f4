// The server's /metrics, once a second while somebody looks, with a minute of memory.
//
// One poller serves the whole page: the panel draws its history, the other parts show how many
// readers there are. It fetches rather than streams, one request at a time over a connection the
// browser keeps, so a tab never needs more than two. A hidden tab asks nothing.

import { Scrape } from "./metrics.js";

const PERIOD_MS = 1_000;
/** Scrapes kept: what a sparkline shows. */
const MEMORY = 61;

export class Telemetry {
  /** Oldest first: `{at_ms, scrape, text}`. */
  history = [];

  #subscribers = new Set();
  #timer = 0;
  #isAsking = false;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#schedule(0));
    this.#schedule(0);
  }

  get latest() {
    return this.history.at(-1) ?? null;
  }

  /** Calls `listener(latest)` after each scrape, with null when the server did not answer. */
  subscribe(listener) {
    this.#subscribers.add(listener);
    if (this.latest !== null) listener(this.latest);
  }

  /** The scrape nearest to `span_ms` before the latest one, or null with fewer than two. */
  before(span_ms) {
    if (this.history.length < 2) return null;
    const from_ms = this.latest.at_ms - span_ms - PERIOD_MS / 2;
    return this.history.find(({ at_ms }) => at_ms >= from_ms);
  }

  #schedule(wait_ms) {
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => this.#ask(), wait_ms);
  }

  async #ask() {
    if (this.#isAsking) return;
    this.#isAsking = true;
    const latest = await this.#scrape();
    this.#isAsking = false;
    for (const listener of this.#subscribers) listener(latest);
    this.#schedule(PERIOD_MS);
  }

  async #scrape() {
    try {
      const signal = AbortSignal.timeout(5_000);
      const answer = await fetch("/metrics", { cache: "no-store", signal });
      if (!answer.ok) return null;
      const text = await answer.text();
      this.history.push({ at_ms: performance.now(), scrape: new Scrape(text), text });
      if (this.history.length > MEMORY) this.history.shift();
      return this.latest;
    } catch {
      return null; // a server that restarts: the page says so and asks again
    }
  }
}

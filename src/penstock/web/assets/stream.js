// One cursor of this tab in one stream of the server: the browser's own EventSource, and the rules
// of resuming around it.
//
// The EventSource reconnects and sends Last-Event-ID by itself. What it cannot do lives here: stop
// at the typed `end`, come back after the page itself let go (a cut, a hidden tab, another part of
// the page, a draining server) by naming the last event id in the query, and tell the page why. A
// tab holds at most one of these open, because a browser allows six connections to a host over
// HTTP/1.1 and three tabs shall work. Nothing here knows what the events mean.

const RECORD_TYPES = [
  "message", "prompt", "turn", "start", "reasoning", "text", "tool_delta", "tool", "data", "usage",
  "stop", "failure",
];
const CONTROL_TYPES = ["end", "gap", "drain", "status"];

/** A hidden tab keeps its connection this long: a quick look at another tab costs no resume. */
const HIDDEN_GRACE_MS = 5_000;
/** Waits after the browser gave up for good (it does so on any 4xx or 5xx, even a passing 502). */
const REVIVE_MS = [1_000, 2_000, 4_000, 8_000, 15_000];

/**
 * What a stream's place on the server is now, or null where the server does not say.
 * @returns {Promise<{tail: string|null, isClosed: boolean, isMissing: boolean}>}
 */
export async function headOf(url) {
  const unknown = { tail: null, isClosed: false, isMissing: false };
  try {
    const answer = await fetch(url, { method: "HEAD", signal: AbortSignal.timeout(2_000) });
    if (answer.status === 404) return { ...unknown, isMissing: true };
    if (!answer.ok) return unknown;
    return {
      tail: answer.headers.get("Stream-Next-Offset"),
      isClosed: answer.headers.get("Stream-Closed") === "true",
      isMissing: false,
    };
  } catch {
    return unknown;
  }
}

/** Ends a stream on purpose. Hanging up never does: others may be reading. */
export async function cancel(stream) {
  const path = stream.split("/").map(encodeURIComponent).join("/");
  const answer = await fetch(`/v1/cancel/${path}`, { method: "POST" });
  if (!answer.ok) throw new Error(await reason(answer));
}

/**
 * POSTs JSON to start a stream, or to join one that runs. An error carries the server's own words.
 * @returns {Promise<{stream: string, url: string, isNew: boolean}>}
 */
export async function post(url, body) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(await reason(answer));
  return { ...(await answer.json()), isNew: answer.status === 201 };
}

async function reason(answer) {
  try {
    const problem = await answer.json();
    return problem.detail ?? problem.title ?? `the server answered ${answer.status}`;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

/**
 * Reads a stream until its end. `handlers`:
 * - `record(type, data, id)`: one record, in order;
 * - `control(type, data)`: `end`, `gap`, `drain` or `status`;
 * - `connection(state, detail)`: `connecting`, `open`, `resumed` (detail `{from, cause}`), `away`
 *   (cut, hidden, drained or in another part; detail `{cause, for_ms}`), `reconnecting`, `missing`.
 */
export class Reader {
  /** Id of the last event seen, or null before the first: the place this cursor stands at. */
  lastEventId = null;
  hasEnded = false;

  #url;
  #handlers;
  #source = null;
  #timer = 0;
  #cause = null;
  #revivals = 0;
  #listening = new AbortController();

  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
    const { signal } = this.#listening;
    document.addEventListener("visibilitychange", () => this.#onVisibility(), { signal });
    addEventListener("pagehide", () => this.leave("hidden"), { signal });
    addEventListener("pageshow", (event) => event.persisted && this.#onVisibility(), { signal });
  }

  get isConnected() {
    return this.#source?.readyState === EventSource.OPEN;
  }

  /** Connects, or comes back after the last event seen. Harmless when connected or ended. */
  open() {
    clearTimeout(this.#timer);
    if (this.#source !== null || this.hasEnded) return;
    const place = this.lastEventId;
    const url = new URL(this.#url, location.href);
    if (place !== null) url.searchParams.set("last_event_id", place);
    this.#handlers.connection("connecting", {});
    const source = new EventSource(url);
    source.onopen = () => this.#onOpen();
    source.onerror = () => this.#onError(source);
    for (const type of RECORD_TYPES) source.addEventListener(type, (e) => this.#onRecord(e));
    for (const type of CONTROL_TYPES) source.addEventListener(type, (e) => this.#onControl(e));
    this.#source = source;
  }

  /** Lets go of the connection and keeps the place. With `for_ms` it comes back by itself. */
  leave(cause, for_ms = null) {
    clearTimeout(this.#timer);
    if (cause === "part") this.#cause = cause; // also when cut just now: it stays away
    if (this.#source === null) return;
    this.#drop();
    this.#cause = cause;
    this.#handlers.connection("away", { cause, for_ms });
    if (for_ms !== null) this.#timer = setTimeout(() => this.open(), for_ms);
  }

  /** Lets go for ever. */
  dispose() {
    clearTimeout(this.#timer);
    this.#drop();
    this.#listening.abort();
  }

  #drop() {
    this.#source?.close();
    this.#source = null;
  }

  #onOpen() {
    this.#revivals = 0;
    if (this.lastEventId === null) {
      this.#handlers.connection("open", {});
    } else {
      const cause = this.#cause ?? "network";
      this.#handlers.connection("resumed", { from: this.lastEventId, cause });
    }
    this.#cause = null;
  }

  #onError(source) {
    if (source.readyState === EventSource.CONNECTING) {
      this.#handlers.connection("reconnecting", {});
      return;
    }
    this.#drop();
    this.#onRefused();
  }

  /** The browser has given up for good: it is ours to find out why, and to come back. */
  async #onRefused() {
    const wait_ms = REVIVE_MS[this.#revivals];
    if (this.lastEventId === null || wait_ms === undefined) {
      this.#handlers.connection("missing", {});
      return;
    }
    this.#revivals += 1;
    this.#handlers.connection("reconnecting", {});
    const { isMissing } = await headOf(this.#url);
    if (this.#listening.signal.aborted || this.#source !== null) return;
    // Some of it was read, and the server that had it is gone with it: that is `lost`.
    if (isMissing) this.#onEnd("lost");
    else if (this.#cause !== "part") this.#timer = setTimeout(() => this.open(), wait_ms);
  }

  #onRecord(event) {
    if (event.lastEventId !== "") this.lastEventId = event.lastEventId;
    this.#handlers.record(event.type, JSON.parse(event.data), event.lastEventId);
  }

  #onControl(event) {
    const data = event.data === "" ? {} : JSON.parse(event.data);
    if (event.type === "end") {
      this.#onEnd(data.reason);
      return;
    }
    if (event.lastEventId !== "") this.lastEventId = event.lastEventId;
    this.#handlers.control(event.type, data);
    if (event.type === "drain") this.leave("drain", data.retry_ms ?? 1_000);
  }

  #onEnd(reason) {
    this.hasEnded = true;
    this.dispose();
    this.#handlers.control("end", { reason });
  }

  #onVisibility() {
    clearTimeout(this.#timer);
    if (document.hidden) {
      this.#timer = setTimeout(() => this.leave("hidden"), HIDDEN_GRACE_MS);
    } else if (this.#cause !== "part") {
      this.open();
    }
  }
}

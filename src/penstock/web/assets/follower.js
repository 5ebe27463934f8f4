// One part of the page following one stream: its cursor, and everything the page says about it.
//
// Chat, arena and board differ in what their records mean, and agree on the rest: a state with one
// word, a rail, the stream's name, the last event id, a journal of what happened to this tab's
// cursor, notices for gaps and restarts, and coming back after a reload. That rest is here. A part
// hands in `onRecord(type, data)`, which draws a record and returns its kind for the rail.

import { announce, count, el, followTail, onFrame, plural, setText } from "./dom.js";
import { Rail } from "./rail.js";
import { Reader, cancel, headOf } from "./stream.js";

const CAUSES = {
  cut: "cut on purpose",
  hidden: "tab was hidden",
  part: "another part was open",
  drain: "server restarted",
  network: "network came back",
};
const AWAY_STATES = { cut: "cut", hidden: "paused", part: "paused", drain: "restarting" };
const ENDINGS = {
  complete: "the log is whole",
  cancelled: "stopped on request",
  failed: "the producer failed",
  limit: "a limit was reached",
  lost: "the producer vanished",
};

/** Where a tab that is reloaded had got to: `{id, records, top_px}` for one stream. */
function takeSeen(stream) {
  const key = `penstock:seen:${stream}`;
  try {
    const seen = JSON.parse(sessionStorage.getItem(key));
    sessionStorage.removeItem(key);
    return seen;
  } catch {
    return null;
  }
}

function keepSeen(stream, seen) {
  try {
    sessionStorage.setItem(`penstock:seen:${stream}`, JSON.stringify(seen));
  } catch {
    // without storage a reload still shows everything; only the mark is missing
  }
}

/** What the page says about a stream: a strip above the text and a card beside it. */
class Signals {
  rail = new Rail();

  constructor(section, part) {
    this.state = el("span", {
      class: "state", testid: `${part}-status`, "data-state": "idle", text: "idle",
    });
    this.resumed = el("span", { class: "chip", testid: `${part}-resumed`, hidden: true });
    this.notice = el("p", {
      class: "notice", role: "status", testid: `${part}-notice`, hidden: true,
    });
    const strip = section.querySelector("[data-strip]");
    const bar = el("div", { class: "strip-bar" }, this.state, this.resumed);
    strip.prepend(this.rail.element, bar, this.notice);

    const rows = el("dl", { class: "facts" });
    const row = (label, name) => {
      const value = el("dd", { testid: `${part}-${name}`, text: "–" });
      rows.append(el("div", {}, el("dt", { text: label }), value));
      return value;
    };
    this.stream = row("Stream", "stream");
    this.offset = row("Last event id", "offset");
    this.records = row("Records read", "records");
    this.readers = row("Readers, whole server", "readers");
    this.journal = el("ol", { class: "journal", testid: `${part}-journal` });
    section
      .querySelector("[data-card]")
      .append(rows, el("h3", { text: "This tab’s cursor" }), this.journal);
  }

  note(kind, what, where) {
    this.journal.append(
      el("li", { class: `did-${kind}` }, el("b", { text: what }), el("span", { text: where })),
    );
  }

  warn(sentence) {
    this.notice.hidden = sentence === "";
    setText(this.notice, sentence);
  }
}

export class Follower {
  stream = null;
  url = null;
  records = 0;
  resumes = 0;

  #part;
  #section;
  #hooks;
  #signals;
  #reader = null;
  #sought = null; // the place to flag while reading the log again: `{id, kind, top_px}`
  #countdown = 0;
  #paint = onFrame(() => this.#draw());

  /**
   * `hooks`: `onRecord(type, data)` returns the record's kind; `onState(state)`; `onEnd(reason)`,
   * before the state changes; `onSeam(kind, label)` marks the place in the part's own text.
   */
  constructor(section, part, hooks, telemetry) {
    this.#part = part;
    this.#section = section;
    this.#hooks = hooks;
    this.#signals = new Signals(section, part);
    telemetry.subscribe((latest) => {
      const readers = latest?.scrape.sum("penstock_readers");
      setText(this.#signals.readers, readers === undefined ? "–" : count(readers));
    });
    addEventListener("pagehide", () => {
      if (!this.isRunning) return;
      const { lastEventId: id, records } = this;
      keepSeen(this.stream, { id, records, top_px: scrollY });
    });
  }

  get state() {
    return this.#signals.state.dataset.state;
  }

  get lastEventId() {
    return this.#reader?.lastEventId ?? null;
  }

  get isRunning() {
    return this.#reader !== null && !this.#reader.hasEnded && this.state !== "missing";
  }

  /** True while records of the past are read again, up to where this tab joined. */
  get isReplaying() {
    return this.#sought !== null;
  }

  /** Follows a stream from its start. `isNew` says that this tab has just started it. */
  async follow(stream, url, isNew) {
    this.release();
    this.stream = stream;
    this.url = url;
    setText(this.#signals.stream, stream);
    this.#setState("connecting");
    const reader = new Reader(url, {
      record: (type, data, id) => this.#onRecord(type, data, id),
      control: (type, data) => this.#onControl(type, data),
      connection: (state, detail) => this.#onConnection(state, detail),
    });
    this.#reader = reader;
    const isThere = isNew || (await this.#seek(stream, url));
    if (this.#reader !== reader) return;
    if (isThere) reader.open();
    else this.#onConnection("missing", {});
  }

  /** Forgets the stream; the log on the server stays. */
  release() {
    this.#reader?.dispose();
    this.#reader = null;
    this.#sought = null;
    this.records = 0;
    this.resumes = 0;
    clearInterval(this.#countdown);
    this.#signals.rail.reset();
    this.#signals.journal.replaceChildren();
    this.#signals.resumed.hidden = true;
    this.#signals.warn("");
  }

  /**
   * Keeps the end of the part in sight while it grows. Not while the past is read again: whoever
   * was at the top stays there. Call it before the growth; call what it returns after.
   */
  followTail() {
    if (this.isReplaying) return () => {};
    return followTail(this.#section.querySelector("[data-tail]"));
  }

  show() {
    this.#reader?.open();
  }

  hide() {
    this.#reader?.leave("part");
  }

  /** Closes this tab's connection and comes back after a while, by last event id. */
  cut(for_ms) {
    this.#reader?.leave("cut", for_ms);
  }

  async stop() {
    await cancel(this.stream);
  }

  warn(sentence) {
    this.#signals.warn(sentence);
  }

  async #seek(stream, url) {
    const seen = takeSeen(stream);
    const head = await headOf(url);
    if (head.isMissing) return false;
    if (seen !== null) this.#sought = { id: seen.id, kind: "reload", top_px: seen.top_px };
    else if (head.tail !== null && !head.isClosed) this.#sought = { id: head.tail, kind: "join" };
    return true;
  }

  #onRecord(type, data, id) {
    const kind = this.#hooks.onRecord(type, data);
    this.records += 1;
    this.#signals.rail.add(kind);
    if (this.#sought?.id === id) this.#reach(this.#sought);
    this.#paint();
  }

  #reach({ id, kind, top_px }) {
    this.#sought = null;
    const what = kind === "reload" ? "reloaded" : "joined";
    const where = `after ${plural(this.records, "record")}`;
    this.#signals.rail.flag(kind, `${what} ${where}`);
    this.#signals.note(kind, what, where);
    this.#hooks.onSeam?.(kind, `${what} · ${count(this.records)}`);
    if (kind !== "reload") return;
    this.#showResumed(id);
    // Behind the part's own painting of this frame: the page is now what it was when it was left.
    const restore = () => scrollTo({ top: top_px, behavior: "instant" });
    if (!this.#section.hidden) requestAnimationFrame(restore);
  }

  #showResumed(id) {
    this.#signals.resumed.hidden = false;
    setText(this.#signals.resumed, `resumed from ${id} · ${count(this.records)}`);
    this.#signals.resumed.title = `last event id ${id}, after ${plural(this.records, "record")}`;
  }

  #onControl(type, data) {
    if (type === "end") this.#onEnd(data.reason ?? "complete");
    else if (type === "gap") this.#onGap(data);
    else if (type === "drain") this.#onDrain(data.retry_ms ?? 1_000);
  }

  #onEnd(reason) {
    this.#sought = null;
    this.#hooks.onEnd(reason);
    this.#signals.rail.finish();
    this.#signals.note("end", reason, ENDINGS[reason] ?? "ended");
    this.#paint.flush();
    this.#setState(reason);
    announce(`${this.#part} ${reason}`);
  }

  #onGap({ from, to, reason }) {
    const where = `from ${from ?? "the start"} to ${to ?? "the earliest kept record"}`;
    this.#signals.rail.add("gap");
    this.#signals.note("gap", "gap", where);
    this.#signals.warn(`Gap: records ${where} are not kept (${reason ?? "no reason given"}).`);
    this.#hooks.onSeam?.("gap", "gap");
  }

  #onDrain(retry_ms) {
    const back_ms = performance.now() + retry_ms;
    const tell = () => {
      const left_s = Math.max(1, Math.ceil((back_ms - performance.now()) / 1000));
      this.#signals.warn(`Server restarting, back in ${left_s} s. Your place is kept.`);
    };
    clearInterval(this.#countdown);
    this.#countdown = setInterval(tell, 250);
    tell();
  }

  #onConnection(state, detail) {
    if (state === "away") this.#onAway(detail);
    else if (state === "resumed") this.#onResumed(detail);
    else if (state === "open") this.#onOpen();
    else if (state === "missing") this.#onMissing();
    else this.#setState(state);
  }

  #onOpen() {
    this.#signals.note("open", "attached", "at the start of the log");
    this.#setState("streaming");
  }

  #onAway({ cause }) {
    const where = `after ${plural(this.records, "record")}`;
    this.#signals.rail.flag("cut", `left ${where}`);
    this.#signals.note("cut", cause === "cut" ? "cut" : "left", where);
    const label = `${AWAY_STATES[cause]} · ${count(this.records)}`;
    if (cause !== "drain") this.#hooks.onSeam?.("cut", label);
    this.#setState(AWAY_STATES[cause]);
  }

  #onResumed({ from, cause }) {
    clearInterval(this.#countdown);
    this.resumes += 1;
    this.#showResumed(from);
    this.#signals.note("resume", "resumed", `from ${from}: ${CAUSES[cause]}`);
    this.#signals.warn("");
    this.#setState("streaming");
  }

  #onMissing() {
    this.#signals.warn("The server does not know this stream (any more). Start a new one.");
    this.#setState("missing");
  }

  #setState(state) {
    const pill = this.#signals.state;
    pill.dataset.state = state;
    setText(pill, state);
    this.#hooks.onState(state);
  }

  #draw() {
    setText(this.#signals.records, count(this.records));
    setText(this.#signals.offset, this.lastEventId ?? "–");
  }
}

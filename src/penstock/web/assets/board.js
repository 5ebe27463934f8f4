// Board: several models answer one question, side by side, over one stream.
//
// One stream and not one a model, because a tab has few connections: each record names its model,
// and the column is chosen here. Columns appear in the order in which the models first speak.

import { announce, count, duration, el, onFrame, plural, setText } from "./dom.js";
import { Follower } from "./follower.js";
import { Markdown } from "./format.js";
import { post } from "./stream.js";

const PREFIX = "demo/board/";
const COLOURS = 3; // of the stylesheet; a fourth model shares the first one's

/** One model's answer. */
class Column {
  text = "";
  records = 0;
  state = "waiting";
  #pending = "";
  #first_ms = null;
  #usage = null;
  #body;
  #prose;
  #pill = el("span", { class: "state", "data-state": "waiting", text: "waiting" });
  #facts = el("p", { class: "column-facts" });

  constructor(model, index) {
    this.model = model;
    this.colour = `model-${index % COLOURS}`;
    this.#body = el("div", { class: "prose", testid: `board-text-${model}`, "aria-busy": "true" });
    this.#prose = new Markdown(this.#body);
    const label = `Answer of ${model}`;
    this.element = el(
      "article",
      { class: `column ${this.colour}`, testid: `board-column-${model}`, "aria-label": label },
      el("header", {}, el("h3", { text: model }), this.#pill),
      this.#facts,
      this.#body,
    );
  }

  /** `elapsed_ms` since the question, or null where this tab did not ask it just now. */
  take(type, data, elapsed_ms) {
    this.records += 1;
    if (type === "start") this.#setState("thinking");
    else if (type === "text") this.#say(data.text, elapsed_ms);
    else if (type === "usage") this.#usage = data;
    else if (type === "stop") this.#finish("complete");
    else if (type === "failure") this.#fail(data.message);
  }

  draw() {
    if (this.#pending !== "") {
      this.#prose.append(this.#pending);
      this.#pending = "";
    }
    const parts = [];
    if (this.#first_ms !== null) parts.push(`first text ${duration(this.#first_ms)}`);
    // Some providers begin with a count of one, and say the whole at the end.
    const isWhole = this.state === "complete" && this.#usage?.output_tokens > 0;
    if (isWhole) parts.push(plural(this.#usage.output_tokens, "token"));
    else if (this.records > 0) parts.push(plural(this.records, "record"));
    setText(this.#facts, parts.join(" · "));
  }

  /** The stream has ended: with `reason`, unless this model had finished by itself. */
  end(reason) {
    if (this.state !== "complete" && this.state !== "failed") this.#finish(reason);
  }

  #say(text, elapsed_ms) {
    if (this.text === "") this.#first_ms = elapsed_ms;
    if (this.state !== "streaming") this.#setState("streaming");
    this.text += text;
    this.#pending += text;
  }

  #fail(message) {
    this.#body.after(el("p", { class: "notice", text: `This model failed: ${message}` }));
    this.#finish("failed");
  }

  #finish(state) {
    this.#setState(state);
    this.draw();
    this.#prose.finish();
    this.#body.setAttribute("aria-busy", "false");
  }

  #setState(state) {
    this.state = state;
    this.#pill.dataset.state = state;
    setText(this.#pill, state);
  }
}

export class Board {
  /** Columns by model. */
  columns = new Map();

  #id = null;
  #section;
  #follower;
  #grid;
  #askedAt_ms = null;
  #find;
  #paint = onFrame(() => this.#draw());

  constructor(section, telemetry) {
    this.#section = section;
    this.#find = (name) => section.querySelector(`[data-testid="board-${name}"]`);
    this.#grid = this.#find("grid");
    this.#follower = new Follower(section, "board", {
      onRecord: (type, data) => this.#onRecord(type, data),
      onState: (state) => this.#onState(state),
      onEnd: (reason) => this.#onEnd(reason),
    }, telemetry);
    const form = section.querySelector("form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send(this.#find("prompt").value.trim());
    });
    this.#find("stop").addEventListener("click", () => this.#stop());
  }

  get state() {
    return this.#follower.state;
  }

  get lastEventId() {
    return this.#follower.lastEventId;
  }

  get records() {
    return this.#follower.records;
  }

  /** Exactly the text deltas of each model, joined: `{model: text}`. */
  get texts() {
    return Object.fromEntries([...this.columns].map(([model, { text }]) => [model, text]));
  }

  show(id) {
    if (id !== null && id !== this.#id) {
      this.#follow(`${PREFIX}${id}`, `/v1/stream/${PREFIX}${encodeURIComponent(id)}`, false);
    } else {
      this.#follower.show();
    }
    return this.#id;
  }

  hide() {
    this.#follower.hide();
  }

  async #send(prompt) {
    if (prompt === "") {
      this.#find("prompt").focus();
      return;
    }
    const send = this.#find("send");
    send.disabled = true;
    const askedAt_ms = performance.now();
    try {
      const { stream, url } = await post("/demo/board", { prompt });
      this.#follow(stream, url, true);
      this.#askedAt_ms = askedAt_ms;
      location.hash = `board=${this.#id}`;
      this.#find("prompt").value = "";
      announce("The models are answering");
    } catch (error) {
      this.#follower.warn(`Not sent: ${error.message}`);
    } finally {
      send.disabled = false;
    }
  }

  async #stop() {
    this.#find("stop").disabled = true;
    try {
      await this.#follower.stop();
    } catch (error) {
      this.#follower.warn(`Not stopped: ${error.message}`);
      this.#find("stop").disabled = false;
    }
  }

  #follow(stream, url, isNew) {
    this.#id = stream.slice(PREFIX.length);
    this.#askedAt_ms = null;
    this.columns.clear();
    this.#grid.replaceChildren();
    this.#section.classList.add("has-stream");
    setText(this.#find("question"), "");
    this.#follower.follow(stream, url, isNew);
  }

  #onRecord(type, data) {
    this.#paint();
    if (type === "prompt") {
      setText(this.#find("question"), data.text);
      return "live";
    }
    if (data.model === undefined) {
      if (type === "failure") this.#follower.warn(`The board failed: ${data.message}`);
      return "live";
    }
    const elapsed_ms = this.#askedAt_ms === null ? null : performance.now() - this.#askedAt_ms;
    const column = this.#column(data.model);
    column.take(type, data, elapsed_ms);
    return column.colour;
  }

  #column(model) {
    const known = this.columns.get(model);
    if (known !== undefined) return known;
    const column = new Column(model, this.columns.size);
    this.columns.set(model, column);
    this.#grid.append(column.element);
    return column;
  }

  #onEnd(reason) {
    for (const column of this.columns.values()) column.end(reason);
    this.#paint.flush();
  }

  #onState(state) {
    this.#find("stop").disabled = !(this.#follower?.isRunning ?? false);
    this.#section.dataset.state = state;
  }

  #draw() {
    const follow = this.#follower.followTail();
    for (const column of this.columns.values()) column.draw();
    setText(this.#find("counts"), `${count(this.columns.size)} models, one connection`);
    follow();
  }
}

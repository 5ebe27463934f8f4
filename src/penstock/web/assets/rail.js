// The log as a thin pipe, and this tab's cursor in it.
//
// Records fill the pipe from the left in the colour of their kind (read again, live, one of three
// voices, one of three models); a flag marks where this tab joined, reloaded or was cut off. Runs
// of one kind are one rectangle, and a growing log changes one transform, so a record costs no
// more at the end of a long stream than at its start. A running log leaves room ahead of its
// cursor; a whole one fills the pipe.

import { el, onFrame, plural, svg } from "./dom.js";

const WIDTH = 1000; // user units of the drawing: only proportions matter
const MIN_CAPACITY = 64; // records: a short log does not look long
const FILL = 0.86;

export class Rail {
  #runs = svg("g");
  #cursor = el("span", { class: "rail-cursor" });
  #flags = [];
  #root;
  #last = null;
  #count = 0;
  #isWhole = false;
  #paint = onFrame(() => this.#draw());

  constructor() {
    const pipe = svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", "aria-hidden": "true" },
      this.#runs,
    );
    const body = el("div", { class: "rail-pipe" }, pipe);
    this.#root = el("div", { class: "rail", role: "img" }, body, this.#cursor);
    this.reset();
  }

  get element() {
    return this.#root;
  }

  reset() {
    this.#runs.replaceChildren();
    for (const { node } of this.#flags) node.remove();
    this.#flags = [];
    this.#last = null;
    this.#count = 0;
    this.#isWhole = false;
    this.#root.classList.remove("is-whole");
    this.#draw();
  }

  /** One more record of this kind: a class name of the stylesheet, without its `run-`. */
  add(kind) {
    if (this.#last?.kind !== kind) {
      this.#last?.node.setAttribute("width", this.#count - this.#last.from);
      const attributes = { class: `run-${kind}`, x: this.#count, y: 0, height: 10, width: 0 };
      const node = svg("rect", attributes);
      this.#runs.append(node);
      this.#last = { kind, node, from: this.#count };
    }
    this.#count += 1;
    this.#paint();
  }

  /** A flag at the present end. */
  flag(kind, title) {
    const node = el("span", { class: `rail-flag flag-${kind}`, title });
    this.#root.append(node);
    this.#flags.push({ node, at: this.#count });
    this.#paint();
  }

  /** The log is whole: it fills its pipe. */
  finish() {
    this.#isWhole = true;
    this.#root.classList.add("is-whole");
    this.#paint.flush();
  }

  #draw() {
    const running = Math.max(MIN_CAPACITY, this.#count / FILL);
    const capacity = this.#isWhole ? Math.max(1, this.#count) : running;
    this.#last?.node.setAttribute("width", this.#count - this.#last.from);
    this.#runs.style.transform = `scaleX(${WIDTH / capacity})`;
    this.#cursor.style.left = `${(100 * this.#count) / capacity}%`;
    for (const { node, at } of this.#flags) node.style.left = `${(100 * at) / capacity}%`;
    const end = this.#isWhole ? ", whole" : "";
    this.#root.setAttribute("aria-label", `cursor after ${plural(this.#count, "record")}${end}`);
  }
}

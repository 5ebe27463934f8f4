// Arena: three agents speak in turn, and one broadcast carries them to every watcher.
//
// One log, many cursors: whoever comes late reads the same turns from the first one on. This part
// draws turns; who joins when is the follower's business.

import { announce, count, el, onFrame, plural, setText } from "./dom.js";
import { Follower } from "./follower.js";
import { Markdown } from "./format.js";
import { post } from "./stream.js";

const STREAM = "demo/arena";
const URL_PATH = `/v1/stream/${STREAM}`;
const VOICES = { Aggressor: "aggressor", Defender: "defender", Moderator: "moderator" };

function wordsOf(text) {
  return text.match(/\S+/g)?.length ?? 0;
}

/** One speaker's turn: its words and where they are drawn. */
class Turn {
  text = "";
  words = 0;
  #pending = "";
  #prose;
  #body = el("div", { class: "prose" });

  constructor(speaker, number) {
    this.speaker = speaker;
    this.number = number;
    this.voice = VOICES[speaker] ?? "moderator";
    this.#prose = new Markdown(this.#body);
    const name = el("b", { text: speaker });
    const place = el("span", { class: "turn-number", text: `turn ${number}` });
    const label = `${speaker}, turn ${number}`;
    this.element = el(
      "article",
      { class: `turn voice-${this.voice}`, "aria-busy": "true", "aria-label": label },
      el("span", { class: "disc", "aria-hidden": "true", text: speaker[0] }),
      el("header", {}, name, place),
      this.#body,
    );
  }

  add(text) {
    const before = this.text.slice(-1); // a word may go on across two deltas
    this.words += wordsOf(before + text) - wordsOf(before);
    this.text += text;
    this.#pending += text;
  }

  draw() {
    if (this.#pending === "") return;
    this.#prose.append(this.#pending);
    this.#pending = "";
  }

  finish() {
    this.draw();
    this.#prose.finish();
    this.element.setAttribute("aria-busy", "false");
  }
}

export class Arena {
  turns = [];

  #section;
  #follower;
  #log;
  #seats;
  #isJoined = false;
  #paint = onFrame(() => this.#draw());

  constructor(section, telemetry) {
    this.#section = section;
    this.#log = section.querySelector('[data-testid="arena-log"]');
    this.#seats = [...section.querySelectorAll("[data-speaker]")];
    this.#follower = new Follower(section, "arena", {
      onRecord: (type, data) => this.#onRecord(type, data),
      onState: (state) => this.#onState(state),
      onEnd: () => this.#onEnd(),
      onSeam: (kind, label) => this.#onSeam(kind, label),
    }, telemetry);
    this.#button("start").addEventListener("click", () => this.#start());
    this.#button("stop").addEventListener("click", () => this.#stop());
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

  /** All that was said, turn by turn. */
  get text() {
    return this.turns.map(({ speaker, text }) => `${speaker}: ${text}`).join("\n");
  }

  /** `live` attaches to the running debate; work is only ever started by the button. */
  show(place) {
    if (place === "live" && !this.#isJoined) this.#follow(false);
    else this.#follower.show();
    return this.#isJoined ? "live" : null;
  }

  hide() {
    this.#follower.hide();
  }

  #button(name) {
    return this.#section.querySelector(`[data-testid="arena-${name}"]`);
  }

  async #start() {
    this.#button("start").disabled = true;
    try {
      const { isNew } = await post("/demo/arena", {});
      const following = this.#follow(isNew);
      location.replace("#arena=live");
      await following;
      announce(isNew ? "The debate has begun" : "You joined the debate");
    } catch (error) {
      this.#follower.warn(`Not joined: ${error.message}`);
      this.#button("start").disabled = false;
    }
  }

  async #stop() {
    this.#button("stop").disabled = true;
    try {
      await this.#follower.stop();
    } catch (error) {
      this.#follower.warn(`Not stopped: ${error.message}`);
      this.#button("stop").disabled = false;
    }
  }

  #follow(isNew) {
    this.#isJoined = true;
    this.turns = [];
    this.#log.replaceChildren();
    this.#section.classList.add("has-stream");
    this.#paint();
    return this.#follower.follow(STREAM, URL_PATH, isNew);
  }

  #onRecord(type, data) {
    let turn = this.turns.at(-1);
    if (type === "turn") turn = this.#open(data.speaker, data.turn + 1);
    else if (type === "text") {
      if (turn?.speaker !== data.speaker) turn = this.#open(data.speaker, this.turns.length + 1);
      turn.add(data.text);
    } else if (type === "stop") turn?.finish();
    else if (type === "failure") this.#follower.warn(`The debate failed: ${data.message}`);
    this.#paint();
    return turn?.voice ?? "live";
  }

  #open(speaker, number) {
    this.turns.at(-1)?.finish();
    const turn = new Turn(speaker, number);
    this.turns.push(turn);
    this.#log.append(turn.element);
    return turn;
  }

  #onSeam(kind, label) {
    this.#log.append(el("p", { class: `divider divider-${kind}`, text: label }));
  }

  #onEnd() {
    this.turns.at(-1)?.finish();
    this.#paint.flush();
  }

  #onState(state) {
    const isRunning = this.#follower?.isRunning ?? false;
    this.#button("start").disabled = isRunning;
    if (this.#isJoined) setText(this.#button("start"), isRunning ? "Joined" : "Start a new debate");
    this.#button("stop").disabled = !isRunning;
    this.#section.dataset.state = state;
  }

  #draw() {
    const follow = this.#follower.followTail();
    const last = this.turns.at(-1);
    last?.draw();
    const speaking = this.#follower.isRunning ? last?.speaker : null;
    for (const seat of this.#seats) {
      const own = this.turns.filter(({ speaker }) => speaker === seat.dataset.speaker);
      const words = own.reduce((sum, turn) => sum + turn.words, 0);
      seat.classList.toggle("is-speaking", seat.dataset.speaker === speaking);
      const spoken = `${plural(own.length, "turn")}, ${count(words)} words`;
      setText(seat.querySelector("[data-said]"), own.length === 0 ? "waiting" : spoken);
    }
    follow();
  }
}

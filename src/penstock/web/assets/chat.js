// Chat: one question, one answer, one stream.
//
// The answer lives in the stream, not in this page: the address bar names it, and a reload or a
// second tab reads it from its first record. What this part adds to a follower is the form, the
// prose, the thinking, and a way to check the page against the log.

import { announce, count, duration, el, onFrame, plural, setText } from "./dom.js";
import { Follower } from "./follower.js";
import { Markdown } from "./format.js";
import { Reader, post } from "./stream.js";

/** Long enough to see the text stand still, short enough not to bore. */
const CUT_MS = 1_500;
const PREFIX = "demo/chat/";

/** The text of a stream, read from its first record to its end. */
function readWhole(url) {
  return new Promise((resolve, reject) => {
    let text = "";
    const reader = new Reader(url, {
      record: (type, data) => {
        if (type === "text") text += data.text;
      },
      control: (type) => {
        if (type === "end") resolve(text);
      },
      connection: (state) => {
        if (state === "missing") reject(new Error("the stream is gone"));
      },
    });
    reader.open();
  });
}

export class Chat {
  /** Exactly the text deltas of the answer, joined. */
  text = "";

  #id = null;
  #section;
  #prose;
  #follower;
  #pending = "";
  #thinking = "";
  #askedAt_ms = null;
  #firstText_ms = null;
  #usage = null;
  #find;
  #paint = onFrame(() => this.#draw());

  constructor(section, telemetry) {
    this.#section = section;
    this.#find = (name) => section.querySelector(`[data-testid="chat-${name}"]`);
    this.#prose = new Markdown(this.#find("answer"));
    this.#follower = new Follower(section, "chat", {
      onRecord: (type, data) => this.#onRecord(type, data),
      onState: (state) => this.#onState(state),
      onEnd: () => this.#onEnd(),
      onSeam: (kind, label) => this.#onSeam(kind, label),
    }, telemetry);
    this.#bind();
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

  get resumes() {
    return this.#follower.resumes;
  }

  /** Shows the chat of this id, or the one that was open; returns the id now shown. */
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

  #bind() {
    const prompt = this.#find("prompt");
    const form = this.#section.querySelector("form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send(prompt.value.trim());
    });
    prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    for (const example of this.#section.querySelectorAll("[data-example]")) {
      example.addEventListener("click", () => {
        prompt.value = example.textContent;
        prompt.focus();
      });
    }
    this.#find("stop").addEventListener("click", () => this.#stop());
    this.#find("cut").addEventListener("click", () => this.#follower.cut(CUT_MS));
    this.#find("verify").addEventListener("click", () => this.#verify());
    this.#find("plain").addEventListener("change", (event) => {
      this.#find("answer").classList.toggle("is-plain", event.target.checked);
    });
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
      const { stream, url } = await post("/demo/chat", { prompt });
      this.#follow(stream, url, true);
      this.#askedAt_ms = askedAt_ms;
      location.hash = `chat=${this.#id}`;
      this.#find("prompt").value = "";
      announce("The answer is streaming");
    } catch (error) {
      this.#follower.warn(`Not sent: ${error.message}`);
    } finally {
      send.disabled = false;
    }
  }

  #follow(stream, url, isNew) {
    this.#id = stream.slice(PREFIX.length);
    this.text = "";
    this.#pending = "";
    this.#thinking = "";
    this.#askedAt_ms = null;
    this.#firstText_ms = null;
    this.#usage = null;
    this.#prose = new Markdown(this.#find("answer"));
    this.#section.classList.add("has-stream");
    setText(this.#find("question"), "");
    this.#section.querySelector("[data-thinking]").hidden = true;
    setText(this.#find("reasoning"), "");
    setText(this.#find("verdict"), "");
    setText(this.#find("model"), "");
    this.#find("second-tab").href = `#chat=${this.#id}`;
    this.#follower.follow(stream, url, isNew);
    this.#paint();
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

  async #verify() {
    const verdict = this.#find("verdict");
    setText(verdict, "reading the log again …");
    try {
      const whole = await readWhole(this.#follower.url);
      const isSame = whole === this.text;
      verdict.dataset.same = String(isSame);
      setText(
        verdict,
        isSame
          ? `Identical: ${plural(whole.length, "character")}, none lost, none twice.`
          : `Different: ${plural(whole.length, "character")} there, ${count(this.text.length)} here.`,
      );
    } catch (error) {
      setText(verdict, `Could not read it again: ${error.message}`);
    }
  }

  #onRecord(type, data) {
    if (type === "prompt") setText(this.#find("question"), data.text);
    else if (type === "start") setText(this.#find("model"), data.model ?? "");
    else if (type === "text") this.#onText(data.text);
    else if (type === "reasoning") this.#thinking += data.text;
    else if (type === "usage") this.#usage = data;
    else if (type === "failure") this.#follower.warn(`The upstream failed: ${data.message}`);
    this.#paint();
    if (type === "reasoning") return "thought";
    return this.#follower.isReplaying ? "replay" : "live";
  }

  #onText(text) {
    if (this.#firstText_ms === null && this.#askedAt_ms !== null) {
      this.#firstText_ms = performance.now() - this.#askedAt_ms;
    }
    this.text += text;
    this.#pending += text;
  }

  #onSeam(kind, label) {
    this.#paint.flush();
    this.#prose.mark(el("i", { class: `seam seam-${kind}`, "data-label": label, title: label }));
  }

  #onEnd() {
    this.#paint.flush();
    this.#prose.finish();
    setText(this.#find("reasoning"), this.#thinking);
  }

  #onState(state) {
    const isRunning = this.#follower?.isRunning ?? false;
    this.#find("answer").setAttribute("aria-busy", String(isRunning));
    this.#find("stop").disabled = !isRunning;
    this.#find("cut").disabled = state !== "streaming";
    this.#find("verify").disabled = isRunning || state === "missing";
    this.#section.dataset.state = state;
  }

  #draw() {
    const follow = this.#follower.followTail();
    if (this.#pending !== "") {
      this.#prose.append(this.#pending);
      this.#pending = "";
    }
    this.#drawThinking();
    setText(this.#find("counts"), this.#summary());
    follow();
  }

  #drawThinking() {
    if (this.#thinking === "") return;
    this.#section.querySelector("[data-thinking]").hidden = false;
    const box = this.#find("reasoning");
    const shown = box.firstChild?.length ?? 0;
    if (shown < this.#thinking.length) box.append(this.#thinking.slice(shown));
    box.normalize();
  }

  #summary() {
    const parts = [plural(this.text.length, "character")];
    if (this.#firstText_ms !== null) parts.push(`first text after ${duration(this.#firstText_ms)}`);
    // Some providers begin with a count of one, and say the whole at the end.
    const isWhole = !this.#follower.isRunning && this.#usage?.output_tokens > 0;
    if (isWhole) parts.push(plural(this.#usage.output_tokens, "token"));
    return parts.join(" · ");
  }
}

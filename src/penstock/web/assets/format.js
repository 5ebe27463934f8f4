// Streaming text as calm prose: a small, safe subset of Markdown that grows with its stream.
//
// Three rules hold this file together. Text only ever becomes text nodes. Every character of the
// source stays in the document, so that `textContent` is the stream's text exactly: markers such as
// `**` sit in spans that the stylesheet hides, and the plain view is the same nodes with those
// spans shown. And the cost is linear: finished lines are never looked at again; of the line being
// written only what follows the last open marker is drawn anew.
//
// Known: paragraphs, headings, list items, rules, fenced code, **bold**, *emphasis* and `code`.
// Anything else is shown as it was written.

import { el } from "./dom.js";

const FENCE = /^ {0,3}```\s*([\w+#.-]*)[^`]*$/;
const FENCE_END = /^ {0,3}```\s*$/;
const HEADING = /^(#{1,6})\s+(?=\S)/;
const RULE = /^\s*(?:-{3,}|\*{3,}|_{3,})\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,3}[.)])\s+(?=\S)/;
/** The beginning of a line that may yet become any of the above: too early to draw. */
const UNDECIDED = /^\s*(?:#{1,6}|\++|-+|\*+|_+|\d{1,3}[.)]?|`{1,2}|```[^\n]*)?\s*$/;
const FENCE_BEGUN = /^ {0,3}`{0,3}\s*$/;
const INLINE = /(\*\*)(\S(?:.*?\S)?)\*\*|(?<!\*)(\*)([^\s*](?:[^*]*[^\s*])?)\*(?!\*)|(`)([^`]+)`/g;
const OPENING = /\*\*|`|\*(?:[^\s*]|$)/;
const TAGS = { "**": "strong", "*": "em", "`": "code" };
/** An opening marker without its end within so many characters was only punctuation. */
const MAX_OPEN_CHARS = 600;
/** A text node takes no more: adding to one copies it. */
const MAX_NODE_CHARS = 1_000;

/** A source character that the rich view hides and the plain view shows. */
function marker(source) {
  return el("span", { class: "md", text: source });
}

function appendText(parent, text) {
  if (text === "") return;
  const last = parent.lastChild;
  if (last instanceof Text && last.length < MAX_NODE_CHARS) last.appendData(text);
  else parent.append(text);
}

/** Draws `text` into `parent`; returns how many characters are settled for good. */
function drawInline(parent, text, isWhole) {
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    const isOpenEnded = match[3] !== undefined && match.index + match[0].length === text.length;
    if (isOpenEnded && !isWhole) break; // the next piece may begin with the second `*` of `**`
    appendText(parent, text.slice(at, match.index));
    const fence = match[1] ?? match[3] ?? match[5];
    const inner = match[2] ?? match[4] ?? match[6];
    const body = el(TAGS[fence]);
    if (fence === "`") body.append(inner);
    else drawInline(body, inner, true);
    parent.append(marker(fence), body, marker(fence));
    at = match.index + match[0].length;
  }
  const rest = text.slice(at);
  const opening = isWhole ? -1 : rest.search(OPENING);
  const isHeld = opening >= 0 && rest.length - opening <= MAX_OPEN_CHARS;
  const settled = isHeld ? opening : rest.length;
  appendText(parent, rest.slice(0, settled));
  return at + settled;
}

/** An unfinished `**bold` or `` `code ``, drawn as what it will most likely become. */
function guess(held) {
  const fence = held.startsWith("**") ? "**" : held[0];
  const body = held.slice(fence.length);
  if (body === "") return [marker(held)];
  const trailing = fence === "**" && body.endsWith("*") ? "*" : "";
  const inner = body.slice(0, body.length - trailing.length);
  const node = el(TAGS[fence], { text: inner });
  return trailing === "" ? [marker(fence), node] : [marker(fence), node, marker(trailing)];
}

/** Grows `root` with a stream's text. Call `append` with each piece, `finish` at the end. */
export class Markdown {
  #root;
  #block = null; // the element that takes the next character; null between blocks
  #kind = ""; // "p", "li", "h", "pre" or "" for none
  #line = ""; // what of the current line is not settled
  #isLineStart = true;
  #provisional = [];

  constructor(root) {
    this.#root = root;
    root.replaceChildren();
  }

  append(text) {
    this.#withdraw();
    this.#line += text;
    for (let at = this.#line.indexOf("\n"); at >= 0; at = this.#line.indexOf("\n")) {
      const line = this.#line.slice(0, at);
      this.#line = this.#line.slice(at + 1);
      this.#settle(line, "\n");
      this.#isLineStart = true;
    }
    this.#drawPartial();
  }

  finish() {
    this.#withdraw();
    const line = this.#line;
    this.#line = "";
    if (line !== "") this.#settle(line, "");
  }

  /** Puts a mark without text at the present end: a seam that moves with the words around it. */
  mark(node) {
    this.#withdraw();
    (this.#block ?? this.#root).append(node);
    this.#drawPartial();
  }

  #withdraw() {
    for (const node of this.#provisional) node.remove();
    this.#provisional = [];
  }

  #propose(parent, nodes) {
    parent.append(...nodes);
    this.#provisional = nodes;
  }

  #settle(line, newline) {
    if (this.#kind === "pre") {
      this.#settleCode(line, newline);
    } else if (this.#isLineStart && line.trim() === "") {
      this.#root.append(marker(line + newline));
      this.#close();
    } else if (this.#isLineStart && FENCE.test(line) && newline !== "") {
      this.#openFence(line, newline);
    } else {
      const rest = this.#isLineStart ? this.#openLine(line) : line;
      drawInline(this.#block, rest, true);
      appendText(this.#block, newline);
      if (this.#kind === "h") this.#close();
    }
  }

  #settleCode(line, newline) {
    if (this.#isLineStart && FENCE_END.test(line)) {
      this.#block.parentElement.append(marker(line + newline));
      this.#close();
    } else {
      appendText(this.#block, line + newline);
    }
  }

  #drawPartial() {
    const line = this.#line;
    if (line === "") return;
    if (this.#isLineStart) {
      const undecided = this.#kind === "pre" ? FENCE_BEGUN : UNDECIDED;
      if (line.length <= MAX_OPEN_CHARS && undecided.test(line)) {
        this.#propose(this.#block ?? this.#root, [marker(line)]);
        return;
      }
      if (this.#kind !== "pre") this.#line = this.#openLine(line);
      this.#isLineStart = false;
    }
    if (this.#kind === "pre") {
      appendText(this.#block, this.#line);
      this.#line = "";
      return;
    }
    this.#line = this.#line.slice(drawInline(this.#block, this.#line, false));
    if (this.#line !== "") this.#propose(this.#block, guess(this.#line));
  }

  /** Chooses the block of a new line, takes its prefix, and returns what follows it. */
  #openLine(line) {
    const heading = HEADING.exec(line);
    if (heading) {
      const attributes = { class: `h h${heading[1].length}` };
      return this.#open("h", el("p", attributes), heading[0], line);
    }
    if (RULE.test(line)) return this.#open("h", el("p", { class: "rule" }), line, line);
    const item = ITEM.exec(line);
    if (item) {
      const isNumbered = /\d/.test(item[2]);
      const depth = Math.min(3, Math.floor(item[1].length / 2));
      const attributes = { class: `li d${depth}`, "data-marker": isNumbered ? item[2] : "•" };
      return this.#open("li", el("p", attributes), item[0], line);
    }
    if (this.#kind === "li" || this.#kind === "p") {
      const indent = /^\s*/.exec(line)[0];
      if (indent !== "") this.#block.append(marker(indent));
      return line.slice(indent.length);
    }
    return this.#open("p", el("p"), "", line);
  }

  #open(kind, block, prefix, line) {
    this.#kind = kind;
    this.#block = block;
    if (prefix !== "") block.append(marker(prefix));
    this.#root.append(block);
    return line.slice(prefix.length);
  }

  #openFence(line, newline) {
    const language = FENCE.exec(line)[1];
    const code = el("code");
    const attributes = { "data-language": language, tabindex: "0" };
    this.#root.append(el("pre", attributes, marker(line + newline), code));
    this.#kind = "pre";
    this.#block = code;
  }

  #close() {
    this.#kind = "";
    this.#block = null;
  }
}

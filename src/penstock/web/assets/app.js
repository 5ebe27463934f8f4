// The page: four parts, one address, one stream at a time.
//
// The part on screen is named by the hash (`#chat=<id>`, `#arena=live`, `#board=<id>`, `#panel`),
// so that a reload, a second tab and the back button are all the same thing: reading a log.
// Leaving a part lets go of its connection and keeps its place.

import { Arena } from "./arena.js";
import { Board } from "./board.js";
import { Chat } from "./chat.js";
import { setText } from "./dom.js";
import { Panel } from "./panel.js";
import { Telemetry } from "./telemetry.js";

const UPSTREAMS = {
  recorded: "recorded answers",
  openai: "OpenAI",
  anthropic: "Anthropic",
  ollama: "Ollama",
};
const TITLES = { chat: "Chat", arena: "Arena", board: "Board", panel: "Live" };

const telemetry = new Telemetry();
const section = (name) => document.getElementById(`part-${name}`);
const parts = {
  chat: new Chat(section("chat"), telemetry),
  arena: new Arena(section("arena"), telemetry),
  board: new Board(section("board"), telemetry),
  panel: new Panel(section("panel"), telemetry),
};
let shown = null;

/** `#chat=abc` as `["chat", "abc"]`; anything unknown is the chat. */
function place() {
  const [name, ...rest] = location.hash.slice(1).split("=");
  const argument = rest.length === 0 ? null : decodeURIComponent(rest.join("="));
  return name in parts ? [name, argument] : ["chat", null];
}

function route() {
  const [name, argument] = place();
  if (shown !== name) {
    if (shown !== null) parts[shown].hide();
    for (const other of Object.keys(parts)) {
      const isShown = other === name;
      section(other).hidden = !isShown;
      const link = document.querySelector(`[data-testid="nav-${other}"]`);
      if (isShown) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = `${TITLES[name]} – Penstock`;
    if (shown !== null) scrollTo({ top: 0, behavior: "instant" });
    shown = name;
  }
  const settled = parts[name].show(argument);
  if (settled !== argument && settled !== null) {
    history.replaceState(null, "", `#${name}=${settled}`);
  }
}

async function introduce() {
  const answer = await fetch("/demo/about");
  if (!answer.ok) return;
  const { version, upstream } = await answer.json();
  const kind = UPSTREAMS[upstream.kind] ?? upstream.kind;
  const isNamed = upstream.kind !== "recorded" && upstream.model;
  const said = isNamed ? `${kind} · ${upstream.model}` : kind;
  setText(document.querySelector('[data-testid="upstream"]'), said);
  setText(document.querySelector('[data-testid="version"]'), version);
  document.body.dataset.upstream = upstream.kind;
}

addEventListener("hashchange", route);
route();
introduce();

// What browser tests and the curious may read; nothing on the page depends on it.
window.penstockDemo = parts;

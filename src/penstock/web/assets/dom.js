// Making elements and painting them, safely and once a frame.
//
// Everything on this page that came from a stream becomes a text node: nothing here, or anywhere
// else in the demo, assigns innerHTML. `onFrame` is how a part keeps up with a fast stream: events
// change plain variables, and the screen is touched at most once a frame however many arrived.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element with its attributes and children. `text` becomes text, `testid` becomes
 * `data-testid`; an attribute whose value is null or false is left out.
 */
export function el(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "testid") node.dataset.testid = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children);
  return node;
}

/** Sets text only when it differs, so that an idle page causes no layout and no announcement. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * A function that runs `paint` on the next frame, however often it is called before that.
 * `flush()` paints at once: a stream that has ended is on screen when its state says so.
 */
export function onFrame(paint) {
  let handle = 0;
  const run = () => {
    handle = 0;
    paint();
  };
  const request = () => {
    if (handle === 0) handle = requestAnimationFrame(run);
  };
  request.flush = () => {
    cancelAnimationFrame(handle);
    run();
  };
  return request;
}

/**
 * Keeps the end of the page in sight while it grows, unless the reader has scrolled away from it.
 * Call it before the growth; call what it returns after.
 */
export function followTail(end) {
  const slack_px = 120; // about four lines: a reader this near to the end is following it
  const wasNear = end.getBoundingClientRect().top < innerHeight + slack_px;
  const wasBelow = end.getBoundingClientRect().top > innerHeight - slack_px;
  return () => {
    if (wasNear && wasBelow && end.getBoundingClientRect().top > innerHeight) {
      end.scrollIntoView({ block: "end", behavior: "instant" });
    }
  };
}

/** Speaks one sentence to screen readers, politely. */
export function announce(sentence) {
  setText(document.getElementById("announcer"), sentence);
}

const counts = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 12345 as "12,345". */
export function count(number) {
  return counts.format(number);
}

/** "1 record", "2 records". */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** Milliseconds as a reader wants them: "0.4 ms", "38 ms", "1.24 s". */
export function duration(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

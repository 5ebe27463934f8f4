// Live: what the server says about itself, drawn.
//
// Each number is computed from /metrics and names its metric, so that anybody can check it with
// curl. Counters show their total and, as a line, their rate; the two latencies are quantiles of
// what a histogram gained in the last ten seconds, or of all of it when nothing happened lately.

import { count, duration, el, setText, svg } from "./dom.js";
import { gained, observations, quantile } from "./metrics.js";

const WINDOW_MS = 10_000;
const POINTS = 60;
const NONE = "–";

/** A minute as a line: `null` leaves a hole. */
class Sparkline {
  #line = svg("path", { class: "spark-line" });
  #area = svg("path", { class: "spark-area" });

  constructor(label) {
    this.element = svg(
      "svg",
      {
        class: "spark", viewBox: "0 0 120 32", preserveAspectRatio: "none",
        role: "img", "aria-label": label,
      },
      this.#area,
      this.#line,
    );
  }

  draw(values) {
    const top = Math.max(...values.map((value) => value ?? 0), Number.EPSILON);
    const x = (i) => (120 * (POINTS - values.length + i)) / (POINTS - 1);
    const y = (value) => 29 - (26 * value) / top;
    let line = "";
    let area = "";
    values.forEach((value, i) => {
      if (value === null) return;
      const isFirst = i === 0 || values[i - 1] === null;
      const isLast = i === values.length - 1 || values[i + 1] === null;
      const point = `${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
      line += isFirst ? `M${point}` : `L${point}`;
      area += isFirst ? `M${x(i).toFixed(1)} 32L${point}` : `L${point}`;
      if (isLast) area += `L${x(i).toFixed(1)} 32Z`;
    });
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", area);
  }
}

/** One number: its label, value, remark, line, and the metric that it is. */
class Tile {
  #value;
  #remark;
  #spark;

  constructor({ label, testid, metric, colour }) {
    this.#value = el("output", { testid, text: NONE, "aria-label": label });
    this.#remark = el("p", { class: "remark", testid: `${testid}-remark` });
    this.#spark = new Sparkline(`${label}, last minute`);
    this.element = el(
      "article",
      { class: `tile ${colour}`, "aria-label": label },
      el("h3", { text: label }),
      this.#value,
      this.#remark,
      this.#spark.element,
      el("code", { class: "source", text: metric }),
    );
  }

  /** `raw` is the number itself, in the metric's own unit; `line` the last minute of it. */
  show({ raw, text, remark, line }) {
    setText(this.#value, text);
    this.#value.dataset.value = raw === null ? "" : String(raw);
    setText(this.#remark, remark);
    this.#spark.draw(line);
  }
}

function perSecond(number) {
  return `${number < 10 ? number.toFixed(1) : count(number)}/s`;
}

function bytes(number) {
  const units = ["B", "kB", "MB", "GB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, number)) / 3));
  const scaled = number / 1000 ** step;
  return `${step === 0 ? count(scaled) : scaled.toFixed(1)} ${units[step]}`;
}

/** Pairs such as `[["fast", 2], ["portable", 0]]` as "2 fast · 0 portable". */
function listed(pairs) {
  return pairs.map(([name, value]) => `${count(value)} ${name}`).join(" · ");
}

function gauge(read, remark) {
  return (telemetry) => {
    const raw = read(telemetry.latest.scrape);
    const line = telemetry.history.map(({ scrape }) => read(scrape));
    return { raw, text: count(raw), remark: remark(telemetry.latest.scrape), line };
  };
}

function counter(metric, remark) {
  return (telemetry) => {
    const scrape = telemetry.latest.scrape;
    const raw = scrape.sum(metric);
    const line = ratesOf(telemetry.history, metric);
    return { raw, text: count(raw), remark: remark(rateOver(telemetry, metric), scrape), line };
  };
}

function ratesOf(history, metric) {
  return history.map(({ at_ms, scrape }, i) => {
    if (i === 0) return null;
    const before = history[i - 1];
    const gain = scrape.sum(metric) - before.scrape.sum(metric);
    return gain < 0 ? null : (1000 * gain) / (at_ms - before.at_ms);
  });
}

function rateOver(telemetry, metric) {
  const before = telemetry.before(WINDOW_MS);
  if (before === null) return 0;
  const { at_ms, scrape } = telemetry.latest;
  const gain = scrape.sum(metric) - before.scrape.sum(metric);
  return Math.max(0, (1000 * gain) / (at_ms - before.at_ms));
}

function latency(metric) {
  return (telemetry) => {
    const all = telemetry.latest.scrape.buckets(metric);
    const before = telemetry.before(WINDOW_MS);
    const recent = before === null ? [] : gained(all, before.scrape.buckets(metric));
    const isRecent = observations(recent) > 0;
    const buckets = isRecent ? recent : all;
    const median = quantile(buckets, 0.5);
    if (median === null) {
      return { raw: null, text: NONE, remark: "nothing observed yet", line: [] };
    }
    const p95 = duration(1000 * quantile(buckets, 0.95));
    const span = isRecent ? "last 10 s" : "since the server started";
    const line = mediansOf(telemetry.history, metric);
    const remark = `median, p95 ${p95}, ${span}`;
    return { raw: median, text: duration(1000 * median), remark, line };
  };
}

function mediansOf(history, metric) {
  return history.map(({ scrape }, i) => {
    if (i === 0) return null;
    const before = history[Math.max(0, i - WINDOW_MS / 1000)].scrape;
    const median = quantile(gained(scrape.buckets(metric), before.buckets(metric)), 0.5);
    return median === null ? null : 1000 * median;
  });
}

const fanOut = (rate, scrape) => {
  const appended = scrape.sum("penstock_appended_records_total");
  const ratio = appended === 0 ? 0 : scrape.sum("penstock_delivered_records_total") / appended;
  const size = bytes(scrape.sum("penstock_delivered_bytes_total"));
  return `${perSecond(rate)} · ${size} · ${ratio.toFixed(1)} readers a record`;
};

// How many writes to the store a record costs: groups of appends share one.
const writes = (rate, scrape) => {
  const appended = scrape.sum("penstock_appended_records_total");
  const ratio = appended === 0 ? 0 : scrape.sum("penstock_backend_commits_total") / appended;
  return `${perSecond(rate)} · ${ratio.toFixed(2)} writes a record`;
};

const TILES = [
  {
    label: "Open streams",
    testid: "panel-streams",
    metric: 'penstock_streams{state="running"}',
    colour: "c-water",
    read: gauge(
      (scrape) => scrape.sum("penstock_streams", { state: "running" }),
      (scrape) => {
        const ended = scrape.sum("penstock_streams", { state: "ended" });
        return `${count(ended)} ended and still readable`;
      },
    ),
  },
  {
    label: "Readers",
    testid: "panel-readers",
    metric: "penstock_readers",
    colour: "c-water",
    read: gauge(
      (scrape) => scrape.sum("penstock_readers"),
      (scrape) => listed(scrape.by("penstock_readers", "transport")),
    ),
  },
  {
    label: "Lag of the slowest reader",
    testid: "panel-lag",
    metric: "penstock_reader_lag_records_max",
    colour: "c-warm",
    read: gauge(
      (scrape) => scrape.sum("penstock_reader_lag_records_max"),
      () => "records behind the log’s tail",
    ),
  },
  {
    label: "Time to first token",
    testid: "panel-ttft",
    metric: "penstock_first_record_seconds",
    colour: "c-warm",
    read: latency("penstock_first_record_seconds"),
  },
  {
    label: "Gap between tokens",
    testid: "panel-gap",
    metric: "penstock_record_gap_seconds",
    colour: "c-warm",
    read: latency("penstock_record_gap_seconds"),
  },
  {
    label: "Reader’s first event",
    testid: "panel-first-event",
    metric: "penstock_first_event_seconds",
    colour: "c-warm",
    read: latency("penstock_first_event_seconds"),
  },
  {
    label: "Records appended",
    testid: "panel-appended",
    metric: "penstock_appended_records_total",
    colour: "c-deep",
    read: counter("penstock_appended_records_total", writes),
  },
  {
    label: "Records delivered",
    testid: "panel-delivered",
    metric: "penstock_delivered_records_total",
    colour: "c-deep",
    read: counter("penstock_delivered_records_total", fanOut),
  },
  {
    label: "Resumes",
    testid: "panel-resumes",
    metric: "penstock_resumes_total",
    colour: "c-deep",
    read: counter(
      "penstock_resumes_total",
      (_, scrape) => {
        const outcomes = scrape.by("penstock_resumes_total", "outcome");
        return listed(outcomes.filter(([, total]) => total > 0)) || "nobody had to come back yet";
      },
    ),
  },
];

export class Panel {
  #telemetry;
  #isShown = false;
  #tiles = [];
  #status;
  #ends;
  #raw;

  constructor(section, telemetry) {
    this.#telemetry = telemetry;
    this.#status = section.querySelector('[data-testid="panel-status"]');
    this.#ends = section.querySelector('[data-testid="panel-ends"]');
    this.#raw = section.querySelector("details");
    const grid = section.querySelector('[data-testid="panel-grid"]');
    for (const definition of TILES) {
      const tile = new Tile(definition);
      this.#tiles.push({ tile, read: definition.read });
      grid.append(tile.element);
    }
    this.#raw.addEventListener("toggle", () => this.#drawRaw());
    telemetry.subscribe((latest) => this.#isShown && this.#draw(latest));
  }

  /** The latest scrape's text: what the numbers on screen were computed from. */
  get source() {
    return this.#telemetry.latest?.text ?? "";
  }

  show() {
    this.#isShown = true;
    if (this.#telemetry.latest !== null) this.#draw(this.#telemetry.latest);
    return null;
  }

  hide() {
    this.#isShown = false;
  }

  #draw(latest) {
    this.#status.dataset.state = latest === null ? "reconnecting" : "streaming";
    setText(this.#status, latest === null ? "no answer" : "live");
    if (latest === null) return;
    for (const { tile, read } of this.#tiles) tile.show(read(this.#telemetry));
    this.#drawEnds(latest.scrape);
    this.#drawRaw();
  }

  #drawEnds(scrape) {
    const ends = scrape.by("penstock_stream_ends_total", "reason").filter(([, total]) => total > 0);
    const isFast = scrape.sum("penstock_fast_path_active") > 0;
    const path = isFast ? "The fast path is active." : "The portable path serves.";
    const said = ends.length === 0 ? "No stream has ended yet." : `Streams ended: ${listed(ends)}.`;
    setText(this.#ends, `${said} ${path}`);
  }

  #drawRaw() {
    if (!this.#raw.open) return;
    const lines = this.source.split("\n").filter((line) => line.startsWith("penstock_"));
    setText(this.#raw.querySelector("pre"), lines.join("\n"));
  }
}

// Reading the Prometheus text format, and quantiles of its histograms.
//
// Pure functions over text and numbers: no fetching, no clock, no document. The panel's numbers are
// those of /metrics because they are computed here from its lines and from nothing else.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

function parseNumber(text) {
  if (text === "+Inf" || text === "Inf") return Infinity;
  return text === "-Inf" ? -Infinity : Number(text);
}

function parseLabels(text) {
  const labels = {};
  for (const [, name, value] of (text ?? "").matchAll(LABEL)) {
    labels[name] = value.replace(/\\[n"\\]/g, (escape) => ESCAPES[escape]);
  }
  return labels;
}

/** One scrape: the samples of each metric name. */
export class Scrape {
  #samples = new Map();

  constructor(text) {
    for (const line of text.split("\n")) {
      const match = line.startsWith("#") ? null : LINE.exec(line.trim());
      if (match === null) continue;
      const sample = { labels: parseLabels(match[2]), value: parseNumber(match[3]) };
      const known = this.#samples.get(match[1]);
      if (known === undefined) this.#samples.set(match[1], [sample]);
      else known.push(sample);
    }
  }

  has(name) {
    return this.#samples.has(name);
  }

  /** The sum over all samples whose labels include `where`; 0 where there is none. */
  sum(name, where = {}) {
    let total = 0;
    for (const { labels, value } of this.#samples.get(name) ?? []) {
      const isMeant = Object.entries(where).every(([label, wanted]) => labels[label] === wanted);
      if (isMeant) total += value;
    }
    return total;
  }

  /** The sums by one label's values, as `[value, sum]` pairs, largest first. */
  by(name, label) {
    const sums = new Map();
    for (const { labels, value } of this.#samples.get(name) ?? []) {
      const key = labels[label] ?? "";
      sums.set(key, (sums.get(key) ?? 0) + value);
    }
    return [...sums].sort((a, b) => b[1] - a[1]);
  }

  /** Cumulative buckets of a histogram over all its label sets, as `[upper bound, count]`. */
  buckets(name) {
    const bounds = this.by(`${name}_bucket`, "le").map(([le, total]) => [parseNumber(le), total]);
    return bounds.sort((a, b) => a[0] - b[0]);
  }
}

/**
 * What a histogram gained between two scrapes. A count that went down is a server that started
 * anew: then the later scrape is all there is.
 */
export function gained(later, earlier) {
  const before = new Map(earlier);
  const isRestart = later.some(([bound, total]) => total < (before.get(bound) ?? 0));
  if (isRestart) return later;
  return later.map(([bound, total]) => [bound, total - (before.get(bound) ?? 0)]);
}

/** Observations in cumulative buckets. */
export function observations(buckets) {
  return buckets.length === 0 ? 0 : buckets[buckets.length - 1][1];
}

/**
 * The `q` quantile in the unit of the buckets, by linear interpolation as Prometheus does it; null
 * without observations. Above the last finite bound that bound is the answer.
 */
export function quantile(buckets, q) {
  const rank = q * observations(buckets);
  if (rank === 0) return null;
  let lower = 0;
  let below = 0;
  for (const [bound, total] of buckets) {
    if (total >= rank) {
      if (bound === Infinity) return lower;
      return lower + ((bound - lower) * (rank - below)) / (total - below);
    }
    lower = bound;
    below = total;
  }
  return lower;
}

export interface ParsedSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
  readonly timeMs: number | undefined;
}

export interface ParsedFamily {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly samples: readonly ParsedSample[];
}

const metricName = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const labelName = "[a-zA-Z_][a-zA-Z0-9_]*";

function parseLabels(text: string, line: string): Record<string, string> {
  const out: Record<string, string> = {};
  const pattern = new RegExp(`(${labelName})="((?:[^"\\\\\\n]|\\\\[\\\\"n])*)"(,|$)`, "y");
  let at = 0;
  let last = "";
  while (at < text.length) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    const [whole = "", name = "", value = "", separator = ""] = match ?? [];
    if (match === null) throw new Error(`labels cannot be read: ${line}`);
    if (name in out) throw new Error(`label ${name} twice: ${line}`);
    const escapes: Record<string, string> = { "\\\\": "\\", '\\"': '"', "\\n": "\n" };
    out[name] = value.replaceAll(/\\[\\"n]/g, (escape) => escapes[escape] ?? escape);
    at += whole.length;
    last = separator;
  }
  if (last === ",") throw new Error(`a comma without a label: ${line}`);
  return out;
}

function parseValue(text: string, line: string): number {
  if (text === "+Inf") return Number.POSITIVE_INFINITY;
  if (text === "-Inf") return Number.NEGATIVE_INFINITY;
  if (text === "NaN") return Number.NaN;
  if (!/^-?\d+(\.\d+)?(e[+-]?\d+)?$/.test(text)) throw new Error(`no number: ${line}`);
  return Number(text);
}

function parseSample(line: string): ParsedSample {
  const match = new RegExp(`^(${metricName})(?:\\{(.*)\\})? (\\S+)(?: (-?\\d+))?$`).exec(line);
  if (match === null) throw new Error(`no sample: ${line}`);
  const [, name = "", labels = "", value = "", time] = match;
  return {
    name,
    labels: parseLabels(labels, line),
    value: parseValue(value, line),
    timeMs: time === undefined ? undefined : Number(time),
  };
}

/** The same text for the same labels in any order. */
function labelKey(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([name, value]) => JSON.stringify([name, value]));
  return pairs.toSorted().join();
}

function seriesOf({ labels, name }: ParsedSample): string {
  return `${name} ${labelKey(labels)}`;
}

function checkHistogram({ name, samples }: ParsedFamily): void {
  const sets = new Map<string, { buckets: [number, number][]; count?: number; sum?: number }>();
  for (const sample of samples) {
    const { le, ...labels } = sample.labels;
    const key = labelKey(labels);
    const set = sets.get(key) ?? { buckets: [] };
    sets.set(key, set);
    if (sample.name === `${name}_bucket` && le !== undefined) {
      set.buckets.push([parseValue(le, name), sample.value]);
    } else if (sample.name === `${name}_count`) set.count = sample.value;
    else if (sample.name === `${name}_sum`) set.sum = sample.value;
    else throw new Error(`${sample.name} is no part of a histogram`);
  }
  for (const { buckets, count, sum } of sets.values()) {
    if (count === undefined || sum === undefined) throw new Error(`${name} is not complete`);
    buckets.forEach(([bound, value], index) => {
      const [before, under] = buckets[index - 1] ?? [Number.NEGATIVE_INFINITY, 0];
      if (bound <= before || value < under) throw new Error(`${name} does not grow`);
    });
    const [bound, value] = buckets.at(-1) ?? [];
    if (bound !== Number.POSITIVE_INFINITY || value !== count) {
      throw new Error(`${name} does not end in all of its observations`);
    }
  }
}

/** Closes a family; throws for what readers of the format refuse or take for something else. */
function check(family: ParsedFamily, seen: Set<string>): void {
  const { name, samples, type } = family;
  if (samples.length === 0) throw new Error(`${name} has no sample`);
  const names = new Set(samples.map((sample) => Object.keys(sample.labels).toSorted().join()));
  if (type !== "histogram" && names.size > 1) throw new Error(`${name} has uneven labels`);
  for (const sample of samples) {
    const series = seriesOf(sample);
    if (seen.has(series)) throw new Error(`twice: ${series}`);
    seen.add(series);
    if (type !== "histogram" && sample.name !== name) {
      throw new Error(`${sample.name} among the samples of ${name}`);
    }
    if (type === "counter" && !(sample.value >= 0)) throw new Error(`${series} is negative`);
  }
  if (type === "histogram") checkHistogram(family);
}

/**
 * A strict parser of the Prometheus text format 0.0.4: each family once, with help and type before its samples, no series
 * twice, the same labels throughout, histograms whole.
 */
export function parsePrometheus(text: string): ReadonlyMap<string, ParsedFamily> {
  const families = new Map<string, ParsedFamily>();
  const seen = new Set<string>();
  let open: { name: string; type: ParsedFamily["type"]; samples: ParsedSample[] } | undefined;
  let help: string | undefined;
  const close = (): void => {
    if (open !== undefined) check(open, seen);
  };
  if (text !== "" && !text.endsWith("\n")) throw new Error("the last line does not end");
  for (const line of text.split("\n").slice(0, -1)) {
    if (line === "") throw new Error("an empty line");
    const [, helped] = new RegExp(`^# HELP (${metricName}) .+$`).exec(line) ?? [];
    if (helped !== undefined) {
      close();
      open = undefined;
      help = helped;
      continue;
    }
    const [, typed, type] =
      new RegExp(`^# TYPE (${metricName}) (counter|gauge|histogram)$`).exec(line) ?? [];
    if (typed !== undefined) {
      if (help !== typed) throw new Error(`${typed} has no help before its type`);
      if (families.has(typed)) throw new Error(`family ${typed} twice`);
      open = { name: typed, type: type as ParsedFamily["type"], samples: [] };
      families.set(typed, open);
      continue;
    }
    if (line.startsWith("#")) throw new Error(`a comment: ${line}`);
    if (open === undefined) throw new Error(`a sample without a family: ${line}`);
    open.samples.push(parseSample(line));
  }
  close();
  return families;
}

/** Values of labels by name; the order of insertion is the order in the text. */
export type Labels = Readonly<Record<string, string>>;

export type MetricType = "counter" | "gauge" | "histogram";

/** Labels as they stand behind a name: `{a="b",c="d"}`, empty without any. */
export function labelText(labels: Labels): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
}

function escapeLabel(value: string): string {
  // Hardly any has something to escape, and pages have thousands of them.
  if (!/["\\\n]/.test(value)) return value;
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

/** A sample's value: infinities have names of their own in this format. */
export function valueText(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return "+Inf";
  return value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value);
}

/** Something that has lines in the Prometheus text format 0.0.4. */
export interface Metric {
  readonly name: string;
  lines(): readonly string[];
}

/** The two lines that stand before the samples of one name. */
export function header(name: string, type: MetricType, help: string): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`];
}

/** A counter or a gauge, one value per set of labels. Without any value it has no lines. */
export class Values implements Metric {
  readonly name: string;
  readonly #type: "counter" | "gauge";
  readonly #help: string;
  readonly #values = new Map<string, number>();

  constructor(name: string, type: "counter" | "gauge", help: string) {
    this.name = name;
    this.#type = type;
    this.#help = help;
  }

  set(value: number, labels: Labels = {}): void {
    this.#values.set(labelText(labels), value);
  }

  add(amount: number, labels: Labels = {}): void {
    const key = labelText(labels);
    this.#values.set(key, (this.#values.get(key) ?? 0) + amount);
  }

  /** Drops one set of labels: what it told about has gone. */
  remove(labels: Labels): void {
    this.#values.delete(labelText(labels));
  }

  /** Drops everything. */
  clear(): void {
    this.#values.clear();
  }

  lines(): readonly string[] {
    if (this.#values.size === 0) return [];
    const samples = [...this.#values].map(
      ([labels, value]) => `${this.name}${labels} ${valueText(value)}`,
    );
    return [...header(this.name, this.#type, this.#help), ...samples];
  }
}

interface Distribution {
  readonly labels: Labels;
  readonly buckets: number[];
  sum: number;
  count: number;
}

/** A histogram with fixed upper bounds. */
export class Histogram implements Metric {
  readonly name: string;
  readonly #help: string;
  readonly #bounds: readonly number[];
  readonly #distributions = new Map<string, Distribution>();

  constructor(name: string, help: string, bounds: readonly number[]) {
    this.name = name;
    this.#help = help;
    this.#bounds = bounds;
  }

  observe(value: number, labels: Labels = {}): void {
    const key = labelText(labels);
    let found = this.#distributions.get(key);
    if (found === undefined) {
      found = { labels, buckets: this.#bounds.map(() => 0), sum: 0, count: 0 };
      this.#distributions.set(key, found);
    }
    const bucket = this.#bounds.findIndex((bound) => value <= bound);
    if (bucket >= 0) found.buckets[bucket] = (found.buckets[bucket] ?? 0) + 1;
    found.sum += value;
    found.count += 1;
  }

  /** Drops one set of labels. */
  remove(labels: Labels): void {
    this.#distributions.delete(labelText(labels));
  }

  lines(): readonly string[] {
    if (this.#distributions.size === 0) return [];
    const lines = header(this.name, "histogram", this.#help);
    for (const { labels, buckets, sum, count } of this.#distributions.values()) {
      let cumulative = 0;
      this.#bounds.forEach((bound, index) => {
        cumulative += buckets[index] ?? 0;
        lines.push(
          `${this.name}_bucket${labelText({ ...labels, le: String(bound) })} ${cumulative}`,
        );
      });
      lines.push(`${this.name}_bucket${labelText({ ...labels, le: "+Inf" })} ${count}`);
      lines.push(`${this.name}_sum${labelText(labels)} ${sum}`);
      lines.push(`${this.name}_count${labelText(labels)} ${count}`);
    }
    return lines;
  }
}

/** The whole exposition; empty without a single sample. */
export function renderMetrics(metrics: Iterable<Metric>): string {
  return [...metrics].flatMap((metric) => metric.lines().map((line) => `${line}\n`)).join("");
}

/** Upper bounds that grow by `factor`. */
export function exponentialBounds(start: number, factor: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) =>
    Number((start * factor ** index).toPrecision(12)),
  );
}

/** The bounds that Prometheus clients have by default, seconds. */
export const defaultBounds: readonly number[] = [
  0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];

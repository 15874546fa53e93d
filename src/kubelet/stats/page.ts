import {
  header,
  type Labels,
  labelText,
  type MetricType,
  valueText,
} from "../../lib/metrics-text.ts";

/** All samples of one name. */
export interface Family {
  /**
   * @param labels As {@link labelText} writes them: thousands of samples share few sets.
   * @param timeMs When the value was measured, milliseconds since the epoch; undefined for now.
   */
  add(labels: string, value: number, timeMs?: number): void;
}

/** A page in the Prometheus text format 0.0.4 whose samples come in any order. */
export class Page {
  readonly #families = new Map<string, { text: string }>();

  family(name: string, type: MetricType, help: string): Family {
    const known = this.#families.get(name);
    const held = known ?? { text: "" };
    if (known === undefined) this.#families.set(name, held);
    const head = `${header(name, type, help).join("\n")}\n`;
    return {
      add(labels, value, timeMs) {
        if (held.text === "") held.text = head;
        const time = timeMs === undefined ? "" : ` ${Math.round(timeMs)}`;
        held.text += `${name}${labels} ${valueText(value)}${time}\n`;
      },
    };
  }

  /** One sample of a name that has no other. */
  single(name: string, type: MetricType, help: string, value: number, labels: Labels = {}): void {
    this.family(name, type, help).add(labelText(labels), value);
  }

  /** Names in alphabetical order; those without a sample are left out. */
  text(): string {
    const names = [...this.#families.keys()].toSorted();
    return names.map((name) => this.#families.get(name)?.text ?? "").join("");
  }
}

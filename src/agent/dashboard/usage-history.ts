import type { UsageSummary } from "../local/types.ts";
import { type UsagePoint, usageSpanSeconds, usageStepSeconds } from "./page/model/messages.ts";

const members = 5;

function valuesOf(usage: UsageSummary): readonly number[] {
  const { cpu, memory, disk, network } = usage;
  return [cpu, memory, disk.used, network.received, network.sent];
}

/** CPU to a thousandth of a core, everything else in whole units: the page shows no more. */
function rounded(value: number, index: number): number {
  return index === 0 ? Math.round(value * 1000) / 1000 : Math.round(value);
}

/** The last hour of the machine's usage in steps of five seconds: at most 720 points, 70 kB. */
export class UsageHistory {
  #points: UsagePoint[] = [];
  #sums: number[] = [];
  #samples = 0;

  /** Adds what was measured at `timeMs`. A clock that was put back begins anew: plots have one direction. */
  add(timeMs: number, usage: UsageSummary): void {
    const time = Math.floor(timeMs / 1000 / usageStepSeconds) * usageStepSeconds;
    const last = this.#points.at(-1)?.[0];
    if (last !== undefined && time < last) this.#points = [];
    if (time === last) this.#points.pop();
    else {
      this.#sums = Array.from({ length: members }, () => 0);
      this.#samples = 0;
    }
    this.#samples += 1;
    this.#sums = valuesOf(usage).map((value, index) => value + (this.#sums[index] ?? 0));
    const [cpu = 0, memory = 0, disk = 0, received = 0, sent = 0] = this.#sums.map((sum, index) =>
      rounded(sum / this.#samples, index),
    );
    this.#points.push([time, cpu, memory, disk, received, sent]);
    const oldest = time - usageSpanSeconds;
    const keep = this.#points.findIndex(([at]) => at > oldest);
    if (keep > 0) this.#points.splice(0, keep);
  }

  /** The points from `time` (seconds) on; all of them without it, and when they are older because time was put back. */
  since(time?: number): readonly UsagePoint[] {
    if (time === undefined || time > (this.#points.at(-1)?.[0] ?? 0)) return this.#points.slice();
    const first = this.#points.findLastIndex(([at]) => at < time) + 1;
    return this.#points.slice(first);
  }
}

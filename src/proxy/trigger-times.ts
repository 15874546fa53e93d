import type { IPFamily } from "../lib/cidr.ts";

interface Trigger {
  readonly family: IPFamily;
  readonly service: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** While nothing can be applied for hours, the oldest changes tell enough. */
const most = 10_000;

/**
 * When pods changed whose change is not in the kernel yet (annotation endpoints.kubernetes.io/last-change-trigger-time):
 * what network programming latency is counted from. A change that comes while rules are being applied is not in them;
 * it counts with the next.
 */
export class TriggerTimes {
  #seen: Trigger[] = [];
  #planned: Trigger[] = [];

  /** An EndpointSlice of `service` follows a change of that time. */
  note(family: IPFamily, service: string, at: number): void {
    if (this.#seen.length < most) this.#seen.push({ family, service, at });
  }

  /** A slice of `service` is gone; the time it carried was that of an earlier change. */
  forget(family: IPFamily, service: string): void {
    this.#seen = this.#seen.filter(
      (trigger) => trigger.family !== family || trigger.service !== service,
    );
  }

  /** What was noted so far is about to be applied. */
  planned(): void {
    if (this.#planned.length < most) this.#planned.push(...this.#seen);
    this.#seen = [];
  }

  /** Times of changes that are in the kernel now. Each is told once. */
  applied(family: IPFamily): readonly number[] {
    const done = this.#planned.filter((trigger) => trigger.family === family);
    this.#planned = this.#planned.filter((trigger) => trigger.family !== family);
    return done.map(({ at }) => at);
  }
}

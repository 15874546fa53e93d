import type { Clock } from "../../lib/clock.ts";

/** Back-off between attempts for one pod, milliseconds: doubling from the first to the second. */
const initialBackoffMs = 1_000;
const maxBackoffMs = 10_000;
/** An unschedulable pod is tried again after this even if no event seemed to help it. */
const unschedulableFlushMs = 5 * 60_000;

interface Entry {
  readonly key: string;
  readonly priority: number;
  /** Order among equals: first come, first served. */
  readonly sequence: number;
  attempts: number;
  /** Monotonic ms of the last failed attempt. */
  failedAt: number;
  state: "active" | "backoff" | "unschedulable";
}

function backoffMs(attempts: number): number {
  return Math.min(initialBackoffMs * 2 ** Math.max(attempts - 1, 0), maxBackoffMs);
}

/**
 * The pods that wait for a node: those to try now, those in back-off, and those that no node fits until something in
 * the cluster changes.
 */
export class SchedulingQueue {
  readonly #entries = new Map<string, Entry>();
  readonly #clock: Clock;
  #sequence = 0;
  #wake = Promise.withResolvers<void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A pod that needs a node; one already here keeps its attempts but is tried again. */
  add(key: string, priority: number): void {
    const known = this.#entries.get(key);
    const sequence = known?.sequence ?? (this.#sequence += 1);
    const attempts = known?.attempts ?? 0;
    const failedAt = known?.failedAt ?? 0;
    this.#entries.set(key, { key, priority, sequence, attempts, failedAt, state: "active" });
    this.#notify();
  }

  remove(key: string): void {
    this.#entries.delete(key);
  }

  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /** The attempt failed because of the cluster's state: waits for {@link SchedulingQueue.clusterChanged}. */
  unschedulable(key: string): void {
    this.#fail(key, "unschedulable");
  }

  /** The attempt failed for another reason: tried again after the back-off. */
  retry(key: string): void {
    this.#fail(key, "backoff");
  }

  /** Something happened that may make room: unschedulable pods are tried again once their back-off is over. */
  clusterChanged(): void {
    let moved = false;
    for (const entry of this.#entries.values()) {
      if (entry.state !== "unschedulable") continue;
      entry.state = "backoff";
      moved = true;
    }
    if (moved) this.#notify();
  }

  /** The most important pod to try, waiting for one; undefined when the signal aborts. It leaves the queue's order but stays known. */
  async next(signal: AbortSignal): Promise<string | undefined> {
    while (!signal.aborted) {
      const wake = this.#wake.promise;
      const entry = this.#ready();
      if (entry !== undefined) {
        entry.state = "unschedulable";
        entry.attempts += 1;
        entry.failedAt = this.#clock.monotonic();
        return entry.key;
      }
      await this.#wait(wake, signal);
    }
    return undefined;
  }

  #fail(key: string, state: "unschedulable" | "backoff"): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    entry.failedAt = this.#clock.monotonic();
    entry.state = state;
    this.#notify();
  }

  #dueAt(entry: Entry): number {
    if (entry.state === "active") return 0;
    if (entry.state === "backoff") return entry.failedAt + backoffMs(entry.attempts);
    return entry.failedAt + unschedulableFlushMs;
  }

  #ready(): Entry | undefined {
    const now = this.#clock.monotonic();
    let best: Entry | undefined;
    for (const entry of this.#entries.values()) {
      if (this.#dueAt(entry) > now) continue;
      if (
        best === undefined ||
        entry.priority > best.priority ||
        (entry.priority === best.priority && entry.sequence < best.sequence)
      ) {
        best = entry;
      }
    }
    return best;
  }

  async #wait(wake: Promise<void>, signal: AbortSignal): Promise<void> {
    const dues = [...this.#entries.values()].map((entry) => this.#dueAt(entry));
    const stop = new AbortController();
    const waiting = AbortSignal.any([signal, stop.signal]);
    const now = this.#clock.monotonic();
    const ms = dues.length === 0 ? 3_600_000 : Math.max(Math.min(...dues) - now, 0);
    const sleep = this.#clock.sleep(ms, waiting).catch(() => undefined);
    await Promise.race([wake, sleep]);
    stop.abort();
    await sleep;
  }

  #notify(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }
}

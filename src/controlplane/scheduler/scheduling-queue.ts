import type { Clock } from "../../lib/clock.ts";
import type { ClusterEvent } from "./cluster-events.ts";
import { Heap } from "./heap.ts";

/** Back-off between attempts for one pod, milliseconds: doubling from the first to the second. */
const initialBackoffMs = 1_000;
const maxBackoffMs = 10_000;
/** An unschedulable pod is tried again after this even if no event seemed to help it. */
const unschedulableFlushMs = 5 * 60_000;
/** Longest wait without looking again, milliseconds. */
const idleMs = 3_600_000;

/** Void places that a heap may hold beside one per entry and as many again. */
const slack = 64;

type State = "active" | "in-flight" | "backoff" | "error-backoff" | "unschedulable";

interface Entry {
  readonly key: string;
  readonly priority: number;
  /** Order among equals: first come, first served. */
  readonly sequence: number;
  attempts: number;
  /** Monotonic ms of the end of the back-off, or of the flush. */
  dueAt: number;
  backoffEnd: number;
  state: State;
  /** What would help; empty = anything. Only while unschedulable. */
  helpedBy: ReadonlySet<ClusterEvent>;
  /** What happened since the attempt began. */
  readonly missed: Set<ClusterEvent>;
}

/** A place of an entry in a heap; void when the entry has moved on since. */
interface Place {
  readonly entry: Entry;
  readonly state: State;
  readonly dueAt: number;
}

function backoffMs(attempts: number): number {
  return Math.min(initialBackoffMs * 2 ** Math.max(attempts - 1, 0), maxBackoffMs);
}

function moreUrgent(a: Entry, b: Entry): boolean {
  return a.priority === b.priority ? a.sequence < b.sequence : a.priority > b.priority;
}

/**
 * The pods that wait for a node: those to try now, those in back-off, and those that no node fits until something in
 * the cluster changes. When there is nothing to try now, a pod whose cluster has changed need not sit out its back-off:
 * that only keeps it from going before others. After an error the back-off holds.
 */
export class SchedulingQueue {
  readonly #entries = new Map<string, Entry>();
  readonly #active = new Heap<Place>((a, b) => moreUrgent(a.entry, b.entry));
  readonly #backoff = new Heap<Place>((a, b) => moreUrgent(a.entry, b.entry));
  readonly #timers = new Heap<Place>((a, b) => a.dueAt < b.dueAt);
  readonly #clock: Clock;
  #sequence = 0;
  #wake = Promise.withResolvers<void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** A pod that needs a node; one already here keeps its attempts but is tried again. */
  add(key: string, priority: number): void {
    const known = this.#entries.get(key);
    if (known !== undefined) this.#entries.delete(key);
    const entry: Entry = {
      key,
      priority,
      sequence: known?.sequence ?? (this.#sequence += 1),
      attempts: known?.attempts ?? 0,
      dueAt: 0,
      backoffEnd: known?.backoffEnd ?? 0,
      state: "active",
      helpedBy: new Set(),
      missed: new Set(),
    };
    this.#entries.set(key, entry);
    this.#move(entry, "active", 0);
  }

  remove(key: string): void {
    this.#entries.delete(key);
  }

  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /**
   * The attempt failed because of the cluster's state: waits until something of `helpedBy` happens, or has happened
   * since the attempt began. An empty set means that anything may help.
   */
  unschedulable(key: string, helpedBy: ReadonlySet<ClusterEvent>): void {
    const entry = this.#entries.get(key);
    // Added again meanwhile: that is the later word.
    if (entry?.state !== "in-flight") return;
    const now = this.#clock.monotonic();
    entry.helpedBy = helpedBy;
    entry.backoffEnd = now + backoffMs(entry.attempts);
    if ([...entry.missed].some((event) => this.#helps(entry, event))) this.#retryLater(entry, now);
    else this.#move(entry, "unschedulable", now + unschedulableFlushMs);
  }

  /** The attempt failed for another reason: tried again after the back-off. */
  retry(key: string): void {
    const entry = this.#entries.get(key);
    if (entry?.state !== "in-flight") return;
    entry.backoffEnd = this.#clock.monotonic() + backoffMs(entry.attempts);
    this.#move(entry, "error-backoff", entry.backoffEnd);
  }

  /** Something happened that may make room: the unschedulable pods that it may help are tried again. */
  happened(events: readonly ClusterEvent[]): void {
    if (events.length === 0) return;
    const now = this.#clock.monotonic();
    for (const entry of this.#entries.values()) {
      if (entry.state === "in-flight") for (const event of events) entry.missed.add(event);
      else if (entry.state === "unschedulable" && events.some((event) => this.#helps(entry, event)))
        this.#retryLater(entry, now);
    }
  }

  /**
   * The most important pod to try, waiting for one; undefined when the signal aborts. It leaves the queue's order but
   * stays known until {@link SchedulingQueue.unschedulable}, {@link SchedulingQueue.retry} or
   * {@link SchedulingQueue.remove}.
   */
  async next(signal: AbortSignal): Promise<string | undefined> {
    while (!signal.aborted) {
      const wake = this.#wake.promise;
      const entry = this.#ready();
      if (entry !== undefined) {
        entry.state = "in-flight";
        entry.attempts += 1;
        entry.missed.clear();
        return entry.key;
      }
      await this.#wait(wake, signal);
    }
    return undefined;
  }

  #helps(entry: Entry, event: ClusterEvent): boolean {
    return entry.helpedBy.size === 0 || event === "node-added" || entry.helpedBy.has(event);
  }

  #retryLater(entry: Entry, now: number): void {
    if (entry.backoffEnd <= now) this.#move(entry, "active", 0);
    else this.#move(entry, "backoff", entry.backoffEnd);
  }

  #move(entry: Entry, state: State, dueAt: number): void {
    entry.state = state;
    entry.dueAt = dueAt;
    const place = { entry, state, dueAt };
    if (state === "active") this.#put(this.#active, place);
    else this.#put(this.#timers, place);
    if (state === "backoff") this.#put(this.#backoff, place);
    this.#notify();
  }

  #put(heap: Heap<Place>, place: Place): void {
    heap.push(place);
    // Void places go when they come up, which may take minutes; they must not pile up until then.
    if (heap.size > 2 * this.#entries.size + slack) heap.retain((each) => this.#isValid(each));
  }

  #isValid({ entry, state, dueAt }: Place): boolean {
    return this.#entries.get(entry.key) === entry && entry.state === state && entry.dueAt === dueAt;
  }

  /** The first valid place of a heap; drops void ones. */
  #first(heap: Heap<Place>): Place | undefined {
    let place = heap.peek();
    while (place !== undefined && !this.#isValid(place)) {
      heap.pop();
      place = heap.peek();
    }
    return place;
  }

  #ready(): Entry | undefined {
    const now = this.#clock.monotonic();
    for (let due = this.#first(this.#timers); due !== undefined; due = this.#first(this.#timers)) {
      if (due.dueAt > now) break;
      this.#move(due.entry, "active", 0);
    }
    return (this.#first(this.#active) ?? this.#first(this.#backoff))?.entry;
  }

  async #wait(wake: Promise<void>, signal: AbortSignal): Promise<void> {
    const due = this.#first(this.#timers)?.dueAt;
    const stop = new AbortController();
    const waiting = AbortSignal.any([signal, stop.signal]);
    const ms = due === undefined ? idleMs : Math.max(due - this.#clock.monotonic(), 0);
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

import { type Clock, notNeeded } from "../../lib/clock.ts";
import { Patience } from "./patience.ts";

/** One piece of work, begun and ended by itself: it must be safe to repeat. */
export type Work<T> = (signal: AbortSignal) => Promise<T>;

/** How a piece of work stands at the end of a round. */
export type Standing<T> =
  | { readonly kind: "done"; readonly value: T }
  | {
      readonly kind: "failed";
      readonly error: unknown;
      /** Nobody was told of this failure before. */
      readonly news: boolean;
      /** When it is tried again, monotonic milliseconds. */
      readonly retryAt: number;
    }
  /** It goes on by itself; `onSettled` tells when it is through. */
  | { readonly kind: "running" };

interface Operation<T> {
  running: Promise<void> | undefined;
  startedAt: number;
  /** What it had to go by; undefined when that is known to have changed since. */
  basis: string | undefined;
  /** It succeeded, and no round has taken notice yet. */
  unseen: boolean;
  outcome: { readonly value: T } | { readonly error: unknown; news: boolean } | undefined;
  failures: number;
  /** Monotonic milliseconds. */
  notBefore: number;
}

/** Work on the volumes of one pod. */
interface Group<T> {
  readonly operations: Map<string, Operation<T>>;
  stop: AbortController;
  /** Aborts with it, or with everything. */
  signal: AbortSignal;
  /** Rounds that wait for some of it. */
  waiting: number;
}

export interface OperationsOptions {
  readonly clock: Clock;
  /** Ends all work. */
  readonly signal: AbortSignal;
  /** Work of this group that a round did not wait for is through. */
  readonly onSettled: (group: string) => void;
}

/** Waits between two tries, as upstream waits for each volume. */
const firstBackoffMs = 500;
const maxBackoffMs = 122_000;
/** How long a round waits for work. What takes longer goes on without it: nobody else has to wait for a dead server. */
const patienceMs = 1_000;
const maxAtOnce = 8;
/** How long the end of the agent waits for work that was told to end. */
const lastMs = 5_000;

/**
 * Work that may hang, apart from the look that wants it: at most one try at a time for each key, each with its own
 * back-off. All of it may be lost.
 */
export class Operations<T> {
  readonly #options: OperationsOptions;
  readonly #groups = new Map<string, Group<T>>();
  readonly #patience: Patience;

  constructor(options: OperationsOptions) {
    this.#options = options;
    this.#patience = new Patience({ ...options, ms: patienceMs });
  }

  /**
   * Does all the work once, unless it has failed lately, and tells how it stands. What an earlier round began counts when
   * it is through, unless what it had to go by has changed: then it is done anew.
   *
   * @param basis What the work goes by; work with another is other work.
   * @throws The signal's reason.
   */
  async round(
    group: string,
    works: ReadonlyMap<string, Work<T>>,
    basis: string,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, Standing<T>>> {
    signal.throwIfAborted();
    const state = this.#group(group);
    const { cancel, tired } = this.#patience.wait(signal);
    state.waiting += 1;
    try {
      const active = new Set<Promise<void>>();
      for (const [key, work] of works) {
        if (active.size >= maxAtOnce) await Promise.race([tired, ...active]);
        if (signal.aborted) break;
        const attempt = this.#attempt(group, key, { work, basis });
        if (attempt === undefined) continue;
        const tracked = attempt.finally(() => active.delete(tracked));
        active.add(tracked);
      }
      await Promise.race([tired, Promise.all(active)]);
    } finally {
      state.waiting -= 1;
      cancel();
    }
    signal.throwIfAborted();
    return new Map([...works.keys()].map((key) => [key, standing(state.operations.get(key))]));
  }

  /** What the work goes by has changed: what has failed is tried again at once, and what is under way is done anew. */
  changed(group: string): void {
    for (const operation of this.#groups.get(group)?.operations.values() ?? []) {
      operation.failures = 0;
      operation.notBefore = 0;
      operation.basis = undefined;
    }
  }

  /**
   * Ends all work of a group and forgets it.
   *
   * @returns Keys of what has not ended: it hangs, and is remembered until it has.
   */
  async stop(group: string, signal: AbortSignal): Promise<readonly string[]> {
    const state = this.#groups.get(group);
    if (state === undefined) return [];
    state.stop.abort(notNeeded);
    const ending = running(state);
    if (ending.length > 0) {
      const { cancel, tired } = this.#patience.wait(signal);
      await Promise.race([Promise.all(ending), tired]);
      cancel();
    }
    const left = [...state.operations].filter(([, operation]) => operation.running !== undefined);
    if (left.length === 0) this.#groups.delete(group);
    return left.map(([key]) => key);
  }

  /** Resolves when nothing runs any more but what does not end although it was told to. Call after the signal has aborted. */
  async idle(): Promise<void> {
    const over = new AbortController();
    const late = this.#options.clock.sleep(lastMs, over.signal).catch(() => undefined);
    const all = [...this.#groups.values()].flatMap(running);
    await Promise.race([Promise.all([...all, this.#patience.idle()]), late]);
    over.abort(notNeeded);
    await late;
  }

  #group(name: string): Group<T> {
    const known = this.#groups.get(name);
    if (known !== undefined && !known.stop.signal.aborted) return known;
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#options.signal, stop.signal]);
    if (known !== undefined) return Object.assign(known, { stop, signal });
    const made = { operations: new Map<string, Operation<T>>(), stop, signal, waiting: 0 };
    this.#groups.set(name, made);
    return made;
  }

  /** Undefined when there is nothing to wait for. Never rejects. */
  #attempt(
    group: string,
    key: string,
    wanted: { readonly work: Work<T>; readonly basis: string },
  ): Promise<void> | undefined {
    const now = this.#options.clock.monotonic();
    const state = this.#group(group);
    const operation = state.operations.get(key) ?? newOperation<T>();
    state.operations.set(key, operation);
    if (operation.running !== undefined) {
      // Whoever has waited for it once does not do so again.
      if (now - operation.startedAt >= patienceMs) return undefined;
      return operation.running.then(() => this.#attempt(group, key, wanted));
    }
    if (operation.unseen && operation.basis === wanted.basis) return undefined;
    if (now < operation.notBefore) return undefined;
    operation.startedAt = now;
    operation.basis = wanted.basis;
    operation.unseen = false;
    operation.outcome = undefined;
    const running = this.#run(group, operation, wanted.work);
    operation.running = running;
    return running;
  }

  async #run(group: string, operation: Operation<T>, work: Work<T>): Promise<void> {
    const { clock, onSettled, signal } = this.#options;
    const state = this.#group(group);
    try {
      const value = await work(state.signal);
      operation.outcome = { value };
      operation.unseen = true;
      operation.failures = 0;
      operation.notBefore = 0;
    } catch (error) {
      operation.outcome = { error, news: true };
      operation.failures += 1;
      const wait = Math.min(firstBackoffMs * 2 ** (operation.failures - 1), maxBackoffMs);
      operation.notBefore = clock.monotonic() + wait;
    }
    operation.running = undefined;
    if (state.waiting === 0 && !signal.aborted) onSettled(group);
  }
}

function newOperation<T>(): Operation<T> {
  return {
    running: undefined,
    startedAt: 0,
    basis: undefined,
    unseen: false,
    outcome: undefined,
    failures: 0,
    notBefore: 0,
  };
}

function running<T>({ operations }: Group<T>): readonly Promise<void>[] {
  return [...operations.values()].flatMap((operation) => operation.running ?? []);
}

function standing<T>(operation: Operation<T> | undefined): Standing<T> {
  const outcome = operation?.outcome;
  if (operation === undefined || operation.running !== undefined || outcome === undefined) {
    return { kind: "running" };
  }
  if ("value" in outcome) {
    operation.unseen = false;
    return { kind: "done", value: outcome.value };
  }
  const { error, news } = outcome;
  outcome.news = false;
  return { kind: "failed", error, news, retryAt: operation.notBefore };
}

import { type Clock, within } from "../lib/clock.ts";
import type { UpstreamServer } from "./exchange.ts";
import { serverKey } from "./server-dialogue.ts";
import type { Query } from "./wire.ts";

const firstPauseMs = 500;
const longestPauseMs = 8000;

/** The name servers of the root: every resolver has them at hand. */
const probe: Query = {
  id: 0,
  passedFlags: 0x0100,
  question: Buffer.from([0, 0, 2, 0, 1]),
  name: "",
  type: "NS",
  edns: undefined,
};

export interface ServerHealthOptions {
  /** Rejects when the server does not answer. */
  readonly ask: (server: UpstreamServer, query: Query, signal: AbortSignal) => Promise<unknown>;
  readonly clock: Clock;
  /** Milliseconds that a probe waits. */
  readonly probeMs: number;
  /** Told once when a server comes under suspicion. */
  readonly onSuspect?: (server: UpstreamServer, signal: AbortSignal) => void;
  readonly onProbeFailed?: (server: UpstreamServer) => void;
  /** Told when a server is down, or up again. */
  readonly onChange?: (server: UpstreamServer, down: boolean) => void;
}

/**
 * Which servers are down. One that did not answer a question may be right to be slow, because nobody answers it; so it is
 * asked what it must know, and only when it is silent then too it is down, until it answers that or anything else.
 */
export class ServerHealth {
  readonly #options: ServerHealthOptions;
  readonly #down = new Set<string>();
  readonly #probing = new Map<string, Promise<void>>();
  #forgotten = new AbortController();

  constructor(options: ServerHealthOptions) {
    this.#options = options;
  }

  isDown(server: UpstreamServer): boolean {
    return this.#down.has(serverKey(server));
  }

  /** It answered. */
  answered(server: UpstreamServer): void {
    if (this.#down.delete(serverKey(server))) this.#options.onChange?.(server, false);
  }

  /** It did not answer: from now on it is looked after, until it does. */
  suspect(server: UpstreamServer, signal: AbortSignal): void {
    const key = serverKey(server);
    if (this.#probing.has(key) || signal.aborted) return;
    this.#options.onSuspect?.(server, signal);
    const either = AbortSignal.any([signal, this.#forgotten.signal]);
    const probing = this.#probe(server, either).finally(() => {
      if (this.#probing.get(key) === probing) this.#probing.delete(key);
    });
    this.#probing.set(key, probing);
  }

  /** Other servers count from now on: nothing is known of them. */
  forget(): void {
    this.#forgotten.abort();
    this.#forgotten = new AbortController();
    this.#down.clear();
    this.#probing.clear();
  }

  /** Until the aborted probes have ended. */
  async settled(): Promise<void> {
    await Promise.all(this.#probing.values());
  }

  async #probe(server: UpstreamServer, signal: AbortSignal): Promise<void> {
    const { ask, clock, onChange, onProbeFailed, probeMs } = this.#options;
    const key = serverKey(server);
    for (let pauseMs = firstPauseMs; !signal.aborted;) {
      try {
        await within(signal, probeMs, (limited) => ask(server, probe, limited));
        this.answered(server);
        return;
      } catch {
        if (signal.aborted) return;
        onProbeFailed?.(server);
        if (!this.#down.has(key)) onChange?.(server, true);
        this.#down.add(key);
      }
      await clock.sleep(pauseMs, signal).catch(() => undefined);
      // A question of somebody's may have been answered in between.
      if (!this.#down.has(key)) return;
      pauseMs = Math.min(2 * pauseMs, longestPauseMs);
    }
  }
}

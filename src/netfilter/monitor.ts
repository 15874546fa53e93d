import { createInterface } from "node:readline";

import { jitteredBackoffMs } from "../lib/backoff.ts";
import type { Clock } from "../lib/clock.ts";
import { spawnStreaming, whenClosed } from "../lib/exec.ts";
import { isAbort } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";

/** What a deletion took: the table with everything in it, a chain, one rule, a map or set, or elements of one. */
export type DeletedKind = "table" | "chain" | "rule" | "container" | "element";

/** Something in nftables was deleted, by whomever. */
export interface Deletion {
  readonly kind: DeletedKind;
  readonly family: string;
  readonly table: string;
  /** Chain (also of a rule), map or set (also of elements); empty for a table. */
  readonly name: string;
}

/** `unwatched`: for a moment nobody looked, so anything may have been deleted. */
export type DeletionListener = (deletion: Deletion | "unwatched") => void;

const line = /^delete (table|chain|rule|map|set|element) (ip6?|inet) (\S+)(?: (\S+))?/;

const kinds: ReadonlyMap<string, DeletedKind> = new Map([
  ["table", "table"],
  ["chain", "chain"],
  ["rule", "rule"],
  ["map", "container"],
  ["set", "container"],
  ["element", "element"],
]);

/** Reads one line of `nft monitor destroy`. Undefined for anything but a deletion. */
export function parseMonitorLine(text: string): Deletion | undefined {
  const [, what = "", family = "", table = "", name = ""] = line.exec(text) ?? [];
  const kind = kinds.get(what);
  return kind === undefined ? undefined : { kind, family, table, name };
}

const restart = { baseMs: 1000, maxMs: 60_000 };
/** A monitor lists the whole ruleset before it listens. */
const settleMs = 2000;
/** nft says so when events came faster than it could read them, and goes on. */
const lost = /^# ERROR/;

/**
 * Follows deletions in the kernel's nftables. One child for all who ask, because each costs 4 MB. Says nothing about
 * who deleted: our own transactions appear too.
 */
export class DeletionWatch {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #random: () => number;
  readonly #monitor: readonly [string, ...string[]];
  readonly #listeners = new Set<DeletionListener>();

  constructor(options: {
    readonly clock: Clock;
    readonly logger: Logger;
    /** In [0, 1). */
    readonly random: () => number;
    /** Prints a line for each deletion; another one in tests. */
    readonly monitor?: readonly [string, ...string[]];
  }) {
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#random = options.random;
    this.#monitor = options.monitor ?? ["nft", "monitor", "destroy"];
  }

  /** @param listener Must not throw. @returns Ends the subscription. */
  subscribe(listener: DeletionListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Watches until `signal` aborts; a monitor that ends is started again. */
  async run(signal: AbortSignal): Promise<void> {
    let again = false;
    for (let ended = 1; !signal.aborted; ended += 1) {
      const startedAt = this.#clock.monotonic();
      const stderr = await this.#watchOnce(again, signal);
      if (signal.aborted) return;
      if (this.#clock.monotonic() - startedAt > restart.maxMs) ended = 1;
      again = true;
      this.#logger.log("warn", "nft monitor ended; tables are verified and it is started again", {
        error: stderr,
      });
      this.#tell("unwatched");
      await this.#clock.sleep(jitteredBackoffMs(ended, restart, this.#random), signal);
    }
  }

  /** @returns The last thing nft said on stderr. */
  async #watchOnce(again: boolean, signal: AbortSignal): Promise<string> {
    const child = spawnStreaming(this.#monitor, { signal, dieWithParent: true });
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr = chunk.toString("utf8").trim().slice(-200);
    });
    createInterface({ input: child.stdout }).on("line", (text) => {
      const deletion = lost.test(text) ? "unwatched" : parseMonitorLine(text);
      if (deletion !== undefined) this.#tell(deletion);
    });
    const closed = new AbortController();
    // What was deleted since the former one ended has been seen by nobody.
    if (again) void this.#tellSettled(AbortSignal.any([signal, closed.signal]));
    await whenClosed(child);
    closed.abort();
    return stderr;
  }

  async #tellSettled(signal: AbortSignal): Promise<void> {
    try {
      await this.#clock.sleep(settleMs, signal);
      this.#tell("unwatched");
    } catch (error) {
      if (!isAbort(error)) throw error;
    }
  }

  #tell(what: Deletion | "unwatched"): void {
    for (const listener of this.#listeners) listener(what);
  }
}

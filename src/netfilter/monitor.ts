import { once } from "node:events";
import { createInterface } from "node:readline";

import { jitteredBackoffMs } from "../lib/backoff.ts";
import type { Clock } from "../lib/clock.ts";
import { spawnStreaming } from "../lib/exec.ts";
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

/**
 * Follows deletions in the kernel's nftables. One child for all who ask, because each costs 4 MB. Says nothing about
 * who deleted: our own transactions appear too.
 */
export class DeletionWatch {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #random: () => number;
  readonly #listeners = new Set<DeletionListener>();

  constructor(options: {
    readonly clock: Clock;
    readonly logger: Logger;
    /** In [0, 1). */
    readonly random: () => number;
  }) {
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#random = options.random;
  }

  /** @param listener Must not throw. @returns Ends the subscription. */
  subscribe(listener: DeletionListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Watches until `signal` aborts; a monitor that ends is started again. */
  async run(signal: AbortSignal): Promise<void> {
    for (let ended = 1; !signal.aborted; ended += 1) {
      const stderr = await this.#watchOnce(signal);
      if (signal.aborted) return;
      this.#logger.log("warn", "nft monitor ended; tables are verified and it is started again", {
        error: stderr,
      });
      this.#tell("unwatched");
      await this.#clock.sleep(jitteredBackoffMs(ended, restart, this.#random), signal);
    }
  }

  /** @returns The last thing nft said on stderr. */
  async #watchOnce(signal: AbortSignal): Promise<string> {
    const child = spawnStreaming(["nft", "monitor", "destroy"], { signal, dieWithParent: true });
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr = chunk.toString("utf8").trim().slice(-200);
    });
    createInterface({ input: child.stdout }).on("line", (text) => {
      const deletion = parseMonitorLine(text);
      if (deletion !== undefined) this.#tell(deletion);
    });
    await once(child, "close");
    return stderr;
  }

  #tell(what: Deletion | "unwatched"): void {
    for (const listener of this.#listeners) listener(what);
  }
}

import { networkInterfaces } from "node:os";
import { createInterface } from "node:readline";

import { jitteredBackoffMs } from "../lib/backoff.ts";
import { canonicalIP, ipFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import { exec, spawnStreaming, whenClosed } from "../lib/exec.ts";
import type { Logger } from "../lib/log.ts";

/** Addresses in what `ip -o address show` prints, sorted. */
export function parseAddressListing(text: string): readonly string[] {
  const found = new Set<string>();
  for (const line of text.split("\n")) {
    const [, ip = ""] = /^\d+:\s+\S+\s+inet6?\s+([0-9a-fA-F.:]+)/.exec(line) ?? [];
    if (ipFamily(ip) !== undefined) found.add(canonicalIP(ip));
  }
  return [...found].toSorted();
}

async function listAddresses(signal: AbortSignal): Promise<readonly string[]> {
  return parseAddressListing(await exec(["ip", "-o", "address", "show"], { signal }));
}

function addressesInUse(): readonly string[] {
  const all = Object.values(networkInterfaces()).flatMap((infos) => infos ?? []);
  return [...new Set(all.map(({ address }) => address))].toSorted();
}

const restart = { baseMs: 1000, maxMs: 60_000 };

export interface AddressWatchOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /** Lists all addresses; another one in tests. */
  readonly list?: (signal: AbortSignal) => Promise<readonly string[]>;
  /** What is known when that fails at the start; another one in tests. */
  readonly fallback?: () => readonly string[];
  /** Prints a line for each change; another one in tests. */
  readonly monitor?: readonly [string, ...string[]];
}

/** Follows the addresses of all interfaces of this network namespace. */
export class AddressWatch {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #random: () => number;
  readonly #list: (signal: AbortSignal) => Promise<readonly string[]>;
  readonly #fallback: () => readonly string[];
  readonly #monitor: readonly [string, ...string[]];
  readonly #listeners = new Set<(addresses: readonly string[]) => void>();
  readonly #known = Promise.withResolvers<void>();
  #addresses: readonly string[] = [];
  #told: string | undefined;
  #changed = false;
  #reading: Promise<void> | undefined;

  constructor(options: AddressWatchOptions) {
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#random = options.random;
    this.#list = options.list ?? listAddresses;
    this.#fallback = options.fallback ?? addressesInUse;
    this.#monitor = options.monitor ?? ["ip", "-o", "monitor", "address"];
  }

  /** As they were last; empty before the first reading. */
  get addresses(): readonly string[] {
    return this.#addresses;
  }

  /** Resolves when the addresses were read once, or could not be. */
  async whenKnown(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, reject } = Promise.withResolvers<never>();
    const abort = (): void => {
      reject(new DOMException("The operation was aborted", "AbortError"));
    };
    signal.addEventListener("abort", abort, { once: true });
    try {
      await Promise.race([this.#known.promise, promise]);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /** @param listener Gets all addresses, sorted, at the start and after each change. Must not throw. */
  subscribe(listener: (addresses: readonly string[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Watches until `signal` aborts; a monitor that ends is started again, and what happened meanwhile is read. */
  async run(signal: AbortSignal): Promise<void> {
    for (let ended = 1; !signal.aborted; ended += 1) {
      const startedAt = this.#clock.monotonic();
      const stderr = await this.#watchOnce(signal);
      await this.#reading;
      if (signal.aborted) return;
      if (this.#clock.monotonic() - startedAt > restart.maxMs) ended = 1;
      this.#logger.log("warn", "ip monitor ended; addresses are read and it is started again", {
        error: stderr,
      });
      try {
        await this.#clock.sleep(jitteredBackoffMs(ended, restart, this.#random), signal);
      } catch (error) {
        if (signal.aborted) return;
        throw error;
      }
    }
  }

  /** @returns The last thing the monitor said on stderr. */
  async #watchOnce(signal: AbortSignal): Promise<string> {
    const child = spawnStreaming(this.#monitor, { signal, dieWithParent: true });
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr = chunk.toString("utf8").trim().slice(-200);
    });
    createInterface({ input: child.stdout }).on("line", () => {
      this.#readSoon(signal);
    });
    const closed = whenClosed(child);
    // What changes from here on has a line of its own.
    this.#readSoon(signal);
    await closed;
    return stderr;
  }

  /** One reading at a time; what changes during one is read by the next. */
  #readSoon(signal: AbortSignal): void {
    this.#changed = true;
    this.#reading ??= this.#readWhileChanged(signal).finally(() => {
      this.#reading = undefined;
    });
  }

  async #readWhileChanged(signal: AbortSignal): Promise<void> {
    while (this.#changed && !signal.aborted) {
      this.#changed = false;
      try {
        this.#tell(await this.#list(signal));
      } catch (error) {
        if (signal.aborted) return;
        this.#logger.log("warn", "addresses of this machine cannot be read", {
          error: errorMessage(error),
        });
        // Better than none, though those of interfaces that are down are not among them.
        if (this.#told === undefined) this.#tell(this.#fallback());
      }
      this.#known.resolve();
    }
  }

  #tell(addresses: readonly string[]): void {
    const text = addresses.join();
    if (text === this.#told) return;
    this.#told = text;
    this.#addresses = addresses;
    for (const listener of this.#listeners) listener(addresses);
  }
}

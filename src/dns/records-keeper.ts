import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { writeFileAtomic } from "../lib/atomic-file.ts";
import type { Clock } from "../lib/clock.ts";
import { errorCode, errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { decodeRecords, encodeRecords, type Records, type StoredRecords } from "./records-file.ts";

export interface RecordsKeeperOptions {
  readonly path: string;
  readonly domain: string;
  /** What to write; undefined while nothing is known. */
  readonly contents: () => Records | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Changes come in groups. */
const settleMs = 2000;
const leastMs = 5000;
const mostMs = 120_000;
/** A cluster in which something always changes must not wear a memory card out. */
const bytesPerSecond = 50_000;

/**
 * Keeps the records on disk, so that cluster names have answers after a restart while the API server cannot be reached.
 * Written two seconds after a change; the larger the file, the more rarely. A crash costs the last changes.
 */
export class RecordsKeeper {
  readonly #options: RecordsKeeperOptions;
  #changed = Promise.withResolvers<void>();
  #dirty = false;

  constructor(options: RecordsKeeperOptions) {
    this.#options = options;
  }

  /** The contents are other than those on disk. */
  note(): void {
    this.#dirty = true;
    this.#changed.resolve();
  }

  /** @returns undefined when there are none or they cannot be used. */
  async read(): Promise<StoredRecords | undefined> {
    const { path, domain, logger } = this.#options;
    try {
      return decodeRecords(await readFile(path), domain);
    } catch (error) {
      if (errorCode(error) !== "ENOENT") {
        logger.log("warn", "the last records of cluster DNS cannot be used", {
          path,
          error: errorMessage(error),
        });
      }
      return undefined;
    }
  }

  /** Writes after changes until `signal` aborts, then once more what is not written yet. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    await this.#sweep();
    signal.addEventListener("abort", () => this.#changed.resolve(), { once: true });
    while (!signal.aborted) {
      await this.#changed.promise;
      await clock.sleep(settleMs, signal).catch(() => undefined);
      if (!this.#dirty) continue;
      const bytes = await this.#write(signal);
      const restMs = Math.min(mostMs, Math.max(leastMs, (bytes / bytesPerSecond) * 1000));
      await clock.sleep(restMs - settleMs, signal).catch(() => undefined);
    }
    if (this.#dirty) await this.#write(signal);
  }

  /** @returns how much it was; failures are logged and leave the file as it is. */
  async #write(signal: AbortSignal): Promise<number> {
    const { path, domain, contents, clock, logger } = this.#options;
    const records = contents();
    if (records === undefined) return 0;
    this.#dirty = false;
    this.#changed = Promise.withResolvers<void>();
    let bytes = 0;
    async function* pieces(known: Records): AsyncGenerator<Buffer> {
      for (const piece of encodeRecords(known, { writtenAt: clock.now(), domain })) {
        bytes += piece.length;
        yield piece;
        // Questions in between; at the end nobody waits.
        await clock.sleep(0, signal).catch(() => undefined);
      }
    }
    try {
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await writeFileAtomic(path, pieces(records), 0o600);
      return bytes;
    } catch (error) {
      logger.log("warn", "the records of cluster DNS cannot be kept on disk", {
        path,
        error: errorMessage(error),
      });
      // With the next change again, or the next time round.
      this.note();
      return bytesPerSecond * (mostMs / 1000);
    }
  }

  /** What a crash left half written. */
  async #sweep(): Promise<void> {
    const { path } = this.#options;
    const names = await readdir(dirname(path)).catch((): string[] => []);
    for (const name of names) {
      if (!name.startsWith(`${basename(path)}.`) || !name.endsWith(".tmp")) continue;
      await rm(join(dirname(path), name), { force: true }).catch(() => undefined);
    }
  }
}

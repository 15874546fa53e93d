import { watch } from "node:fs";
import { basename, dirname } from "node:path";

import type { Clock } from "../../lib/clock.ts";

/** Notifications may be lost, and the end of a container writes nothing. */
const pollMs = 250;
/** A container that writes without pause wakes its readers at most this often. */
const gatherMs = 20;

/** Wakes when the files of a log change, at the latest after {@link pollMs}. */
export class DirectoryWake {
  readonly #clock: Clock;
  readonly #stop: (() => void) | undefined;
  #changed = false;
  #wokenAt = Number.NEGATIVE_INFINITY;
  #wakeUp: (() => void) | undefined;

  /** @param path Of the newest file. */
  constructor(path: string, clock: Clock) {
    this.#clock = clock;
    this.#stop = this.#watch(dirname(path), basename(path));
  }

  #watch(directory: string, name: string): (() => void) | undefined {
    try {
      const watcher = watch(directory, { persistent: false }, (_event, changed) => {
        if (changed !== null && !changed.startsWith(name)) return;
        this.#changed = true;
        this.#wakeUp?.();
      });
      // The directory went away with its container: the poll sees that.
      watcher.on("error", () => undefined);
      return () => {
        watcher.close();
      };
    } catch {
      // No inotify instance left on this host: polling alone is right, only slower.
      return undefined;
    }
  }

  /** Returns at once when something has changed since the last call, but not within {@link gatherMs} of it. */
  async wait(signal: AbortSignal): Promise<void> {
    if (!this.#changed) await this.#sleep(pollMs, signal);
    const early = this.#wokenAt + gatherMs - this.#clock.monotonic();
    if (early > 0) await this.#clock.sleep(early, signal).catch(() => undefined);
    this.#changed = false;
    this.#wokenAt = this.#clock.monotonic();
  }

  async #sleep(ms: number, signal: AbortSignal): Promise<void> {
    const waking = new AbortController();
    const wake = (): void => {
      waking.abort();
    };
    this.#wakeUp = wake;
    // Not AbortSignal.any: the signal of a follower lives for days, and would remember every wait.
    signal.addEventListener("abort", wake, { once: true });
    if (!signal.aborted) await this.#clock.sleep(ms, waking.signal).catch(() => undefined);
    signal.removeEventListener("abort", wake);
    this.#wakeUp = undefined;
  }

  close(): void {
    this.#stop?.();
  }
}

import { type FSWatcher, watch } from "node:fs";
import { lstat, mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";

import type { Clock } from "../../lib/clock.ts";
import { errorCode, errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";

/** Sockets by path; the value tells a socket from another one that was made in its place. */
export type Sockets = ReadonlyMap<string, string>;

export interface SocketDirectoryOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called with what is there, after the first look and whenever that has changed. */
  readonly onChange: (sockets: Sockets) => void;
}

/** Notifications may be lost, and some file systems have none. */
const pollMs = 60_000;
/** Who makes a socket also listens on it, a moment later. */
const gatherMs = 20;
const maxDepth = 8;

/** Follows the Unix sockets in a directory and in those below it. Names that begin with a dot are not looked at. */
export class SocketDirectory {
  readonly #options: SocketDirectoryOptions;
  readonly #watchers = new Map<string, FSWatcher>();
  #known: Sockets | undefined;
  #changed = false;
  #wake: () => void = () => undefined;
  #troubled = false;

  constructor(options: SocketDirectoryOptions) {
    this.#options = options;
  }

  /** Runs until `signal` aborts. The directory is made where it is missing. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    try {
      while (!signal.aborted) {
        this.#changed = false;
        await this.#look();
        if (!this.#changed) await this.#pause(pollMs, signal);
        if (this.#changed) await clock.sleep(gatherMs, signal).catch(() => undefined);
      }
    } finally {
      for (const watcher of this.#watchers.values()) watcher.close();
      this.#watchers.clear();
    }
  }

  async #look(): Promise<void> {
    const { logger, onChange, path } = this.#options;
    const sockets = new Map<string, string>();
    const directories = new Set<string>();
    try {
      await mkdir(path, { recursive: true, mode: 0o755 });
      await this.#scan(path, { sockets, directories, depth: 0 });
      this.#troubled = false;
    } catch (error) {
      if (!this.#troubled) {
        logger.log("warn", "sockets of plug-ins cannot be looked for", {
          path,
          error: errorMessage(error),
        });
      }
      this.#troubled = true;
      return;
    }
    for (const [directory, watcher] of this.#watchers) {
      if (directories.has(directory)) continue;
      watcher.close();
      this.#watchers.delete(directory);
    }
    if (this.#known !== undefined && sameSockets(this.#known, sockets)) return;
    this.#known = sockets;
    onChange(sockets);
  }

  async #scan(
    directory: string,
    found: {
      readonly sockets: Map<string, string>;
      readonly directories: Set<string>;
      readonly depth: number;
    },
  ): Promise<void> {
    found.directories.add(directory);
    // Before the look: what comes in between is then seen by one of the two.
    this.#follow(directory);
    for (const entry of await entriesOf(directory)) {
      if (entry.name.startsWith(".")) continue;
      const path = join(directory, entry.name);
      if (entry.isDirectory() && found.depth < maxDepth) {
        await this.#scan(path, { ...found, depth: found.depth + 1 });
      } else if (entry.isSocket()) {
        const identity = await socketIdentity(path);
        if (identity !== undefined) found.sockets.set(path, identity);
      }
    }
  }

  #follow(directory: string): void {
    if (this.#watchers.has(directory)) return;
    const wake = (): void => {
      this.#changed = true;
      this.#wake();
    };
    try {
      const watcher = watch(directory, { persistent: false }, wake);
      watcher.on("error", () => {
        watcher.close();
        this.#watchers.delete(directory);
        wake();
      });
      this.#watchers.set(directory, watcher);
    } catch {
      // Gone already, or no inotify instance left on this host: polling alone is right, only slower.
    }
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const waking = new AbortController();
    const wake = (): void => waking.abort();
    this.#wake = wake;
    // Not AbortSignal.any: the agent's signal lives for months, and would remember every wait.
    signal.addEventListener("abort", wake, { once: true });
    if (!signal.aborted) await this.#options.clock.sleep(ms, waking.signal).catch(() => undefined);
    signal.removeEventListener("abort", wake);
    this.#wake = () => undefined;
  }
}

async function entriesOf(
  directory: string,
): Promise<readonly { readonly name: string; isDirectory(): boolean; isSocket(): boolean }[]> {
  try {
    return await readdir(directory, { withFileTypes: true });
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return [];
    throw error;
  }
}

async function socketIdentity(path: string): Promise<string | undefined> {
  try {
    const { dev, ino, ctimeNs } = await lstat(path, { bigint: true });
    return `${dev}:${ino}:${ctimeNs}`;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

function sameSockets(one: Sockets, other: Sockets): boolean {
  return one.size === other.size && [...one].every(([path, id]) => other.get(path) === id);
}

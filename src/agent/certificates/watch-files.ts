import { type FSWatcher, watch } from "node:fs";
import { realpath } from "node:fs/promises";
import { basename, dirname } from "node:path";

import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { Wake } from "./wake.ts";

export interface WatchFilesOptions {
  readonly paths: readonly string[];
  /** Called after anything near the files has changed, and now and then in case that went unnoticed. */
  readonly onChange: () => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Certificate and key are written one after the other; both events make one look. */
const settleMs = 100;
/** For what cannot be watched, such as a network file system. */
const lookMs = 60_000;

/** Directories in which names can change meaning, with these names: beside the files, and beside what links lead to. */
async function watchedNames(
  paths: readonly string[],
): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const out = new Map<string, Set<string>>();
  const add = (path: string): void => {
    const names = out.get(dirname(path)) ?? new Set();
    out.set(dirname(path), names.add(basename(path)));
  };
  for (const path of paths) {
    add(path);
    const real = await realpath(path).catch(() => undefined);
    if (real !== undefined) add(real);
  }
  return out;
}

/** Watches files through replacement, links and directories that come and go, until `signal` aborts. */
export async function watchFiles(options: WatchFilesOptions, signal: AbortSignal): Promise<void> {
  const { paths, onChange, clock, logger } = options;
  const wake = new Wake();
  const watchers = new Map<string, FSWatcher>();
  let wanted: ReadonlyMap<string, ReadonlySet<string>> = new Map();
  const drop = (directory: string): void => {
    watchers.get(directory)?.close();
    watchers.delete(directory);
  };
  const follow = (directory: string): void => {
    try {
      const watcher = watch(directory, { persistent: false }, (_event, name) => {
        // A volume of a Secret is a link to a link named ..data, and that is what is replaced.
        const concerns =
          name === null || name.startsWith("..") || wanted.get(directory)?.has(name) === true;
        if (concerns) wake.wake();
      });
      watcher.on("error", () => {
        drop(directory);
        wake.wake();
      });
      watchers.set(directory, watcher);
    } catch (error) {
      logger.log("debug", "directory cannot be watched", { directory, error: errorMessage(error) });
    }
  };
  try {
    while (!signal.aborted) {
      wanted = await watchedNames(paths);
      for (const directory of watchers.keys()) if (!wanted.has(directory)) drop(directory);
      for (const directory of wanted.keys()) if (!watchers.has(directory)) follow(directory);
      await onChange();
      await wake.wait(clock, lookMs, signal);
      if (!signal.aborted) await clock.sleep(settleMs, signal).catch(() => undefined);
    }
  } finally {
    for (const watcher of watchers.values()) watcher.close();
  }
}

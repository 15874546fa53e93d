import { watch } from "node:fs";
import { basename, dirname } from "node:path";

import type { Clock } from "../../lib/clock.ts";
import { LogFile } from "./log-file.ts";
import { type LogFormat, LogFormatter } from "./log-format.ts";
import type { LogRecord } from "./log-line.ts";

export interface ReadLogsOptions extends LogFormat {
  /** The newest file; rotated ones are its siblings `path.1` (newest) and so on. */
  readonly path: string;
  readonly follow: boolean;
  /** Start at the last so many lines; undefined for all. */
  readonly tailLines: number | undefined;
  /** Whether the container may still write. Asked, while following, at the end of the file. */
  readonly running: (signal: AbortSignal) => Promise<boolean>;
  readonly clock: Clock;
}

const pollMs = 250;
/** More than any sane `containerLogMaxFiles`; ends the search in a directory full of files that are not ours. */
const maxFiles = 1000;
const outputBytes = 64 * 1024;

/**
 * The log of one container as its clients see it (PodLogOptions), from a json-file log and its rotated siblings. Memory
 * is bounded by a few chunks. With `follow` it goes on across rotation and ends when the container has exited and all
 * is read; it ends early, without an error, when `signal` aborts.
 *
 * @yields Output in pieces of at most 64 KiB.
 */
export async function* readLogs(
  options: ReadLogsOptions,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const formatter = new LogFormatter(options);
  const source = new LogSource(options);
  try {
    await source.open();
    for await (const records of source.records(signal)) {
      const bytes = formatter.write(records);
      for (let at = 0; at < bytes.length; at += outputBytes) {
        yield bytes.subarray(at, at + outputBytes);
      }
      if (formatter.full || signal.aborted) return;
    }
  } finally {
    await source.close();
  }
}

/** The files of one container's log, oldest first, each held open so that rotation cannot take it away. */
class LogSource {
  readonly #options: ReadLogsOptions;
  #files: LogFile[] = [];

  constructor(options: ReadLogsOptions) {
    this.#options = options;
  }

  async open(): Promise<void> {
    this.#files = await openNewerThan(this.#options.path, undefined);
    const { tailLines, since } = this.#options;
    if (tailLines !== undefined) await this.#seekTail(tailLines);
    if (since !== undefined) await this.#dropOlderThan(Date.parse(since));
  }

  async close(): Promise<void> {
    for (const file of this.#files) await file.close();
    this.#files = [];
  }

  async #seekTail(tailLines: number): Promise<void> {
    let missing = tailLines;
    for (let index = this.#files.length - 1; index >= 0; index -= 1) {
      const file = this.#files[index];
      const continued = missing < tailLines;
      const tail = await file?.findTail(missing, continued);
      if (tail?.kind === "found") {
        file?.seek(tail.position);
        await this.#drop(index);
        return;
      }
      missing -= tail?.lines ?? 0;
    }
  }

  async #dropOlderThan(sinceMs: number): Promise<void> {
    let count = 0;
    // The engine writes times in order, so a file last touched before `since` holds nothing newer.
    for (const file of this.#files.slice(0, -1)) {
      if ((await file.modifiedAt()) >= sinceMs) break;
      count += 1;
    }
    await this.#drop(count);
  }

  async #drop(count: number): Promise<void> {
    for (const file of this.#files.splice(0, count)) await file.close();
  }

  async *records(signal: AbortSignal): AsyncIterable<readonly LogRecord[]> {
    const { path, follow, running } = this.#options;
    const wake = follow ? new DirectoryWake(path, this.#options.clock) : undefined;
    try {
      for (;;) {
        // Asked before the read: what an exiting container wrote last is then surely read.
        const writing = follow && (await running(signal));
        yield* this.#readAll(signal);
        if (signal.aborted) return;
        const grown = await this.#openRotated();
        if (grown) continue;
        if (!writing) break;
        await wake?.wait(signal);
        if (signal.aborted) return;
      }
      const last = this.#files.at(-1);
      if (last !== undefined) yield last.rest();
    } finally {
      wake?.close();
    }
  }

  async *#readAll(signal: AbortSignal): AsyncIterable<readonly LogRecord[]> {
    for (;;) {
      const file = this.#files[0];
      if (file === undefined) return;
      for (;;) {
        const records = await file.read();
        if (records === undefined || signal.aborted) break;
        if (records.length > 0) yield records;
      }
      if (this.#files.length === 1 || signal.aborted) return;
      await this.#drop(1);
    }
  }

  /** After a rotation: opens what came after the file at hand. True when there is something new to read. */
  async #openRotated(): Promise<boolean> {
    const current = this.#files.at(-1);
    const newer = await openNewerThan(this.#options.path, current?.inode);
    this.#files.push(...newer);
    return newer.length > 0;
  }
}

/**
 * Opens the log's files, oldest first, without `inode` and what is older. Opened from the newest to the oldest: a
 * rotation in between then shows a file twice (and is noticed by its inode), and never hides one.
 */
async function openNewerThan(path: string, inode: bigint | undefined): Promise<LogFile[]> {
  const files: LogFile[] = [];
  for (let index = 0; index < maxFiles; index += 1) {
    const file = await LogFile.open(index === 0 ? path : `${path}.${index}`);
    if (file === undefined) {
      // Between rename and re-creation the newest name is missing for a moment.
      if (index === 0) continue;
      break;
    }
    if (file.inode === inode) {
      await file.close();
      break;
    }
    if (files.some((known) => known.inode === file.inode)) await file.close();
    else files.unshift(file);
  }
  return files;
}

/** Wakes when the directory of the log changes, at the latest after {@link pollMs}: notifications may be lost. */
class DirectoryWake {
  readonly #clock: Clock;
  readonly #stop: (() => void) | undefined;
  #changed = false;
  #wakeUp: (() => void) | undefined;

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

  async wait(signal: AbortSignal): Promise<void> {
    if (!this.#changed) {
      const waking = new AbortController();
      this.#wakeUp = () => {
        waking.abort();
      };
      await this.#clock
        .sleep(pollMs, AbortSignal.any([signal, waking.signal]))
        .catch(() => undefined);
      this.#wakeUp = undefined;
    }
    this.#changed = false;
  }

  close(): void {
    this.#stop?.();
  }
}

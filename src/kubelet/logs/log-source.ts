import type { Clock } from "../../lib/clock.ts";
import { DirectoryWake } from "./directory-wake.ts";
import type { LogFile } from "./log-file.ts";
import { closeAll, isRotated, openRotatedFiles } from "./rotated-files.ts";

export interface LogSourceOptions {
  /** The newest file; rotated ones are its siblings `path.1` (newest), `path.2.gz` and so on. */
  readonly path: string;
  readonly follow: boolean;
  /** Start at the last so many lines; undefined for all. */
  readonly tailLines: number | undefined;
  /** Whole files that are older may be left out: milliseconds since the epoch. */
  readonly sinceMs: number | undefined;
  /** Whether the container may still write. Asked, while following, before the end of the file is looked for. */
  readonly running: (signal: AbortSignal) => Promise<boolean>;
  readonly clock: Clock;
}

/** One container's log as its engine writes it, the files held open so that rotation cannot take them away. */
export class LogSource {
  readonly #options: LogSourceOptions;
  /** Oldest first; the first one is being read. */
  #files: LogFile[] = [];

  constructor(options: LogSourceOptions) {
    this.#options = options;
  }

  /** Finds where to begin. */
  async open(signal: AbortSignal): Promise<void> {
    const { clock, path, sinceMs, tailLines } = this.#options;
    this.#files = [...(await openRotatedFiles(path, clock, signal))];
    if (tailLines !== undefined) await this.#seekTail(tailLines);
    if (sinceMs !== undefined) await this.#dropOlderThan(sinceMs);
  }

  async close(): Promise<void> {
    await closeAll(this.#files);
    this.#files = [];
  }

  /**
   * @yields Chunks of whole lines; the last one of a file may lack its newline. With `follow` until the container has
   * ended and all is read; otherwise what is there.
   */
  async *lines(signal: AbortSignal): AsyncGenerator<Buffer> {
    const { clock, follow, path, running } = this.#options;
    const wake = follow ? new DirectoryWake(path, clock) : undefined;
    try {
      for (;;) {
        // Asked before the read: what an ending container wrote last is then surely read.
        const writing = follow && (await running(signal));
        yield* this.#readAll(signal);
        if (signal.aborted) return;
        if (follow && (await this.#openNewer(signal))) continue;
        if (!writing) break;
        await wake?.wait(signal);
        if (signal.aborted) return;
      }
      const rest = await this.#files.at(-1)?.rest();
      if (rest !== undefined && rest.length > 0) yield rest;
    } finally {
      wake?.close();
    }
  }

  async *#readAll(signal: AbortSignal): AsyncGenerator<Buffer> {
    for (;;) {
      const [file, next] = this.#files;
      if (file === undefined) return;
      for (;;) {
        const chunk = await file.read();
        if (chunk === undefined || signal.aborted) break;
        if (chunk.length > 0) yield chunk;
      }
      if (next === undefined || signal.aborted) return;
      // There is a newer one, so nothing more is written into this one.
      const rest = await file.rest();
      if (rest.length > 0) yield rest;
      await this.#drop(1);
    }
  }

  /**
   * After a rotation: opens what came after the file at hand. True when there is something new to read. A reader so
   * slow that the engine has removed files before they could be opened goes on with the oldest one that is left.
   */
  async #openNewer(signal: AbortSignal): Promise<boolean> {
    const { clock, path } = this.#options;
    const current = this.#files.at(-1);
    if (!(await isRotated(path, current?.inode))) return false;
    const files = await openRotatedFiles(path, clock, signal);
    const known = current === undefined ? -1 : await findFile(current, files);
    await closeAll(files.slice(0, known + 1));
    this.#files.push(...files.slice(known + 1));
    return files.length > known + 1;
  }

  async #seekTail(tailLines: number): Promise<void> {
    let missing = tailLines;
    for (let index = this.#files.length - 1; index >= 0; index -= 1) {
      const tail = await this.#files[index]?.seekTail(missing, missing < tailLines);
      if (tail?.kind === "found") {
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
    await closeAll(this.#files.splice(0, count));
  }
}

/** Index of the same file in `files`, also when it has been compressed meanwhile; -1 when it is gone. */
async function findFile(wanted: LogFile, files: readonly LogFile[]): Promise<number> {
  const index = files.findIndex(({ inode }) => inode === wanted.inode);
  if (index >= 0) return index;
  for (let at = files.length - 1; at >= 0; at -= 1) {
    const file = files[at];
    if (file?.compressed !== true) continue;
    if ((await file.fingerprint()) === (await wanted.fingerprint())) return at;
  }
  return -1;
}

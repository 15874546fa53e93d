import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import type { Clock } from "../../lib/clock.ts";
import { errorCode } from "../../lib/errors.ts";
import { GzipLogFile } from "./gzip-log-file.ts";
import type { LogFile } from "./log-file.ts";
import { PlainLogFile } from "./plain-log-file.ts";

const attempts = 50;
const retryMs = 2;

/**
 * Opens a log's files, oldest first: `path`, and what rotation has made of it: `path.1` (newest), `path.2` and so on,
 * each perhaps compressed to `.gz`. They are the files of one moment, though rotation goes on meanwhile: between
 * opening them and looking at their names again none may have been renamed, and no number may be missing among them.
 * An engine that stopped in the middle of a rotation is not waited for: what is there is taken then.
 */
export async function openRotatedFiles(
  path: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<readonly LogFile[]> {
  for (let attempt = 1; ; attempt += 1) {
    const names = await namesOf(path);
    const opened = await openAll(names);
    const last = attempt === attempts || signal.aborted;
    if (last || (await isOneMoment(path, names, opened))) {
      return [...opened.values()].filter((file) => file !== undefined).toReversed();
    }
    await closeAll(opened.values());
    await clock.sleep(retryMs, signal).catch(() => undefined);
  }
}

/** Whether `path` is another file than `inode` by now. */
export async function isRotated(path: string, inode: bigint | undefined): Promise<boolean> {
  return (await inodeOf(path)) !== inode;
}

export async function closeAll(files: Iterable<LogFile | undefined>): Promise<void> {
  for (const file of files) await file?.close();
}

/** Paths by age, the newest first. */
async function namesOf(path: string): Promise<readonly string[]> {
  const directory = dirname(path);
  const base = basename(path);
  let entries: string[];
  try {
    entries = await readdir(directory);
  } catch (error) {
    // Gone with its container.
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  }
  const names: string[] = [];
  for (const entry of entries) {
    if (!entry.startsWith(base)) continue;
    const { age, gzip } = /^(?:\.(?<age>\d{1,9})(?<gzip>\.gz)?)?$/.exec(entry.slice(base.length))
      ?.groups ?? { age: "none" };
    if (age === "none") continue;
    const at = Number(age ?? 0);
    // While the engine compresses a file both are there, and only the old one is whole.
    if (gzip === undefined || names[at] === undefined) names[at] = join(directory, entry);
  }
  return names;
}

async function openAll(
  names: readonly string[],
): Promise<ReadonlyMap<string, LogFile | undefined>> {
  const opened = new Map<string, LogFile | undefined>();
  try {
    for (const name of Object.values(names)) {
      const kind = name.endsWith(".gz") ? GzipLogFile : PlainLogFile;
      opened.set(name, await kind.open(name));
    }
  } catch (error) {
    await closeAll(opened.values());
    throw error;
  }
  return opened;
}

async function isOneMoment(
  path: string,
  names: readonly string[],
  opened: ReadonlyMap<string, LogFile | undefined>,
): Promise<boolean> {
  // A hole: the files are just moving on by one number.
  if (opened.size !== names.length) return false;
  const now = await namesOf(path);
  if (now.length !== names.length || names.some((name, age) => name !== now[age])) return false;
  for (const [name, file] of opened) {
    if (file === undefined || (await inodeOf(name)) !== file.inode) return false;
  }
  return true;
}

async function inodeOf(path: string): Promise<bigint | undefined> {
  try {
    return (await stat(path, { bigint: true })).ino;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

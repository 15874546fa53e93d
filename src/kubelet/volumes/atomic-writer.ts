import {
  chmod,
  chown,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";

import { errorCode } from "../../lib/errors.ts";
import type { Payload } from "./payload.ts";

export interface AtomicWriteOptions {
  /** Group that owns everything and may read it; undefined leaves root. */
  readonly fsGroup: number | undefined;
  /** Owner of all files; undefined leaves root. */
  readonly uid: number | undefined;
  /** Milliseconds since the epoch, for the name of the directory. */
  readonly now: number;
  /** A few random digits, for the same. */
  readonly suffix: string;
}

const dataLink = "..data";

async function linkTarget(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "EINVAL") return undefined;
    throw error;
  }
}

/** Permission bits as they land on disk. Such volumes are read-only, so that a group may read and no more. */
function effectiveMode(mode: number, fsGroup: number | undefined): number {
  return fsGroup === undefined ? mode : mode | 0o440;
}

function directoryMode(fsGroup: number | undefined): number {
  return fsGroup === undefined ? 0o755 : 0o2755;
}

async function listFiles(root: string, below = ""): Promise<readonly string[]> {
  const out: string[] = [];
  for (const entry of await readdir(join(root, below), { withFileTypes: true })) {
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory()) out.push(...(await listFiles(root, path)));
    else out.push(path);
  }
  return out;
}

async function isCurrent(
  directory: string,
  payload: Payload,
  options: AtomicWriteOptions,
): Promise<boolean> {
  const files = await listFiles(directory);
  if (files.length !== payload.size) return false;
  for (const [path, file] of payload) {
    const full = join(directory, path);
    if (!files.includes(path)) return false;
    const stat = await lstat(full);
    if ((stat.mode & 0o7777) !== effectiveMode(file.mode, options.fsGroup)) return false;
    if (!(await readFile(full)).equals(file.content)) return false;
  }
  return true;
}

async function writePayload(
  directory: string,
  payload: Payload,
  options: AtomicWriteOptions,
): Promise<void> {
  const { fsGroup, uid } = options;
  const own = async (path: string): Promise<void> => {
    if (fsGroup !== undefined || uid !== undefined) await chown(path, uid ?? 0, fsGroup ?? 0);
  };
  await mkdir(directory, { mode: 0o755 });
  await own(directory);
  await chmod(directory, directoryMode(fsGroup));
  const made = new Set([directory]);
  for (const [path, file] of payload) {
    const full = join(directory, path);
    for (const parent of parentsWithin(directory, full)) {
      if (made.has(parent)) continue;
      made.add(parent);
      await mkdir(parent, { recursive: true });
      await own(parent);
      await chmod(parent, directoryMode(fsGroup));
    }
    await writeFile(full, file.content);
    // After chown, which would clear set-id bits.
    await own(full);
    await chmod(full, effectiveMode(file.mode, fsGroup));
  }
}

function parentsWithin(root: string, path: string): readonly string[] {
  const out: string[] = [];
  for (let parent = dirname(path); parent !== root; parent = dirname(parent)) out.unshift(parent);
  return out;
}

async function linkNames(target: string, payload: Payload): Promise<void> {
  const names = new Set([...payload.keys()].map((path) => path.split("/")[0] ?? path));
  for (const name of names) {
    const want = `${dataLink}/${name}`;
    const path = join(target, name);
    if ((await linkTarget(path)) === want) continue;
    await rm(path, { recursive: true, force: true });
    await symlink(want, path);
  }
  for (const name of await readdir(target)) {
    if (!name.startsWith("..") && !names.has(name)) {
      await rm(join(target, name), { recursive: true, force: true });
    }
  }
}

function directoryName(options: AtomicWriteOptions): string {
  const stamp = new Date(options.now).toISOString().replace(/[-:T]/g, "_").replace(/\..*$/, "");
  return `..${stamp}.${options.suffix}`;
}

/**
 * Makes `target` show exactly `payload`: readers see the old set of files or the new one, never a mixture, also after
 * a crash at any instant. Unchanged content is left alone.
 *
 * @returns Whether anything changed.
 */
export async function writeAtomicVolume(
  target: string,
  payload: Payload,
  options: AtomicWriteOptions,
): Promise<boolean> {
  const current = await linkTarget(join(target, dataLink));
  if (current !== undefined && (await exists(join(target, current)))) {
    if (await isCurrent(join(target, current), payload, options)) {
      // A crash may have come between the swap and the names.
      await linkNames(target, payload);
      return false;
    }
  }
  const next = directoryName(options);
  await writePayload(join(target, next), payload, options);
  const temporary = join(target, `${dataLink}_tmp`);
  await rm(temporary, { force: true });
  await symlink(next, temporary);
  await rename(temporary, join(target, dataLink));
  await linkNames(target, payload);
  for (const name of await readdir(target)) {
    if (name.startsWith("..") && name !== dataLink && name !== next) {
      await rm(join(target, name), { recursive: true, force: true });
    }
  }
  return true;
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

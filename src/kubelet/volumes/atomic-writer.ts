import { dirname, join } from "node:path";

import { errorCode } from "../../lib/errors.ts";
import { diskFiles, type Files, memoryFiles } from "./files.ts";
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
  /** The volume is a tmpfs: there is no disk to wait for. */
  readonly inMemory?: boolean;
}

/** Above this many bytes even memory is not written in one go. */
const atOnceBytes = 256 * 1024;

const dataLink = "..data";
/** What a new file has when it is asked for, under the umask of the agent (022). */
const plainBits = 0o755;

/** Links `path` to `target`, in the place of whatever is there. */
async function putLink(files: Files, target: string, path: string): Promise<void> {
  try {
    await files.symlink(target, path);
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
    if ((await linkTarget(files, path)) === target) return;
    await files.remove(path);
    await files.symlink(target, path);
  }
}

async function linkTarget(files: Files, path: string): Promise<string | undefined> {
  try {
    return await files.readlink(path);
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

async function listFiles(files: Files, root: string, below = ""): Promise<readonly string[]> {
  const out: string[] = [];
  for (const entry of await files.names(join(root, below))) {
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory) out.push(...(await listFiles(files, root, path)));
    else out.push(path);
  }
  return out;
}

async function isCurrent(
  files: Files,
  directory: string,
  payload: Payload,
  options: AtomicWriteOptions,
): Promise<boolean> {
  const found = await listFiles(files, directory);
  if (found.length !== payload.size) return false;
  for (const [path, file] of payload) {
    const full = join(directory, path);
    if (!found.includes(path)) return false;
    const mode = (await files.mode(full)) & 0o7777;
    if (mode !== effectiveMode(file.mode, options.fsGroup)) return false;
    if (!(await files.read(full)).equals(file.content)) return false;
  }
  return true;
}

async function writePayload(
  files: Files,
  directory: string,
  payload: Payload,
  options: AtomicWriteOptions,
): Promise<void> {
  const { fsGroup, uid } = options;
  const own = async (path: string): Promise<void> => {
    if (fsGroup !== undefined || uid !== undefined) await files.chown(path, uid ?? 0, fsGroup ?? 0);
  };
  await files.mkdir(directory, { mode: 0o755 });
  await own(directory);
  if (fsGroup !== undefined) await files.chmod(directory, directoryMode(fsGroup));
  const made = new Set([directory]);
  for (const [path, file] of payload) {
    const full = join(directory, path);
    for (const parent of parentsWithin(directory, full)) {
      if (made.has(parent)) continue;
      made.add(parent);
      await files.mkdir(parent, { recursive: true });
      await own(parent);
      await files.chmod(parent, directoryMode(fsGroup));
    }
    const mode = effectiveMode(file.mode, fsGroup);
    await files.write(full, file.content, mode);
    await own(full);
    // After chown, which clears set-id bits, as does the umask what it names.
    if ((mode & ~plainBits) !== 0) await files.chmod(full, mode);
  }
}

function parentsWithin(root: string, path: string): readonly string[] {
  const out: string[] = [];
  for (let parent = dirname(path); parent !== root; parent = dirname(parent)) out.unshift(parent);
  return out;
}

/** The names that readers use; what else is there goes, but for `current`. */
async function linkNames(
  files: Files,
  target: string,
  payload: Payload,
  current: string,
): Promise<void> {
  const names = new Set([...payload.keys()].map((path) => path.split("/")[0] ?? path));
  for (const name of names) await putLink(files, `${dataLink}/${name}`, join(target, name));
  for (const { name } of await files.names(target)) {
    if (name === dataLink || name === current || names.has(name)) continue;
    await files.remove(join(target, name));
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
  const bytes = [...payload.values()].reduce((sum, { content }) => sum + content.length, 0);
  const files = options.inMemory === true && bytes <= atOnceBytes ? memoryFiles : diskFiles;
  const current = await linkTarget(files, join(target, dataLink));
  if (current !== undefined && (await exists(files, join(target, current)))) {
    if (await isCurrent(files, join(target, current), payload, options)) {
      // A crash may have come between the swap and the names.
      await linkNames(files, target, payload, current);
      return false;
    }
  }
  const next = directoryName(options);
  await writePayload(files, join(target, next), payload, options);
  if (current === undefined) {
    await putLink(files, next, join(target, dataLink));
  } else {
    const temporary = join(target, `${dataLink}_tmp`);
    await putLink(files, next, temporary);
    await files.rename(temporary, join(target, dataLink));
  }
  await linkNames(files, target, payload, next);
  return true;
}

async function exists(files: Files, path: string): Promise<boolean> {
  try {
    await files.mode(path);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

import { dirname, join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";

import { errorCode } from "../../lib/errors.ts";
import { diskFiles, type Files, memoryFiles } from "./files.ts";
import type { Payload, PayloadFile } from "./payload.ts";
import { type RemoveTree, removeTree } from "./remove-tree.ts";

export interface AtomicWriteOptions {
  /** Group that owns everything and may read it; undefined leaves root. */
  readonly fsGroup: number | undefined;
  /** Milliseconds since the epoch, for the name of the directory. */
  readonly now: number;
  /** A few random digits, for the same. */
  readonly suffix: string;
  /** The volume is a tmpfs: there is no disk to wait for. */
  readonly inMemory?: boolean;
  /** Default: by `inMemory`. */
  readonly files?: Files;
  /** For directories of an older content that have directories in them. */
  readonly removeTree?: RemoveTree;
}

const dataLink = "..data";
const nextLink = "..data_tmp";
/** What a new file has when it is asked for, under the umask of the agent (022). */
const plainBits = 0o755;
/** So much is done before others have their turn. */
const turnFiles = 64;
const turnBytes = 1024 * 1024;

/** Permission bits as they land on disk. Such volumes are read-only, so that a group may read and no more. */
function effectiveMode(mode: number, fsGroup: number | undefined): number {
  return fsGroup === undefined ? mode : mode | 0o440;
}

function directoryMode(fsGroup: number | undefined): number {
  return fsGroup === undefined ? 0o755 : 0o2755;
}

function parentsWithin(root: string, path: string): readonly string[] {
  const out: string[] = [];
  for (let parent = dirname(path); parent !== root; parent = dirname(parent)) out.unshift(parent);
  return out;
}

type Entry = Awaited<ReturnType<Files["names"]>>[number];

/** A name that nothing has. */
function directoryName({ now, suffix }: AtomicWriteOptions, entries: readonly Entry[]): string {
  const stamp = new Date(now).toISOString().replace(/[-:T]/g, "_").replace(/\..*$/, "");
  const taken = new Set(entries.map(({ name }) => name));
  let name = `..${stamp}.${suffix}`;
  while (taken.has(name)) name += "0";
  return name;
}

/** One write of one volume. */
class AtomicWrite {
  readonly #target: string;
  readonly #payload: Payload;
  readonly #options: AtomicWriteOptions;
  readonly #files: Files;
  readonly #signal: AbortSignal;
  #filesDone = 0;
  #bytesDone = 0;

  constructor(target: string, payload: Payload, options: AtomicWriteOptions, signal: AbortSignal) {
    this.#target = target;
    this.#payload = payload;
    this.#options = options;
    this.#files = options.files ?? (options.inMemory === true ? memoryFiles : diskFiles);
    this.#signal = signal;
  }

  async run(): Promise<boolean> {
    const current = await this.#linkTarget(this.#at(dataLink));
    const entries = await this.#files.names(this.#target);
    if (current !== undefined && (await this.#isCurrent(this.#at(current)))) {
      // A crash may have come between the swap and the names.
      await this.#showNames(current, entries);
      return false;
    }
    // What a writer left that did not come to its end may be what fills the volume.
    await this.#removeOthers(entries.filter(isUnfinished), current);
    const next = directoryName(this.#options, entries);
    await this.#makeDirectory(this.#at(next));
    try {
      await this.#writePayload(this.#at(next));
      await this.#swap(next);
    } catch (error) {
      // As well as it goes: the next try begins with the same.
      await this.#removeEntry({ name: next, isDirectory: true }).catch(() => undefined);
      throw error;
    }
    await this.#showNames(next, entries);
    return true;
  }

  #at(name: string): string {
    return join(this.#target, name);
  }

  /** Whether a directory holds the payload and nothing else. */
  async #isCurrent(directory: string): Promise<boolean> {
    try {
      const found = await this.#listFiles(directory);
      if (found.length !== this.#payload.size) return false;
      for (const path of found) {
        const file = this.#payload.get(path);
        if (file === undefined || !(await this.#holds(join(directory, path), file))) return false;
      }
      return true;
    } catch (error) {
      if (errorCode(error) === "ENOENT") return false;
      throw error;
    }
  }

  async #listFiles(root: string, below = ""): Promise<readonly string[]> {
    const out: string[] = [];
    for (const entry of await this.#files.names(join(root, below))) {
      const path = below === "" ? entry.name : `${below}/${entry.name}`;
      if (entry.isDirectory) out.push(...(await this.#listFiles(root, path)));
      else out.push(path);
    }
    return out;
  }

  async #holds(path: string, file: PayloadFile): Promise<boolean> {
    const { fsGroup } = this.#options;
    const facts = await this.#files.facts(path);
    if (!facts.isFile || facts.size !== file.content.length) return false;
    if ((facts.mode & 0o7777) !== effectiveMode(file.mode, fsGroup)) return false;
    if (file.uid !== undefined && facts.uid !== file.uid) return false;
    if (fsGroup !== undefined && facts.gid !== fsGroup) return false;
    await this.#pause(file.content.length);
    return (await this.#files.read(path)).equals(file.content);
  }

  async #writePayload(directory: string): Promise<void> {
    const made = new Set([directory]);
    for (const [path, file] of this.#payload) {
      const full = join(directory, path);
      for (const parent of parentsWithin(directory, full)) {
        if (made.has(parent)) continue;
        made.add(parent);
        await this.#makeDirectory(parent);
      }
      await this.#writeFile(full, file);
    }
  }

  async #makeDirectory(path: string): Promise<void> {
    const { fsGroup } = this.#options;
    await this.#files.mkdir(path, 0o755);
    if (fsGroup === undefined) return;
    await this.#files.chown(path, 0, fsGroup);
    await this.#files.chmod(path, directoryMode(fsGroup));
  }

  async #writeFile(path: string, { content, mode: asked, uid }: PayloadFile): Promise<void> {
    const { fsGroup } = this.#options;
    const mode = effectiveMode(asked, fsGroup);
    await this.#pause(content.length);
    await this.#files.write(path, content, mode);
    if (uid !== undefined || fsGroup !== undefined) {
      await this.#files.chown(path, uid ?? 0, fsGroup ?? 0);
    }
    // After chown, which clears set-id bits, as does the umask what it names.
    if ((mode & ~plainBits) !== 0) await this.#files.chmod(path, mode);
  }

  /** Readers see the old files before and the new ones after, by one rename. */
  async #swap(next: string): Promise<void> {
    await this.#putLink(next, this.#at(nextLink));
    await this.#files.rename(this.#at(nextLink), this.#at(dataLink));
  }

  /** The names that readers use; what else was there goes, but for `current`. */
  async #showNames(current: string, entries: readonly Entry[]): Promise<void> {
    const names = new Set([...this.#payload.keys()].map((path) => path.split("/")[0] ?? path));
    const before = new Set(entries.map(({ name }) => name));
    for (const name of names) {
      await this.#pause(0);
      const [target, path] = [`${dataLink}/${name}`, this.#at(name)];
      if (before.has(name) && (await this.#linkTarget(path)) === target) continue;
      await this.#putLink(target, path);
    }
    await this.#removeOthers(
      entries.filter(({ name }) => name !== dataLink && !names.has(name)),
      current,
    );
  }

  async #removeOthers(entries: readonly Entry[], current: string | undefined): Promise<void> {
    for (const entry of entries) {
      if (entry.name === current) continue;
      await this.#pause(0);
      await this.#removeEntry(entry);
    }
  }

  /** Never below a directory by name: what is in one of those goes by descriptors. */
  async #removeEntry({ isDirectory, name }: Entry): Promise<void> {
    const path = this.#at(name);
    try {
      if (!isDirectory) {
        await this.#files.unlink(path);
        return;
      }
      const inside = await this.#files.names(path);
      if (inside.some((entry) => entry.isDirectory)) {
        await (this.#options.removeTree ?? removeTree)(path, this.#signal);
        return;
      }
      for (const file of inside) {
        await this.#pause(0);
        await this.#files.unlink(join(path, file.name));
      }
      await this.#files.rmdir(path);
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
  }

  /** Links `path` to `target`, in the place of whatever is there. */
  async #putLink(target: string, path: string): Promise<void> {
    try {
      await this.#files.symlink(target, path);
    } catch (error) {
      if (errorCode(error) !== "EEXIST") throw error;
      const found = await this.#linkTarget(path);
      if (found === target) return;
      if (found !== undefined) await this.#files.unlink(path);
      else await (this.#options.removeTree ?? removeTree)(path, this.#signal);
      await this.#files.symlink(target, path);
    }
  }

  async #linkTarget(path: string): Promise<string | undefined> {
    try {
      return await this.#files.readlink(path);
    } catch (error) {
      if (errorCode(error) === "ENOENT" || errorCode(error) === "EINVAL") return undefined;
      throw error;
    }
  }

  /** Before each file: thousands of them, or large ones, must not keep everybody else waiting. */
  async #pause(bytes: number): Promise<void> {
    this.#filesDone += 1;
    this.#bytesDone += bytes;
    if (this.#filesDone < turnFiles && this.#bytesDone < turnBytes) return;
    this.#filesDone = 0;
    this.#bytesDone = 0;
    this.#signal.throwIfAborted();
    await nextTurn();
  }
}

/** Directories of a writer, and the link that it would have renamed. */
function isUnfinished({ name }: Entry): boolean {
  return name.startsWith("..") && name !== dataLink;
}

/**
 * Makes `target` show exactly `payload`: readers see the old set of files or the new one, never a mixture, also after
 * a crash at any instant and on a full disk. Unchanged content is left alone.
 *
 * @returns Whether anything changed.
 */
export async function writeAtomicVolume(
  target: string,
  payload: Payload,
  options: AtomicWriteOptions,
  signal: AbortSignal,
): Promise<boolean> {
  return new AtomicWrite(target, payload, options, signal).run();
}

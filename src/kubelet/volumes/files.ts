import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
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

type Awaitable<T> = T | Promise<T>;

/** What the writer of volumes asks of a file system; failures are Node's. */
export interface Files {
  chmod(path: string, mode: number): Awaitable<void>;
  chown(path: string, uid: number, gid: number): Awaitable<void>;
  /** Permission bits and what is above them. */
  mode(path: string): Awaitable<number>;
  /** Makes parents too, where `recursive`. */
  mkdir(
    path: string,
    options: { readonly mode?: number; readonly recursive?: boolean },
  ): Awaitable<unknown>;
  names(
    path: string,
  ): Awaitable<readonly { readonly name: string; readonly isDirectory: boolean }[]>;
  read(path: string): Awaitable<Buffer>;
  readlink(path: string): Awaitable<string>;
  rename(from: string, to: string): Awaitable<void>;
  /** With all that is below; not there is success. */
  remove(path: string): Awaitable<void>;
  symlink(target: string, path: string): Awaitable<void>;
  write(path: string, content: Uint8Array, mode: number): Awaitable<void>;
}

/** On a disk: another thread waits for it. */
export const diskFiles: Files = {
  chmod,
  chown,
  mode: async (path) => (await lstat(path)).mode,
  mkdir,
  names: async (path) => {
    const entries = await readdir(path, { withFileTypes: true });
    return entries.map((entry) => ({ name: entry.name, isDirectory: entry.isDirectory() }));
  },
  read: readFile,
  readlink,
  rename,
  remove: async (path) => rm(path, { recursive: true, force: true }),
  symlink,
  write: async (path, content, mode) => writeFile(path, content, { mode }),
};

/**
 * On a tmpfs: nothing waits, and to ask another thread costs thirty times what it does. (Start of a pod with a token,
 * which is fifteen such calls: 4 ms of CPU less.)
 */
export const memoryFiles: Files = {
  chmod: chmodSync,
  chown: chownSync,
  mode: (path) => lstatSync(path).mode,
  mkdir: mkdirSync,
  names: (path) =>
    readdirSync(path, { withFileTypes: true }).map((entry) => ({
      name: entry.name,
      isDirectory: entry.isDirectory(),
    })),
  read: (path) => readFileSync(path),
  readlink: (path) => readlinkSync(path),
  rename: renameSync,
  remove: (path) => rmSync(path, { recursive: true, force: true }),
  symlink: (target, path) => symlinkSync(target, path),
  write: (path, content, mode) => writeFileSync(path, content, { mode }),
};

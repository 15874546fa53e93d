import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { readdir, rmdir } from "node:fs/promises";
import { join } from "node:path";

import { errorCode, errorMessage, RemoraError } from "../../lib/errors.ts";
import { type CgroupFile, cgroupFiles } from "./files.ts";
import type { CgroupSettings } from "./settings.ts";

/** The cgroup hierarchies, as far as pods leave something in them. Paths are below each root, no leading slash. */
export interface CgroupTree {
  /** Makes the cgroup where it is missing and holds it to its settings. @throws {CgroupError} */
  ensure(path: string, settings: CgroupSettings): Promise<void>;
  /** Removes the cgroup in every hierarchy; missing is success. The engine makes them and never removes them. */
  remove(path: string): Promise<void>;
  /**
   * Writes files of a cgroup that is already there; one that has gone is success. With `make` it is made where it is
   * missing, and handed the controllers that the files belong to.
   *
   * @throws {CgroupError}
   */
  adjust(
    path: string,
    files: (version: 1 | 2) => readonly CgroupFile[],
    make?: boolean,
  ): Promise<void>;
  /** Bytes of memory that a cgroup uses, its page cache included; undefined where there is no such cgroup. */
  memoryUsage?(path: string): Promise<number | undefined>;
}

/** The kernel refused a cgroup or one of its settings. */
export class CgroupError extends RemoraError {
  readonly code = "REMORA_CGROUP";
}

/** Removes a cgroup with everything below it; missing is success. */
export async function removeCgroup(path: string): Promise<void> {
  let children: readonly string[];
  try {
    const entries = await readdir(path, { withFileTypes: true });
    children = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw error;
  }
  for (const child of children) await removeCgroup(join(path, child));
  try {
    await rmdir(path);
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Writes what differs. A file that the kernel does not have belongs to a feature that it was built without. */
function write(directory: string, files: readonly CgroupFile[]): void {
  for (const { name, reads, value } of files) {
    const path = join(directory, name);
    try {
      const held = readText(path);
      if (held !== undefined && held !== reads) writeFileSync(path, value);
    } catch (error) {
      throw new CgroupError(`cannot set ${path} to ${value}: ${errorMessage(error)}`, {
        cause: error,
      });
    }
  }
}

function make(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true });
  } catch (error) {
    throw new CgroupError(`cannot make the cgroup ${directory}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

const controllers = ["cpu", "memory", "pids", "hugetlb"] as const;

function ensureV1(root: string, path: string, settings: CgroupSettings): void {
  const files = cgroupFiles(settings, 1);
  for (const controller of controllers) {
    const hierarchy = join(root, controller);
    if (!existsSync(hierarchy)) continue;
    const directory = join(hierarchy, path);
    make(directory);
    write(
      directory,
      files.filter((file) => file.controller === controller),
    );
  }
}

function words(text: string | undefined): readonly string[] {
  return (text ?? "").split(" ").filter((word) => word !== "");
}

/** Children have a controller only where their parent hands it down. */
function handDown(directory: string, names: readonly string[]): void {
  const available = words(readText(join(directory, "cgroup.controllers")));
  const path = join(directory, "cgroup.subtree_control");
  const given = words(readText(path));
  const missing = names.filter((name) => available.includes(name) && !given.includes(name));
  if (missing.length === 0) return;
  try {
    writeFileSync(path, missing.map((name) => `+${name}`).join(" "));
  } catch (error) {
    throw new CgroupError(
      `cannot hand ${missing.join(", ")} down in ${directory} (EBUSY: processes live in it): ${errorMessage(error)}`,
      { cause: error },
    );
  }
}

function makeV2(root: string, path: string, names: readonly string[]): void {
  let directory = root;
  for (const part of path.split("/")) {
    handDown(directory, names);
    directory = join(directory, part);
    make(directory);
  }
}

function ensureV2(root: string, path: string, settings: CgroupSettings): void {
  makeV2(root, path, controllers);
  write(join(root, path), cgroupFiles(settings, 2));
}

/**
 * The tree below `root`, usually /sys/fs/cgroup: one hierarchy (v2) or one directory per controller (v1). Reads and
 * writes are synchronous: the kernel answers them from memory.
 */
export function cgroupTree(root: string): CgroupTree {
  const isV2 = (): boolean => existsSync(join(root, "cgroup.controllers"));
  return {
    async ensure(path, settings) {
      await Promise.resolve();
      if (isV2()) ensureV2(root, path, settings);
      else ensureV1(root, path, settings);
    },
    async remove(path) {
      if (path === "") return;
      await removeCgroup(join(root, path));
      const entries = await readdir(root, { withFileTypes: true });
      for (const entry of entries) {
        // Symbolic links are second names of joint controllers.
        if (entry.isDirectory()) await removeCgroup(join(root, entry.name, path));
      }
    },
    async adjust(path, files, missing = false) {
      await Promise.resolve();
      const shared = isV2();
      const all = files(shared ? 2 : 1);
      if (missing && shared && all.length > 0) {
        makeV2(root, path, [...new Set(all.map(({ controller }) => controller))]);
      }
      for (const each of all) {
        const directory = shared ? join(root, path) : join(root, each.controller, path);
        if (missing && !shared && existsSync(join(root, each.controller))) make(directory);
        write(directory, [each]);
      }
    },
    async memoryUsage(path) {
      await Promise.resolve();
      const file = isV2()
        ? join(root, path, "memory.current")
        : join(root, "memory", path, "memory.usage_in_bytes");
      const text = readText(file);
      return text === undefined ? undefined : Number(text);
    },
  };
}

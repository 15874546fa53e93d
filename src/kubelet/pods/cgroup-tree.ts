import { readdir, rmdir } from "node:fs/promises";
import { join } from "node:path";

import { errorCode } from "../../lib/errors.ts";

/** The cgroup hierarchies, as far as pods leave something in them. */
export interface CgroupTree {
  /** Removes the cgroup in every hierarchy; missing is success. The engine makes it and never removes it. */
  remove(path: string): Promise<void>;
}

async function removeOne(path: string): Promise<void> {
  let children: readonly string[];
  try {
    const entries = await readdir(path, { withFileTypes: true });
    children = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw error;
  }
  for (const child of children) await removeOne(join(path, child));
  try {
    await rmdir(path);
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}

/** The tree below `root`, usually /sys/fs/cgroup: one hierarchy (v2) or one directory per controller (v1). */
export function cgroupTree(root: string): CgroupTree {
  return {
    async remove(path) {
      if (path === "") return;
      await removeOne(join(root, path));
      const entries = await readdir(root, { withFileTypes: true });
      for (const entry of entries) {
        // Symbolic links are second names of joint controllers.
        if (entry.isDirectory()) await removeOne(join(root, entry.name, path));
      }
    },
  };
}

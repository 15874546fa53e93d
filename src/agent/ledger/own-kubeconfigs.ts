import { rmdir } from "node:fs/promises";

import { errorCode } from "../../lib/errors.ts";
import type { OwnResource } from "../own-resources.ts";
import { hasOurContext, type InvokingUser, removeUserKubeconfig } from "../user-kubeconfig.ts";
import type { Change } from "./ledger.ts";

interface UserFile {
  readonly path: string;
  readonly user: Pick<InvokingUser, "uid" | "gid">;
}

/** The files that got our context, and the one of whoever asks now: versions before the ledger wrote only into that. */
export function kubeconfigsOf(
  changes: readonly Change[],
  asking: UserFile | undefined,
): readonly UserFile[] {
  const files = new Map<string, UserFile>();
  if (asking !== undefined) files.set(asking.path, asking);
  for (const change of changes) {
    if (change.kind !== "kubeconfig") continue;
    const { path, uid, gid } = change;
    files.set(path, { path, user: { uid, gid } });
  }
  return [...files.values()];
}

/**
 * Our context in people's kubeconfigs. A file that cannot be read as one is somebody's own trouble: it is told by
 * `remove` and not counted.
 */
export function ownKubeconfigs(files: readonly UserFile[]): OwnResource {
  return {
    what: "kubeconfig contexts",
    remove: async () => {
      const failures: unknown[] = [];
      for (const { path, user } of files) {
        await removeUserKubeconfig(path, user).catch((error: unknown) => failures.push(error));
      }
      if (failures.length > 0) throw failures[0];
    },
    left: async () => {
      const left: string[] = [];
      for (const { path } of files) if (await hasOurContext(path)) left.push(path);
      return left;
    },
  };
}

/** Directories that were made on the way to such a file: removed where nothing else came into them. */
export async function removeMadeDirectories(changes: readonly Change[]): Promise<void> {
  for (const change of changes.toReversed()) {
    if (change.kind !== "directory") continue;
    try {
      await rmdir(change.path);
    } catch (error) {
      if (!["ENOENT", "ENOTEMPTY", "EEXIST", "EBUSY", "ENOTDIR"].includes(errorCode(error) ?? "")) {
        throw error;
      }
    }
  }
}

import { access, readFile, readlink } from "node:fs/promises";
import { basename, join, resolve } from "node:path";

import { SetupError } from "../lib/errors.ts";
import { namesIn } from "../lib/names-in.ts";

/** A kubelet writes them at its start, whatever its policies are. */
const checkpoints = ["cpu_manager_state", "memory_manager_state"];

/** The root directory that a kubelet with this command line works in; undefined for another program. */
export function kubeletRoot(argv: readonly string[]): string | undefined {
  if (basename(argv[0] ?? "") !== "kubelet") return undefined;
  for (const [index, argument] of argv.entries()) {
    const [name, value] = argument.split("=", 2);
    if (name === "--root-dir" || name === "-root-dir")
      return resolve(value ?? argv[index + 1] ?? "");
  }
  return "/var/lib/kubelet";
}

/** Pid of a kubelet that works in `rootDir`, and sees the same files as this process. */
async function runningKubelet(rootDir: string): Promise<number | undefined> {
  const mounts = await readlink("/proc/self/ns/mnt");
  for (const name of await namesIn("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    // One that ends meanwhile is none.
    const text = await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => "");
    if (kubeletRoot(text.split("\0")) !== resolve(rootDir)) continue;
    if ((await readlink(`/proc/${name}/ns/mnt`).catch(() => "")) === mounts) return Number(name);
  }
  return undefined;
}

/**
 * Two agents on one root directory would fight over every pod.
 *
 * @throws {SetupError} a kubelet works in it, or has worked there and was not moved away.
 */
export async function refuseBesideKubelet(rootDir: string): Promise<void> {
  const pid = await runningKubelet(rootDir);
  if (pid !== undefined) {
    throw new SetupError(
      `a kubelet (pid ${pid}) runs on ${rootDir}; stop it (systemctl disable --now kubelet) and move its directory away, or give --root-dir`,
    );
  }
  for (const file of checkpoints) {
    const path = join(rootDir, file);
    const present = await access(path).then(
      () => true,
      () => false,
    );
    if (present) {
      throw new SetupError(
        `${path} shows that a kubelet uses ${rootDir}; stop the kubelet and move its directory away, or give --root-dir`,
      );
    }
  }
}

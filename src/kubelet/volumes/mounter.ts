import { readFile } from "node:fs/promises";

import { exec, execResult } from "../../lib/exec.ts";
import { ExecError } from "../../lib/errors.ts";

/** The kernel's mount table, as far as volumes need it. */
export interface Mounter {
  /** Mounts a tmpfs; options as mount(8) takes them. */
  mountTmpfs(path: string, options: readonly string[], signal: AbortSignal): Promise<void>;
  /** Binds what `source` is right now; a magic link such as /proc/PID/fd/N is followed by the kernel, never by path. */
  bind(source: string, target: string, signal: AbortSignal): Promise<void>;
  /** Not mounted is success. */
  unmount(path: string, signal: AbortSignal): Promise<void>;
  /** Mount points at or below `directory`, deepest first. */
  mountPoints(directory: string): Promise<readonly string[]>;
}

/** Mount points of a mountinfo text at or below `directory`, deepest first. */
export function mountPointsBelow(mountinfo: string, directory: string): readonly string[] {
  const out: string[] = [];
  for (const line of mountinfo.split("\n")) {
    const field = line.split(" ")[4];
    if (field === undefined) continue;
    const path = field.replace(/\\(\d{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    if (path === directory || path.startsWith(`${directory}/`)) out.push(path);
  }
  // Later lines lie on top of earlier ones, so reversing also unstacks.
  return out.toReversed().toSorted((a, b) => b.split("/").length - a.split("/").length);
}

/** The machine's own mounter: mount(8) and umount(8). */
export const systemMounter: Mounter = {
  async mountTmpfs(path, options, signal) {
    await exec(["mount", "-t", "tmpfs", "-o", options.join(","), "tmpfs", path], { signal });
  },
  async bind(source, target, signal) {
    await exec(["mount", "--no-canonicalize", "--bind", source, target], { signal });
  },
  async unmount(path, signal) {
    const argv = ["umount", "--no-canonicalize", path] as const;
    const result = await execResult(argv, { signal });
    if (result.exitCode === 0 || /not mounted|no mount point/.test(result.stderr)) return;
    throw new ExecError(argv, result.exitCode, result.stderr);
  },
  async mountPoints(directory) {
    return mountPointsBelow(await readFile("/proc/self/mountinfo", "utf8"), directory);
  },
};

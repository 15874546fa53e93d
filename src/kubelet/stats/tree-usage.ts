import { execResult } from "../../lib/exec.ts";

/** Bytes or inodes of directory trees and files, by path. What could not be read is missing. */
export type MeasureTrees = (
  paths: readonly string[],
  signal: AbortSignal,
) => Promise<ReadonlyMap<string, { readonly bytes: number; readonly inodes: number }>>;

/** `12\tpath` ended by NUL each. */
function parseDu(stdout: string): ReadonlyMap<string, number> {
  const out = new Map<string, number>();
  for (const entry of stdout.split("\0")) {
    const tab = entry.indexOf("\t");
    if (tab > 0) out.set(entry.slice(tab + 1), Number(entry.slice(0, tab)));
  }
  return out;
}

/** Bytes of directory trees and files, by path. What could not be read is missing. */
export type MeasureBytes = (
  paths: readonly string[],
  signal: AbortSignal,
) => Promise<ReadonlyMap<string, number>>;

async function du(
  unit: "--inodes" | "-B1",
  paths: readonly string[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, number>> {
  const argv = ["nice", "-n", "19", "du", "-0sx", unit, "--files0-from=-"] as const;
  // With a directory of its own it does not share a shell with commands that pods wait for.
  const options = { stdin: paths.join("\0"), cwd: "/", signal };
  const { exitCode, stderr, stdout } = await execResult(argv, options);
  const found = parseDu(stdout);
  // 1 also stands for paths that have gone.
  const gone = stderr.includes("No such file or directory");
  if (found.size === 0 && exitCode !== 0 && !gone)
    throw new Error(`du: ${stderr.trim().slice(0, 200)}`);
  return found;
}

/**
 * Counts with du(1), on one filesystem each: a walk of its own process leaves the agent's loop and its threads alone, and
 * what hangs on a dead disk is that process only. Paths that vanish meanwhile are left out.
 *
 * @throws {Error} when there is no du(1), or not the one of GNU coreutils.
 */
export const measureTrees: MeasureTrees = async (paths, signal) => {
  if (paths.length === 0) return new Map();
  const bytes = await du("-B1", paths, signal);
  const inodes = await du("--inodes", paths, signal);
  const out = new Map<string, { bytes: number; inodes: number }>();
  for (const [path, count] of bytes) {
    out.set(path, { bytes: count, inodes: inodes.get(path) ?? 0 });
  }
  return out;
};

/** The same for those who ask for bytes only. */
export const measureBytes: MeasureBytes = async (paths, signal) =>
  paths.length === 0 ? new Map() : du("-B1", paths, signal);

import { type ExecResult, execResult } from "../../lib/exec.ts";
import { ExecError, errorCode } from "../../lib/errors.ts";
import type { MountTable } from "../volumes/mount-table.ts";

/** Runs one program to its end; as `execResult`. */
export type RunProgram = (
  argv: readonly [string, ...string[]],
  signal: AbortSignal,
) => Promise<ExecResult>;

const runForReal: RunProgram = (argv, signal) => execResult(argv, { signal });

/** Holds directories to a number of bytes, by project quota (ext4 and XFS; quotactl(2), PRJQUOTA). */
export interface ProjectQuota {
  /** Puts an empty directory, and all that will be in it, into a project. */
  assign(path: string, project: number, signal: AbortSignal): Promise<void>;
  /** 0 = no limit. */
  limit(project: number, bytes: bigint, signal: AbortSignal): Promise<void>;
}

export type QuotaSupport =
  | { readonly kind: "enforced"; readonly quota: ProjectQuota }
  /** `why` is a sentence with the remedy. */
  | { readonly kind: "none"; readonly why: string };

const quotaOptions = new Set(["prjquota", "pquota"]);

async function isInstalled(
  program: string,
  run: RunProgram,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await run([program, "-V"], signal);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

/** Whether the file system of `directory` can hold its subdirectories to a size. */
export async function probeProjectQuota(
  directory: string,
  table: MountTable,
  signal: AbortSignal,
  run: RunProgram = runForReal,
): Promise<QuotaSupport> {
  const mount = table.containing(directory);
  if (mount === undefined) return { kind: "none", why: `${directory} is in no known file system` };
  const { type, path, superOptions } = mount;
  if (type !== "ext4" && type !== "xfs")
    return { kind: "none", why: `${directory} is on ${type}, which has no project quota here` };
  if (!superOptions.some((option) => quotaOptions.has(option)))
    return { kind: "none", why: `${type} at ${path} is mounted without the option prjquota` };
  if (type === "xfs" && /["\n]/.test(directory))
    return { kind: "none", why: "xfs_quota takes no path with a quote or a newline in it" };
  const programs = type === "xfs" ? ["xfs_quota"] : ["setquota", "chattr"];
  for (const program of programs) {
    if (await isInstalled(program, run, signal)) continue;
    const where = { xfs_quota: "xfsprogs", setquota: "quota", chattr: "e2fsprogs" }[program] ?? "";
    return { kind: "none", why: `the program ${program} is missing (Debian: ${where})` };
  }
  const exec = async (...argv: [string, ...string[]]): Promise<void> => {
    const { exitCode, stderr } = await run(argv, signal);
    // xfs_quota says what went wrong and ends with 0 all the same.
    if (exitCode !== 0 || (type === "xfs" && stderr.trim() !== ""))
      throw new ExecError(argv, exitCode, stderr);
  };
  return { kind: "enforced", quota: type === "xfs" ? xfs(path, exec) : ext4(path, exec) };
}

type Exec = (...argv: [string, ...string[]]) => Promise<void>;

function ext4(mountPoint: string, exec: Exec): ProjectQuota {
  return {
    assign: (path, project) => exec("chattr", "+P", "-p", String(project), path),
    limit: (project, bytes) => {
      // Blocks of 1 KiB: soft and hard limit, then the same for inodes.
      const blocks = String((bytes + 1023n) / 1024n);
      return exec("setquota", "-P", String(project), "0", blocks, "0", "0", mountPoint);
    },
  };
}

function xfs(mountPoint: string, exec: Exec): ProjectQuota {
  const command = (text: string): Promise<void> => exec("xfs_quota", "-x", "-c", text, mountPoint);
  return {
    // Its command language has quotes and no way to write one; see the probe.
    assign: (path, project) => command(`project -s -p "${path}" ${project}`),
    limit: (project, bytes) => command(`limit -p bhard=${bytes} ${project}`),
  };
}

import { errorCode, ExecError } from "../../lib/errors.ts";
import { within } from "../../lib/clock.ts";
import { execResult, type ExecResult } from "../../lib/exec.ts";
import { VolumeError } from "./payload.ts";

/** The host's own programs for disks, as volume plug-ins use them. */
export interface HostPrograms {
  /**
   * Runs a program to its end, whatever its exit code.
   *
   * @throws {VolumeError} when there is no such program, or it did not end in time and was killed; `AbortError`.
   */
  run(
    argv: readonly [string, ...string[]],
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<ExecResult>;
}

/** There is no such program on this machine. */
export class MissingProgramError extends VolumeError {}

/** Programs whose absence has a remedy that is worth a word. */
const packages: Readonly<Record<string, string>> = {
  iscsiadm: "open-iscsi",
  multipath: "multipath-tools",
  "mkfs.ext3": "e2fsprogs",
  "mkfs.ext4": "e2fsprogs",
  "mkfs.xfs": "xfsprogs",
  "mkfs.btrfs": "btrfs-progs",
  "mkfs.vfat": "dosfstools",
  "mkfs.ntfs": "ntfs-3g",
  resize2fs: "e2fsprogs",
  xfs_growfs: "xfsprogs",
  "mount.nfs": "nfs-common",
};

/** What to say when a program is not there. */
export function missingProgram(name: string): MissingProgramError {
  const from = packages[name];
  const remedy = from === undefined ? "" : ` (Debian: package ${from})`;
  return new MissingProgramError(`this machine has no ${name}${remedy}`);
}

/** Programs of this machine, each with a deadline: it is a disk or a network that they wait for. */
export const systemPrograms: HostPrograms = {
  async run(argv, timeoutMs, signal) {
    try {
      // With a directory of its own it does not share a shell with commands that other pods wait for.
      return await within(signal, timeoutMs, (limited) =>
        execResult(argv, { signal: limited, cwd: "/" }),
      );
    } catch (error) {
      signal.throwIfAborted();
      if (errorCode(error) === "ENOENT") throw missingProgram(argv[0]);
      if (
        error instanceof Error &&
        (error.name === "AbortError" || error.name === "TimeoutError")
      ) {
        const text = `${argv[0]} did not end within ${Math.round(timeoutMs / 1000)} s`;
        throw new VolumeError(text, { cause: error });
      }
      throw error;
    }
  },
};

/**
 * Runs a program that has to succeed.
 *
 * @returns What it printed.
 * @throws {ExecError} with what it said; otherwise as {@link HostPrograms.run}.
 */
export async function runChecked(
  programs: HostPrograms,
  argv: readonly [string, ...string[]],
  timeoutMs: number,
  signal: AbortSignal,
): Promise<string> {
  const { exitCode, stderr, stdout } = await programs.run(argv, timeoutMs, signal);
  if (exitCode !== 0) throw new ExecError(argv, exitCode, stderr === "" ? stdout : stderr);
  return stdout;
}

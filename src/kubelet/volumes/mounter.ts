import { readFileSync } from "node:fs";

import { within } from "../../lib/clock.ts";
import { exec, execResult } from "../../lib/exec.ts";
import { ExecError, isAbort } from "../../lib/errors.ts";
import { type MountEntry, MountTable } from "./mount-table.ts";
import { swaplessOptions } from "./swapless.ts";

/** What mount(8) is asked for. */
export interface MountRequest {
  /** Device, `server:/path`, or a word for a file system without any. */
  readonly source: string;
  readonly target: string;
  readonly type: string;
  /** As mount(8) takes them. */
  readonly options: readonly string[];
  /** What relative paths in the options are relative to; default: there are none. */
  readonly cwd?: string;
}

/** The kernel's mount table, as far as volumes need it. Every call has its own deadline besides the signal. */
export interface Mounter {
  mount(request: MountRequest, signal: AbortSignal): Promise<void>;
  /** Mounts a tmpfs that is not swapped out, where the kernel knows how; options as mount(8) takes them. */
  mountTmpfs(path: string, options: readonly string[], signal: AbortSignal): Promise<void>;
  /** Binds what `source` is right now; a magic link such as /proc/PID/fd/N is followed by the kernel, never by path. */
  bind(source: string, target: string, signal: AbortSignal): Promise<void>;
  /**
   * Unmounts what lies on top at `path`; not mounted is success. A file system whose server does not answer is forced,
   * and in the end taken out of the tree as it is. One that is in use is not: that fails.
   *
   * @returns `detached` when only the last resort helped.
   */
  unmount(path: string, signal: AbortSignal): Promise<"unmounted" | "detached">;
  /** Mount points at or below `directory`, deepest first. */
  mountPoints(directory: string): Promise<readonly string[]>;
  /** The table as it is now. procfs waits for no disk. */
  table(): MountTable;
  /**
   * Whether a path inside a file system that may hang can be looked at. The question is asked by another process, so
   * that no thread of this one is lost to a server that does not answer.
   *
   * @throws When it cannot, or not in time.
   */
  answers(path: string, signal: AbortSignal): Promise<void>;
}

const mountMs = 120_000;
const unmountMs = 30_000;
const lastResortMs = 10_000;
const answerMs = 10_000;

/** File systems whose every call may wait for another machine, or for a process. */
export function mayHang({ type }: Pick<MountEntry, "type">): boolean {
  return /^(nfs|cifs|smb3?|ceph|9p|afs|lustre|gpfs|glusterfs|fuse)/.test(type);
}

async function unmountOnce(
  flags: readonly string[],
  path: string,
  ms: number,
  signal: AbortSignal,
): Promise<void> {
  const argv = ["umount", "--no-canonicalize", ...flags, path] as const;
  await within(signal, ms, async (limited) => {
    const result = await execResult(argv, { signal: limited });
    if (result.exitCode === 0 || /not mounted|no mount point/.test(result.stderr)) return;
    throw new ExecError(argv, result.exitCode, result.stderr);
  });
}

/** The machine's own mounter: mount(8) and umount(8). */
export const systemMounter: Mounter = {
  async mount({ cwd, options, source, target, type }, signal) {
    const flags = options.length === 0 ? [] : ["-o", options.join(",")];
    await within(signal, mountMs, (limited) =>
      exec(["mount", "-t", type, ...flags, source, target], {
        signal: limited,
        // Through the newer calls no option may be longer than 256 bytes.
        ...(type === "overlay" ? { env: { LIBMOUNT_FORCE_MOUNT2: "always" } } : {}),
        ...(cwd === undefined ? {} : { cwd }),
      }),
    );
  },
  async mountTmpfs(path, options, signal) {
    const swapless = swaplessOptions(readFileSync("/proc/sys/kernel/osrelease", "utf8"));
    const mount = async (more: readonly string[]): Promise<void> => {
      const request = { source: "tmpfs", target: path, type: "tmpfs" };
      await systemMounter.mount({ ...request, options: [...options, ...more] }, signal);
    };
    try {
      await mount(swapless);
    } catch (error) {
      // Not everybody may decide about swap: a machine inside another's user namespace may not.
      if (!(error instanceof ExecError) || swapless.length === 0) throw error;
      await mount([]);
    }
  },
  async bind(source, target, signal) {
    await within(signal, mountMs, (limited) =>
      exec(["mount", "--no-canonicalize", "--bind", source, target], { signal: limited }),
    );
  },
  async unmount(path, signal) {
    try {
      await unmountOnce([], path, unmountMs, signal);
      return "unmounted";
    } catch (error) {
      signal.throwIfAborted();
      const entry = systemMounter.table().at(path);
      if (entry === undefined) return "unmounted";
      if (!mayHang(entry) && !isAbort(error)) throw error;
      // It means something to network file systems: calls that wait for the server fail.
      await unmountOnce(["-f"], path, lastResortMs, signal).catch(() => undefined);
      signal.throwIfAborted();
      if (systemMounter.table().at(path)?.id !== entry.id) return "unmounted";
      await unmountOnce(["-l"], path, lastResortMs, signal);
      return "detached";
    }
  },
  mountPoints: (directory) =>
    Promise.resolve(
      systemMounter
        .table()
        .below(directory)
        .map(({ path }) => path),
    ),
  table: () => new MountTable(readFileSync("/proc/self/mountinfo", "utf8")),
  async answers(path, signal) {
    await within(signal, answerMs, (limited) =>
      exec(["stat", "--format=%d", "--", path], { signal: limited }),
    );
  },
};

import { readFileSync } from "node:fs";
import { statfs } from "node:fs/promises";

import { within } from "../../lib/clock.ts";
import { type ExecOptions, type ExecResult, execResult } from "../../lib/exec.ts";
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
   * Whether what is written to a directory of this machine's own stays in its memory. The table would tell too, but it has
   * a line for each volume of each pod, and the kernel takes milliseconds to write it. Absent: only the table tells.
   */
  isInMemory?(path: string): Promise<boolean>;
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
const answerMs = 5_000;

/** File systems whose every call may wait for another machine, or for a process. */
export function mayHang({ type }: Pick<MountEntry, "type">): boolean {
  return /^(nfs4?|cifs|smb3?|ceph|9p|afs|lustre|gpfs|glusterfs|fuse(blk)?(\..*)?)$/.test(type);
}

/** What a mounter needs of the machine. */
export interface MounterHost {
  /** Runs a program to its end, as `execResult`. */
  run(argv: readonly [string, ...string[]], options: ExecOptions): Promise<ExecResult>;
  /** Text of /proc/self/mountinfo; procfs waits for no disk. */
  mountinfo(): string;
  /** Text of /proc/sys/kernel/osrelease. */
  kernelRelease(): string;
}

const machine: MounterHost = {
  run: execResult,
  mountinfo: () => readFileSync("/proc/self/mountinfo", "utf8"),
  kernelRelease: () => readFileSync("/proc/sys/kernel/osrelease", "utf8"),
};

/** TMPFS_MAGIC of statfs(2). */
const tmpfsMagic = 0x01021994;
const unmounted = /not mounted|no mount point/;

class ProgramMounter implements Mounter {
  readonly #host: MounterHost;

  constructor(host: MounterHost) {
    this.#host = host;
  }

  async mount(
    { cwd, options, source, target, type }: MountRequest,
    signal: AbortSignal,
  ): Promise<void> {
    const flags = options.length === 0 ? [] : ["-o", options.join(",")];
    await this.#run(["mount", "-t", type, ...flags, source, target], mountMs, signal, {
      // Through the newer calls no option may be longer than 256 bytes.
      ...(type === "overlay" ? { env: { LIBMOUNT_FORCE_MOUNT2: "always" } } : {}),
      ...(cwd === undefined ? {} : { cwd }),
    });
  }

  async mountTmpfs(path: string, options: readonly string[], signal: AbortSignal): Promise<void> {
    const swapless = swaplessOptions(this.#host.kernelRelease());
    const request = { source: "tmpfs", target: path, type: "tmpfs" };
    try {
      await this.mount({ ...request, options: [...options, ...swapless] }, signal);
    } catch (error) {
      // Not everybody may decide about swap: a machine inside another's user namespace may not.
      if (!(error instanceof ExecError) || swapless.length === 0) throw error;
      await this.mount({ ...request, options }, signal);
    }
  }

  async bind(source: string, target: string, signal: AbortSignal): Promise<void> {
    await this.#run(["mount", "--no-canonicalize", "--bind", source, target], mountMs, signal);
  }

  async unmount(path: string, signal: AbortSignal): Promise<"unmounted" | "detached"> {
    try {
      await this.#unmount([], path, unmountMs, signal);
      return "unmounted";
    } catch (error) {
      signal.throwIfAborted();
      const entry = this.table().at(path);
      if (entry === undefined) return "unmounted";
      if (!mayHang(entry) && !isAbort(error)) throw error;
      // It means something to network file systems: calls that wait for the server fail.
      await this.#unmount(["-f"], path, lastResortMs, signal).catch(() => undefined);
      signal.throwIfAborted();
      if (this.table().at(path)?.id !== entry.id) return "unmounted";
      await this.#unmount(["-l"], path, lastResortMs, signal);
      return "detached";
    }
  }

  async mountPoints(directory: string): Promise<readonly string[]> {
    return Promise.resolve(
      this.table()
        .below(directory)
        .map(({ path }) => path),
    );
  }

  table(): MountTable {
    return new MountTable(this.#host.mountinfo());
  }

  async isInMemory(path: string): Promise<boolean> {
    return (await statfs(path)).type === tmpfsMagic;
  }

  async answers(path: string, signal: AbortSignal): Promise<void> {
    // Of the file system, which its server has to answer: what a file is may be remembered.
    await this.#run(["stat", "--file-system", "--format=%t", "--", path], answerMs, signal);
  }

  async #unmount(
    flags: readonly string[],
    path: string,
    ms: number,
    signal: AbortSignal,
  ): Promise<void> {
    const entry = this.table().at(path);
    // A helper such as umount.nfs4 outlives the umount that is given up, and waits for its server for ever.
    const alone = entry !== undefined && mayHang(entry) ? ["--internal-only"] : [];
    try {
      await this.#run(["umount", "--no-canonicalize", ...alone, ...flags, path], ms, signal);
    } catch (error) {
      if (!(error instanceof ExecError) || !unmounted.test(error.stderr)) throw error;
    }
  }

  async #run(
    argv: readonly [string, ...string[]],
    ms: number,
    signal: AbortSignal,
    more: Omit<ExecOptions, "signal"> = {},
  ): Promise<void> {
    await within(signal, ms, async (limited) => {
      const result = await this.#host.run(argv, { ...more, signal: limited });
      if (result.exitCode !== 0) throw new ExecError(argv, result.exitCode, result.stderr);
    });
  }
}

/** A mounter by mount(8) and umount(8). */
export function createMounter(host: MounterHost): Mounter {
  return new ProgramMounter(host);
}

/** The machine's own. */
export const systemMounter: Mounter = createMounter(machine);

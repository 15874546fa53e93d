import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { type HostPrograms, MissingProgramError } from "./host-programs.ts";
import { joinMountOptions } from "./mount-options.ts";
import type { Mounter } from "./mounter.ts";
import { VolumeError } from "./payload.ts";

export interface DiskMountDeps {
  readonly programs: HostPrograms;
  readonly mounter: Mounter;
  readonly logger: Logger;
}

export interface DiskMount {
  /** Block device. */
  readonly device: string;
  /** An empty directory. */
  readonly target: string;
  /** Of the file system; empty for the default. */
  readonly fsType: string;
  readonly options: readonly string[];
  readonly readOnly: boolean;
}

/** A disk holds another file system than was asked for, and does not mount as that. */
export class FilesystemMismatchError extends VolumeError {}

const lookMs = 60_000;
/** A big disk that first forgets all its blocks takes its time; nothing but this volume waits. */
const formatMs = 3_600_000;
const checkMs = 3_600_000;

const defaultType = "ext4";
const notFormatted = "";

/** It becomes part of a program's name. */
function checkedType(fsType: string): string {
  if (fsType === "") return defaultType;
  if (/^[a-z0-9][a-z0-9._-]{0,31}$/.test(fsType)) return fsType;
  throw new VolumeError(`invalid file system type ${JSON.stringify(fsType)}`);
}

/**
 * What the device holds, in blkid's words; empty only for a device that was read and has no signature of anything.
 *
 * @throws {VolumeError} when that cannot be told.
 */
export async function diskFormat(
  programs: HostPrograms,
  device: string,
  signal: AbortSignal,
): Promise<string> {
  const fail = (reason: string): never => {
    throw new VolumeError(`failed to get disk format of disk ${device}: ${reason}`);
  };
  // A device that cannot be read looks to blkid like one without signatures. (A program reads: a dead disk never answers.)
  const read = await programs.run(
    ["dd", `if=${device}`, "of=/dev/null", "bs=65536", "count=1", "status=none"],
    lookMs,
    signal,
  );
  if (read.exitCode !== 0) return fail(read.stderr.trim());
  const argv = ["blkid", "-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", device] as const;
  const { exitCode, stderr, stdout } = await programs.run(argv, lookMs, signal);
  if (exitCode === 2) return notFormatted;
  // 8: several signatures contradict each other.
  if (exitCode !== 0) return fail(`blkid exited with ${exitCode ?? "no code"}: ${stderr.trim()}`);
  const found = new Map<string, string>();
  for (const line of stdout.split("\n")) {
    if (line === "") continue;
    const at = line.indexOf("=");
    if (at < 1) return fail(`blkid returns invalid output: ${stdout}`);
    found.set(line.slice(0, at), line.slice(at + 1));
  }
  if ((found.get("PTTYPE") ?? "") !== "") return "unknown data, probably partitions";
  return found.get("TYPE") ?? fail(`blkid returns invalid output: ${stdout}`);
}

async function format(
  { logger, programs }: DiskMountDeps,
  device: string,
  fsType: string,
  signal: AbortSignal,
): Promise<void> {
  const flags: Readonly<Record<string, readonly string[]>> = {
    // Nothing is kept back for root: all of it is the pod's.
    ext4: ["-F", "-m0"],
    ext3: ["-F", "-m0"],
    xfs: ["-f"],
  };
  logger.log("info", "disk is empty and gets a file system", { device, fsType });
  const argv = [`mkfs.${fsType}`, ...(flags[fsType] ?? []), device] as const;
  const { exitCode, stderr, stdout } = await programs.run(argv, formatMs, signal);
  if (exitCode === 0) return;
  const said = `${stdout}${stderr}`.trim().slice(0, 1000);
  throw new VolumeError(
    `format of disk ${JSON.stringify(device)} failed: type:(${JSON.stringify(fsType)}) errcode:(exit status ${exitCode ?? "unknown"}) output:(${said}) `,
  );
}

/** Mends what can be mended without asking anybody. */
async function check(
  { logger, programs }: DiskMountDeps,
  device: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    const { exitCode, stderr, stdout } = await programs.run(
      ["fsck", "-a", device],
      checkMs,
      signal,
    );
    const said = `${stdout}${stderr}`.trim().slice(0, 1000);
    if (exitCode === 4) {
      throw new VolumeError(
        `'fsck' found errors on device ${device} but could not correct them: ${said}`,
      );
    }
    if (exitCode === 0) return;
    const msg =
      exitCode === 1
        ? "errors of a file system were corrected"
        : "file system could not be checked";
    logger.log("warn", msg, { device, exitCode, output: said });
  } catch (error) {
    if (!(error instanceof MissingProgramError)) throw error;
    logger.log("warn", "file system could not be checked", { device, error: error.message });
  }
}

/**
 * Mounts a disk, which gets a file system first if it is certain to hold nothing at all: whatever has any signature, of
 * a file system, a partition table, a volume group or anything else that blkid knows, is never formatted.
 *
 * @throws {VolumeError}; {@link FilesystemMismatchError} when it holds something else than was asked for.
 */
export async function formatAndMount(
  deps: DiskMountDeps,
  { device, fsType: wantedType, options, readOnly, target }: DiskMount,
  signal: AbortSignal,
): Promise<void> {
  const fsType = checkedType(wantedType);
  const found = await diskFormat(deps.programs, device, signal);
  if (found === notFormatted) {
    if (readOnly) {
      throw new VolumeError(
        `cannot mount unformatted disk ${device} as we are manipulating it in read-only mode`,
      );
    }
    await format(deps, device, fsType, signal);
  } else if (!readOnly) {
    await check(deps, device, signal);
  }
  const all = joinMountOptions(options, readOnly ? ["ro"] : []);
  try {
    await deps.mounter.mount({ source: device, target, type: fsType, options: all }, signal);
  } catch (error) {
    signal.throwIfAborted();
    const text = errorMessage(error);
    if (found === notFormatted || found === fsType) throw new VolumeError(text, { cause: error });
    throw new FilesystemMismatchError(`${text}: the disk ${device} holds ${found}, not ${fsType}`, {
      cause: error,
    });
  }
}

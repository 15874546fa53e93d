import type { HostPrograms } from "./host-programs.ts";
import { VolumeError } from "./payload.ts";

export interface FileStatus {
  readonly kind: "directory" | "file" | "blockDevice" | "other";
  readonly gid: number;
  /** Of a device: `major:minor` in hexadecimal. */
  readonly device: string;
}

const statMs = 10_000;
const kinds: Readonly<Record<number, FileStatus["kind"]>> = {
  0o040000: "directory",
  0o100000: "file",
  0o060000: "blockDevice",
};

/**
 * What lies at a path of the host, links followed. Asked of another process: the path may lead to a server or a disk
 * that does not answer.
 *
 * @throws {VolumeError} with the kubelet's words when nothing is there.
 */
export async function fileStatus(
  programs: HostPrograms,
  path: string,
  signal: AbortSignal,
): Promise<FileStatus> {
  const argv = ["stat", "-L", "--format=%f %g %t:%T", "--", path] as const;
  const { exitCode, stderr, stdout } = await programs.run(argv, statMs, signal);
  if (exitCode !== 0) {
    if (stderr.includes("No such file or directory")) {
      throw new VolumeError(`path ${JSON.stringify(path)} does not exist`);
    }
    throw new VolumeError(stderr.trim());
  }
  const [mode = "", gid = "", device = ""] = stdout.trim().split(" ");
  return {
    kind: kinds[Number.parseInt(mode, 16) & 0o170000] ?? "other",
    gid: Number(gid),
    device,
  };
}

import type { StatsFs } from "node:fs";
import { statfs } from "node:fs/promises";
import { dirname, join } from "node:path";

import { errorCode } from "../../../lib/errors.ts";
import { isRecord, optionalString } from "../../../lib/guard.ts";
import { defineCheck, type Finding, judged } from "../check.ts";
import { getJSONOnSocket } from "../engine-socket.ts";
import type { Machine } from "../machine.ts";

/** One file system, and for what the node uses it. */
export interface FileSystemFacts {
  readonly path: string;
  readonly purpose: string;
  /** Undefined: it could not be asked. */
  readonly bytes: { readonly free: number; readonly total: number } | undefined;
  readonly inodes: { readonly free: number; readonly total: number } | undefined;
  readonly readOnly: boolean;
  readonly type: string;
}

/** Where a directory will be made: the nearest one above that is there. */
async function statNearest(path: string): Promise<{ readonly path: string; readonly at: StatsFs }> {
  try {
    return { path, at: await statfs(path) };
  } catch (error) {
    if (errorCode(error) !== "ENOENT" || path === "/") throw error;
    return statNearest(dirname(path));
  }
}

/** The mount that a path is on: the longest mount point above it, the last of equals. */
function mountOf(
  path: string,
  mounts: string,
): { readonly type: string; readonly options: string } {
  let best = { point: "", type: "", options: "" };
  for (const line of mounts.split("\n")) {
    const [, point = "", type = "", options = ""] = line.split(" ");
    const holds = point === "/" || path === point || path.startsWith(`${point}/`);
    if (point !== "" && holds && point.length >= best.point.length) best = { point, type, options };
  }
  return best;
}

async function fileSystem(
  machine: Machine,
  path: string,
  purpose: string,
): Promise<FileSystemFacts> {
  const found = await statNearest(join(machine.root, path));
  const { at } = found;
  const mount = mountOf(found.path, (await machine.read("/proc/self/mounts")) ?? "");
  return {
    path,
    purpose,
    bytes: { free: at.bavail * at.bsize, total: at.blocks * at.bsize },
    inodes: { free: at.ffree, total: at.files },
    readOnly: mount.options.split(",").includes("ro"),
    type: mount.type,
  };
}

async function engineRoot(machine: Machine, signal: AbortSignal): Promise<string> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(machine.patienceMs)]);
  try {
    const info = await getJSONOnSocket(machine.site.dockerSocket, "/info", limited);
    return (
      (isRecord(info) ? optionalString(info["DockerRootDir"]) : undefined) ?? "/var/lib/docker"
    );
  } catch {
    signal.throwIfAborted();
    // The check of the engine says what is wrong with it.
    return "/var/lib/docker";
  }
}

/** The kubelet's hard eviction thresholds: below them the node takes no pods, and ends some. */
const evictAt = { state: 0.1, images: 0.15, inodes: 0.05 } as const;
const networkTypes = /^(nfs4?|cifs|smb3|fuse\.sshfs|9p|ceph)$/;

function size(bytes: number): string {
  return bytes >= 2 ** 30
    ? `${(bytes / 2 ** 30).toFixed(1)} GB`
    : `${Math.round(bytes / 2 ** 20)} MB`;
}

type DiskProblem = "disk-full" | "disk-filling" | "inodes-full" | "disk-read-only" | "disk-network";

function judgeOne(facts: FileSystemFacts): readonly Finding<DiskProblem>[] {
  const { bytes, inodes, path, purpose, readOnly, type } = facts;
  const findings: Finding<DiskProblem>[] = [];
  const where = `${path} (${purpose})`;
  const least = purpose === "images" ? evictAt.images : evictAt.state;
  if (bytes !== undefined && bytes.total > 0) {
    const share = bytes.free / bytes.total;
    const text = `${where}: ${size(bytes.free)} of ${size(bytes.total)} are free (${Math.floor(share * 100)} %)`;
    if (share < least) findings.push({ problem: "disk-full", text });
    else if (share < least + 0.05) findings.push({ problem: "disk-filling", text });
  }
  // Some file systems count none.
  if (inodes !== undefined && inodes.total > 0 && inodes.free / inodes.total < evictAt.inodes) {
    findings.push({
      problem: "inodes-full",
      text: `${where}: ${inodes.free} of ${inodes.total} inodes are free`,
    });
  }
  if (readOnly) {
    findings.push({ problem: "disk-read-only", text: `${where} is mounted read-only` });
  }
  if (networkTypes.test(type)) {
    findings.push({ problem: "disk-network", text: `${where} is on ${type}` });
  }
  return findings;
}

export const disk = defineCheck({
  id: "disk",
  title: "Disks",
  group: "machine",
  looks: "space and inodes where the agent, images and logs are kept",
  reference: "docs/configuration.md",
  problems: {
    "disk-full": {
      level: "error",
      means: "A disk of the node is full beyond the threshold of eviction.",
      cause:
        "Images, volumes, logs, or something else on that disk: the node reports DiskPressure, takes no pods and evicts some.",
      remedy:
        "docker system df; du -xh --max-depth=2 /var | sort -h | tail # then: docker image prune",
    },
    "disk-filling": {
      level: "warning",
      means: "A disk of the node is nearly full.",
      cause: "A few percent more, and the node evicts pods.",
      remedy: "docker system df; du -xh --max-depth=2 /var | sort -h | tail",
    },
    "inodes-full": {
      level: "error",
      means: "A disk of the node has hardly any inodes left.",
      cause: "Very many small files: nothing new can be written although there is space.",
      remedy: "du --inodes -x --max-depth=3 /var | sort -n | tail",
    },
    "disk-read-only": {
      level: "error",
      means: "A disk that the node writes to is mounted read-only.",
      cause:
        "The kernel does so after errors of the disk (dmesg says which), or /etc/fstab says so.",
      remedy: "dmesg | grep -i -e 'remount' -e 'I/O error' # then: mount -o remount,rw",
    },
    "disk-network": {
      level: "warning",
      means: "The agent's state or Docker's is on a file system of the network.",
      cause:
        "Locks and renames there are not what SQLite and overlay need; when the server hangs, the node hangs.",
      remedy: "keep /var/lib/remora and Docker's data-root on a local disk",
    },
  },
  collect: async (machine, signal) => {
    const wanted = new Map([
      [machine.site.stateDir, "state"],
      [await engineRoot(machine, signal), "images"],
      ["/var/log", "logs"],
    ]);
    return Promise.all([...wanted].map(([path, purpose]) => fileSystem(machine, path, purpose)));
  },
  judge: (all) =>
    judged(
      all.map(({ path, bytes }) => `${path} ${size(bytes?.free ?? 0)} free`).join(", "),
      all.flatMap(judgeOne),
    ),
});

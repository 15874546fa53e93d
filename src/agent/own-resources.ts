import { lstat, readFile, readdir, readlink, realpath, rm, rmdir } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";

import { stopSlice } from "../kubelet/cgroups/systemd-slices.ts";
import { removeTree } from "../kubelet/volumes/remove-tree.ts";
import { exec, execResult } from "../lib/exec.ts";
import { errorCode, isAbort } from "../lib/errors.ts";
import { namesIn } from "../lib/names-in.ts";
import { listNodeRoutes, removeNodeRoutes } from "../network/node-routes.ts";
import type { PodNetwork } from "../network/types.ts";
import type { ContainerRuntime, ImageService } from "../runtime/types.ts";

/** One sort of thing that Remora makes on a machine: how to remove it, and how to count what is left of it. */
export interface OwnResource {
  /** Plural, for the report: "containers". */
  readonly what: string;
  remove(signal: AbortSignal): Promise<void>;
  /** What is still there, one line each. Looks at the machine, never at what `remove` believes it did. */
  left(signal: AbortSignal): Promise<readonly string[]>;
}

/** Containers and sandboxes with our labels for this node. */
export function ownContainers(
  runtime: Pick<
    ContainerRuntime,
    "snapshot" | "stopContainer" | "removeContainer" | "stopPodSandbox" | "removePodSandbox"
  >,
): OwnResource {
  return {
    what: "containers",
    remove: async (signal) => {
      const pods = [...(await runtime.snapshot(signal)).values()];
      await Promise.all(
        pods.map(async ({ sandboxes, containers }) => {
          await Promise.all(containers.map(({ id }) => runtime.stopContainer(id, 2, signal)));
          for (const { id } of containers) await runtime.removeContainer(id, signal);
          for (const { id } of sandboxes) {
            await runtime.stopPodSandbox(id, signal);
            await runtime.removePodSandbox(id, signal);
          }
        }),
      );
    },
    left: async (signal) => {
      const pods = [...(await runtime.snapshot(signal)).values()];
      return pods.flatMap(({ namespace, name, sandboxes, containers }) =>
        [...sandboxes, ...containers].map(({ id }) => `${id.slice(0, 12)} of ${namespace}/${name}`),
      );
    },
  };
}

/** Images that we made ourselves; what pods pulled belongs to the user. */
export function ownImages(images: Pick<ImageService, "listImages" | "removeImage">): OwnResource {
  const ours = async (signal: AbortSignal): Promise<string[]> =>
    (await images.listImages(signal))
      .filter(({ tags }) => tags.some((tag) => tag.startsWith("remora.local/")))
      .map(({ id }) => id);
  return {
    what: "own images",
    remove: async (signal) => {
      for (const id of await ours(signal)) await images.removeImage(id, signal);
    },
    left: ours,
  };
}

/** All mount points this process sees, in mount order. */
async function mountPoints(): Promise<string[]> {
  const text = await readFile("/proc/self/mountinfo", "utf8");
  const unescape = (path: string): string =>
    path.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCodePoint(Number.parseInt(octal, 8)),
    );
  return text.split("\n").map((line) => unescape(line.split(" ")[4] ?? ""));
}

/** Mount points below `directory`, innermost first. The table knows them by their real paths. */
async function mountsBelow(linked: string): Promise<string[]> {
  const directory = await realpath(linked).catch(() => linked);
  return (await mountPoints()).filter((path) => path.startsWith(`${directory}/`)).toReversed();
}

/** Volumes mounted below the pods directory. */
export function ownMounts(rootDir: string): OwnResource {
  return {
    what: "mounts",
    remove: async (signal) => {
      for (const path of await mountsBelow(rootDir)) await exec(["umount", path], { signal });
    },
    left: () => mountsBelow(rootDir),
  };
}

async function outputLines(
  argv: readonly [string, ...string[]],
  signal: AbortSignal,
): Promise<string[]> {
  const result = await execResult(argv, { signal });
  return result.exitCode === 0 ? result.stdout.split("\n").filter((line) => line !== "") : [];
}

/** Tables and chains of ours in nftables and iptables. */
async function ownRules(signal: AbortSignal): Promise<string[]> {
  const tables = (await outputLines(["nft", "list", "tables"], signal)).filter((line) =>
    / remora-/.test(line),
  );
  const chains: string[] = [];
  for (const tool of ["iptables-save", "ip6tables-save"] as const) {
    try {
      chains.push(
        ...(await outputLines([tool, "-t", "filter"], signal)).filter((line) =>
          line.includes("REMORA-"),
        ),
      );
    } catch (error) {
      // No iptables on this machine, so no chain of ours in it.
      if (errorCode(error) !== "ENOENT") throw error;
    }
  }
  return [...tables, ...chains];
}

/** Service rules, pod network rules and the accept rule in FORWARD. */
export function ownNetworkRules(
  network: PodNetwork,
  proxy: {
    cleanUp(signal: AbortSignal): Promise<void>;
    left(signal: AbortSignal): Promise<readonly string[]>;
  },
): OwnResource {
  return {
    what: "network rules",
    remove: async (signal) => {
      await proxy.cleanUp(signal);
      await network.cleanUp(signal);
    },
    left: async (signal) => [...(await ownRules(signal)), ...(await proxy.left(signal))],
  };
}

/**
 * What plug-ins hold for pods: addresses, rules, interfaces. Removed together with the network's rules, by the plug-ins.
 *
 * @param results Where it is written down, one file for each attachment.
 */
export function ownAttachments(results: string): OwnResource {
  return {
    what: "network attachments",
    remove: () => Promise.resolve(),
    left: async () => (await namesIn(results)).toSorted(),
  };
}

/** Routes to the pods of other nodes. */
export function ownRoutes(): OwnResource {
  return { what: "routes to nodes", remove: removeNodeRoutes, left: listNodeRoutes };
}

/** The bridge and the host ends of pod interfaces; removed together with the network's rules. */
export function ownInterfaces(bridge: string): OwnResource {
  return {
    what: "network interfaces",
    remove: () => Promise.resolve(),
    left: async (signal) =>
      (await outputLines(["ip", "-o", "link"], signal))
        .filter(
          (line) =>
            line.includes(` ${bridge}:`) ||
            line.includes(` master ${bridge} `) ||
            / remora-local[:@]/.test(line),
        )
        .map((line) => /^\d+: ([^:@]+)/.exec(line)?.[1] ?? line),
  };
}

async function cgroupHierarchies(): Promise<string[]> {
  const text = await readFile("/proc/self/mounts", "utf8");
  return text
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type]) => type === "cgroup" || type === "cgroup2")
    .map(([, path = ""]) => path);
}

async function directoriesBelow(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  });
  const nested = await Promise.all(
    entries
      .filter((entry) => entry.isDirectory())
      .map((entry) => directoriesBelow(join(path, entry.name))),
  );
  return [...nested.flat(), path];
}

/** The cgroups of our pods. Docker makes missing parents and never removes them. */
export function ownCgroups(cgroupRoot: string): OwnResource {
  const roots = async (): Promise<string[]> => {
    const tops = (await cgroupHierarchies()).flatMap((hierarchy) => [
      join(hierarchy, cgroupRoot, "kubepods"),
      join(hierarchy, cgroupRoot, "kubepods.slice"),
    ]);
    const present = await Promise.all(
      tops.map((path) =>
        lstat(path).then(
          () => path,
          () => undefined,
        ),
      ),
    );
    return present.filter((path) => path !== undefined);
  };
  return {
    what: "cgroups",
    remove: async (signal) => {
      // Deepest first; one that systemd does not know any more is what was wanted.
      for (const path of (await ownSlices()).toSorted((a, b) => b.length - a.length)) {
        await execResult(stopSlice(basename(path)), { signal });
      }
      for (const top of await roots()) {
        for (const path of await directoriesBelow(top)) {
          await rmdir(path).catch((error: unknown) => {
            // Busy: something that is not ours lives in it. The count below tells.
            if (errorCode(error) !== "EBUSY" && errorCode(error) !== "ENOENT") throw error;
          });
        }
      }
    },
    left: async () => [...(await roots()), ...(await ownSlices())],
  };
}

const transientUnits = "/run/systemd/transient";

/** Slices that were made for pods, where the engine leaves cgroups to systemd: their unit files. */
async function ownSlices(): Promise<string[]> {
  const names = await readdir(transientUnits).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  });
  return names
    .filter((name) => /^kubepods(?:-.*)?\.slice$/.test(name))
    .map((name) => join(transientUnits, name));
}

/** Links in /var/log/containers that lead below our log directory, and that directory's pods. */
export function ownLogs(options: {
  readonly podLogsDir: string;
  readonly containerLogsDir: string;
  /** Whether `<namespace>_<pod>_<uid>` is a pod of ours. */
  readonly isOurs: (directory: string) => boolean;
}): OwnResource {
  const list = async (path: string): Promise<string[]> => {
    try {
      return await readdir(path);
    } catch (error) {
      if (errorCode(error) === "ENOENT") return [];
      throw error;
    }
  };
  const ours = async (): Promise<string[]> => {
    const directories = (await list(options.podLogsDir))
      .filter(options.isOurs)
      .map((name) => join(options.podLogsDir, name));
    const links: string[] = [];
    for (const name of await list(options.containerLogsDir)) {
      const path = join(options.containerLogsDir, name);
      const target = await readlink(path).catch(() => "");
      if (directories.some((directory) => target.startsWith(`${directory}/`))) links.push(path);
    }
    return [...links, ...directories];
  };
  return {
    what: "log links",
    remove: async () => {
      for (const path of await ours()) await rm(path, { recursive: true, force: true });
    },
    left: ours,
  };
}

async function isMountPoint(path: string): Promise<boolean> {
  const [self, parent] = await Promise.all([lstat(path), lstat(dirname(path))]);
  return self.dev !== parent.dev || (await mountPoints()).includes(path);
}

/**
 * Removes `path`; a directory that is a mount point of its own (a disk for the state) is emptied instead. What is mounted
 * anywhere below stays, whatever kept it from being unmounted: it may be somebody's data.
 */
async function removePath(path: string, signal: AbortSignal): Promise<void> {
  const absolute = resolve(path);
  try {
    await removeTree(absolute, signal);
  } catch (error) {
    if (isAbort(error) || !(await isMountPoint(absolute))) throw error;
    for (const name of await readdir(absolute)) await removeTree(join(absolute, name), signal);
  }
}

async function isEmptyMountPoint(path: string): Promise<boolean> {
  return (await isMountPoint(path)) && (await readdir(path)).length === 0;
}

async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    (error: unknown) => {
      if (["ENOENT", "ENOTDIR"].includes(errorCode(error) ?? "")) return false;
      throw error;
    },
  );
}

/** Files and directories that are ours altogether. */
export function ownFiles(paths: readonly string[], what = "files"): OwnResource {
  return {
    what,
    remove: async (signal) => {
      for (const path of paths) await removePath(path, signal);
    },
    left: async () => {
      const left: string[] = [];
      for (const path of paths) {
        if (!(await isThere(path))) continue;
        if ((await lstat(path)).isDirectory() && (await isEmptyMountPoint(path))) continue;
        left.push(path);
      }
      return left;
    },
  };
}

/**
 * Directories that go with what is ours in them, innermost first: `outgoing` is removed before. One in which somebody else
 * keeps something stays, and one that a disk is mounted on.
 */
export function ownDirectories(
  paths: readonly string[],
  outgoing: readonly string[],
  what = "directories",
): OwnResource {
  const going = new Set([...outgoing, ...paths]);
  return {
    what,
    remove: async () => {
      for (const path of paths) {
        await rmdir(path).catch((error: unknown) => {
          if (
            !["ENOENT", "ENOTEMPTY", "EEXIST", "ENOTDIR", "EBUSY"].includes(errorCode(error) ?? "")
          ) {
            throw error;
          }
        });
      }
    },
    left: async () => {
      const left: string[] = [];
      for (const path of paths) {
        if (!(await isThere(path)) || (await isMountPoint(path))) continue;
        const names = await namesIn(path);
        if (names.every((name) => going.has(join(path, name)))) left.push(path);
      }
      return left;
    },
  };
}

import { type Cgroup, type CgroupDirectory, cgroupV1, cgroupV2 } from "./cgroup.ts";
import { parseProcCgroup } from "./cgroup-text.ts";
import type { KernelFiles } from "./kernel-files.ts";

const root = "/sys/fs/cgroup";

/** Paths of one cgroup below the root of each hierarchy, with a leading slash. */
export interface CgroupPaths {
  /** The one that names it: of the memory controller (v1), of the unified hierarchy (v2). */
  readonly id: string;
  readonly of: (controller: string) => string;
}

/** The path up to the part that names `mark`: a container may have made cgroups of its own below. */
function cutAfter(path: string, mark: string): string | undefined {
  const at = path.indexOf(mark);
  if (at < 0) return undefined;
  const end = path.indexOf("/", at);
  return end < 0 ? path : path.slice(0, end);
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}

/** Finds cgroups on this host, whatever the engine's driver and the kernel's hierarchies are. */
export class CgroupFinder {
  readonly #files: KernelFiles;
  readonly #swap: boolean;
  readonly version: 1 | 2;

  constructor(files: KernelFiles, swap: boolean) {
    this.#files = files;
    this.#swap = swap;
    this.version = files.text(`${root}/cgroup.controllers`) === undefined ? 1 : 2;
  }

  /** Where a process is; undefined when it has ended. */
  ofProcess(pid: number | "self"): CgroupPaths | undefined {
    const text = this.#files.text(`/proc/${pid}/cgroup`);
    if (text === undefined) return undefined;
    const paths = parseProcCgroup(text);
    const id = paths.get(this.version === 2 ? "" : "memory");
    if (id === undefined) return undefined;
    return { id, of: (controller) => (this.version === 2 ? id : (paths.get(controller) ?? id)) };
  }

  /**
   * The cgroup of a container, from its first process. Undefined when that has ended: its number may have been given to
   * another, so only a path that names the container counts.
   */
  ofContainer(containerID: string, pid: number): CgroupPaths | undefined {
    const found = this.ofProcess(pid);
    if (found === undefined) return undefined;
    const id = cutAfter(found.id, containerID);
    if (id === undefined) return undefined;
    return { id, of: (controller) => cutAfter(found.of(controller), containerID) ?? id };
  }

  /** The pod's cgroup above one of its containers; undefined when pods have none. */
  podAbove(container: CgroupPaths, uid: string): CgroupPaths | undefined {
    const id = parentOf(container.id);
    const name = id.slice(id.lastIndexOf("/") + 1).replaceAll("_", "-");
    if (!name.includes(`pod${uid}`)) return undefined;
    return { id, of: (controller) => parentOf(container.of(controller)) };
  }

  /** The same path in every hierarchy. */
  at(path: string): CgroupPaths {
    return { id: path, of: () => path };
  }

  /** When it was made, milliseconds since the epoch; undefined when it is not there. */
  madeAt(paths: CgroupPaths): number | undefined {
    return this.#files.madeAt(this.#directory(paths)("memory"));
  }

  /** Ids of the processes in it, without those further below. */
  processes(paths: CgroupPaths): readonly number[] {
    const text = this.#files.text(`${this.#directory(paths)("cpu")}/cgroup.procs`) ?? "";
    return text
      .split("\n")
      .filter((line) => line !== "")
      .map(Number);
  }

  open(paths: CgroupPaths): Cgroup {
    const options = { files: this.#files, directory: this.#directory(paths), swap: this.#swap };
    return this.version === 2 ? cgroupV2(options) : cgroupV1(options);
  }

  #directory(paths: CgroupPaths): CgroupDirectory {
    const below = (path: string): string => (path === "/" ? "" : path);
    if (this.version === 2) {
      const only = `${root}${below(paths.id)}`;
      return () => only;
    }
    const known = new Map<string, string>();
    return (controller) => {
      let directory = known.get(controller);
      if (directory === undefined) {
        directory = `${root}/${controller}${below(paths.of(controller))}`;
        known.set(controller, directory);
      }
      return directory;
    };
  }
}

import { parseCount } from "./cgroup-text.ts";
import type { KernelFiles } from "./kernel-files.ts";
import type { HandleCounts } from "./sample.ts";

/** Looking at so many descriptors takes some 10 ms; a container with more has its sockets not counted. */
const maxLookedAt = 2000;

function maxOpenFiles(files: KernelFiles, pid: number): number | undefined {
  const soft = /^Max open files\s+(\S+)/m.exec(files.text(`/proc/${pid}/limits`) ?? "")?.[1];
  return soft === "unlimited" ? Number.POSITIVE_INFINITY : parseCount(soft);
}

/** What these processes of a container hold open; `first` is its first process. */
export function countHandles(
  files: KernelFiles,
  first: number,
  processes: readonly number[],
): HandleCounts {
  let descriptors = 0;
  let sockets: number | undefined = 0;
  for (const pid of processes) {
    const directory = `/proc/${pid}/fd`;
    const names = files.names(directory);
    descriptors += names.length;
    if (sockets === undefined || descriptors > maxLookedAt) {
      sockets = undefined;
      continue;
    }
    for (const name of names) {
      if (files.target(`${directory}/${name}`)?.startsWith("socket:") === true) sockets += 1;
    }
  }
  return { descriptors, sockets, maxOpenFiles: maxOpenFiles(files, first) };
}

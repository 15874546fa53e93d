import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { parseCount, statValue } from "../../src/kubelet/stats/cgroup-text.ts";
import type { KernelFiles } from "../../src/kubelet/stats/kernel-files.ts";

/** Files of a kernel in memory; a test changes them as time goes on. */
export interface FakeKernelFiles extends KernelFiles {
  readonly texts: Map<string, string>;
  readonly links: Map<string, string>;
  /** Files that are open now. */
  readonly open_: Set<string>;
  /** Every path that was read, since the last `reads.clear()`. */
  readonly reads: Set<string>;
  /** Removes a directory with everything below it. */
  remove(directory: string): void;
}

/** `version` chooses a recording of a real kernel: sections of `@@@ path` and the file's text. */
export function recordedKernel(version: 1 | 2 | undefined): FakeKernelFiles {
  const texts = new Map<string, string>();
  if (version !== undefined) {
    const url = new URL(`../fixtures/kernel/cgroup-v${version}.txt`, import.meta.url);
    for (const section of readFileSync(fileURLToPath(url), "utf8").split(/^@@@ /m).slice(1)) {
      const end = section.indexOf("\n");
      texts.set(section.slice(0, end), section.slice(end + 1));
    }
  }
  const links = new Map<string, string>();
  const open_ = new Set<string>();
  const reads = new Set<string>();
  const below = (path: string): string[] =>
    [...texts.keys(), ...links.keys()].filter((known) => known.startsWith(`${path}/`));
  const text = (path: string): string | undefined => {
    reads.add(path);
    return texts.get(path);
  };
  return {
    texts,
    links,
    open_,
    reads,
    remove: (directory) => {
      for (const path of below(directory)) {
        texts.delete(path);
        links.delete(path);
      }
    },
    text,
    names: (path) => [
      ...new Set(below(path).map((known) => known.slice(path.length + 1).split("/")[0] ?? "")),
    ],
    target: (path) => links.get(path),
    madeAt: (path) => (texts.has(path) || below(path).length > 0 ? 1_000_000 : undefined),
    open: (path) => {
      if (!texts.has(path)) return undefined;
      open_.add(path);
      let gone = false;
      const read = (): string | undefined => {
        // As the kernel does: what was removed stays gone for who has it open, also when its name is back.
        gone ||= !texts.has(path);
        return gone ? undefined : text(path);
      };
      return {
        text: read,
        count: () => {
          const all = read();
          return all === undefined ? undefined : (parseCount(all) ?? 0);
        },
        value: (key) => {
          const all = read();
          return all === undefined ? undefined : (statValue(all, key) ?? 0);
        },
        close: () => {
          open_.delete(path);
        },
      };
    },
  };
}

import { readlinkSync } from "node:fs";
import { basename, dirname, isAbsolute } from "node:path";
import { addAbortSignal } from "node:stream";

import { spawnStreaming } from "../../lib/exec.ts";
import { VolumeError } from "./payload.ts";
import { parseRemovalReport } from "./removal-report.ts";
import { asyncRemoval, removeEntry } from "./removal-walk.ts";

/** Removes a directory with all that is in it; not there is success. */
export type RemoveTree = (path: string, signal: AbortSignal) => Promise<void>;

export interface RemoveTreeOptions {
  /** Entries beyond which a process of its own goes on; default 1000. */
  readonly maxInline?: number;
  /** Program that runs `runRemovalChild`; default: this Node on removal-child.ts beside this file. */
  readonly argv?: readonly [string, ...string[]];
}

const maxInlineEntries = 1000;

function childArgv(): [string, string] {
  // The Node that runs us, whatever PATH says.
  const node = readlinkSync("/proc/self/exe");
  // The bundle has its own copy beside it.
  const suffix = import.meta.url.endsWith(".cjs") ? "cjs" : "ts";
  return [node, new URL(`removal-child.${suffix}`, import.meta.url).pathname];
}

async function removeInChild(
  path: string,
  argv: readonly [string, ...string[]],
  signal: AbortSignal,
): Promise<void> {
  const child = spawnStreaming(argv, { signal, dieWithParent: true });
  child.stdin.end(path);
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => {
    stderr = (stderr + chunk.toString("utf8")).slice(0, 4096);
  });
  let text = "";
  // What hangs in the kernel does not die, and must not be waited for.
  const output: AsyncIterable<Buffer> = addAbortSignal(signal, child.stdout);
  for await (const chunk of output) text += chunk.toString("utf8");
  if (text === "") {
    const [reason = "the process that removes it ended early"] =
      /^\w*Error: .*$/m.exec(stderr) ?? [];
    throw new VolumeError(`cannot remove ${path}: ${reason}`);
  }
  const problem = parseRemovalReport(text);
  if (problem !== undefined) throw new VolumeError(problem);
}

/**
 * Removes a tree by directory descriptors: no link is followed, whoever swaps names meanwhile, and it ends before
 * anything that is in another mount than its parent. A large tree costs a process, and the agent no time.
 *
 * @throws {VolumeError} naming the exact path where it stopped; `AbortError`.
 */
export async function removeTree(
  path: string,
  signal: AbortSignal,
  options: RemoveTreeOptions = {},
): Promise<void> {
  const { argv, maxInline = maxInlineEntries } = options;
  const name = basename(path);
  if (!isAbsolute(path) || name === "" || name === "." || name === "..") {
    throw new VolumeError(`"${path}" is no directory that could be removed`);
  }
  const small = await removeEntry(dirname(path), name, {
    files: asyncRemoval,
    signal,
    seen: (entries) => entries <= maxInline,
  });
  if (!small.complete) await removeInChild(path, argv ?? childArgv(), signal);
}

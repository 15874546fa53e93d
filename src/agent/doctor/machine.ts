import { join } from "node:path";

import type { Clock } from "../../lib/clock.ts";
import { errorCode } from "../../lib/errors.ts";
import type { ExecResult } from "../../lib/exec.ts";
import { namesIn } from "../../lib/names-in.ts";
import { readIfThere } from "../../lib/read-if-there.ts";
import { runIfThere } from "../../proxy/left-overs/tool.ts";
import type { Site } from "./site.ts";

/** The machine that is looked at, as far as it may be another one in tests. */
export interface Machine {
  readonly clock: Clock;
  /** What stands before `/proc`, `/sys` and `/etc`: empty but in tests. */
  readonly root: string;
  readonly isRoot: boolean;
  /** Milliseconds that a single answer of the engine or the API server is waited for. */
  readonly patienceMs: number;
  /** [0, 1) */
  readonly random: () => number;
  /** Where the agent works, or would. */
  readonly site: Site;
  /** Runs a program. @returns Undefined when there is none of that name. @throws `AbortError`. */
  run(
    argv: readonly [string, ...string[]],
    options: { readonly signal: AbortSignal; readonly stdin?: string },
  ): Promise<ExecResult | undefined>;
  /** The text of a file; undefined when it is not there or may not be read. */
  read(path: string): Promise<string | undefined>;
  /** What is in a directory; nothing where there is none. */
  names(path: string): Promise<readonly string[]>;
}

/** Codes of files that say nothing: not there for us. */
const unreadable = new Set(["EACCES", "EPERM", "EISDIR", "ENOTDIR", "EINVAL", "EIO", "ESRCH"]);

/** This machine, or with a `root` of its own a made one. */
export function machineAt(
  options: Pick<Machine, "clock" | "root" | "isRoot" | "random" | "site"> &
    Partial<Pick<Machine, "run" | "patienceMs">>,
): Machine {
  const { root } = options;
  return {
    run: runIfThere,
    patienceMs: 5000,
    ...options,
    read: async (path) => {
      try {
        return await readIfThere(join(root, path));
      } catch (error) {
        if (unreadable.has(errorCode(error) ?? "")) return undefined;
        throw error;
      }
    },
    names: async (path) => {
      try {
        return await namesIn(join(root, path));
      } catch (error) {
        if (unreadable.has(errorCode(error) ?? "")) return [];
        throw error;
      }
    },
  };
}

/** A number of a file of one; undefined when there is none. */
export async function readNumber(machine: Machine, path: string): Promise<number | undefined> {
  const text = (await machine.read(path))?.trim();
  if (text === undefined || text === "") return undefined;
  const value = Number(text);
  return Number.isFinite(value) ? value : undefined;
}

import { readFileSync, writeSync } from "node:fs";
import { basename, dirname } from "node:path";

import { errorMessage, ParseError } from "../../lib/errors.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import { removeEntry, syncRemoval } from "./removal-walk.ts";

/** How the process that removes a large tree ended; undefined is success. */
export function parseRemovalReport(text: string): string | undefined {
  const value: unknown = JSON.parse(text);
  if (!isRecord(value)) throw new ParseError("removal", "a report");
  return optionalString(value["problem"]);
}

/**
 * Body of the process that removes a large tree, whose path it reads from its standard input: in it every call may wait
 * for the disk, and one that never answers holds up nobody else.
 */
export async function runRemovalChild(): Promise<void> {
  const path = readFileSync(0, "utf8");
  let problem: string | undefined;
  try {
    await removeEntry(dirname(path), basename(path), {
      files: syncRemoval,
      // Whoever is tired of it ends the process.
      signal: new AbortController().signal,
      seen: () => true,
    });
  } catch (error) {
    problem = errorMessage(error);
  }
  writeSync(1, JSON.stringify({ problem }));
}

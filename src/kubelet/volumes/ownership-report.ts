import { readFileSync, writeSync } from "node:fs";

import { ParseError } from "../../lib/errors.ts";
import { isRecord, optionalNumber, optionalString } from "../../lib/guard.ts";
import { type GroupOwnership, giveToGroup, syncTree, type WalkResult } from "./ownership-walk.ts";

/** What the process that walks is asked to do, as JSON on its standard input. */
export interface OwnershipOrder extends GroupOwnership {
  readonly path: string;
}

/** One line of what it says: how far it is, or how it ended. */
export type OwnershipReport =
  | { readonly kind: "progress"; readonly entries: number }
  | { readonly kind: "done"; readonly result: WalkResult };

const entriesPerReport = 5000;

/** @throws {ParseError} for anything but a report. */
export function parseOwnershipReport(line: string): OwnershipReport {
  const value: unknown = JSON.parse(line);
  const entries = isRecord(value) ? optionalNumber(value["entries"]) : undefined;
  if (!isRecord(value) || entries === undefined) throw new ParseError("ownership", "a report");
  const failures = optionalNumber(value["failures"]);
  if (failures === undefined) return { kind: "progress", entries };
  const problem = optionalString(value["problem"]);
  return { kind: "done", result: { entries, failures, problem, complete: true } };
}

function parseOrder(text: string): OwnershipOrder {
  const value: unknown = JSON.parse(text);
  const path = isRecord(value) ? optionalString(value["path"]) : undefined;
  const gid = isRecord(value) ? optionalNumber(value["gid"]) : undefined;
  if (!isRecord(value) || path === undefined || gid === undefined) {
    throw new ParseError("ownership", "an order");
  }
  return { path, gid, readOnly: value["readOnly"] === true };
}

function say(value: object): void {
  writeSync(1, `${JSON.stringify(value)}\n`);
}

/**
 * Body of the process that walks: in it every call may wait for the disk, and one that never answers holds up nobody
 * else.
 */
export async function runOwnershipChild(): Promise<void> {
  const { path, ...wanted } = parseOrder(readFileSync(0, "utf8"));
  const result = await giveToGroup(path, wanted, {
    files: syncTree,
    // Whoever is tired of it ends the process.
    signal: new AbortController().signal,
    seen: (entries) => {
      if (entries % entriesPerReport === 0) say({ entries });
      return true;
    },
  });
  say({ entries: result.entries, failures: result.failures, problem: result.problem });
}

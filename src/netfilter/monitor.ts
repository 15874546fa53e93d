import { once } from "node:events";
import { createInterface } from "node:readline";

import { spawnStreaming } from "../lib/exec.ts";

/** What happened to a table: `deleted` as a whole, or `removed` something in it. */
export interface TableEvent {
  readonly kind: "deleted" | "removed";
  readonly family: string;
  readonly table: string;
  /** The line as nft printed it, for the log. */
  readonly line: string;
}

const deletion = /^delete (table|chain|rule|map|set|element) (ip6?|inet) (\S+)/;

/** Reads one line of `nft monitor destroy`. Undefined for anything but a deletion. */
export function parseMonitorLine(line: string): TableEvent | undefined {
  const match = deletion.exec(line);
  if (match === null) return undefined;
  const [, what, family = "", table = ""] = match;
  return { kind: what === "table" ? "deleted" : "removed", family, table, line };
}

/**
 * Follows deletions in the kernel's nftables until `signal` aborts or nft ends. Says nothing about who deleted: our own
 * transactions appear too.
 *
 * @param onEvent Must not throw.
 */
export async function monitorDeletions(
  onEvent: (event: TableEvent) => void,
  signal: AbortSignal,
): Promise<void> {
  // Whole tables only: element events would make every own change wake us, at every size.
  const child = spawnStreaming(["nft", "monitor", "destroy", "tables"], { signal });
  const lines = createInterface({ input: child.stdout });
  child.stderr.resume();
  lines.on("line", (line) => {
    const event = parseMonitorLine(line);
    if (event !== undefined) onEvent(event);
  });
  await once(child, "close");
}

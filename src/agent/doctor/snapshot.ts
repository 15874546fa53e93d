import { join } from "node:path";

import { isRecord } from "../../lib/guard.ts";
import { localSocket } from "../local/places.ts";
import type { NodeSnapshot } from "../local/types.ts";
import { getJSONOnSocket } from "./engine-socket.ts";
import type { Machine } from "./machine.ts";

const patienceMs = 3000;

function isSnapshot(value: unknown): value is NodeSnapshot {
  return (
    isRecord(value) && value["schema"] === 1 && isRecord(value["agent"]) && isRecord(value["node"])
  );
}

/** What the running agent tells about itself; undefined when none does, or one of another version. */
export async function askSnapshot(
  { site }: Pick<Machine, "site">,
  signal: AbortSignal,
): Promise<NodeSnapshot | undefined> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]);
  try {
    const path = join(site.stateDir, localSocket);
    const value = await getJSONOnSocket(path, "/v1/snapshot", limited);
    return isSnapshot(value) ? value : undefined;
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}

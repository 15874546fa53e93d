import { join } from "node:path";

import { askSnapshot } from "../local/local-client.ts";
import { localSocket } from "../local/places.ts";
import type { NodeSnapshot } from "../local/types.ts";
import type { Machine } from "./machine.ts";

const patienceMs = 3000;

/** What the running agent tells about itself; undefined when none does. Rejects with the signal's reason alone. */
export async function snapshotOf(
  { root, site }: Pick<Machine, "root" | "site">,
  signal: AbortSignal,
): Promise<NodeSnapshot | undefined> {
  const { pid, stateDir } = site;
  const limited = AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]);
  try {
    const place = { stateDir, socket: join(root, stateDir, localSocket), pid };
    const answer = await askSnapshot(place, limited);
    return answer.kind === "snapshot" ? answer.snapshot : undefined;
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}

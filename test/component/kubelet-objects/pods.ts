import assert from "node:assert/strict";

import type { Volume } from "../../../src/api/types.gen.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { systemClock } from "../../../src/lib/clock.ts";

/** A pod of the node with these volumes. */
export function podWith(
  name: string,
  volumes: readonly Volume[],
  more: Partial<AssignedPod["metadata"]> = {},
): AssignedPod {
  return {
    metadata: { name, namespace: "default", uid: `uid-of-${name}`, resourceVersion: "1", ...more },
    spec: { containers: [{ name: "main", image: "app:1" }], volumes: [...volumes] },
  };
}

/** Resolves when `condition` holds; fails after 5 s. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const give = systemClock.monotonic() + 5000;
  while (!condition()) {
    if (systemClock.monotonic() > give) assert.fail(`never: ${what}`);
    await systemClock.sleep(2, AbortSignal.timeout(1000));
  }
}

import type { Pod } from "../../api/types.gen.ts";
import type { PodRecord } from "../../runtime/types.ts";

/** PodList of what runs, rebuilt from the runtime alone. */
export function runningPods(records: ReadonlyMap<string, PodRecord>): {
  readonly kind: "PodList";
  readonly apiVersion: "v1";
  readonly metadata: Readonly<Record<string, never>>;
  readonly items: readonly Pod[];
} {
  const items: Pod[] = [];
  for (const { uid, name, namespace, containers, sandboxes } of records.values()) {
    const running = containers.filter(({ state }) => state.kind === "running");
    if (running.length === 0 && !sandboxes.some(({ ready }) => ready)) continue;
    items.push({
      metadata: { name, namespace, uid },
      spec: {
        containers: running.map((container) => ({ name: container.name, image: container.image })),
      },
      status: {},
    });
  }
  return { kind: "PodList", apiVersion: "v1", metadata: {}, items };
}

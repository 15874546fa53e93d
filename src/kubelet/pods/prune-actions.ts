import { allContainers } from "../spec/containers.ts";
import type { ObservedPod } from "../status/observed.ts";
import type { AssignedPod } from "../types.ts";
import type { PodAction } from "./pod-action.ts";

/** What nobody needs any more: all but the newest dead container of each name, strangers, empty old sandboxes. */
export function pruneActions(pod: AssignedPod, observed: ObservedPod): readonly PodAction[] {
  const { record } = observed;
  const known = new Set(allContainers(pod).map(({ container }) => container.name));
  const doomed = new Set<string>();
  const actions: PodAction[] = [];
  const seen = new Map<string, number>();
  for (const container of record.containers) {
    const dead = seen.get(container.name) ?? 0;
    if (container.state.kind === "running") continue;
    if (container.state.kind === "exited") seen.set(container.name, dead + 1);
    if (known.has(container.name) && (dead === 0 || container.state.kind !== "exited")) continue;
    doomed.add(container.id);
    actions.push({ kind: "removeContainer", record: container });
  }
  const used = new Set(
    record.containers.filter(({ id }) => !doomed.has(id)).map(({ sandboxID }) => sandboxID),
  );
  for (const sandbox of record.sandboxes.slice(1)) {
    if (!sandbox.ready && !used.has(sandbox.id)) actions.push({ kind: "removeSandbox", sandbox });
  }
  return actions;
}

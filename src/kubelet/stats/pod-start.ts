import type { PodStatus } from "../../api/types.gen.ts";
import { imageReference } from "../spec/image-name.ts";
import { allContainers, isHostNetwork } from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";
import type { PodStart } from "./pod-metrics.ts";
import type { PullRecord } from "./runtime-metrics.ts";

/** Milliseconds that lie in at least one of these spans. */
function covered(spans: readonly (readonly [fromMs: number, toMs: number])[]): number {
  let total = 0;
  let until = Number.NEGATIVE_INFINITY;
  for (const [from, to] of spans.toSorted(([a], [b]) => a - b)) {
    if (to <= until) continue;
    total += to - Math.max(from, until);
    until = to;
  }
  return total;
}

function initSpans(status: PodStatus): readonly (readonly [number, number])[] {
  return (status.initContainerStatuses ?? []).flatMap(({ lastState, state }) =>
    [state?.terminated, lastState?.terminated].flatMap((ended) => {
      const from = Date.parse(ended?.startedAt ?? "");
      const to = Date.parse(ended?.finishedAt ?? "");
      return to > from ? [[from, to] as const] : [];
    }),
  );
}

/**
 * How long it took until the pod ran.
 *
 * @param status The first one that says so.
 * @param times When this agent first saw the pod, and now; milliseconds since the epoch.
 */
export function podStart(
  pod: AssignedPod,
  status: PodStatus,
  pulls: readonly PullRecord[],
  { nowMs, seenAtMs }: { readonly seenAtMs: number; readonly nowMs: number },
): PodStart {
  // Whole seconds: what was made within the second in which it was seen was made then.
  const created = Date.parse(pod.metadata.creationTimestamp ?? "");
  const createdAtMs = Number.isFinite(created)
    ? Math.max(created, Math.min(seenAtMs, created + 999))
    : seenAtMs;
  const images = new Set(
    allContainers(pod).map(({ container }) => imageReference(container.image ?? "")),
  );
  const spans = [
    ...pulls
      .filter(({ reference, toMs }) => images.has(reference) && toMs > createdAtMs)
      .map(({ fromMs, toMs }) => [Math.max(fromMs, createdAtMs), toMs] as const),
    ...initSpans(status),
  ];
  const sinceCreated = Math.max(nowMs - createdAtMs, 0) / 1000;
  return {
    sinceSeen: Math.max(nowMs - seenAtMs, 0) / 1000,
    sinceCreated,
    withoutPulls: Math.max(sinceCreated - covered(spans) / 1000, 0),
    hostNetwork: isHostNetwork(pod),
  };
}

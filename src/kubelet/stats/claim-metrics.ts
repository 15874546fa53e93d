import { type Metric, Values } from "../../lib/metrics-text.ts";
import type { VolumeFigures } from "../types.ts";

/** How full the volume behind a claim is. */
export interface ClaimFigures {
  readonly namespace: string;
  readonly claim: string;
  readonly figures: VolumeFigures;
}

type Reading = (figures: VolumeFigures) => number | undefined;

const readings: readonly (readonly [string, string, Reading])[] = [
  ["capacity_bytes", "Capacity in bytes of the volume", (of) => of.capacityBytes],
  ["available_bytes", "Number of available bytes in the volume", (of) => of.availableBytes],
  ["used_bytes", "Number of used bytes in the volume", (of) => of.usedBytes],
  ["inodes", "Maximum number of inodes in the volume", (of) => of.inodes?.total],
  ["inodes_free", "Number of free inodes in the volume", (of) => of.inodes?.free],
  ["inodes_used", "Number of used inodes in the volume", (of) => of.inodes?.used],
];

/** `kubelet_volume_stats_*`: one line for each claim, however many pods use it. */
export function claimMetrics(claims: readonly ClaimFigures[]): readonly Metric[] {
  if (claims.length === 0) return [];
  return readings.map(([name, help, read]) => {
    const metric = new Values(`kubelet_volume_stats_${name}`, "gauge", help);
    for (const { claim, figures, namespace } of claims) {
      const value = read(figures);
      const labels = { namespace, persistentvolumeclaim: claim };
      if (value !== undefined) metric.set(value, labels);
    }
    return metric;
  });
}

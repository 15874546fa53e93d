import type { StoredPod } from "../../controllers/shared/pod-state.ts";
import type { NodeInfo, Snapshot } from "../snapshot.ts";

/** A scheduling rule. All of it is pure: what is worked out once per pod comes from `prepare`. */
export interface FilterPlugin {
  readonly name: string;
  /** A reason why the pod fits nowhere, whatever the nodes are (upstream's PreFilter). */
  rejects?(pod: StoredPod, snapshot: Snapshot): string | undefined;
  /** Returns the check of one node: the reasons against it, none when it passes. */
  prepare(pod: StoredPod, snapshot: Snapshot): (node: NodeInfo) => readonly string[];
}

/** A scheduling preference. */
export interface ScorePlugin {
  readonly name: string;
  readonly weight: number;
  /** Returns the score of one node that passed all filters, 0 to 100. `candidates` are all that passed. */
  prepare(
    pod: StoredPod,
    snapshot: Snapshot,
    candidates: readonly NodeInfo[],
  ): (node: NodeInfo) => number;
}

/** Scales raw numbers so that the highest becomes 100; all zero stays zero. */
export function normalised(
  candidates: readonly NodeInfo[],
  raw: (node: NodeInfo) => number,
): (node: NodeInfo) => number {
  const values = new Map(candidates.map((node) => [node, raw(node)]));
  const highest = Math.max(0, ...values.values());
  return (node) => (highest === 0 ? 0 : ((values.get(node) ?? 0) * 100) / highest);
}

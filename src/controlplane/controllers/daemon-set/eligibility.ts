import type { Stored } from "../../../api/object.ts";
import { matchesNodeAffinity } from "../../../api/selectors.ts";
import { untoleratedTaint } from "../../../api/tolerations.ts";
import type { Node } from "../../../api/types.gen.ts";
import { tolerationsOf } from "./pods.ts";
import type { DaemonSetView } from "./view.ts";

/** What a node means to a DaemonSet. */
export interface Eligibility {
  /** A pod belongs there. */
  readonly shouldRun: boolean;
  /** One that is there may stay: it tolerates what would only keep new pods away. */
  readonly shouldContinue: boolean;
}

/** Whether the DaemonSet's pods belong on the node: by name, selector, affinity and taints. */
export function eligibility(view: DaemonSetView, node: Stored<Node>): Eligibility {
  const { spec } = view.template;
  const { name, labels } = node.metadata;
  const wanted = spec?.nodeName ?? "";
  const fits =
    (wanted === "" || wanted === name) && matchesNodeAffinity({ spec }, { name, labels });
  if (!fits) return { shouldRun: false, shouldContinue: false };
  const taints = node.spec?.taints ?? [];
  const tolerations = tolerationsOf(spec);
  if (untoleratedTaint(taints, tolerations, ["NoExecute"]) !== undefined)
    return { shouldRun: false, shouldContinue: false };
  const kept = untoleratedTaint(taints, tolerations, ["NoSchedule"]) !== undefined;
  return { shouldRun: !kept, shouldContinue: true };
}

import { formatCidr, parseCidr } from "../lib/cidr.ts";
import { asRecord, isRecord, optionalString } from "../lib/guard.ts";

/** What the proxy keeps of its own Node. */
export interface NodeCondition {
  readonly zone: string;
  /** False when load balancers should stop sending traffic here. */
  readonly eligible: boolean;
  /** Networks of this node's pods; empty until the cluster has given it some. */
  readonly podCIDRs: readonly string[];
}

const autoscalerTaint = "ToBeDeletedByClusterAutoscaler";

/** @throws {ParseError} when it is no object at all. */
export function parseNode(value: unknown): NodeCondition {
  const object = asRecord(value, "$");
  const metadata = asRecord(object["metadata"], "$.metadata");
  const labels = isRecord(metadata["labels"]) ? metadata["labels"] : {};
  const spec = isRecord(object["spec"]) ? object["spec"] : {};
  const taints: readonly unknown[] = Array.isArray(spec["taints"]) ? spec["taints"] : [];
  const leaving = taints.some((taint) => isRecord(taint) && taint["key"] === autoscalerTaint);
  return {
    zone: optionalString(labels["topology.kubernetes.io/zone"]) ?? "",
    eligible: metadata["deletionTimestamp"] === undefined && !leaving,
    podCIDRs: podCIDRsOf(spec),
  };
}

/** What is no network is left out. */
function podCIDRsOf(spec: Readonly<Record<string, unknown>>): readonly string[] {
  const listed: readonly unknown[] = Array.isArray(spec["podCIDRs"])
    ? spec["podCIDRs"]
    : [spec["podCIDR"]];
  return listed.flatMap((text) => {
    try {
      return typeof text === "string" ? [formatCidr(parseCidr(text))] : [];
    } catch {
      return [];
    }
  });
}

import type { JsonObject } from "../types.ts";
import { record, records } from "./access.ts";
import { quantityOf } from "./quantity.ts";

const computeResources = ["cpu", "memory"] as const;

function positive(resources: unknown, name: string): bigint | undefined {
  const value = quantityOf(record(resources)[name])?.nanos;
  return value !== undefined && value > 0n ? value : undefined;
}

/**
 * The quality-of-service class of a pod (`status.qosClass`): from its own cpu and memory where it has some (KEP-2837),
 * else from those of all its containers.
 */
export function qosClass(spec: Readonly<JsonObject>): "Guaranteed" | "Burstable" | "BestEffort" {
  const own = record(spec["resources"]);
  const ofPod = computeResources.some(
    (name) => positive(own["limits"], name) ?? positive(own["requests"], name),
  );
  const containers = ofPod
    ? [spec]
    : [...records(spec["containers"]), ...records(spec["initContainers"])];
  let any = false;
  let guaranteed = true;
  for (const container of containers) {
    const resources = record(container["resources"]);
    for (const name of computeResources) {
      const limit = positive(resources["limits"], name);
      const request = positive(resources["requests"], name);
      if (limit !== undefined || request !== undefined) any = true;
      if (limit === undefined || (request !== undefined && request !== limit)) guaranteed = false;
    }
  }
  if (!any) return "BestEffort";
  return guaranteed ? "Guaranteed" : "Burstable";
}

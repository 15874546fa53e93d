import type { JsonObject } from "../types.ts";
import { records } from "./access.ts";

/** Sets a condition; the transition time moves only when the status does. */
export function setCondition(
  status: JsonObject,
  condition: Readonly<Record<string, unknown>> & { readonly type: string; readonly status: string },
  now: number,
): void {
  const conditions = records(status["conditions"]);
  const index = conditions.findIndex((item) => item["type"] === condition.type);
  const before = conditions[index];
  const lastTransitionTime =
    before?.["status"] === condition.status
      ? before["lastTransitionTime"]
      : new Date(now).toISOString().replace(/\.\d+Z$/, "Z");
  const next: JsonObject = { ...condition, lastProbeTime: null, lastTransitionTime };
  if (index < 0) conditions.push(next);
  else conditions[index] = next;
  status["conditions"] = conditions;
}

import type { JsonObject } from "../types.ts";
import { metadataOf, record, strings, text } from "./access.ts";

const hints = "service.kubernetes.io/topology-aware-hints";

/** What the API warns of in a valid Service. */
export function serviceWarnings(service: Readonly<JsonObject>): string[] {
  const spec = record(service["spec"]);
  const out: string[] = [];
  const externalIPs = strings(spec["externalIPs"]).length > 0;
  const externalName = spec["type"] === "ExternalName";
  const headless = spec["type"] === "ClusterIP" && spec["clusterIP"] === "None";
  if (record(metadataOf(service)["annotations"])[hints] !== undefined) {
    const instead = "service.kubernetes.io/topology-mode";
    out.push(`annotation ${hints} is deprecated, please use ${instead} instead`);
  }
  if (headless) {
    if (text(spec["loadBalancerIP"]) !== "")
      out.push("spec.loadBalancerIP is ignored for headless services");
    if (externalIPs) out.push("spec.externalIPs is ignored for headless services");
    if (spec["sessionAffinity"] !== "None")
      out.push("spec.SessionAffinity is ignored for headless services");
  }
  if (externalIPs && !headless && !externalName)
    out.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters");
  if (externalIPs && externalName)
    out.push('spec.externalIPs is ignored when spec.type is "ExternalName"');
  if (!externalName && text(spec["externalName"]) !== "")
    out.push('spec.externalName is ignored when spec.type is not "ExternalName"');
  if (spec["trafficDistribution"] === "PreferClose")
    out.push('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"');
  return out;
}

import type { JsonObject } from "../types.ts";
import { defaultTo, ensureRecord, isEmpty, record, records, strings, text } from "./access.ts";

/** NodePort and LoadBalancer Services, and ClusterIP ones with external IPs. */
export function isExternallyAccessible(spec: Readonly<JsonObject>): boolean {
  const type = spec["type"];
  return (
    type === "LoadBalancer" ||
    type === "NodePort" ||
    (type === "ClusterIP" && strings(spec["externalIPs"]).length > 0)
  );
}

/** LoadBalancer Services with externalTrafficPolicy Local answer health checks on their own node port. */
export function needsHealthCheck(spec: Readonly<JsonObject>): boolean {
  return spec["type"] === "LoadBalancer" && spec["externalTrafficPolicy"] === "Local";
}

export function isHeadless(spec: Readonly<JsonObject>): boolean {
  return spec["clusterIP"] === "None" || strings(spec["clusterIPs"])[0] === "None";
}

function affinityDefaults(spec: JsonObject): void {
  defaultTo(spec, "sessionAffinity", "None");
  if (spec["sessionAffinity"] === "None") delete spec["sessionAffinityConfig"];
  if (spec["sessionAffinity"] !== "ClientIP") return;
  const client = ensureRecord(ensureRecord(spec, "sessionAffinityConfig"), "clientIP");
  defaultTo(client, "timeoutSeconds", 10_800);
}

/** SetDefaults_Service. */
export function serviceDefaults(service: JsonObject): void {
  const spec = ensureRecord(service, "spec");
  affinityDefaults(spec);
  defaultTo(spec, "type", "ClusterIP");
  for (const port of records(spec["ports"])) {
    defaultTo(port, "protocol", "TCP");
    const wanted = port["targetPort"];
    if (wanted === undefined || wanted === null || wanted === 0 || wanted === "") {
      port["targetPort"] = port["port"];
    }
  }
  if (isExternallyAccessible(spec)) defaultTo(spec, "externalTrafficPolicy", "Cluster");
  if (["NodePort", "LoadBalancer", "ClusterIP"].includes(text(spec["type"]))) {
    defaultTo(spec, "internalTrafficPolicy", "Cluster");
  }
  if (spec["type"] === "LoadBalancer") {
    if (typeof spec["allocateLoadBalancerNodePorts"] !== "boolean") {
      spec["allocateLoadBalancerNodePorts"] = true;
    }
    const balancer = record(record(service["status"])["loadBalancer"]);
    for (const ingress of records(balancer["ingress"])) {
      if (text(ingress["ip"]) !== "") defaultTo(ingress, "ipMode", "VIP");
    }
  }
}

function copyWhenAbsent(spec: JsonObject, old: Readonly<JsonObject>, key: string): void {
  if (isEmpty(spec[key]) || spec[key] === "" || spec[key] === 0) {
    if (old[key] !== undefined) spec[key] = structuredClone(old[key]);
  }
}

/** `clusterIP` is the first of `clusterIPs`; clients may set either. */
export function normalizeClusterIPs(spec: JsonObject, old: Readonly<JsonObject> | undefined): void {
  const single = text(spec["clusterIP"]);
  const many = strings(spec["clusterIPs"]);
  if (old === undefined) {
    if (single !== "" && many.length === 0) spec["clusterIPs"] = [single];
    return;
  }
  const before = text(old["clusterIP"]);
  const beforeMany = strings(old["clusterIPs"]);
  const sameMany = JSON.stringify(many) === JSON.stringify(beforeMany);
  if (single === "" && before !== "" && sameMany) delete spec["clusterIPs"];
  else if (single !== before && sameMany) spec["clusterIPs"] = [single];
}

/** What a PUT that leaves server-chosen values out keeps from the stored Service (patchAllocatedValues). */
export function keepAllocated(spec: JsonObject, old: Readonly<JsonObject>): void {
  if (spec["type"] === "ExternalName" || old["type"] === "ExternalName") return;
  if (spec["clusterIP"] !== "None" && old["clusterIP"] !== "None") {
    copyWhenAbsent(spec, old, "clusterIP");
    copyWhenAbsent(spec, old, "clusterIPs");
  }
  const before = records(old["ports"]);
  if (spec["type"] === "NodePort" || spec["type"] === "LoadBalancer") {
    for (const port of records(spec["ports"])) {
      if (typeof port["nodePort"] === "number" && port["nodePort"] !== 0) continue;
      const same = before.find(
        (candidate) =>
          candidate["port"] === port["port"] && candidate["protocol"] === port["protocol"],
      );
      if (typeof same?.["nodePort"] === "number") port["nodePort"] = same["nodePort"];
    }
  }
  if (needsHealthCheck(spec) && needsHealthCheck(old)) {
    copyWhenAbsent(spec, old, "healthCheckNodePort");
  }
}

/** Clears what a change of type leaves behind, unless the client set it anew (dropTypeDependentFields). */
export function dropLeftovers(spec: JsonObject, old: Readonly<JsonObject>): void {
  const same = (key: string): boolean => JSON.stringify(spec[key]) === JSON.stringify(old[key]);
  if (spec["type"] === "ExternalName" && old["type"] !== "ExternalName") {
    for (const key of ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]) {
      if (same(key)) delete spec[key];
    }
  }
  const usesPorts = (type: unknown): boolean => type === "NodePort" || type === "LoadBalancer";
  if (!usesPorts(spec["type"]) && usesPorts(old["type"])) {
    const before = new Set(records(old["ports"]).map((port) => port["nodePort"]));
    for (const port of records(spec["ports"])) {
      if (before.has(port["nodePort"])) delete port["nodePort"];
    }
  }
  dropPolicies(spec, old);
}

function dropPolicies(spec: JsonObject, old: Readonly<JsonObject>): void {
  const same = (key: string): boolean => JSON.stringify(spec[key]) === JSON.stringify(old[key]);
  if (!needsHealthCheck(spec) && needsHealthCheck(old) && same("healthCheckNodePort")) {
    delete spec["healthCheckNodePort"];
  }
  if (spec["type"] !== "LoadBalancer" && old["type"] === "LoadBalancer") {
    for (const key of ["allocateLoadBalancerNodePorts", "loadBalancerClass"]) {
      if (same(key)) delete spec[key];
    }
  }
  if (
    !isExternallyAccessible(spec) &&
    isExternallyAccessible(old) &&
    same("externalTrafficPolicy")
  ) {
    delete spec["externalTrafficPolicy"];
  }
  if (spec["type"] === "ExternalName" && same("internalTrafficPolicy")) {
    delete spec["internalTrafficPolicy"];
  }
}

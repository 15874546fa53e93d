import { objectKey } from "../api/object.ts";
import { canonicalIP, formatCidr, type IPFamily, ipFamily, parseCidr } from "../lib/cidr.ts";
import { ParseError } from "../lib/errors.ts";
import { asRecord, asString, isRecord, optionalString } from "../lib/guard.ts";
import { parsedList, Pool, pooledText } from "../lib/pool.ts";
import type { Protocol } from "./types.ts";

/** What the proxy keeps of a Service. */
export interface ServiceView {
  /** `namespace/name`. */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly createdAt: string;
  readonly type: string;
  readonly clusterIPs: readonly { readonly family: IPFamily; readonly ip: string }[];
  readonly externalIPs: readonly string[];
  readonly loadBalancerIPs: readonly string[];
  readonly sourceRanges: readonly string[];
  readonly internalLocal: boolean;
  readonly externalLocal: boolean;
  readonly affinitySeconds: number;
  readonly healthCheckNodePort: number;
  readonly ports: readonly PortView[];
  /** Fields that could not be understood and are therefore not in the rules. */
  readonly problems: readonly string[];
}

export interface PortView {
  readonly name: string;
  readonly protocol: Protocol;
  readonly port: number;
  readonly nodePort: number;
}

/** What the proxy keeps of an EndpointSlice. */
export interface SliceView {
  readonly key: string;
  /** `namespace/name` of its Service; undefined when it has none. */
  readonly service: string | undefined;
  readonly family: IPFamily | undefined;
  /** When the pods changed that this version of the slice follows, milliseconds since the epoch. */
  readonly triggeredAt: number | undefined;
  readonly ports: readonly {
    readonly name: string;
    readonly protocol: Protocol;
    readonly port: number;
  }[];
  readonly endpoints: readonly EndpointView[];
}

export interface EndpointView {
  readonly ip: string;
  readonly nodeName: string | undefined;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  readonly forZones: readonly string[] | undefined;
  readonly forNodes: readonly string[] | undefined;
}

const defaultAffinitySeconds = 10_800;
// The server validates names; they are checked again because they reach rule text and log lines.
const dnsName = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

function dnsString(value: unknown, path: string): string {
  const text = asString(value, path);
  if (!dnsName.test(text)) throw new ParseError(path, "a DNS name in lower case");
  return text;
}

/** @throws {ParseError} only when there is no usable name: a bad field of a Service must not stop the others. */
export function parseService(value: unknown): ServiceView {
  const object = asRecord(value, "$");
  const metadata = asRecord(object["metadata"], "$.metadata");
  const namespace = pooledText(dnsString(metadata["namespace"], "$.metadata.namespace"));
  const name = dnsString(metadata["name"], "$.metadata.name");
  const spec = isRecord(object["spec"]) ? object["spec"] : {};
  const problems: string[] = [];
  return {
    key: objectKey(namespace, name),
    namespace,
    name,
    uid: optionalString(metadata["uid"]) ?? "",
    createdAt: optionalString(metadata["creationTimestamp"]) ?? "",
    type: pooledText(optionalString(spec["type"]) ?? "ClusterIP"),
    clusterIPs: clusterIPs(spec, problems),
    externalIPs: addresses(spec["externalIPs"], "spec.externalIPs", problems),
    loadBalancerIPs: loadBalancerIPs(object["status"], problems),
    sourceRanges: sourceRanges(spec["loadBalancerSourceRanges"], problems),
    internalLocal: spec["internalTrafficPolicy"] === "Local",
    externalLocal: spec["externalTrafficPolicy"] === "Local",
    affinitySeconds: affinitySeconds(spec),
    healthCheckNodePort: portNumber(spec["healthCheckNodePort"]) ?? 0,
    ports: servicePorts.alike(
      parsedList(spec["ports"], (port, index) => parsePort(port, index, problems)),
    ),
    problems: problems.length === 0 ? noProblems : problems,
  };
}

/** Kept of each Service and slice, so what is equal is kept once. */
const servicePorts = new Pool<ServiceView["ports"]>();
const slicePorts = new Pool<SliceView["ports"]>();
const noProblems: readonly string[] = [];

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function portNumber(value: unknown): number | undefined {
  return typeof value === "number" && Number.isInteger(value) && value > 0 && value < 65_536
    ? value
    : undefined;
}

function protocolOf(value: unknown): Protocol | undefined {
  switch (value ?? "TCP") {
    case "TCP":
      return "tcp";
    case "UDP":
      return "udp";
    case "SCTP":
      return "sctp";
    default:
      return undefined;
  }
}

function parsePort(value: unknown, index: number, problems: string[]): PortView | undefined {
  if (!isRecord(value)) return undefined;
  const port = portNumber(value["port"]);
  const protocol = protocolOf(value["protocol"]);
  const name = optionalString(value["name"]) ?? "";
  if (port === undefined || protocol === undefined || (name !== "" && !dnsName.test(name))) {
    problems.push(`spec.ports[${index}]`);
    return undefined;
  }
  return { name, protocol, port, nodePort: portNumber(value["nodePort"]) ?? 0 };
}

function address(value: unknown, path: string, problems: string[]): string | undefined {
  if (typeof value !== "string") return undefined;
  const text = value.trim();
  if (ipFamily(text) !== undefined) return canonicalIP(text);
  problems.push(path);
  return undefined;
}

function addresses(value: unknown, path: string, problems: string[]): readonly string[] {
  const found = parsedList(value, (item, index) => address(item, `${path}[${index}]`, problems));
  return found.length < 2 ? found : [...new Set(found)];
}

function clusterIPs(spec: Record<string, unknown>, problems: string[]): ServiceView["clusterIPs"] {
  const listed = list(spec["clusterIPs"]);
  const raw = listed.length > 0 ? listed : [spec["clusterIP"]];
  return parsedList(raw, (item, index) => {
    if (item === undefined || item === "" || item === "None") return undefined;
    const ip = address(item, `spec.clusterIPs[${index}]`, problems);
    const family = ip === undefined ? undefined : ipFamily(ip);
    return ip === undefined || family === undefined ? undefined : { family, ip };
  });
}

function loadBalancerIPs(status: unknown, problems: string[]): readonly string[] {
  const balancer = isRecord(status) ? status["loadBalancer"] : undefined;
  const ingress = isRecord(balancer) ? list(balancer["ingress"]) : [];
  // ipMode Proxy (KEP-1860): packets must really go through the load balancer, so there is nothing to short-circuit.
  const wanted = ingress.flatMap((item) =>
    isRecord(item) && (item["ipMode"] ?? "VIP") === "VIP" && item["ip"] !== "" ? [item["ip"]] : [],
  );
  return addresses(wanted, "status.loadBalancer.ingress", problems);
}

function sourceRanges(value: unknown, problems: string[]): readonly string[] {
  return parsedList(value, (item, index) => {
    // Leading zeros were once accepted by the API and are still stored in old objects.
    const text = typeof item === "string" ? item.trim().replaceAll(/(^|\.)0+(?=\d)/g, "$1") : "";
    try {
      return formatCidr(parseCidr(text));
    } catch {
      problems.push(`spec.loadBalancerSourceRanges[${index}]`);
      return undefined;
    }
  });
}

function affinitySeconds(spec: Record<string, unknown>): number {
  if (spec["sessionAffinity"] !== "ClientIP") return 0;
  const config = spec["sessionAffinityConfig"];
  const clientIP = isRecord(config) ? config["clientIP"] : undefined;
  const seconds = isRecord(clientIP) ? clientIP["timeoutSeconds"] : undefined;
  return typeof seconds === "number" &&
    Number.isInteger(seconds) &&
    seconds > 0 &&
    seconds <= 86_400
    ? seconds
    : defaultAffinitySeconds;
}

/** @throws {ParseError} only when there is no usable name. */
export function parseSlice(value: unknown): SliceView {
  const object = asRecord(value, "$");
  const metadata = asRecord(object["metadata"], "$.metadata");
  const namespace = pooledText(dnsString(metadata["namespace"], "$.metadata.namespace"));
  const labels = isRecord(metadata["labels"]) ? metadata["labels"] : {};
  const service = optionalString(labels["kubernetes.io/service-name"]);
  const type = object["addressType"];
  const family = type === "IPv4" || type === "IPv6" ? type : undefined;
  return {
    key: objectKey(namespace, dnsString(metadata["name"], "$.metadata.name")),
    service:
      service !== undefined && dnsName.test(service) ? objectKey(namespace, service) : undefined,
    family,
    triggeredAt: triggerTime(metadata["annotations"]),
    ports: slicePorts.alike(parsedList(object["ports"], parseSlicePort)),
    endpoints: parsedList(family === undefined ? undefined : object["endpoints"], (item) =>
      family === undefined ? undefined : parseEndpoint(item, family),
    ),
  };
}

function triggerTime(annotations: unknown): number | undefined {
  const text = isRecord(annotations)
    ? optionalString(annotations["endpoints.kubernetes.io/last-change-trigger-time"])
    : undefined;
  const time = Date.parse(text ?? "");
  return Number.isNaN(time) ? undefined : time;
}

function parseSlicePort(value: unknown): SliceView["ports"][number] | undefined {
  if (!isRecord(value)) return undefined;
  const port = portNumber(value["port"]);
  const protocol = protocolOf(value["protocol"]);
  const name = optionalString(value["name"]) ?? "";
  return port === undefined || protocol === undefined ? undefined : { name, protocol, port };
}

function parseEndpoint(value: unknown, family: IPFamily): EndpointView | undefined {
  if (!isRecord(value)) return undefined;
  // Only the first address counts: the others have never had a meaning (EndpointSlice API, field `addresses`).
  const first = list(value["addresses"])[0];
  if (typeof first !== "string" || ipFamily(first) !== family) return undefined;
  const nodeName = optionalString(value["nodeName"]);
  const conditions = isRecord(value["conditions"]) ? value["conditions"] : {};
  const hints = isRecord(value["hints"]) ? value["hints"] : {};
  return {
    ip: canonicalIP(first),
    nodeName: nodeName === undefined ? undefined : pooledText(nodeName),
    ready: conditions["ready"] !== false,
    serving: conditions["serving"] !== false,
    terminating: conditions["terminating"] === true,
    forZones: hintNames(hints["forZones"]),
    forNodes: hintNames(hints["forNodes"]),
  };
}

function hintNames(value: unknown): readonly string[] | undefined {
  const names = parsedList(value, (item) =>
    isRecord(item) && typeof item["name"] === "string" ? pooledText(item["name"]) : undefined,
  );
  return names.length > 0 ? names : undefined;
}

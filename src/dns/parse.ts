import { canonicalIP, ipFamily } from "../lib/cidr.ts";
import { ParseError } from "../lib/errors.ts";
import { asRecord, asString, isRecord, optionalString } from "../lib/guard.ts";
import { isHostName } from "./names.ts";
import type { DnsEndpoint, DnsPort, DnsService, DnsSlice } from "./types.ts";

/** Label of a Service that another than the Service proxy serves. */
export const proxyNameLabel = "service.kubernetes.io/service-proxy-name";

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function hostName(value: unknown, path: string): string {
  const text = asString(value, path);
  if (!isHostName(text)) throw new ParseError(path, "a DNS name");
  return text;
}

function parsePort(value: unknown): DnsPort[] {
  if (!isRecord(value)) return [];
  const { port } = value;
  const protocol = (optionalString(value["protocol"]) ?? "TCP").toLowerCase();
  const name = (optionalString(value["name"]) ?? "").toLowerCase();
  if (protocol !== "tcp" && protocol !== "udp" && protocol !== "sctp") return [];
  if (typeof port !== "number" || !Number.isInteger(port) || port < 1 || port > 65_535) return [];
  return name === "" || isHostName(name) ? [{ name, protocol, port }] : [];
}

function addresses(values: readonly unknown[]): readonly string[] {
  return values.flatMap((value) =>
    typeof value === "string" && ipFamily(value) !== undefined ? [canonicalIP(value)] : [],
  );
}

/** @throws {ParseError} only when there is no usable name: a bad field of a Service must not stop the others. */
export function parseDnsService(value: unknown): DnsService {
  const object = asRecord(value, "$");
  const metadata = asRecord(object["metadata"], "$.metadata");
  const namespace = hostName(metadata["namespace"], "$.metadata.namespace");
  const name = hostName(metadata["name"], "$.metadata.name");
  const labels = isRecord(metadata["labels"]) ? metadata["labels"] : {};
  const spec = isRecord(object["spec"]) ? object["spec"] : {};
  const external = spec["type"] === "ExternalName";
  const target = (optionalString(spec["externalName"]) ?? "").replace(/\.$/, "").toLowerCase();
  const listed = list(spec["clusterIPs"]);
  return {
    key: `${namespace}/${name}`,
    namespace,
    name,
    clusterIPs: external ? [] : addresses(listed.length > 0 ? listed : [spec["clusterIP"]]),
    headless: !external && spec["clusterIP"] === "None",
    externalName: external ? target : undefined,
    ports: list(spec["ports"]).flatMap(parsePort),
    proxyName: optionalString(labels[proxyNameLabel]) ?? "",
  };
}

function parseEndpoint(value: unknown): DnsEndpoint[] {
  if (!isRecord(value)) return [];
  // Only the first address counts: the others have never had a meaning (EndpointSlice API, field `addresses`).
  const [ip] = addresses(list(value["addresses"]).slice(0, 1));
  const conditions = isRecord(value["conditions"]) ? value["conditions"] : {};
  if (ip === undefined || conditions["ready"] === false) return [];
  const hostname = (optionalString(value["hostname"]) ?? "").toLowerCase();
  return [{ ip, hostname: isHostName(hostname) && !hostname.includes(".") ? hostname : "" }];
}

/** @throws {ParseError} only when there is no usable name. */
export function parseDnsSlice(value: unknown): DnsSlice {
  const object = asRecord(value, "$");
  const metadata = asRecord(object["metadata"], "$.metadata");
  const namespace = hostName(metadata["namespace"], "$.metadata.namespace");
  const labels = isRecord(metadata["labels"]) ? metadata["labels"] : {};
  const service = optionalString(labels["kubernetes.io/service-name"]);
  const ip = object["addressType"] === "IPv4" || object["addressType"] === "IPv6";
  return {
    key: `${namespace}/${asString(metadata["name"], "$.metadata.name")}`,
    service: service === undefined || service === "" ? undefined : `${namespace}/${service}`,
    ports: list(object["ports"]).flatMap(parsePort),
    endpoints: ip ? list(object["endpoints"]).flatMap(parseEndpoint) : [],
  };
}

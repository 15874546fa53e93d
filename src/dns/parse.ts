import { objectKey } from "../api/object.ts";
import { canonicalIP, ipFamily } from "../lib/cidr.ts";
import { ParseError } from "../lib/errors.ts";
import { asRecord, asString, isRecord, optionalString } from "../lib/guard.ts";
import { parsedList, Pool, pooledText } from "../lib/pool.ts";
import { isHostName } from "./names.ts";
import type { DnsEndpoint, DnsPort, DnsService, DnsSlice } from "./types.ts";

/** Label of a Service that another than the Service proxy serves. */
export const proxyNameLabel = "service.kubernetes.io/service-proxy-name";

/** Kept of each Service and slice, so what is equal is kept once. */
const portLists = new Pool<readonly DnsPort[]>();

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function ports(value: unknown): readonly DnsPort[] {
  return portLists.alike(parsedList(value, parsePort));
}

function hostName(value: unknown, path: string): string {
  const text = asString(value, path);
  if (!isHostName(text)) throw new ParseError(path, "a DNS name");
  return text;
}

function parsePort(value: unknown): DnsPort | undefined {
  if (!isRecord(value)) return undefined;
  const { port } = value;
  const protocol = (optionalString(value["protocol"]) ?? "TCP").toLowerCase();
  const name = (optionalString(value["name"]) ?? "").toLowerCase();
  if (protocol !== "tcp" && protocol !== "udp" && protocol !== "sctp") return undefined;
  if (typeof port !== "number" || !Number.isInteger(port) || port < 1 || port > 65_535) {
    return undefined;
  }
  return name === "" || isHostName(name) ? { name, protocol, port } : undefined;
}

function address(value: unknown): string | undefined {
  return typeof value === "string" && ipFamily(value) !== undefined
    ? canonicalIP(value)
    : undefined;
}

function addresses(values: readonly unknown[]): readonly string[] {
  return parsedList(values, address);
}

/** @throws {ParseError} only when there is no usable name: a bad field of a Service must not stop the others. */
export function parseDnsService(value: unknown): DnsService {
  const object = asRecord(value, "$");
  const metadata = asRecord(object["metadata"], "$.metadata");
  const namespace = pooledText(hostName(metadata["namespace"], "$.metadata.namespace"));
  const name = hostName(metadata["name"], "$.metadata.name");
  const labels = isRecord(metadata["labels"]) ? metadata["labels"] : {};
  const spec = isRecord(object["spec"]) ? object["spec"] : {};
  const external = spec["type"] === "ExternalName";
  const target = (optionalString(spec["externalName"]) ?? "").replace(/\.$/, "").toLowerCase();
  const listed = list(spec["clusterIPs"]);
  return {
    key: objectKey(namespace, name),
    namespace,
    name,
    clusterIPs: external ? [] : addresses(listed.length > 0 ? listed : [spec["clusterIP"]]),
    headless: !external && spec["clusterIP"] === "None",
    externalName: external ? target : undefined,
    ports: ports(spec["ports"]),
    proxyName: optionalString(labels[proxyNameLabel]) ?? "",
  };
}

function parseEndpoint(value: unknown): DnsEndpoint | undefined {
  if (!isRecord(value)) return undefined;
  // Only the first address counts: the others have never had a meaning (EndpointSlice API, field `addresses`).
  const ip = address(list(value["addresses"])[0]);
  const conditions = isRecord(value["conditions"]) ? value["conditions"] : {};
  if (ip === undefined || conditions["ready"] === false) return undefined;
  const hostname = (optionalString(value["hostname"]) ?? "").toLowerCase();
  return { ip, hostname: isHostName(hostname) && !hostname.includes(".") ? hostname : "" };
}

/** @throws {ParseError} only when there is no usable name. */
export function parseDnsSlice(value: unknown): DnsSlice {
  const object = asRecord(value, "$");
  const metadata = asRecord(object["metadata"], "$.metadata");
  const namespace = pooledText(hostName(metadata["namespace"], "$.metadata.namespace"));
  const labels = isRecord(metadata["labels"]) ? metadata["labels"] : {};
  const service = optionalString(labels["kubernetes.io/service-name"]);
  const ip = object["addressType"] === "IPv4" || object["addressType"] === "IPv6";
  return {
    key: objectKey(namespace, asString(metadata["name"], "$.metadata.name")),
    service: service === undefined || service === "" ? undefined : objectKey(namespace, service),
    ports: ports(object["ports"]),
    endpoints: parsedList(ip ? object["endpoints"] : undefined, parseEndpoint),
  };
}

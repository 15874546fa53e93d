import { isRecord, optionalNumber, optionalString } from "../../lib/guard.ts";
import { badRequest, notFound, StatusError } from "../status-error.ts";
import type { JsonObject, KindDefinition, ObjectReader } from "../types.ts";
import type { RelayTarget } from "./call.ts";

/** Where a streaming subresource of a pod or node lives. `undefined`: there is nothing to stream yet. */
export interface RelayRequest {
  readonly kind: KindDefinition;
  readonly namespace: string;
  /** As in the path; for proxies `[scheme:]name[:port]`. */
  readonly name: string;
  readonly subresource: string;
  /** Path below `proxy`. */
  readonly rest: string;
  readonly query: URLSearchParams;
}

function record(value: unknown): JsonObject {
  return isRecord(value) ? value : {};
}

function records(value: unknown): JsonObject[] {
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

/** Address and kubelet port of a Node, as the API server chooses them: InternalIP, else Hostname. */
export function kubeletAddress(node: Readonly<JsonObject>): {
  readonly host: string;
  readonly port: number;
} {
  const status = record(node["status"]);
  const addresses = records(status["addresses"]);
  const find = (type: string): string | undefined =>
    optionalString(addresses.find((one) => one["type"] === type)?.["address"]);
  const host = find("InternalIP") ?? find("Hostname") ?? find("ExternalIP");
  const name = optionalString(record(node["metadata"])["name"]) ?? "";
  if (host === undefined) {
    throw new StatusError(
      500,
      "InternalError",
      `Internal error occurred: no preferred addresses found; known addresses: [] (node ${JSON.stringify(name)})`,
    );
  }
  const endpoint = record(record(status["daemonEndpoints"])["kubeletEndpoint"]);
  return { host, port: optionalNumber(endpoint["Port"]) ?? 10_250 };
}

/**
 * The same for a node that may be this machine itself: its streams then go over loopback, and live on when the machine
 * gets another address.
 */
function kubeletOf(
  objects: ObjectReader,
  name: string,
  loopbackNode: string | undefined,
): { readonly host: string; readonly port: number } {
  const address = kubeletAddress(nodeOf(objects, name));
  return name === loopbackNode ? { ...address, host: "127.0.0.1" } : address;
}

function nodeOf(objects: ObjectReader, name: string): Readonly<JsonObject> {
  const node = objects.get("nodes", "", name);
  if (node === undefined) throw notFound({ plural: "nodes", kind: "Node", group: "" }, name);
  return node;
}

function containerNames(pod: Readonly<JsonObject>): { main: string[]; all: string[] } {
  const spec = record(pod["spec"]);
  const names = (field: string): string[] =>
    records(spec[field]).map((one) => optionalString(one["name"]) ?? "");
  const main = names("containers");
  return { main, all: [...names("initContainers"), ...main, ...names("ephemeralContainers")] };
}

function chooseContainer(pod: Readonly<JsonObject>, name: string, wanted: string | null): string {
  const { main, all } = containerNames(pod);
  if (wanted === null || wanted === "") {
    const [only] = main;
    if (main.length === 1 && only !== undefined) return only;
    throw badRequest(
      `a container name must be specified for pod ${name}, choose one of: [${all.join(" ")}]`,
    );
  }
  if (!all.includes(wanted)) throw badRequest(`container ${wanted} is not valid for pod ${name}`);
  return wanted;
}

/** Query names of PodExecOptions and their like at the API, and at the kubelet. */
const streamNames = [
  ["stdin", "input"],
  ["stdout", "output"],
  ["stderr", "error"],
  ["tty", "tty"],
] as const;

function streamQuery(query: URLSearchParams): URLSearchParams {
  const out = new URLSearchParams();
  for (const [api, kubelet] of streamNames) {
    const value = query.get(api);
    if (value === "true" || value === "1") out.set(kubelet, "1");
  }
  for (const word of query.getAll("command")) out.append("command", word);
  if ([...out.keys()].every((key) => key === "command" || key === "tty"))
    throw badRequest("you must specify at least 1 of stdin, stdout, stderr");
  return out;
}

const logParameters = [
  "follow",
  "previous",
  "sinceSeconds",
  "sinceTime",
  "timestamps",
  "tailLines",
  "limitBytes",
  "stream",
  "insecureSkipTLSVerifyBackend",
];

function logQuery(query: URLSearchParams): URLSearchParams {
  const out = new URLSearchParams();
  for (const name of logParameters) {
    const value = query.get(name);
    if (value !== null && name !== "insecureSkipTLSVerifyBackend") out.set(name, value);
  }
  return out;
}

function withQuery(path: string, query: URLSearchParams): string {
  const text = query.toString();
  return text === "" ? path : `${path}?${text}`;
}

interface ProxyName {
  readonly scheme: string;
  readonly name: string;
  readonly port: string;
}

/** `name`, `name:port`, `scheme:name:port`. */
export function parseProxyName(text: string): ProxyName {
  const parts = text.split(":");
  if (parts.length === 1) return { scheme: "", name: text, port: "" };
  if (parts.length === 2) return { scheme: "", name: parts[0] ?? "", port: parts[1] ?? "" };
  const [scheme = "", name = "", port = ""] = parts;
  if (parts.length > 3 || (scheme !== "http" && scheme !== "https" && scheme !== ""))
    throw badRequest(`invalid proxy request ${JSON.stringify(text)}`);
  return { scheme, name, port };
}

/** @throws {StatusError} 400: who writes addresses into the API must not reach what only this machine may. */
function checkProxyable(host: string): void {
  if (/^(127\.|169\.254\.|0\.|::1?$|fe[89ab]\w:|::ffff:)/i.test(host))
    throw badRequest("address not allowed");
}

function podProxy(request: RelayRequest, objects: ObjectReader): RelayTarget {
  const { scheme, name, port } = parseProxyName(request.name);
  const pod = podOf(request, objects, name);
  const host = optionalString(record(pod["status"])["podIP"]);
  if (host === undefined || host === "")
    throw badRequest(`address not allowed: pod ${name} does not have an IP address yet`);
  checkProxyable(host);
  const ports = records(record(pod["spec"])["containers"]).flatMap((one) => records(one["ports"]));
  const named = ports.find((one) => one["name"] === port)?.["containerPort"];
  const chosen = port === "" ? (ports[0]?.["containerPort"] ?? 80) : (named ?? Number(port));
  const number = optionalNumber(chosen) ?? 0;
  if (!Number.isInteger(number) || number < 1 || number > 65_535)
    throw badRequest(`no service port ${JSON.stringify(port)} found for pod ${name}`);
  return {
    kind: "pod-proxy",
    node: undefined,
    host,
    port: number,
    scheme: scheme === "https" ? "https" : "http",
    path: withQuery(request.rest === "" ? "/" : request.rest, request.query),
  };
}

function noEndpoints(name: string): StatusError {
  const message = `no endpoints available for service ${JSON.stringify(name)}`;
  return new StatusError(503, "ServiceUnavailable", message);
}

/**
 * A ready endpoint of the Service's port: `port` is its name or number, or nothing when the Service has one port. Which
 * endpoint it is does not matter; the first one is as good as any.
 */
function serviceProxy(request: RelayRequest, objects: ObjectReader): RelayTarget {
  const { scheme, name, port } = parseProxyName(request.name);
  const service = objects.get("services", request.namespace, name);
  if (service === undefined) throw notFound(request.kind, name);
  const ports = records(record(service["spec"])["ports"]);
  const wanted =
    port === ""
      ? ports.length === 1
        ? ports[0]
        : ports.find((one) => optionalString(one["name"]) === undefined)
      : (ports.find((one) => one["name"] === port) ??
        ports.find((one) => String(one["port"]) === port));
  if (wanted === undefined) {
    const message = `no service port ${JSON.stringify(port)} found for service ${JSON.stringify(name)}`;
    throw new StatusError(503, "ServiceUnavailable", message);
  }
  for (const slice of records([
    ...objects.list("endpointslices.discovery.k8s.io", request.namespace),
  ])) {
    const labels = record(record(slice["metadata"])["labels"]);
    if (labels["kubernetes.io/service-name"] !== name) continue;
    const target = records(slice["ports"]).find(
      (one) => (optionalString(one["name"]) ?? "") === (optionalString(wanted["name"]) ?? ""),
    );
    const ready = records(slice["endpoints"]).find(
      (one) => record(one["conditions"])["ready"] !== false,
    );
    const addresses: readonly unknown[] = Array.isArray(ready?.["addresses"])
      ? ready["addresses"]
      : [];
    const host = addresses[0];
    const number = optionalNumber(target?.["port"]);
    if (typeof host !== "string" || number === undefined) continue;
    checkProxyable(host);
    return {
      kind: "pod-proxy",
      node: undefined,
      host,
      port: number,
      scheme: scheme === "https" ? "https" : "http",
      path: withQuery(request.rest === "" ? "/" : request.rest, request.query),
    };
  }
  throw noEndpoints(name);
}

function nodeProxy(
  request: RelayRequest,
  objects: ObjectReader,
  loopbackNode: string | undefined,
): RelayTarget {
  const { scheme, name, port } = parseProxyName(request.name);
  // Programs at other ports may listen on the node's address only.
  const address = kubeletOf(objects, name, port === "" ? loopbackNode : undefined);
  const number = port === "" ? address.port : Number(port);
  if (!Number.isInteger(number) || number < 1 || number > 65_535)
    throw badRequest(`invalid proxy request ${JSON.stringify(request.name)}`);
  return {
    kind: "node-proxy",
    node: name,
    host: address.host,
    port: number,
    scheme: scheme === "http" ? "http" : "https",
    path: withQuery(request.rest === "" ? "/" : request.rest, request.query),
  };
}

function podOf(request: RelayRequest, objects: ObjectReader, name: string): Readonly<JsonObject> {
  const pod = objects.get("pods", request.namespace, name);
  if (pod === undefined) throw notFound(request.kind, name);
  return pod;
}

function streamPath(
  request: RelayRequest,
  pod: Readonly<JsonObject>,
): { readonly kind: "log" | "exec" | "attach" | "portforward"; readonly path: string } {
  const { namespace, name, query } = request;
  const place = `${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
  const container = (): string =>
    encodeURIComponent(chooseContainer(pod, name, query.get("container")));
  switch (request.subresource) {
    case "log": {
      const path = `/containerLogs/${place}/${container()}`;
      return { kind: "log", path: withQuery(path, logQuery(query)) };
    }
    case "exec":
    case "attach": {
      const kind = request.subresource;
      return { kind, path: withQuery(`/${kind}/${place}/${container()}`, streamQuery(query)) };
    }
    case "portforward":
      return { kind: "portforward", path: withQuery(`/portForward/${place}`, query) };
    default:
      throw new StatusError(404, "NotFound", "the server could not find the requested resource");
  }
}

/**
 * Decides where a streaming request goes.
 *
 * @param loopbackNode Node whose kubelet answers on this machine's loopback address, if there is one.
 * @returns undefined for the log of a pod that no node runs yet: an empty stream.
 * @throws {StatusError}
 */
export function relayTarget(
  request: RelayRequest,
  objects: ObjectReader,
  loopbackNode?: string,
): RelayTarget | undefined {
  if (request.kind.plural === "nodes") return nodeProxy(request, objects, loopbackNode);
  if (request.kind.plural === "services") return serviceProxy(request, objects);
  if (request.subresource === "proxy") return podProxy(request, objects);
  const pod = podOf(request, objects, request.name);
  const phase = record(pod["status"])["phase"];
  if (request.subresource !== "log" && (phase === "Succeeded" || phase === "Failed")) {
    throw badRequest(`cannot exec into a container in a completed pod; current phase is ${phase}`);
  }
  const stream = streamPath(request, pod);
  const node = optionalString(record(pod["spec"])["nodeName"]) ?? "";
  if (node === "") {
    if (request.subresource === "log") return undefined;
    throw badRequest(`pod ${request.name} does not have a host assigned`);
  }
  const { host, port } = kubeletOf(objects, node, loopbackNode);
  return { ...stream, node, host, port, scheme: "https" };
}

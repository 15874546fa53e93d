import type { Container, Pod, ResourceFieldSelector } from "../../api/types.gen.ts";
import { ParseError } from "../../lib/errors.ts";
import { goQuote } from "../../lib/go-quote.ts";
import { allContainers } from "./containers.ts";
import { dividedUnits, nanoUnits, type Resources } from "./quantities.ts";

/** Addresses that only the node knows. */
export interface PodAddresses {
  readonly podIPs: readonly string[];
  readonly hostIPs: readonly string[];
}

/** One `key="value"` line per entry, sorted, values quoted as the downward API promises. */
function formatMap(map: Readonly<Record<string, string>> | undefined): string {
  return Object.entries(map ?? {})
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${goQuote(value)}`)
    .join("\n");
}

function subscript(path: string): { readonly field: string; readonly key: string } | undefined {
  const match = /^(metadata\.(?:labels|annotations))\['(.+)'\]$/.exec(path);
  return match === null ? undefined : { field: match[1] ?? "", key: match[2] ?? "" };
}

type FieldReader = (pod: Pod, addresses: PodAddresses) => string | undefined;

const fields: Readonly<Record<string, FieldReader>> = {
  "metadata.name": (pod) => pod.metadata?.name,
  "metadata.namespace": (pod) => pod.metadata?.namespace,
  "metadata.uid": (pod) => pod.metadata?.uid,
  "metadata.labels": (pod) => formatMap(pod.metadata?.labels),
  "metadata.annotations": (pod) => formatMap(pod.metadata?.annotations),
  "spec.nodeName": (pod) => pod.spec?.nodeName,
  "spec.serviceAccountName": (pod) => pod.spec?.serviceAccountName,
  "status.hostIP": (_, { hostIPs }) => hostIPs[0],
  "status.hostIPs": (_, { hostIPs }) => hostIPs.join(","),
  "status.podIP": (_, { podIPs }) => podIPs[0],
  "status.podIPs": (_, { podIPs }) => podIPs.join(","),
};

/**
 * The value of a `fieldRef`.
 *
 * @throws {ParseError} for a path the downward API does not have.
 */
export function fieldValue(pod: Pod, path: string, addresses: PodAddresses): string {
  const indexed = subscript(path);
  if (indexed !== undefined) {
    const { annotations, labels } = pod.metadata ?? {};
    return (indexed.field === "metadata.labels" ? labels : annotations)?.[indexed.key] ?? "";
  }
  const read = fields[path];
  if (read === undefined) {
    throw new ParseError("fieldRef.fieldPath", `a supported field path, not "${path}"`);
  }
  return read(pod, addresses) ?? "";
}

/** What a container without a limit of its own may use: its pod's limit, else all that the node has. */
function unlimited(pod: Pod, name: string, allocatable: Resources): string | number {
  // Huge pages are never overcommitted: no limit means none.
  if (name.startsWith("hugepages-")) return 0;
  const ofPod = name === "ephemeral-storage" ? undefined : pod.spec?.resources?.limits?.[name];
  if (ofPod !== undefined && nanoUnits(ofPod) !== 0n) return ofPod;
  return allocatable[name] ?? 0;
}

function containerResource(
  pod: Pod,
  container: Container,
  selector: ResourceFieldSelector,
  allocatable: Resources,
): string {
  const [section, ...rest] = selector.resource.split(".");
  const name = rest.join(".");
  const resources = container.resources;
  const map = section === "limits" ? resources?.limits : resources?.requests;
  const known =
    ["cpu", "memory", "ephemeral-storage"].includes(name) || name.startsWith("hugepages-");
  if ((section !== "limits" && section !== "requests") || !known) {
    throw new ParseError(
      "resourceFieldRef.resource",
      `a supported resource, not "${selector.resource}"`,
    );
  }
  const own = map?.[name] ?? 0;
  const isSet = section === "requests" || nanoUnits(own) !== 0n;
  const quantity = isSet ? own : unlimited(pod, name, allocatable);
  const divisor = selector.divisor ?? "0";
  return dividedUnits(quantity, divisor).toString();
}

/**
 * The value of a `resourceFieldRef`; cpu and memory are rounded up to the divisor.
 *
 * @param own The container that asks; the selector may name another one.
 * @throws {ParseError} for an unknown container or resource.
 */
export function resourceFieldValue(
  pod: Pod,
  own: Container | undefined,
  selector: ResourceFieldSelector,
  allocatable: Resources,
): string {
  const name = selector.containerName ?? "";
  const container =
    name === ""
      ? own
      : allContainers(pod).find((entry) => entry.container.name === name)?.container;
  if (container === undefined) {
    throw new ParseError("resourceFieldRef.containerName", `a container of the pod, not "${name}"`);
  }
  return containerResource(pod, container, selector, allocatable);
}

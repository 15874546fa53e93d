import { isRecord, optionalString } from "../../lib/guard.ts";
import type { EndpointChoice } from "../categorize.ts";
import { type EndpointView, parseSlice } from "../parse.ts";
import type { PlannedPort } from "../plan.ts";
import type { Backend, Endpoint, ServicePort } from "../types.ts";
import type { EndpointExplanation, Viewpoint } from "./model.ts";

/** An EndpointSlice as the API has it. Judged by the parser that the rules are made with, a piece at a time. */
export type RawSlice = Readonly<Record<string, unknown>>;

export interface PortAndPlan {
  readonly port: ServicePort;
  readonly plan: PlannedPort;
  readonly choice: EndpointChoice;
  /** All that were chosen among, each address once. */
  readonly merged: readonly Endpoint[];
}

const headlessLabel = "service.kubernetes.io/headless";

function list(value: unknown): readonly Readonly<Record<string, unknown>>[] {
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

export function sliceName(raw: RawSlice): string {
  const metadata = raw["metadata"];
  return (isRecord(metadata) ? optionalString(metadata["name"]) : undefined) ?? "";
}

/** Proxies ask the server to leave such slices out. */
export function isHeadlessSlice({ metadata }: RawSlice): boolean {
  const labels = isRecord(metadata) ? metadata["labels"] : undefined;
  return isRecord(labels) && labels[headlessLabel] !== undefined;
}

/** Every endpoint of every slice of the port's family, in the order of slices, with why it is in or out. */
export function explainEndpoints(
  of: PortAndPlan,
  slices: readonly RawSlice[],
  node: Viewpoint,
): readonly EndpointExplanation[] {
  const taken = new Map<string, string>();
  return slices.flatMap((raw) => {
    if (parseSlice({ ...raw, endpoints: [] }).family !== of.port.family) return [];
    const ports = matchingPorts(raw, of.port);
    return list(raw["endpoints"]).flatMap((item): EndpointExplanation[] => {
      const [view] = parseSlice({ ...raw, endpoints: [item] }).endpoints;
      const said = saidOf(raw, item);
      if (view === undefined) {
        const why = `${quoted(said.address)} is not an ${of.port.family} address`;
        return [{ ...said, ...out, why }];
      }
      if (isHeadlessSlice(raw)) {
        return [{ ...said, ...out, why: `the slice has the label ${headlessLabel}` }];
      }
      if (typeof ports === "string") return [{ ...said, ...out, why: ports }];
      return ports.map((number) => {
        const explained = explainOne(of, view, number, node);
        const first = taken.get(explained.address);
        if (first !== undefined || !explained.chosen) {
          const where = first === undefined ? "another slice" : `slice ${first}`;
          const why = `a duplicate: the same address stands in ${where}, and that one counts`;
          return { ...said, ...out, address: explained.address, why };
        }
        taken.set(explained.address, said.slice);
        const { chosen: _, ...rest } = explained;
        return { ...said, ...rest };
      });
    });
  });
}

const out = { internal: false, external: false, hairpin: false } as const;

function saidOf(
  raw: RawSlice,
  item: Readonly<Record<string, unknown>>,
): Pick<EndpointExplanation, "slice" | "address" | "node" | "target"> {
  const addresses: readonly unknown[] = Array.isArray(item["addresses"]) ? item["addresses"] : [];
  const reference = item["targetRef"];
  const target = isRecord(reference)
    ? `${optionalString(reference["kind"]) ?? ""} ${optionalString(reference["name"]) ?? ""}`.trim()
    : "";
  return {
    slice: sliceName(raw),
    address: optionalString(addresses[0]) ?? "",
    node: optionalString(item["nodeName"]) ?? "",
    target,
  };
}

function quoted(text: string): string {
  return JSON.stringify(text);
}

/** Numbers that a slice has for the port, or why it has none. */
function matchingPorts(raw: RawSlice, port: ServicePort): readonly number[] | string {
  const numbers: number[] = [];
  const others: string[] = [];
  let withoutNumber = false;
  for (const item of list(raw["ports"])) {
    const name = optionalString(item["name"]) ?? "";
    const protocol = (optionalString(item["protocol"]) ?? "TCP").toLowerCase();
    const [parsed] = parseSlice({ ...raw, endpoints: [], ports: [item] }).ports;
    if (name === port.portName && protocol === port.protocol) {
      if (parsed === undefined) withoutNumber = true;
      else numbers.push(parsed.port);
    } else {
      others.push(`${quoted(name)} (${protocol})`);
    }
  }
  if (numbers.length > 0) return numbers;
  const wanted = `${quoted(port.portName)} (${port.protocol})`;
  if (withoutNumber) return `port ${wanted} has no number in its slice`;
  const has = others.length === 0 ? "none" : others.join(", ");
  return `its slice has no port ${wanted}; it has ${has}`;
}

type Explained = Pick<
  EndpointExplanation,
  "address" | "internal" | "external" | "hairpin" | "why"
> & {
  /** This entry is the one that counts for its address. */
  readonly chosen: boolean;
};

function has(backends: readonly Backend[], ip: string, port: number): boolean {
  return backends.some((backend) => backend.ip === ip && backend.port === port);
}

function explainOne(
  of: PortAndPlan,
  view: EndpointView,
  number: number,
  node: Viewpoint,
): Explained {
  const { plan, merged } = of;
  const { ip } = view;
  const address = ip.includes(":") ? `[${ip}]:${number}` : `${ip}:${number}`;
  const counted = merged.find((endpoint) => endpoint.ip === ip && endpoint.port === number);
  const cluster = has(plan.cluster, ip, number);
  const local = has(plan.local, ip, number);
  const [internalVerdict, ...others] = plan.frontends.map(({ verdict }) => verdict);
  const external = others[0];
  return {
    address,
    chosen: counted !== undefined && sameView(counted, view, node),
    internal: (internalVerdict === "cluster" && cluster) || (internalVerdict === "local" && local),
    external:
      external === "split"
        ? local || (cluster ? "near" : false)
        : external === "cluster-masqueraded" && cluster,
    hairpin: has(plan.hairpin, ip, number),
    why: counted === undefined ? "" : reason(of, counted, view, node),
  };
}

function sameView(endpoint: Endpoint, view: EndpointView, node: Viewpoint): boolean {
  return (
    endpoint.ready === view.ready &&
    endpoint.serving === view.serving &&
    endpoint.terminating === view.terminating &&
    endpoint.local === (view.nodeName === node.nodeName)
  );
}

/** Why the choice is what it is, in the order in which it is made. */
function reason(of: PortAndPlan, endpoint: Endpoint, view: EndpointView, node: Viewpoint): string {
  const { plan, choice, port } = of;
  const parts = [condition(of, endpoint)];
  const cluster = has(plan.cluster, endpoint.ip, endpoint.port);
  if (endpoint.ready && choice.topology !== undefined) {
    parts.push(hint(choice.topology, cluster, view, node));
  }
  if (cluster && (port.internalLocal || port.externalLocal) && !endpoint.local) {
    parts.push("not on this node, which the Local policy asks for");
  }
  return parts.join("; ");
}

function condition({ plan, merged }: PortAndPlan, endpoint: Endpoint): string {
  const { ip, port, ready, serving, terminating } = endpoint;
  if (ready) return "ready";
  if (!serving) return terminating ? "terminating, and no longer serving" : "not ready";
  if (!terminating) return "not ready";
  if (has(plan.cluster, ip, port)) return "still serves while it terminates, and none is ready";
  if (has(plan.local, ip, port)) {
    return "still serves while it terminates, and none on this node is ready";
  }
  return merged.some((other) => other.ready) ? "terminating, and others are ready" : "terminating";
}

function hint(
  topology: "node" | "zone",
  used: boolean,
  { forNodes, forZones }: EndpointView,
  { nodeName, zone = "" }: Viewpoint,
): string {
  const names = (topology === "node" ? forNodes : forZones) ?? [];
  if (used) return `its hint names this ${topology}`;
  const here = topology === "node" ? nodeName : zone;
  return `its hint names ${topology} ${names.join(", ")}, not ${here}`;
}

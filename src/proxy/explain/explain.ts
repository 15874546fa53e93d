import type { IPFamily } from "../../lib/cidr.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import { categorizeEndpoints } from "../categorize.ts";
import type { FrontendIndex } from "../frontend-index.ts";
import { parseService, parseSlice, type ServiceView } from "../parse.ts";
import { planPort } from "../plan.ts";
import { healthCheckPort } from "../service-health.ts";
import { servicePorts } from "../service-model.ts";
import { SliceIndex } from "../slice-index.ts";
import { explainAddresses, indexClaims, loadBalancerRemarks, planNode } from "./addresses.ts";
import {
  explainEndpoints,
  isHeadlessSlice,
  type PortAndPlan,
  type RawSlice,
  sliceName,
} from "./endpoints.ts";
import type { PortExplanation, ServiceExplanation, Viewpoint } from "./model.ts";

export interface ExplainInput {
  /** The Service as the API has it. */
  readonly service: unknown;
  /** Its EndpointSlices as the API has them. */
  readonly slices: readonly RawSlice[];
  /** All Services that a proxy serves, this one may be among them: who else claims its addresses. */
  readonly others: readonly ServiceView[];
  readonly node: Viewpoint;
  /** Families that the node serves. */
  readonly families: readonly IPFamily[];
  readonly externalIPs: boolean;
}

const proxyNameLabel = "service.kubernetes.io/service-proxy-name";

/** What the proxy of a node does for a Service, and why. Pure. */
export function explainService(input: ExplainInput): ServiceExplanation {
  const { service, node, families } = input;
  const view = parseService(service);
  const spec = isRecord(service) && isRecord(service["spec"]) ? service["spec"] : {};
  const slices = input.slices.toSorted((a, b) => (sliceName(a) < sliceName(b) ? -1 : 1));
  const notServed = whyNotServed(service, view);
  const index = indexOf(slices, node);
  const own = notServed === undefined ? families : [];
  const plans = own.flatMap((family) => plansOf(view, family, index, input));
  return {
    service: view.key,
    type: view.type,
    node,
    notServed,
    internalTrafficPolicy: optionalString(spec["internalTrafficPolicy"]) ?? "Cluster",
    externalTrafficPolicy: optionalString(spec["externalTrafficPolicy"]) ?? "Cluster",
    healthCheckNodePort: healthCheckPort(view),
    localReady: Object.fromEntries(
      own.map((family) => [family, index.localReady(view.key, family)]),
    ),
    ports: own.flatMap((family) => {
      const ofFamily = plans.filter(({ port }) => port.family === family);
      const claims = claimsOf(input, family, ofFamily);
      return ofFamily.map((of): PortExplanation => ({
        key: of.port.key,
        family,
        name: of.port.portName,
        protocol: of.port.protocol,
        addresses: explainAddresses(of.port, of.plan, claims),
        endpoints: explainEndpoints(of, slices, node),
        affinitySeconds: of.port.affinitySeconds,
      }));
    }),
    remarks: [
      ...view.problems.map((field) => `${field} is not understood, so it has no rules`),
      ...loadBalancerRemarks(service, view),
      ...(input.externalIPs || view.externalIPs.length === 0
        ? []
        : ["spec.externalIPs does not count: the gate AllowServiceExternalIPs is off"]),
      ...sliceRemarks(slices, plans, notServed),
    ],
  };
}

/** Who claims which address: all Services, this one with its own plans. */
export function claimsOf(
  input: Pick<ExplainInput, "service" | "others" | "node" | "externalIPs">,
  family: IPFamily,
  plans: readonly PortAndPlan[],
): FrontendIndex {
  const { key } = parseService(input.service);
  const rest = input.others.filter((other) => other.key !== key);
  const claims = indexClaims(rest, { ...input, family });
  for (const { plan } of plans) claims.add(plan);
  return claims;
}

/** The plans of a Service's ports, as the proxy makes them. */
export function plansOf(
  view: ServiceView,
  family: IPFamily,
  index: SliceIndex,
  { node, externalIPs }: Pick<ExplainInput, "node" | "externalIPs">,
): readonly PortAndPlan[] {
  return servicePorts(view, family, node.nodeIPs, externalIPs).map((port) => {
    const merged = index.endpoints(port);
    return {
      port,
      merged,
      plan: planPort(port, merged, planNode(node)),
      choice: categorizeEndpoints(merged, planNode(node)),
    };
  });
}

/** The slices that proxies look at. */
export function indexOf(slices: readonly RawSlice[], { nodeName }: Viewpoint): SliceIndex {
  const index = new SliceIndex(nodeName);
  for (const raw of slices) if (!isHeadlessSlice(raw)) index.set(parseSlice(raw));
  return index;
}

function whyNotServed(service: unknown, view: ServiceView): string | undefined {
  const metadata = isRecord(service) ? service["metadata"] : undefined;
  const labels = isRecord(metadata) ? metadata["labels"] : undefined;
  const proxy = isRecord(labels) ? labels[proxyNameLabel] : undefined;
  if (proxy !== undefined) {
    return `another proxy serves it: its label ${proxyNameLabel} is ${JSON.stringify(proxy)}`;
  }
  const spec = isRecord(service) && isRecord(service["spec"]) ? service["spec"] : {};
  if (view.type === "ExternalName") {
    const name = optionalString(spec["externalName"]) ?? "";
    return `it is of type ExternalName: DNS answers with ${name}, and no packet is changed`;
  }
  if (spec["clusterIP"] === "None") {
    return "it is headless (clusterIP: None): DNS answers with its endpoints, and no packet is changed";
  }
  return view.clusterIPs.length === 0 ? "it has no ClusterIP yet" : undefined;
}

/** Slices that nothing was made of, because the Service has no address of their kind. */
function sliceRemarks(
  slices: readonly RawSlice[],
  plans: readonly PortAndPlan[],
  notServed: string | undefined,
): readonly string[] {
  if (notServed !== undefined) return [];
  const served = new Set(plans.map(({ port }) => port.family));
  return slices.flatMap((raw) => {
    const { family } = parseSlice({ ...raw, endpoints: [] });
    if (family !== undefined && served.has(family)) return [];
    const type = JSON.stringify(raw["addressType"] ?? "");
    return [`slice ${sliceName(raw)}: addressType ${type}, and nothing is served in it here`];
  });
}

import { isRecord, optionalString } from "../../lib/guard.ts";
import { FrontendIndex } from "../frontend-index.ts";
import type { ServiceView } from "../parse.ts";
import { type Frontend, type PlannedPort, planPort } from "../plan.ts";
import { servicePorts } from "../service-model.ts";
import type { ServicePort } from "../types.ts";
import type { AddressExplanation, AddressKind, Viewpoint } from "./model.ts";

/** Indexes what Services want in one family: who has an address that several claim. */
export function indexClaims(
  services: readonly ServiceView[],
  options: {
    readonly family: ServicePort["family"];
    readonly node: Viewpoint;
    readonly externalIPs: boolean;
  },
): FrontendIndex {
  const { family, node, externalIPs } = options;
  const index = new FrontendIndex();
  for (const service of services) {
    for (const port of servicePorts(service, family, node.nodeIPs, externalIPs)) {
      index.add(planPort(port, [], planNode(node)));
    }
  }
  return index;
}

/** The node in the words of plans. */
export function planNode({ nodeName, zone, keepsSource = false }: Viewpoint): {
  readonly name: string;
  readonly zone: string;
  readonly keepsSource: boolean;
} {
  return { name: nodeName, zone: zone ?? "", keepsSource };
}

/**
 * Every address of a port, with where flows to it go and who else wants it.
 *
 * @param claims Of all Services, with this plan among them.
 */
export function explainAddresses(
  port: ServicePort,
  plan: PlannedPort,
  claims: FrontendIndex,
): readonly AddressExplanation[] {
  return plan.frontends.map((frontend): AddressExplanation => {
    const claimants = claims.claimants(plan.protocol, frontend).map(({ key }) => key);
    const winner = claimants[0];
    return {
      kind: kindOf(port, frontend),
      ip: frontend.ip,
      port: frontend.port,
      verdict: frontend.verdict,
      goesTo: inWords(port, plan, frontend),
      sourceRanges: frontend.restricted ? port.sourceRanges : [],
      claimedBy: claimants.filter((key) => key !== port.key),
      lostTo: winner === undefined || winner === port.key ? undefined : winner,
    };
  });
}

function kindOf(port: ServicePort, { ip }: Frontend): AddressKind {
  if (ip === "") return "NodePort";
  if (ip === port.clusterIP) return "ClusterIP";
  return port.externalIPs.includes(ip) ? "ExternalIP" : "LoadBalancer";
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

function inWords(port: ServicePort, plan: PlannedPort, { verdict }: Frontend): string {
  const everywhere = counted(plan.cluster.length, "endpoint");
  const here = counted(plan.local.length, "endpoint");
  switch (verdict) {
    case "cluster":
      return everywhere;
    case "local":
      return `${here} on this node`;
    case "cluster-masqueraded":
      return `${everywhere}, with a new source address`;
    case "split":
      return plan.local.length === 0
        ? `from outside: dropped, none is on this node; from pods and this node: ${everywhere}`
        : `from outside: ${here} on this node, source kept; from pods and this node: ${everywhere}`;
    case "reject":
      return "refused: no endpoint is usable";
    case "drop":
      return `dropped: no endpoint on this node${port.internalLocal ? " (internalTrafficPolicy Local)" : ""}`;
  }
}

/** Addresses of a load balancer that no rule is made for, each with the reason. */
export function loadBalancerRemarks(service: unknown, view: ServiceView): readonly string[] {
  const status = isRecord(service) ? service["status"] : undefined;
  const balancer = isRecord(status) ? status["loadBalancer"] : undefined;
  const ingress: readonly unknown[] =
    isRecord(balancer) && Array.isArray(balancer["ingress"]) ? balancer["ingress"] : [];
  return ingress.filter(isRecord).flatMap((entry) => {
    const ip = optionalString(entry["ip"]) ?? "";
    const hostname = optionalString(entry["hostname"]) ?? "";
    const mode = optionalString(entry["ipMode"]) ?? "VIP";
    if (view.type !== "LoadBalancer") {
      return [
        `load balancer address ${ip || hostname}: the type is ${view.type}, so it does not count`,
      ];
    }
    if (ip === "") return [`load balancer ${hostname}: a host name has no rules`];
    if (mode !== "VIP") {
      return [
        `load balancer address ${ip}: ipMode ${mode}, so packets go to the load balancer itself`,
      ];
    }
    return [];
  });
}

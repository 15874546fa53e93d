import { isRecord, optionalString } from "../../lib/guard.ts";
import type { Frontend, PlannedPort } from "../plan.ts";
import { planPort } from "../plan.ts";
import type { ServiceView } from "../parse.ts";
import { servicePorts } from "../service-model.ts";
import type { ServicePort } from "../types.ts";
import type { AddressExplanation, AddressKind, Viewpoint } from "./model.ts";

/** Who else wants an address and port. Lower rank has it. */
export interface Claim {
  readonly key: string;
  readonly rank: string;
}

/** Claims of many Services by `family ip protocol port`; node ports under an empty address. */
export type ClaimIndex = ReadonlyMap<string, readonly Claim[]>;

function claimID({ family, protocol }: ServicePort, { ip, port }: Frontend): string {
  return `${family} ${ip} ${protocol} ${port}`;
}

/** Indexes what all Services of one family want. */
export function indexClaims(
  services: readonly ServiceView[],
  options: {
    readonly family: ServicePort["family"];
    readonly node: Viewpoint;
    readonly externalIPs: boolean;
  },
): ClaimIndex {
  const { family, node, externalIPs } = options;
  const claims = new Map<string, Claim[]>();
  for (const service of services) {
    for (const port of servicePorts(service, family, node.nodeIPs, externalIPs)) {
      for (const frontend of planPort(port, [], planNode(node)).frontends) {
        const id = claimID(port, frontend);
        const known = claims.get(id);
        const claim = { key: port.key, rank: port.rank };
        if (known === undefined) claims.set(id, [claim]);
        else known.push(claim);
      }
    }
  }
  return claims;
}

/** The node in the words of plans. */
export function planNode({ nodeName, zone }: Viewpoint): { name: string; zone: string } {
  return { name: nodeName, zone: zone ?? "" };
}

/** Every address of a port, with where flows to it go and who else wants it. */
export function explainAddresses(
  port: ServicePort,
  plan: PlannedPort,
  claims: ClaimIndex,
): readonly AddressExplanation[] {
  return plan.frontends.map((frontend): AddressExplanation => {
    const rivals = (claims.get(claimID(port, frontend)) ?? []).filter(
      ({ key }) => key !== port.key,
    );
    const best = rivals.toSorted((a, b) => (a.rank < b.rank ? -1 : 1))[0];
    return {
      kind: kindOf(port, frontend),
      ip: frontend.ip,
      port: frontend.port,
      verdict: frontend.verdict,
      goesTo: inWords(port, plan, frontend),
      sourceRanges: frontend.restricted ? port.sourceRanges : [],
      claimedBy: rivals.map(({ key }) => key),
      lostTo: best !== undefined && best.rank < port.rank ? best.key : undefined,
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

import type { IPFamily } from "../lib/cidr.ts";
import type { ApplyResult } from "./backend.ts";
import {
  ConntrackReconciler,
  type ConntrackReconcilerOptions,
  type FlowJudge,
} from "./conntrack-reconciler.ts";
import { freeEarlyConnections } from "./early-connections.ts";
import type { FamilyRules } from "./family-rules.ts";

/** Conntrack's flows, judged by the rules of all families. */
export function makeConntrack({
  rules: all,
  nodePortIPs,
  ...options
}: Omit<ConntrackReconcilerOptions, "judges"> & {
  readonly rules: readonly FamilyRules[];
  /** Addresses of the node that node ports of a family answer on. */
  readonly nodePortIPs: (rules: FamilyRules) => readonly string[];
}): ConntrackReconciler {
  const judges = new Map(
    all.map((rules): readonly [IPFamily, FlowJudge] => [
      rules.family,
      {
        judge: (flow, was, left) =>
          rules.judge(flow, (ip) => nodePortIPs(rules).includes(ip), was, left),
        nodePortIPs: () => nodePortIPs(rules),
      },
    ]),
  );
  const isClusterIP = (family: IPFamily, ip: string): boolean =>
    all.some((rules) => rules.family === family && rules.isClusterIP(ip));
  const { logger } = options;
  return new ConntrackReconciler({
    ...options,
    judges,
    first: (family, signal) =>
      freeEarlyConnections(
        { family, isClusterIP: (ip) => isClusterIP(family, ip), logger },
        signal,
      ),
  });
}

/** What changed while nobody watched has left flows that no plan of ours ever knew; so has an address that is gone. */
export function forgetFlows(
  conntrack: ConntrackReconciler,
  rules: FamilyRules,
  { result, first }: { readonly result: ApplyResult; readonly first: boolean },
): void {
  const { frontends, all } = rules.takeTouched();
  if (first || result.drift === true || !all) conntrack.request(rules.family);
  if (!first) conntrack.touched(rules.family, frontends);
  conntrack.compareAddresses(rules.family);
}

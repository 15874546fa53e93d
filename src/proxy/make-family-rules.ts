import type { ProxySettings } from "../config/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { IPFamily } from "../lib/cidr.ts";
import type { Logger } from "../lib/log.ts";
import type { ProxyMode, RuleBackend, RulesContext } from "./backend.ts";
import { FamilyRules } from "./family-rules.ts";
import { IptablesBackend } from "./iptables/backend.ts";
import { localDetector } from "./local-detector.ts";
import { answersOnLocalhost, nodePortIPs } from "./node-addresses.ts";
import { NftBackend } from "./nftables/backend.ts";

export const defaultTableName = "remora-proxy";

/** What this node is, as far as rules depend on it. */
export interface NodeFacts {
  readonly clusterCIDRs: readonly string[];
  /** `spec.podCIDRs` of the Node. */
  readonly podCIDRs: readonly string[];
  /** Addresses that the node is known by. */
  readonly nodeIPs: readonly string[];
  /** Addresses of all interfaces. */
  readonly interfaceIPs: readonly string[];
}

/** The part of the context that changes while the proxy runs. */
export function contextFacts(
  { family, mode }: { readonly family: IPFamily; readonly mode: ProxyMode },
  settings: ProxySettings,
  { nodeIPs, interfaceIPs, ...networks }: NodeFacts,
): Pick<RulesContext, "local" | "nodePortIPs" | "localhostNodePorts"> {
  return {
    local: localDetector(settings, family, networks),
    nodePortIPs: nodePortIPs(settings, mode, family, nodeIPs, interfaceIPs),
    localhostNodePorts: answersOnLocalhost(settings, mode, family, nodeIPs),
  };
}

/** The rules of one family, and the program that writes them. */
export function makeFamilyRules(
  of: { readonly family: IPFamily; readonly mode: ProxyMode },
  options: {
    readonly settings: ProxySettings;
    readonly facts: NodeFacts;
    readonly tableName: string;
    readonly clock: Clock;
    readonly logger: Logger;
  },
): { readonly rules: FamilyRules; readonly backend: RuleBackend } {
  const { settings, facts, tableName, clock, logger } = options;
  const context: RulesContext = {
    family: of.family,
    ...contextFacts(of, settings, facts),
    serviceCIDRs: [],
    mark: 2 ** settings.masqueradeBit,
    masqueradeAll: settings.masqueradeAll,
  };
  const backend =
    of.mode === "nftables"
      ? new NftBackend({ context, clock, tableName, logger })
      : new IptablesBackend({ context, clock, logger });
  const { externalIPs } = settings;
  return { backend, rules: new FamilyRules({ context, backend, logger, externalIPs }) };
}

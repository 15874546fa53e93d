import type { ProxySettings } from "../config/types.ts";
import type { Clock } from "../lib/clock.ts";
import { type IPFamily, ipFamily, parseCidr } from "../lib/cidr.ts";
import type { Logger } from "../lib/log.ts";
import type { RulesContext } from "./backend.ts";
import { FamilyRules } from "./family-rules.ts";
import { NftBackend } from "./nftables/backend.ts";

/** Mark bit of flows that get a new source address; the network's FORWARD rules accept it. */
export const serviceMark = 0x4000;

export const defaultTableName = "remora-proxy";

/** The rules of one family, and the program that writes them. */
export function makeFamilyRules(
  family: IPFamily,
  options: {
    readonly config: {
      readonly clusterCIDRs: readonly string[];
      readonly proxy?: Pick<ProxySettings, "externalIPs">;
    };
    readonly nodeIPs: readonly string[];
    readonly tableName?: string;
    readonly clock: Clock;
  },
  logger: Logger,
): FamilyRules {
  const cidrs = options.config.clusterCIDRs.filter((cidr) => parseCidr(cidr).family === family);
  const ips = options.nodeIPs.filter((ip) => ipFamily(ip) === family);
  const context: RulesContext = {
    family,
    local: cidrs.length === 0 ? { kind: "none" } : { kind: "cidrs", cidrs },
    nodePortIPs: ips.length === 0 ? undefined : ips,
    localhostNodePorts: false,
    serviceCIDRs: [],
    mark: serviceMark,
    masqueradeAll: false,
  };
  const backend = new NftBackend({
    context,
    clock: options.clock,
    tableName: options.tableName ?? defaultTableName,
    logger,
  });
  const { externalIPs = true } = options.config.proxy ?? {};
  return new FamilyRules({ context, backend, logger, externalIPs });
}

import { parseCidr } from "../../lib/cidr.ts";
import { chooseNodeIPs, nodeIPWish } from "./choose-node-ips.ts";
import { type Host, systemHost } from "./host.ts";

/**
 * The addresses this machine has as a node at this moment, primary first: the configured ones, or those that it would
 * choose. Empty when it has none.
 */
export async function detectNodeIPs(
  signal: AbortSignal,
  host: Pick<Host, "addresses" | "routeSources"> = systemHost(),
  config: {
    readonly nodeName: string;
    readonly nodeIPs: readonly string[];
    /** Networks of all pods: the node has an address of each family. */
    readonly clusterCIDRs?: readonly string[];
  } = { nodeName: "", nodeIPs: [] },
): Promise<readonly string[]> {
  signal.throwIfAborted();
  const { fixed } = nodeIPWish(config.nodeIPs);
  if (fixed.length > 0) return fixed;
  const choice = chooseNodeIPs({
    configured: config.nodeIPs,
    nodeName: config.nodeName,
    host: host.addresses(),
    routeSources: await host.routeSources(),
    podFamilies: (config.clusterCIDRs ?? []).map((text) => parseCidr(text).family),
  });
  return choice.kind === "chosen" ? choice.ips : [];
}

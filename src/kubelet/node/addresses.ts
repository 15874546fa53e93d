import { chooseNodeIPs } from "./choose-node-ips.ts";
import { type Host, systemHost } from "./host.ts";

/**
 * The addresses this machine has as a node at this moment, primary first: the configured ones, or those that it would
 * choose. Empty when it has none.
 */
export async function detectNodeIPs(
  signal: AbortSignal,
  host: Pick<Host, "addresses" | "routeSources"> = systemHost(),
  config: { readonly nodeName: string; readonly nodeIPs: readonly string[] } = {
    nodeName: "",
    nodeIPs: [],
  },
): Promise<readonly string[]> {
  signal.throwIfAborted();
  if (config.nodeIPs.length > 0) return config.nodeIPs;
  const choice = chooseNodeIPs({
    configured: [],
    nodeName: config.nodeName,
    host: host.addresses(),
    routeSources: await host.routeSources(),
  });
  return choice.kind === "chosen" ? choice.ips : [];
}

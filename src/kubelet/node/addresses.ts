import { chooseNodeIPs } from "./choose-node-ips.ts";
import { type Host, systemHost } from "./host.ts";

/**
 * The addresses this machine would have as a node when none are configured, primary first; empty when it has none.
 */
export async function detectNodeIPs(
  signal: AbortSignal,
  host: Pick<Host, "addresses" | "routeSources"> = systemHost(),
  nodeName = "",
): Promise<readonly string[]> {
  signal.throwIfAborted();
  const choice = chooseNodeIPs({
    configured: [],
    nodeName,
    host: host.addresses(),
    routeSources: await host.routeSources(),
  });
  return choice.kind === "chosen" ? choice.ips : [];
}

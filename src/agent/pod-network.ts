import { join } from "node:path";

import { agentDefaults } from "../config/agent-config.ts";
import type { AgentConfig } from "../config/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { type BridgeNetworkOptions, createBridgeNetwork } from "../network/bridge.ts";
import { createCniNetwork } from "../network/cni/cni-network.ts";
import type { ensureNodeRoutes } from "../network/node-routes.ts";
import { createProvidedNetwork, type ProvidedNetwork } from "../network/provider.ts";
import type { SettingsWitness } from "../network/sysctls.ts";

/** How the pods of a node get their network, as far as the configuration says it. */
export type PodNetworkConfig = Pick<
  AgentConfig,
  "rootDir" | "clusterCIDRs" | "podNetwork" | "cniConfDir" | "cniBinDirs"
> & { readonly proxy: Pick<AgentConfig["proxy"], "masqueradeBit"> };

export interface PodNetworkOptions {
  readonly config: PodNetworkConfig;
  /** What the bridge is to know of the node. */
  readonly bridge: Pick<BridgeNetworkOptions, "bridgeName" | "nodeServices" | "otherNodes">;
  /** Told of settings of the machine before they are changed. */
  readonly witness?: SettingsWitness;
  /** Called when the network may have become ready, or ceased to be. */
  readonly onChange?: () => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Both providers behind one, and who is chosen by the configuration. */
export function createPodNetwork(options: PodNetworkOptions): ProvidedNetwork {
  const { clock, config, logger } = options;
  const stateDir = join(config.rootDir, "network");
  const shared = {
    stateDir,
    clusterCIDRs: config.clusterCIDRs,
    serviceMark: 2 ** config.proxy.masqueradeBit,
    clock,
    logger,
    ...(options.witness === undefined ? {} : { witness: options.witness }),
  };
  const network: ProvidedNetwork = createProvidedNetwork({
    mode: config.podNetwork ?? "auto",
    stateDir,
    bridge: createBridgeNetwork({ ...shared, ...options.bridge }),
    cni: createCniNetwork({
      ...shared,
      confDir: config.cniConfDir ?? agentDefaults.cniConfDir ?? "",
      binDirs: config.cniBinDirs ?? agentDefaults.cniBinDirs ?? [],
      onChange: () => network.configurationChanged(),
    }),
    ...(options.onChange === undefined ? {} : { onChange: options.onChange }),
    clock,
    logger,
  });
  return network;
}

/** Ways to the pods of other nodes are ours only where the bridge is: plug-ins have ways of their own. */
export function bridgeRoutes(
  ensure: typeof ensureNodeRoutes,
  network: Pick<ProvidedNetwork, "load" | "provider">,
): typeof ensureNodeRoutes {
  return async (remotes, podCIDRs, signal) => {
    await network.load();
    return ensure(network.provider === "cni" ? [] : remotes, podCIDRs, signal);
  };
}

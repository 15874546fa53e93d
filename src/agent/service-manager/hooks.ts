import type { AgentConfig } from "../../config/types.ts";
import type { Runner } from "../supervise.ts";
import type { ServiceManager } from "./service-manager.ts";

/** No turn of a loop takes longer, also while engine, disk and API server let it wait to their deadlines. */
const loopLimitMs = 150_000;

/** What the parts of an agent are given so that the service manager hears of them. */
export interface ServiceHooks {
  readonly node: (onReady: () => void) => {
    readonly onReady: () => void;
    readonly onTurn: () => void;
  };
  readonly pods: { readonly onTurn: () => void };
  readonly server: { readonly listenFd?: number };
  readonly proxy: { readonly onApplied: () => void };
  readonly runners: readonly Runner[];
}

/** Makes them; what was passed to this process is taken with it, so call it once. */
export function serviceHooks(
  service: ServiceManager | undefined,
  config: Pick<AgentConfig, "bindAddress" | "kubeletPort" | "nodeStatusUpdateFrequencyMs">,
): ServiceHooks {
  const nothing = (): void => undefined;
  if (service === undefined) {
    return {
      node: (onReady) => ({ onReady, onTurn: nothing }),
      pods: { onTurn: nothing },
      server: {},
      proxy: { onApplied: nothing },
      runners: [],
    };
  }
  const { bindAddress: address, kubeletPort: port } = config;
  const listenFd = service.sockets.take("tcp", { address, port });
  const statusLimitMs = config.nodeStatusUpdateFrequencyMs + loopLimitMs;
  return {
    node: (onReady) => ({
      onReady: () => {
        service.reached("node");
        onReady();
      },
      onTurn: service.loop("node status", statusLimitMs),
    }),
    pods: { onTurn: service.loop("pods", loopLimitMs) },
    server: listenFd === undefined ? {} : { listenFd },
    proxy: { onApplied: () => service.reached("rules") },
    runners: service.isManaged ? [service.runner] : [],
  };
}

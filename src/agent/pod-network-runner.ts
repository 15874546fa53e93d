import type { NodeView } from "../kubelet/types.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { PodNetwork } from "../network/types.ts";
import type { Runner } from "./supervise.ts";

const retryMs = 5_000;
/** Others that change packet rules (Docker at its start, a firewall's reload) do not tell anybody. */
const repairMs = 30_000;

export interface PodNetworkRunnerOptions {
  readonly network: PodNetwork;
  readonly node: Pick<NodeView, "node" | "subscribe">;
  /** Used while the Node has no podCIDRs of its own. */
  readonly podCIDRs: readonly string[];
  /** Calls its argument each time the container engine may have put its own packet rules before ours. */
  readonly onEngineReturn: (listener: () => void) => () => void;
  /** Calls its argument each time something of our packet rules was deleted, by whomever. */
  readonly onRulesDeleted?: (listener: () => void) => () => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Keeps the pod network in step with the Node's podCIDRs, and in repair. */
export function podNetworkRunner(options: PodNetworkRunnerOptions): Runner {
  return { name: "pod network", run: (signal) => keepPodNetwork(options, signal) };
}

function wantedCIDRs({ node, podCIDRs }: PodNetworkRunnerOptions): readonly string[] {
  const spec = node.node()?.spec;
  const assigned = spec?.podCIDRs ?? (spec?.podCIDR === undefined ? [] : [spec.podCIDR]);
  return assigned.length > 0 ? assigned : podCIDRs;
}

async function keepPodNetwork(
  options: PodNetworkRunnerOptions,
  signal: AbortSignal,
): Promise<void> {
  const { clock, logger, network } = options;
  let wake = (): void => undefined;
  let applied = "";
  let due = 0;
  const unsubscribeNode = options.node.subscribe(() => wake());
  const lookNow = (): void => {
    due = 0;
    wake();
  };
  const unsubscribeEngine = options.onEngineReturn(lookNow);
  const unsubscribeRules = options.onRulesDeleted?.(lookNow);
  try {
    while (!signal.aborted) {
      const pause = new AbortController();
      wake = () => pause.abort();
      const podCIDRs = wantedCIDRs(options);
      const wanted = podCIDRs.join(",");
      if (podCIDRs.length > 0 && (wanted !== applied || clock.monotonic() >= due)) {
        // Before the call: what happens during it calls for another.
        due = clock.monotonic() + repairMs;
        try {
          await network.ensureNode(podCIDRs, signal);
          if (wanted !== applied) {
            logger.log("info", "pod network ready", { podCIDRs: wanted });
          }
          applied = wanted;
        } catch (error) {
          if (signal.aborted) return;
          due = clock.monotonic() + retryMs;
          logger.log("error", "pod network could not be set up, will retry", {
            error: errorMessage(error),
          });
        }
      }
      const waitMs = applied !== "" && wanted === applied ? due - clock.monotonic() : retryMs;
      const stop = AbortSignal.any([signal, pause.signal]);
      await clock.sleep(Math.max(waitMs, 0), stop).catch(() => undefined);
    }
  } finally {
    unsubscribeNode();
    unsubscribeEngine();
    unsubscribeRules?.();
  }
}

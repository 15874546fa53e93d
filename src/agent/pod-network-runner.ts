import { networkInterfaces } from "node:os";

import type { EventRecorder } from "../api/event-types.ts";
import type { NodeView } from "../kubelet/types.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { canonicalIP, ipFamily } from "../lib/cidr.ts";
import type { NodeService } from "../network/firewall-plan.ts";
import type { PodNetwork } from "../network/types.ts";
import type { Runner } from "./supervise.ts";

const retryMs = 5_000;
/** Others that change packet rules (Docker at its start, a firewall's reload) do not tell anybody. */
const repairMs = 30_000;
/** Somebody who takes our rules away each time we put them back must not keep us busy. */
const gapMs = 1_000;

export interface PodNetworkRunnerOptions {
  readonly network: PodNetwork;
  readonly node: Pick<NodeView, "node" | "subscribe">;
  /** Used while the Node has no podCIDRs of its own. */
  readonly podCIDRs: readonly string[];
  /** Calls its argument each time the container engine may have put its own packet rules before ours. */
  readonly onEngineReturn: (listener: () => void) => () => void;
  /** Calls its argument each time something of our packet rules was deleted, by whomever. */
  readonly onRulesDeleted?: (listener: () => void) => () => void;
  /** What keeps packets from passing after the last look, as sentences: told once each, as Events of the Node. */
  readonly problems?: {
    readonly list: () => readonly string[];
    readonly nodeName: string;
    readonly events: Pick<EventRecorder, "event">;
  };
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Whether an address, in its canonical spelling, is one of this machine now. */
export function isAddressOfMachine(address: string): boolean {
  return Object.values(networkInterfaces()).some((infos) =>
    infos?.some((info) => canonicalIP(info.address) === address),
  );
}

/**
 * What a node answers itself and firewalls of the machine have to let in, as far as the address of the API server tells:
 * pods of this node ask the one that runs here; one elsewhere asks the kubelet's port.
 *
 * @param server URL.
 * @param isLocal Whether an address is one of this machine.
 */
export function servicesOfNode(
  server: string,
  kubeletPort: number,
  isLocal: (address: string) => boolean,
): readonly NodeService[] {
  if (!URL.canParse(server)) return [];
  const { hostname, port } = new URL(server);
  const literal = hostname.replaceAll(/^\[|\]$/g, "");
  if (ipFamily(literal) === undefined) return [];
  const address = canonicalIP(literal);
  return isLocal(address)
    ? [
        {
          from: "pods",
          port: port === "" ? 443 : Number(port),
          protocol: "tcp",
          trouble: "pods cannot reach the API server",
        },
      ]
    : [
        {
          from: address,
          port: kubeletPort,
          protocol: "tcp",
          trouble: "the API server cannot reach this node (kubectl logs, exec, port-forward)",
        },
      ];
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
  let lookedAt = -gapMs;
  let told: readonly string[] = [];
  const unsubscribeNode = options.node.subscribe(() => wake());
  const lookNow = (): void => {
    due = Math.min(due, lookedAt + gapMs);
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
        lookedAt = clock.monotonic();
        due = lookedAt + repairMs;
        try {
          await network.ensureNode(podCIDRs, signal);
          if (wanted !== applied) {
            logger.log("info", "pod network ready", { podCIDRs: wanted });
          }
          applied = wanted;
          told = tellProblems(options, told);
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

/** @returns All there are now. */
function tellProblems(
  { logger, problems }: PodNetworkRunnerOptions,
  told: readonly string[],
): readonly string[] {
  if (problems === undefined) return [];
  const { events, list, nodeName } = problems;
  const target = { kind: "Node", apiVersion: "v1", namespace: "", name: nodeName, uid: nodeName };
  const now = list();
  for (const problem of now) {
    if (told.includes(problem)) continue;
    logger.log("warn", "packets of pods cannot pass", { error: problem });
    events.event(target, "Warning", "PodNetworkBlocked", problem);
  }
  for (const problem of told) {
    if (!now.includes(problem)) {
      logger.log("info", "packets of pods can pass again", { error: problem });
    }
  }
  return now;
}

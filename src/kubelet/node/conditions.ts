import type { NodeCondition } from "../../api/types.gen.ts";

/** What the conditions are decided from. */
export interface ConditionFacts {
  readonly memoryPressure: boolean;
  readonly diskPressure: boolean;
  readonly pidPressure: boolean;
  /** Sentences; the node is Ready when there is none. */
  readonly notReady: readonly string[];
}

interface Verdict {
  readonly type: string;
  readonly status: "True" | "False";
  readonly reason: string;
  readonly message: string;
}

function verdicts(facts: ConditionFacts): Verdict[] {
  return [
    facts.memoryPressure
      ? {
          type: "MemoryPressure",
          status: "True",
          reason: "KubeletHasInsufficientMemory",
          message: "kubelet has insufficient memory available",
        }
      : {
          type: "MemoryPressure",
          status: "False",
          reason: "KubeletHasSufficientMemory",
          message: "kubelet has sufficient memory available",
        },
    facts.diskPressure
      ? {
          type: "DiskPressure",
          status: "True",
          reason: "KubeletHasDiskPressure",
          message: "kubelet has disk pressure",
        }
      : {
          type: "DiskPressure",
          status: "False",
          reason: "KubeletHasNoDiskPressure",
          message: "kubelet has no disk pressure",
        },
    facts.pidPressure
      ? {
          type: "PIDPressure",
          status: "True",
          reason: "KubeletHasInsufficientPID",
          message: "kubelet has insufficient PID available",
        }
      : {
          type: "PIDPressure",
          status: "False",
          reason: "KubeletHasSufficientPID",
          message: "kubelet has sufficient PID available",
        },
    ready(facts.notReady),
  ];
}

function ready(notReady: readonly string[]): Verdict {
  if (notReady.length === 0) {
    return {
      type: "Ready",
      status: "True",
      reason: "KubeletReady",
      message: "kubelet is posting ready status",
    };
  }
  const message = notReady.length === 1 ? notReady.join("") : `[${notReady.join(", ")}]`;
  return { type: "Ready", status: "False", reason: "KubeletNotReady", message };
}

/**
 * What the kubelet says of a network that is not ready, on the node and on pods that wait for it.
 *
 * @param reason Undefined when it is ready.
 */
export function networkError(reason: string | undefined): string | undefined {
  if (reason === undefined) return undefined;
  return `container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:${reason}`;
}

/**
 * The node's own conditions, Ready last, with foreign ones in front as they were. Each heartbeat is `now`; the
 * transition time moves only when the status does.
 *
 * @param now RFC 3339 text.
 */
export function computeConditions(
  facts: ConditionFacts,
  previous: readonly NodeCondition[],
  now: string,
): NodeCondition[] {
  const own = verdicts(facts).map((verdict) => {
    const before = previous.find((condition) => condition.type === verdict.type);
    const kept = before?.status === verdict.status ? before.lastTransitionTime : undefined;
    return { ...verdict, lastHeartbeatTime: now, lastTransitionTime: kept ?? now };
  });
  const foreign = previous.filter((condition) => own.every(({ type }) => type !== condition.type));
  return [...foreign, ...own];
}

const transitionReasons: Readonly<
  Record<string, { readonly True: string; readonly False: string }>
> = {
  MemoryPressure: { True: "NodeHasInsufficientMemory", False: "NodeHasSufficientMemory" },
  DiskPressure: { True: "NodeHasDiskPressure", False: "NodeHasNoDiskPressure" },
  PIDPressure: { True: "NodeHasInsufficientPID", False: "NodeHasSufficientPID" },
  Ready: { True: "NodeReady", False: "NodeNotReady" },
};

/** Reasons of the Node events that the step from `previous` to `next` deserves, in the order of the conditions. */
export function conditionEvents(
  previous: readonly NodeCondition[],
  next: readonly NodeCondition[],
): string[] {
  const reasons: string[] = [];
  for (const condition of next) {
    const before = previous.find(({ type }) => type === condition.type);
    if (before?.status === condition.status) continue;
    // A node that has not become ready yet is not news.
    if (condition.type === "Ready" && condition.status === "False" && before === undefined)
      continue;
    const words = transitionReasons[condition.type];
    if (words === undefined) continue;
    if (condition.status === "True" || condition.status === "False") {
      reasons.push(words[condition.status]);
    }
  }
  return reasons;
}

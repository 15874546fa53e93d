import type { ApiClient } from "../../api/client.ts";
import { ApiError } from "../../api/errors.ts";
import { keyOf } from "../../api/object.ts";
import { PODS } from "../../api/resources.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { patchObject } from "../controllers/shared/calls.ts";
import type { StoredPod } from "../controllers/shared/pod-state.ts";
import { formatTime, podCondition } from "../controllers/shared/pod-state.ts";

/** What status writes of the scheduler need. */
export interface StatusDeps {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The limit of an Event's text. */
const maxMessageLength = 1024;

/** The message as an Event takes it. */
export function eventMessage(message: string): string {
  const suffix = " ...";
  return message.length <= maxMessageLength
    ? message
    : message.slice(0, maxMessageLength - suffix.length) + suffix;
}

interface Condition {
  readonly type: "PodScheduled" | "DisruptionTarget";
  readonly status: "True" | "False";
  readonly reason: string;
  readonly message: string;
}

/** The condition as it is written; undefined when the pod has it already. */
export function conditionPatch(
  pod: StoredPod,
  condition: Condition,
  now: number,
): Record<string, unknown> | undefined {
  const current = podCondition(pod, condition.type);
  if (
    current?.status === condition.status &&
    current.reason === condition.reason &&
    current.message === condition.message
  )
    return undefined;
  const { generation } = pod.metadata;
  return {
    ...condition,
    lastProbeTime: null,
    lastTransitionTime:
      current?.status === condition.status ? current.lastTransitionTime : formatTime(now),
    ...(generation === undefined ? {} : { observedGeneration: generation }),
  };
}

/**
 * Patches a pod's status. A pod that is gone is no error.
 *
 * @throws {ApiError}
 */
export async function patchStatus(
  client: ApiClient,
  pod: StoredPod,
  status: Record<string, unknown>,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, name, uid } = pod.metadata;
  try {
    await patchObject(
      client,
      { resource: PODS, namespace, name, subresource: "status" },
      { metadata: { uid }, status },
      signal,
    );
  } catch (error) {
    if (error instanceof ApiError && [404, 409].includes(error.status)) return;
    throw error;
  }
}

/** Why a pod has no node. */
export interface UnschedulableReport {
  readonly message: string;
  /** The node to show as nominated, "" to take the nomination back, undefined to leave it. */
  readonly nominated: string | undefined;
  /** `Unschedulable` unless it says otherwise. */
  readonly reason?: "SchedulerError";
}

/** Writes why a pod has no node. Never rejects: the next attempt writes it again. */
export async function reportUnschedulable(
  deps: StatusDeps,
  pod: StoredPod,
  report: UnschedulableReport,
  signal: AbortSignal,
): Promise<void> {
  const { message, nominated, reason = "Unschedulable" } = report;
  const condition = conditionPatch(
    pod,
    { type: "PodScheduled", status: "False", reason, message },
    deps.clock.now(),
  );
  const shown = pod.status?.nominatedNodeName ?? "";
  const renominated = nominated !== undefined && nominated !== shown;
  if (condition === undefined && !renominated) return;
  const status = {
    ...(condition === undefined ? {} : { conditions: [condition] }),
    ...(renominated ? { nominatedNodeName: nominated === "" ? null : nominated } : {}),
  };
  try {
    await patchStatus(deps.client, pod, status, signal);
  } catch (error) {
    if (signal.aborted) return;
    deps.logger.log("warn", "pod condition not written", {
      pod: keyOf(pod),
      error: errorMessage(error),
    });
  }
}

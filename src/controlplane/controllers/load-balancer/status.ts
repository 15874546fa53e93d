import type { Condition, LoadBalancerIngress } from "../../../api/types.gen.ts";
import type { StoredService } from "../endpoints/service-endpoints.ts";
import { formatTime } from "../shared/pod-state.ts";
import type { Assignment } from "./plan.ts";
import { cleanupFinalizer, hasFinalizer } from "./wanted.ts";

/** v1 `LoadBalancerPortsError`: what is wrong with ports that the load balancer was asked for. */
const portsError = "LoadBalancerPortsError";

/** What is written of a Service, as a JSON merge patch. */
export interface BalancerPatch {
  readonly metadata: {
    /** The optimistic lock: lists are replaced as a whole. */
    readonly resourceVersion: string;
    readonly uid: string;
    readonly finalizers: readonly string[];
  };
  readonly status: {
    readonly loadBalancer: { readonly ingress: readonly LoadBalancerIngress[] | null };
    readonly conditions: readonly Condition[] | null;
  };
}

/** Whether a change is the first one, or what it changes. */
export type BalancerChange = "ensured" | "hosts" | "conditions";

/**
 * The patch that gives a Service what it was assigned; undefined when it has it.
 *
 * @param now Milliseconds since the epoch.
 */
export function assignmentPatch(
  service: StoredService,
  { ingress, problems }: Assignment,
  now: number,
): { readonly patch: BalancerPatch; readonly change: BalancerChange } | undefined {
  const conflicts = problems.filter(({ conflict }) => conflict).map(({ message }) => message);
  const conditions = conditionsWith(service, conflicts, now);
  const before = service.status?.loadBalancer?.ingress ?? [];
  const first = !hasFinalizer(service);
  const sameIngress = textOf(before) === textOf(ingress);
  if (!first && sameIngress && sameConditions(service, conditions)) return undefined;
  const finalizers = service.metadata.finalizers ?? [];
  return {
    change: changeOf(),
    patch: patchOf(service, first ? [...finalizers, cleanupFinalizer] : finalizers, {
      ingress,
      conditions,
    }),
  };

  function changeOf(): BalancerChange {
    if (first || before.length === 0) return "ensured";
    if (sameIngress) return "conditions";
    const ports = (list: readonly LoadBalancerIngress[]): string =>
      JSON.stringify(list[0]?.ports ?? []);
    return ports(before) === ports(ingress) || ingress.length === 0 ? "hosts" : "ensured";
  }
}

/** The patch that takes everything back. */
export function cleanupPatch(service: StoredService, now: number): BalancerPatch {
  const finalizers = (service.metadata.finalizers ?? []).filter(
    (each) => each !== cleanupFinalizer,
  );
  const conditions = conditionsWith(service, [], now);
  return patchOf(service, finalizers, { ingress: [], conditions });
}

function patchOf(
  { metadata }: StoredService,
  finalizers: readonly string[],
  {
    ingress,
    conditions,
  }: {
    readonly ingress: readonly LoadBalancerIngress[];
    readonly conditions: readonly Condition[];
  },
): BalancerPatch {
  const { resourceVersion, uid } = metadata;
  return {
    metadata: { resourceVersion, uid, finalizers },
    status: {
      loadBalancer: { ingress: ingress.length === 0 ? null : ingress },
      conditions: conditions.length === 0 ? null : conditions,
    },
  };
}

/** Members in one order, whatever the order that they were written in. */
function textOf(ingress: readonly LoadBalancerIngress[]): string {
  return JSON.stringify(
    ingress.map(({ hostname, ip, ipMode, ports }) => [
      hostname,
      ip,
      ipMode,
      ports?.map(({ error, port, protocol }) => [error, port, protocol]),
    ]),
  );
}

/** All conditions of the Service; ours is there while ports are refused. */
function conditionsWith(
  { metadata, status }: StoredService,
  conflicts: readonly string[],
  now: number,
): readonly Condition[] {
  const others = (status?.conditions ?? []).filter(({ type }) => type !== portsError);
  if (conflicts.length === 0) return others;
  const before = status?.conditions?.find(({ type }) => type === portsError);
  const since = before?.status === "True" ? before.lastTransitionTime : undefined;
  const { generation } = metadata;
  return [
    ...others,
    {
      type: portsError,
      status: "True",
      reason: "PortConflict",
      message: conflicts.join("; "),
      lastTransitionTime: since ?? formatTime(now),
      ...(generation === undefined ? {} : { observedGeneration: generation }),
    },
  ];
}

function sameConditions({ status }: StoredService, conditions: readonly Condition[]): boolean {
  const text = (list: readonly Condition[]): string =>
    JSON.stringify(list.map((each) => [each.type, each.status, each.reason, each.message]));
  return text(status?.conditions ?? []) === text(conditions);
}

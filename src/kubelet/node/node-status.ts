import { isDeepStrictEqual } from "node:util";

import type { JsonRecord } from "../../lib/guard.ts";
import type {
  ContainerImage,
  NodeAddress,
  NodeCondition,
  NodeRuntimeHandler,
  NodeStatus,
  NodeSystemInfo,
} from "../../api/types.gen.ts";
import type { Image, RuntimeInfo } from "../../runtime/types.ts";

/** Everything the status is made of, already observed. */
export interface StatusFacts {
  readonly addresses: readonly NodeAddress[];
  readonly capacity: Readonly<Record<string, string>>;
  readonly allocatable: Readonly<Record<string, string>>;
  readonly nodeInfo: NodeSystemInfo;
  readonly conditions: readonly NodeCondition[];
  /** Undefined while the runtime has not told: the previous list stays. */
  readonly images: readonly ContainerImage[] | undefined;
  readonly runtime: RuntimeInfo | undefined;
  readonly kubeletPort: number;
  /** Undefined: none, and nobody was told of any. */
  readonly volumesInUse?: readonly string[] | undefined;
}

/** What this agent implements of the features a node may declare (KEP-5328). */
const declaredFeatures = [
  "ExtendWebSocketsToKubelet",
  "InPlacePodLevelResourcesVerticalScaling",
  "InPlacePodVerticalScalingInitContainers",
  "RestartAllContainersOnContainerExits",
];

/** The wanted status; what others wrote (unknown resources, attached volumes) is kept from `previous`. */
export function computeNodeStatus(facts: StatusFacts, previous: NodeStatus): NodeStatus {
  const { runtime } = facts;
  const images = facts.images ?? previous.images;
  return {
    ...previous,
    addresses: [...facts.addresses],
    capacity: { ...previous.capacity, ...facts.capacity },
    allocatable: { ...previous.allocatable, ...facts.allocatable },
    conditions: [...facts.conditions],
    daemonEndpoints: { kubeletEndpoint: { Port: facts.kubeletPort } },
    nodeInfo: facts.nodeInfo,
    declaredFeatures: [...declaredFeatures],
    ...(images === undefined ? {} : { images: [...images] }),
    ...(facts.volumesInUse === undefined ? {} : { volumesInUse: [...facts.volumesInUse] }),
    ...(runtime === undefined
      ? {}
      : {
          runtimeHandlers: runtimeHandlers(runtime),
          features: { supplementalGroupsPolicy: runtime.features.has("supplementalGroupsStrict") },
        }),
  };
}

function runtimeHandlers(runtime: RuntimeInfo): NodeRuntimeHandler[] {
  const names = [...new Set(["", ...runtime.handlers])].toSorted();
  return names.map((name) => ({
    name,
    features: {
      recursiveReadOnlyMounts:
        runtime.recursiveReadOnlyHandlers?.has(name) ??
        runtime.features.has("recursiveReadOnlyMounts"),
      userNamespaces: runtime.features.has("userNamespaces"),
    },
  }));
}

const maxNamesPerImage = 5;

/**
 * `status.images`: largest first, digests before tags, in an order that does not change by itself.
 *
 * @param limit `nodeStatusMaxImages`: -1 for all, 0 for none.
 */
export function imageList(images: readonly Image[], limit: number): ContainerImage[] {
  const listed = images
    .map((image) => ({
      names: [...image.digests.toSorted(), ...image.tags.toSorted()].slice(0, maxNamesPerImage),
      sizeBytes: image.sizeBytes,
    }))
    .filter(({ names }) => names.length > 0)
    .toSorted((a, b) => b.sizeBytes - a.sizeBytes || (a.names.join() < b.names.join() ? -1 : 1));
  return limit < 0 ? listed : listed.slice(0, limit);
}

/** The status as the wire would carry it, without heartbeats and without the order of the conditions. */
function comparable(status: NodeStatus): unknown {
  const conditions = status.conditions
    ?.map(({ lastHeartbeatTime: _lastHeartbeatTime, ...rest }) => rest)
    .toSorted((a, b) => (a.type < b.type ? -1 : 1));
  const value: unknown = JSON.parse(JSON.stringify({ ...status, conditions }));
  return value;
}

/** Whether the two differ in more than heartbeats. */
export function statusChanged(previous: NodeStatus, next: NodeStatus): boolean {
  return !isDeepStrictEqual(comparable(previous), comparable(next));
}

/**
 * Body of the strategic merge patch of the `status` subresource that turns `previous` into `next`. Conditions merge by
 * type on the server. Addresses must replace: their merge key is not unique on dual stack.
 */
export function statusPatch(previous: NodeStatus, next: NodeStatus): JsonRecord {
  const status: JsonRecord = { conditions: ownConditions(previous, next) };
  if (!isDeepStrictEqual(previous.addresses, next.addresses)) {
    status["addresses"] = [...(next.addresses ?? []), { $patch: "replace" }];
  }
  for (const field of wholeFields) {
    if (!isDeepStrictEqual(previous[field], next[field])) status[field] = next[field];
  }
  return { status };
}

const wholeFields = [
  "capacity",
  "allocatable",
  "daemonEndpoints",
  "nodeInfo",
  "images",
  "runtimeHandlers",
  "features",
  "declaredFeatures",
  "volumesInUse",
] as const;

function ownConditions(previous: NodeStatus, next: NodeStatus): NodeCondition[] {
  return (next.conditions ?? []).filter((condition) => {
    const before = previous.conditions?.find(({ type }) => type === condition.type);
    return !isDeepStrictEqual(before, condition);
  });
}

import type { NamespaceCondition } from "../../../api/types.gen.ts";
import { formatTime } from "../shared/pod-state.ts";

/** What keeps a namespace from going. */
export interface Leftovers {
  readonly discoveryFailure: string | undefined;
  readonly contentFailures: readonly string[];
  readonly remaining: readonly { readonly resource: string; readonly count: number }[];
  /** Of all remaining objects, with repetition. */
  readonly finalizers: readonly string[];
}

export function isEmpty(left: Leftovers): boolean {
  return (
    left.discoveryFailure === undefined &&
    left.contentFailures.length === 0 &&
    left.remaining.length === 0
  );
}

type Wanted = Pick<NamespaceCondition, "type" | "status" | "reason" | "message">;

function finalizerCounts(finalizers: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const each of finalizers) counts.set(each, (counts.get(each) ?? 0) + 1);
  return [...counts]
    .map(([name, count]) => `${name} in ${count} resource instances`)
    .toSorted()
    .join(", ");
}

function wantedConditions(left: Leftovers): readonly Wanted[] {
  const { discoveryFailure, contentFailures, remaining, finalizers } = left;
  return [
    discoveryFailure === undefined
      ? {
          type: "NamespaceDeletionDiscoveryFailure",
          status: "False",
          reason: "ResourcesDiscovered",
          message: "All resources successfully discovered",
        }
      : {
          type: "NamespaceDeletionDiscoveryFailure",
          status: "True",
          reason: "DiscoveryFailed",
          message: `Discovery failed for some groups: ${discoveryFailure}`,
        },
    {
      type: "NamespaceDeletionGroupVersionParsingFailure",
      status: "False",
      reason: "ParsedGroupVersions",
      message: "All legacy kube types successfully parsed",
    },
    contentFailures.length === 0
      ? {
          type: "NamespaceDeletionContentFailure",
          status: "False",
          reason: "ContentDeleted",
          message: "All content successfully deleted, may be waiting on finalization",
        }
      : {
          type: "NamespaceDeletionContentFailure",
          status: "True",
          reason: "ContentDeletionFailed",
          message: `Failed to delete all resource types, ${contentFailures.length} remaining: ${contentFailures.join(", ")}`,
        },
    remaining.length === 0
      ? {
          type: "NamespaceContentRemaining",
          status: "False",
          reason: "ContentRemoved",
          message: "All content successfully removed",
        }
      : {
          type: "NamespaceContentRemaining",
          status: "True",
          reason: "SomeResourcesRemain",
          message: `Some resources are remaining: ${remaining
            .map(({ resource, count }) => `${resource} has ${count} resource instances`)
            .toSorted()
            .join(", ")}`,
        },
    finalizers.length === 0
      ? {
          type: "NamespaceFinalizersRemaining",
          status: "False",
          reason: "ContentHasNoFinalizers",
          message: "All content-preserving finalizers finished",
        }
      : {
          type: "NamespaceFinalizersRemaining",
          status: "True",
          reason: "SomeFinalizersRemain",
          message: `Some content in the namespace has finalizers remaining: ${finalizerCounts(finalizers)}`,
        },
  ];
}

/** The namespace's conditions after a round of deletion; undefined when nothing would change. */
export function namespaceConditions(
  current: readonly NamespaceCondition[],
  left: Leftovers,
  now: number,
): readonly NamespaceCondition[] | undefined {
  let changed = false;
  const wanted = wantedConditions(left).map((condition) => {
    const before = current.find(({ type }) => type === condition.type);
    const same =
      before?.status === condition.status &&
      before.reason === condition.reason &&
      before.message === condition.message;
    if (before !== undefined && same) return before;
    changed = true;
    const transition = before?.status === condition.status ? before.lastTransitionTime : undefined;
    return { ...condition, lastTransitionTime: transition ?? formatTime(now) };
  });
  if (!changed) return undefined;
  const others = current.filter(({ type }) => !wanted.some((each) => each.type === type));
  return [...others, ...wanted];
}

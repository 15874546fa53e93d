import { isDeepStrictEqual } from "node:util";

import type { PodStatus } from "../../api/types.gen.ts";
import { isRecord } from "../../lib/guard.ts";

/** Lists that a strategic merge patch merges by a key: what is gone must be named (API field patchMergeKey). */
const mergeKeys: Readonly<Record<string, string>> = {
  conditions: "type",
  podIPs: "ip",
  hostIPs: "ip",
};

function keysOf(list: unknown, key: string): readonly string[] {
  if (!Array.isArray(list)) return [];
  return list.flatMap((item: unknown) => {
    const value = (item as Record<string, unknown> | null)?.[key];
    return typeof value === "string" ? [value] : [];
  });
}

/** Only the elements that changed: somebody else may be writing the others at this moment. */
function mergedList(before: unknown, after: unknown, key: string): readonly unknown[] {
  const old: readonly unknown[] = Array.isArray(before) ? before : [];
  const next: readonly unknown[] = Array.isArray(after) ? after : [];
  const kept = new Set(keysOf(next, key));
  const removed = keysOf(old, key).filter((value) => !kept.has(value));
  const changed = next.filter((item) => !old.some((candidate) => sameJSON(candidate, item)));
  return [
    ...changed.map((item) => clearMissing(find(old, key, item), item)),
    ...removed.map((value) => ({ $patch: "delete", [key]: value })),
  ];
}

/** Whether a merge leaves the elements that stay, and then those that are new, in another order than the wanted one. */
function needsOrder(before: unknown, after: unknown, key: string): boolean {
  const [old, next] = [keysOf(before, key), keysOf(after, key)];
  const merged = [
    ...old.filter((value) => next.includes(value)),
    ...next.filter((value) => !old.includes(value)),
  ];
  return !isDeepStrictEqual(merged, next);
}

function find(list: readonly unknown[], key: string, like: unknown): unknown {
  const [wanted] = keysOf([like], key);
  return list.find((item) => keysOf([item], key)[0] === wanted);
}

/** A merged element keeps members that the patch does not name, so those that are to go are named as null. */
function clearMissing(before: unknown, after: unknown): unknown {
  if (!isRecord(before) || !isRecord(after)) return after;
  const gone = Object.keys(before).filter(
    (member) => before[member] !== null && (after[member] === undefined || after[member] === null),
  );
  return { ...after, ...Object.fromEntries(gone.map((member) => [member, null])) };
}

/**
 * The strategic merge patch that turns one status into another; undefined when they are the same. Fields that the
 * kubelet does not write stay out of it.
 */
export function statusPatch(
  uid: string,
  before: PodStatus,
  after: PodStatus,
): Readonly<Record<string, unknown>> | undefined {
  const old: Readonly<Record<string, unknown>> = { ...before };
  const next: Readonly<Record<string, unknown>> = { ...after };
  const status: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(next)) {
    if (value === undefined || sameJSON(old[field], value)) continue;
    const key = mergeKeys[field];
    if (key === undefined) {
      status[field] = value;
      continue;
    }
    // The server keeps its own order of a keyed list: the same elements in another order are no change.
    const changes = mergedList(old[field], value, key);
    if (changes.length === 0) continue;
    status[field] = changes;
    // The first address is that of podIP.
    if (key === "ip" && needsOrder(old[field], value, key))
      status[`$setElementOrder/${field}`] = keysOf(value, key).map((ip) => ({ ip }));
  }
  for (const field of ["reason", "message", "podIP", "podIPs"]) {
    if (old[field] !== undefined && next[field] === undefined) {
      const key = mergeKeys[field];
      status[field] = key === undefined ? null : mergedList(old[field], [], key);
    }
  }
  return Object.keys(status).length === 0 ? undefined : { metadata: { uid }, status };
}

/** Equal as the server would store them: absent, undefined and null members are the same. */
function sameJSON(a: unknown, b: unknown): boolean {
  return isDeepStrictEqual(normalise(a), normalise(b));
}

function normalise(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(normalise);
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).filter(
    ([, member]) => member !== undefined && member !== null,
  );
  return Object.fromEntries(members.map(([key, member]) => [key, normalise(member)]));
}

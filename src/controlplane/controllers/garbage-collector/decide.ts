import type { OwnerReference } from "../../../api/types.gen.ts";
import type { OwnedMeta } from "./graph.ts";
import { isDeletingDependents } from "./graph.ts";

/** How one owner reference stands. */
export type OwnerState = "solid" | "absent" | "waiting-for-dependents";

export interface OwnerVerdict {
  readonly reference: OwnerReference;
  readonly state: OwnerState;
}

export type Collection =
  | { readonly kind: "keep" }
  /** Some owners are gone, others are not: only the references go. */
  | { readonly kind: "drop-references"; readonly uids: readonly string[] }
  /** The references no longer block, so that a cycle of foreground deletions can end; then as `delete`. */
  | {
      readonly kind: "delete";
      readonly policy: "Background" | "Foreground" | "Orphan";
      readonly unblock: boolean;
    };

/**
 * What becomes of an object in the light of its owners. It goes when no owner is left; how, its own finalizers say.
 *
 * @param dependents The objects that name it as their owner.
 */
export function decideCollection(
  meta: OwnedMeta,
  verdicts: readonly OwnerVerdict[],
  dependents: readonly OwnedMeta[],
): Collection {
  if (verdicts.length === 0) return { kind: "keep" };
  const gone = verdicts.filter(({ state }) => state !== "solid");
  if (gone.length === 0) return { kind: "keep" };
  if (gone.length < verdicts.length)
    return { kind: "drop-references", uids: gone.map(({ reference }) => reference.uid) };
  const waiting = verdicts.some(({ state }) => state === "waiting-for-dependents");
  if (waiting && dependents.length > 0) {
    // Only what may be a cycle: everybody else waits for its own dependents, and its owner for it.
    const unblock = dependents.some((dependent) => isDeletingDependents(dependent));
    return { kind: "delete", policy: "Foreground", unblock };
  }
  return { kind: "delete", policy: policyOf(meta), unblock: false };
}

function policyOf(meta: OwnedMeta): "Background" | "Foreground" | "Orphan" {
  if (meta.finalizers.includes("orphan")) return "Orphan";
  return meta.finalizers.includes("foregroundDeletion") ? "Foreground" : "Background";
}

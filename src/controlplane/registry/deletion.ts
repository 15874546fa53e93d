import { isRecord, optionalNumber } from "../../lib/guard.ts";
import type { DeleteOptions, JsonObject, KindDefinition } from "../types.ts";
import { finalizersOf, metadataOf, metaText, readMetadata, setFinalizers } from "./object-meta.ts";

const ORPHAN = "orphan";
const FOREGROUND = "foregroundDeletion";

/** RFC 3339 in whole seconds, as meta/v1 Time prints. */
export function formatTime(milliseconds: number): string {
  return `${new Date(milliseconds).toISOString().slice(0, 19)}Z`;
}

/** What a DELETE makes of an object. */
export type Deletion =
  /** `object` is marked as told to end, with no time left. */
  | { readonly kind: "remove"; readonly object: JsonObject }
  /** Already on its way with at most this much time: nothing changes. */
  | { readonly kind: "pending" }
  | { readonly kind: "update"; readonly object: JsonObject };

/** The finalizers that the propagation policy asks for. */
function finalizersFor(
  object: Readonly<JsonObject>,
  policy: DeleteOptions["propagationPolicy"],
  fallback: "Background" | "Orphan",
): string[] {
  const present = finalizersOf(object);
  const others = present.filter((one) => one !== ORPHAN && one !== FOREGROUND);
  const byObject = present.includes(ORPHAN)
    ? "Orphan"
    : present.includes(FOREGROUND)
      ? "Foreground"
      : fallback;
  const effective = policy ?? byObject;
  if (effective === "Orphan") return [...others, ORPHAN];
  return effective === "Foreground" ? [...others, FOREGROUND] : others;
}

function bumpGeneration(metadata: JsonObject): void {
  const generation = optionalNumber(metadata["generation"]) ?? 0;
  if (generation > 0) metadata["generation"] = generation + 1;
}

type Grace =
  | { readonly kind: "immediate" }
  | { readonly kind: "pending" }
  | { readonly kind: "changed" };

/** Sets or shortens the grace period of a kind that has one; `object` is changed. */
function applyGrace(
  object: JsonObject,
  kind: KindDefinition,
  requested: number | undefined,
  now: number,
): Grace {
  const metadata = metadataOf(object);
  // A negative period means the shortest graceful one.
  const wanted = requested === undefined ? undefined : requested < 0 ? 1 : requested;
  const { strategy } = kind;
  if (strategy.deletionGraceSeconds === undefined) return { kind: "immediate" };
  const current = optionalNumber(metadata["deletionGracePeriodSeconds"]);
  if (metadata["deletionTimestamp"] !== undefined) {
    if (current === undefined || current === 0) return { kind: "immediate" };
    if (wanted === undefined || wanted >= current) return { kind: "pending" };
    const started = Date.parse(metaText(object, "deletionTimestamp")) - current * 1000;
    const end = started + wanted * 1000;
    metadata["deletionTimestamp"] = formatTime(Math.max(end, now));
    metadata["deletionGracePeriodSeconds"] = end < now && wanted !== 0 ? 1 : wanted;
    return wanted === 0 ? { kind: "immediate" } : { kind: "changed" };
  }
  const grace = strategy.deletionGraceSeconds(object, wanted);
  if (grace === undefined || grace === 0) return { kind: "immediate" };
  metadata["deletionTimestamp"] = formatTime(now + grace * 1000);
  metadata["deletionGracePeriodSeconds"] = grace;
  bumpGeneration(metadata);
  return { kind: "changed" };
}

/**
 * Decides what a DELETE does. `object` is a copy that may be changed and comes back in an `update`.
 *
 * The order is the API server's: finalizers of the propagation policy, grace period, then removal when nothing holds.
 */
export function computeDeletion(
  object: JsonObject,
  kind: KindDefinition,
  options: DeleteOptions,
  now: number,
): Deletion {
  const before = finalizersOf(object);
  const fallback = kind.strategy.defaultPropagationPolicy ?? "Background";
  const finalizers = finalizersFor(object, options.propagationPolicy, fallback);
  const finalizersChanged =
    finalizers.length !== before.length || finalizers.some((one) => !before.includes(one));
  setFinalizers(object, finalizers);
  const grace = applyGrace(object, kind, options.gracePeriodSeconds, now);
  if (grace.kind === "changed") return { kind: "update", object };
  if (grace.kind === "pending")
    return finalizersChanged ? { kind: "update", object } : { kind: "pending" };
  const metadata = metadataOf(object);
  const first = metadata["deletionTimestamp"] === undefined;
  if (first) {
    metadata["deletionTimestamp"] = formatTime(now);
    bumpGeneration(metadata);
  }
  const graceChanged = metadata["deletionGracePeriodSeconds"] !== 0;
  metadata["deletionGracePeriodSeconds"] = 0;
  const held = kind.strategy.holdsDeletion?.(object) ?? false;
  if (finalizers.length === 0 && !held) return { kind: "remove", object };
  return first || finalizersChanged || graceChanged
    ? { kind: "update", object }
    : { kind: "pending" };
}

/** Whether an object that was just written has nothing left that keeps it: marked, no finalizers, no grace. */
export function isFinished(object: JsonObject, kind: KindDefinition): boolean {
  const metadata = readMetadata(object);
  if (metadata["deletionTimestamp"] === undefined || finalizersOf(object).length > 0) return false;
  if ((optionalNumber(metadata["deletionGracePeriodSeconds"]) ?? 0) !== 0) return false;
  return !(kind.strategy.holdsDeletion?.(object) ?? false);
}

/** The Status that answers a completed DELETE. */
export function deletedStatus(object: Readonly<JsonObject>, kind: KindDefinition): JsonObject {
  return {
    kind: "Status",
    apiVersion: "v1",
    metadata: {},
    status: "Success",
    details: {
      name: metaText(object, "name"),
      ...(kind.group === "" ? {} : { group: kind.group }),
      kind: kind.plural,
      uid: metaText(object, "uid"),
    },
  };
}

/** Reads DeleteOptions from a request body that has been decoded. */
export function parseDeleteOptions(body: Readonly<JsonObject> | undefined): DeleteOptions {
  const preconditions = isRecord(body?.["preconditions"]) ? body["preconditions"] : {};
  const policy = body?.["propagationPolicy"];
  const text = (value: unknown): string | undefined =>
    typeof value === "string" ? value : undefined;
  return {
    gracePeriodSeconds: optionalNumber(body?.["gracePeriodSeconds"]),
    propagationPolicy:
      policy === "Background" || policy === "Foreground" || policy === "Orphan"
        ? policy
        : body?.["orphanDependents"] === undefined
          ? undefined
          : body["orphanDependents"] === true
            ? "Orphan"
            : "Background",
    uid: text(preconditions["uid"]),
    resourceVersion: text(preconditions["resourceVersion"]),
  };
}

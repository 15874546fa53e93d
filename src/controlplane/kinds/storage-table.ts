import type { JsonObject } from "../types.ts";
import { mapOf, metadataOf, record, strings, text } from "./access.ts";

/** The annotation of old that names a StorageClass; it wins over the field. */
export const betaClassAnnotation = "volume.beta.kubernetes.io/storage-class";

const shortModes: readonly (readonly [string, string])[] = [
  ["ReadWriteOnce", "RWO"],
  ["ReadOnlyMany", "ROX"],
  ["ReadWriteMany", "RWX"],
  ["ReadWriteOncePod", "RWOP"],
];

/** `RWO,ROX`: access modes as tables show them. */
export function shownAccessModes(value: unknown): string {
  const modes = strings(value);
  return shortModes
    .filter(([mode]) => modes.includes(mode))
    .map(([, shown]) => shown)
    .join(",");
}

/** The StorageClass of a claim or a volume, "" when it has none. */
export function classOf(object: Readonly<JsonObject>): string {
  const annotation = mapOf(metadataOf(object)["annotations"])[betaClassAnnotation];
  return annotation ?? text(record(object["spec"])["storageClassName"]);
}

/** The phase as tables show it. */
export function shownPhase(object: Readonly<JsonObject>): string {
  return metadataOf(object)["deletionTimestamp"] === undefined
    ? text(record(object["status"])["phase"])
    : "Terminating";
}

/** The text of a member that may be absent. */
export function shownOrUnset(value: unknown): string {
  return typeof value === "string" ? value : "<unset>";
}

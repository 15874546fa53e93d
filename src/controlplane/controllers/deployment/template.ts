import { formatQuantity, parseQuantity, quantityProblem } from "../../../api/quantity.ts";
import type { PodTemplateSpec } from "../../../api/types.gen.ts";
import { isRecord } from "../../../lib/guard.ts";

/** Tells the pods and ReplicaSets of one template from those of the others. */
export const templateHashLabel = "pod-template-hash";

/** Members that mean the same empty and absent: maps, and structs that are always there. */
const emptyMeansAbsent = new Set([
  "annotations",
  "labels",
  "limits",
  "metadata",
  "nodeSelector",
  "overhead",
  "requests",
  "resources",
]);
const quantityMaps = new Set(["limits", "overhead", "requests"]);

function canonicalQuantity(value: unknown): unknown {
  const text = String(value);
  return quantityProblem(text) === undefined ? formatQuantity(parseQuantity(text)) : value;
}

function canonicalRecord(value: object, quantities: boolean): unknown {
  const members = Object.entries(value)
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .flatMap(([key, member]: [string, unknown]): readonly [string, unknown][] => {
      const canonical = quantities ? canonicalQuantity(member) : canonicalValue(member, key);
      return canonical === undefined ? [] : [[key, canonical]];
    });
  return members.length === 0 ? undefined : Object.fromEntries(members);
}

/** The value in its one spelling; undefined when it says the same as being absent. */
function canonicalValue(value: unknown, key: string): unknown {
  if (value === null || value === undefined) return undefined;
  if (Array.isArray(value)) {
    return value.length === 0 ? undefined : value.map((each) => canonicalValue(each, "") ?? {});
  }
  if (!isRecord(value)) return value;
  const canonical = canonicalRecord(value, quantityMaps.has(key));
  // `emptyDir: {}` says something, `labels: {}` does not.
  return canonical ?? (emptyMeansAbsent.has(key) ? undefined : {});
}

/** One text per meaning: key order, spelling of quantities and empty lists make no difference. */
function canonicalText(template: PodTemplateSpec): string {
  const { [templateHashLabel]: _hash, ...labels } = template.metadata?.labels ?? {};
  const plain = { ...template, metadata: { ...template.metadata, labels } };
  return JSON.stringify(canonicalValue(plain, "") ?? {});
}

/** Whether both would make the same pods; the label of the hash itself is not looked at. */
export function sameTemplate(left: PodTemplateSpec, right: PodTemplateSpec): boolean {
  return canonicalText(left) === canonicalText(right);
}

/** FNV-1a over UTF-8, 32 bits. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text))
    hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

/** Without vowels, and without what looks like another letter: no word comes of it. */
const safeAlphabet = "bcdfghjklmnpqrstvwxz2456789";

/**
 * The value of the pod-template-hash label: the same for the same template and collision count, whatever the spelling.
 *
 * @param collisionCount Raised when another template was found under the same hash.
 */
export function templateHash(
  template: PodTemplateSpec,
  collisionCount: number | undefined,
): string {
  const text = canonicalText(template);
  const hash = fnv1a(collisionCount === undefined ? text : `${text}\n${collisionCount}`);
  return String(hash).replaceAll(/\d/g, (digit) => safeAlphabet.charAt(digit.charCodeAt(0) % 27));
}

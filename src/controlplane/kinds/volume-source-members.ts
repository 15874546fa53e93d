import type { FieldError, JsonObject } from "../types.ts";
import { int, list, record, text } from "./access.ts";
import { invalidValue, required } from "./field-error.ts";

/** What one type of volume source has to hold. `field` is its own path. */
export type SourceCheck = (source: Readonly<JsonObject>, field: string) => FieldError[];

/** One member of a union of volume sources. */
export interface SourceRule {
  readonly key: string;
  readonly check: SourceCheck;
  /** Name in the paths of errors, where upstream spells it otherwise. */
  readonly shown?: string;
  /** Name in the path of the error about a second source, where upstream spells it otherwise. */
  readonly shownAsSecond?: string;
  /** Upstream forgot to refuse this one as a second source. */
  readonly neverSecond?: boolean;
}

const maxByte = 255;

/** Required text members, in order. */
export function requireTexts(
  source: Readonly<JsonObject>,
  field: string,
  ...keys: readonly string[]
): FieldError[] {
  return keys.flatMap((key) => (text(source[key]) === "" ? [required(`${field}.${key}`)] : []));
}

/** Required lists, in order. */
export function requireLists(
  source: Readonly<JsonObject>,
  field: string,
  ...keys: readonly string[]
): FieldError[] {
  return keys.flatMap((key) =>
    list(source[key]).length === 0 ? [required(`${field}.${key}`)] : [],
  );
}

/** A number that has to be a byte. `limits` is what the message says. */
export function byteNumber(
  value: unknown,
  field: string,
  limits: readonly [number, number],
): FieldError[] {
  const number = int(value) ?? 0;
  // Disk partitions are said to start at 1, and 0 is accepted all the same.
  return number < 0 || number > maxByte
    ? [invalidValue(field, number, `must be between ${limits[0]} and ${limits[1]}, inclusive`)]
    : [];
}

/** `secretRef` of sources that need only a name; with `namespaced`, both. */
export function namedSecret(
  source: Readonly<JsonObject>,
  field: string,
  namespaced: boolean,
): FieldError[] {
  if (source["secretRef"] === undefined) return [];
  const keys = namespaced ? ["name", "namespace"] : ["name"];
  return requireTexts(record(source["secretRef"]), `${field}.secretRef`, ...keys);
}

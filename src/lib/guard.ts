import { ParseError } from "./errors.ts";

/** A JSON object whose members nobody has looked at yet. */
export type JsonRecord = Record<string, unknown>;

/** True for a JSON object: not null, not an array. */
export function isRecord(value: unknown): value is JsonRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @throws {ParseError} when `value` is not a JSON object. */
export function asRecord(value: unknown, path: string): JsonRecord {
  if (!isRecord(value)) throw new ParseError(path, "an object");
  return value;
}

/** @throws {ParseError} when `value` is not a non-empty string. */
export function asString(value: unknown, path: string): string {
  if (typeof value !== "string" || value === "") throw new ParseError(path, "a non-empty string");
  return value;
}

/** `value` when it is a string, else undefined. */
export function optionalString(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** `value` when it is a finite number, else undefined. */
export function optionalNumber(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

/** The string-valued members of a JSON object; everything else is left out. */
export function stringMap(value: unknown): Record<string, string> {
  if (!isRecord(value)) return {};
  const out: Record<string, string> = {};
  for (const [key, member] of Object.entries(value))
    if (typeof member === "string") out[key] = member;
  return out;
}

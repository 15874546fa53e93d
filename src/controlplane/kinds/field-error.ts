import type { FieldError } from "../types.ts";

/** How the API prints a bad value: JSON, absent as null. */
function quote(value: unknown): string {
  return JSON.stringify(value ?? null);
}

function withDetail(head: string, detail: string): string {
  return detail === "" ? head : `${head}: ${detail}`;
}

export function required(field: string, detail = ""): FieldError {
  return { type: "FieldValueRequired", field, message: withDetail("Required value", detail) };
}

export function invalidValue(field: string, value: unknown, detail: string): FieldError {
  return {
    type: "FieldValueInvalid",
    field,
    message: withDetail(`Invalid value: ${quote(value)}`, detail),
  };
}

export function duplicate(field: string, value: unknown): FieldError {
  return { type: "FieldValueDuplicate", field, message: `Duplicate value: ${quote(value)}` };
}

export function notSupported(
  field: string,
  value: unknown,
  supported: readonly string[],
): FieldError {
  const values = supported.map((item) => quote(item)).join(", ");
  return {
    type: "FieldValueNotSupported",
    field,
    message: `Unsupported value: ${quote(value)}: supported values: ${values}`,
  };
}

export function forbiddenField(field: string, detail: string): FieldError {
  return { type: "FieldValueForbidden", field, message: withDetail("Forbidden", detail) };
}

export function notFoundValue(field: string, value: unknown): FieldError {
  return { type: "FieldValueNotFound", field, message: `Not found: ${quote(value)}` };
}

/** @param limit In bytes. */
export function tooLong(field: string, limit: number): FieldError {
  return {
    type: "FieldValueTooLong",
    field,
    message: `Too long: may not be more than ${limit} bytes`,
  };
}

export function tooMany(field: string, actual: number, limit: number): FieldError {
  return {
    type: "FieldValueTooMany",
    field,
    message: `Too many: ${actual}: must have at most ${limit} ${limit === 1 ? "item" : "items"}`,
  };
}

/** The path of element `index` of a list. */
export function at(field: string, index: number): string {
  return `${field}[${index}]`;
}

/** One `Invalid value` per message. */
export function invalidAll(
  field: string,
  value: unknown,
  messages: readonly string[],
): FieldError[] {
  return messages.map((message) => invalidValue(field, value, message));
}

/** An error unless `value` is one of `supported`; an absent value is "Required". */
export function enumeration(
  field: string,
  value: unknown,
  supported: readonly string[],
): FieldError[] {
  if (value === undefined || value === null || value === "") return [required(field)];
  return typeof value === "string" && supported.includes(value)
    ? []
    : [notSupported(field, value, supported)];
}

/** An error when `value` is a number below zero. */
export function nonNegative(field: string, value: unknown): FieldError[] {
  return typeof value === "number" && value < 0
    ? [invalidValue(field, value, "must be greater than or equal to 0")]
    : [];
}

/** An error when `after` differs from `before` (compared as JSON). */
export function immutable(field: string, after: unknown, before: unknown): FieldError[] {
  return JSON.stringify(after ?? null) === JSON.stringify(before ?? null)
    ? []
    : [invalidValue(field, after, "field is immutable")];
}

import type { FieldError } from "../types.ts";
import { invalidAll, invalidValue, nonNegative } from "./field-error.ts";

const percent = /^[0-9]+%$/;

/** Rules for a count of pods: a whole number from zero up, or a percentage. */
export function validateIntOrPercent(value: unknown, field: string): FieldError[] {
  if (typeof value !== "string") return nonNegative(field, value);
  const message =
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
  return invalidAll(field, value, percent.test(value) ? [] : [message]);
}

/** An error for a percentage above 100. */
export function validateAtMost100Percent(value: unknown, field: string): FieldError[] {
  if (typeof value !== "string" || !percent.test(value)) return [];
  return Number(value.slice(0, -1)) > 100
    ? [invalidValue(field, value, "must not be greater than 100%")]
    : [];
}

/** Whether a number or percentage is zero. Text that is neither counts as the number it starts as, like a plain "5". */
export function isZeroIntOrPercent(value: unknown): boolean {
  if (typeof value !== "string") return value === 0 || value === undefined;
  const digits = percent.test(value) ? value.slice(0, -1) : value;
  return !/^[+-]?\d+$/.test(digits) || Number(digits) === 0;
}

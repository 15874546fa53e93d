import { formatQuantity, parseQuantity, quantityProblem } from "../../api/quantity.ts";

/** A quantity in units of 1e-9, rounded up as the API does; undefined when it is not one. */
export function nanosOf(text: string): bigint | undefined {
  return quantityProblem(text) === undefined ? parseQuantity(text).nanos : undefined;
}

/**
 * The form in which the API prints a quantity (`0.5` → `500m`, `1024Mi` → `1Gi`), or undefined when `text` is none.
 */
export function canonicalQuantity(text: string): string | undefined {
  return quantityProblem(text) === undefined ? formatQuantity(parseQuantity(text)) : undefined;
}

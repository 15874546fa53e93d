import { formatQuantity, parseQuantity, quantityProblem } from "../../api/quantity.ts";
import type { Quantity } from "../../api/quantity.ts";

/** The quantity, or undefined when it is not one. Numbers count as their decimal text. */
export function quantityOf(value: unknown): Quantity | undefined {
  if (typeof value !== "string" && typeof value !== "number") return undefined;
  const text = String(value);
  return quantityProblem(text) === undefined ? parseQuantity(text) : undefined;
}

/** Canonical text of anything that reads as a quantity; other values are returned unchanged. */
export function canonicalQuantity(value: unknown): unknown {
  const quantity = quantityOf(value);
  return quantity === undefined ? value : formatQuantity(quantity);
}

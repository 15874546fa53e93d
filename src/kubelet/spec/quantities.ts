import { milliValue, parseQuantity, value } from "../../api/quantity.ts";

/** A map of resource quantities as the API writes them. */
export type Resources = Readonly<Record<string, string | number>>;

/**
 * A resource.Quantity in billionths.
 *
 * @throws {ParseError} when it is not a quantity.
 */
export function nanoUnits(quantity: string | number): bigint {
  return parseQuantity(String(quantity)).nanos;
}

/** Thousandths, rounded up. */
export function milliUnits(quantity: string | number): number {
  return Number(milliValue(parseQuantity(String(quantity))));
}

/** Whole units (bytes, pods), rounded up. */
export function wholeUnits(quantity: string | number): number {
  return Number(value(parseQuantity(String(quantity))));
}

/** `quantity` divided by `divisor`, rounded up: what a resourceFieldRef yields. A divisor of 0 means 1. */
export function dividedUnits(quantity: string | number, divisor: string | number): bigint {
  const by = nanoUnits(divisor);
  if (by === 0n) return value(parseQuantity(String(quantity)));
  return (nanoUnits(quantity) + by - 1n) / by;
}

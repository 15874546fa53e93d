import { ParseError } from "../lib/errors.ts";

/** Which family of suffixes a quantity is written with. */
export type QuantityFormat = "DecimalSI" | "BinarySI" | "DecimalExponent";

/**
 * An exact resource quantity (apimachinery resource.Quantity). Values that are finer than a nano are rounded away from
 * zero when read, as upstream does.
 */
export interface Quantity {
  /** The value times 10^9. */
  readonly nanos: bigint;
  readonly format: QuantityFormat;
}

const nano = 1_000_000_000n;
/** Upstream keeps binary quantities within a signed 64-bit integer. */
const maxBinary = ((1n << 63n) - 1n) * nano;
/** Far beyond any real quantity; keeps a hostile exponent from making numbers of a gigabyte. */
const maxDigits = 1000;

const decimalExponents: Readonly<Record<string, number>> = {
  n: -9,
  u: -6,
  m: -3,
  "": 0,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
};
const binaryExponents: Readonly<Record<string, number>> = {
  Ki: 10,
  Mi: 20,
  Gi: 30,
  Ti: 40,
  Pi: 50,
  Ei: 60,
};
const decimalSuffixes = new Map(
  Object.entries(decimalExponents).map(([suffix, exponent]) => [exponent, suffix]),
);
const binarySuffixes = new Map([
  [0, ""],
  ...Object.entries(binaryExponents).map(([suffix, exponent]) => [exponent, suffix] as const),
]);

const syntax = /^([+-]?)([0-9]*)(\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)$/;

interface Scale {
  readonly base: 2n | 10n;
  readonly exponent: number;
  readonly format: QuantityFormat;
}

function parseSuffix(suffix: string): Scale | undefined {
  const decimal = Object.hasOwn(decimalExponents, suffix) ? decimalExponents[suffix] : undefined;
  if (decimal !== undefined) return { base: 10n, exponent: decimal, format: "DecimalSI" };
  const binary = Object.hasOwn(binaryExponents, suffix) ? binaryExponents[suffix] : undefined;
  if (binary !== undefined) return { base: 2n, exponent: binary, format: "BinarySI" };
  const exponent = /^[eE]([-+]?[0-9]{1,9})$/.exec(suffix)?.[1];
  if (exponent === undefined) return undefined;
  return { base: 10n, exponent: Number(exponent), format: "DecimalExponent" };
}

/** Division that rounds away from zero. */
function divideUp(value: bigint, divisor: bigint): bigint {
  const quotient = value / divisor;
  if (value % divisor === 0n) return quotient;
  return value < 0n ? quotient - 1n : quotient + 1n;
}

/** What is wrong with the text of a quantity, in the API's words; undefined when nothing is. */
export function quantityProblem(text: string): string | undefined {
  const match = syntax.exec(text);
  if (match === null) {
    return "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
  }
  const [, , whole = "", , fraction = "", suffix = ""] = match;
  const scale = parseSuffix(suffix);
  if (scale === undefined) return "unable to parse quantity's suffix";
  const digits = whole.length + fraction.length;
  const sane = digits <= maxDigits && Math.abs(scale.exponent) <= maxDigits;
  return digits === 0 || !sane ? "unable to parse numeric part of quantity" : undefined;
}

/** @throws {ParseError} when {@link quantityProblem} finds one. */
export function parseQuantity(text: string, path = "quantity"): Quantity {
  const [, sign, whole = "", , fraction = "", suffix = ""] = syntax.exec(text) ?? [];
  const scale = parseSuffix(suffix);
  const problem = quantityProblem(text);
  if (problem !== undefined || scale === undefined) {
    throw new ParseError(path, `a quantity (${problem ?? "bad suffix"})`);
  }
  const { base, exponent, format } = scale;
  const digits = BigInt(whole + fraction);
  if (digits === 0n) return { nanos: 0n, format };
  const up = exponent > 0 ? base ** BigInt(exponent) : 1n;
  const down = (exponent < 0 ? base ** BigInt(-exponent) : 1n) * 10n ** BigInt(fraction.length);
  let nanos = divideUp(digits * up * nano, down);
  if (format === "BinarySI" && nanos > maxBinary) nanos = maxBinary;
  // A binary fraction of one would be printed with a rounding error.
  const shown = format === "BinarySI" && nanos < nano ? "DecimalSI" : format;
  return { nanos: sign === "-" ? -nanos : nanos, format: shown };
}

/** A quantity of whole units, for example bytes. */
export function quantityOf(value: bigint | number, format: QuantityFormat): Quantity {
  return { nanos: BigInt(value) * nano, format };
}

/** A quantity of thousandths, for example CPU. */
export function milliQuantityOf(value: bigint | number, format: QuantityFormat): Quantity {
  return { nanos: BigInt(value) * 1_000_000n, format };
}

/** Negative, zero or positive as `a` is less than, equal to or more than `b`. */
export function compareQuantities(a: Quantity, b: Quantity): number {
  if (a.nanos === b.nanos) return 0;
  return a.nanos < b.nanos ? -1 : 1;
}

/** The sum, in the format of `a`, or of `b` when `a` is zero. */
export function addQuantities(a: Quantity, b: Quantity): Quantity {
  return { nanos: a.nanos + b.nanos, format: a.nanos === 0n ? b.format : a.format };
}

/** The difference, in the format of `a`, or of `b` when `a` is zero. */
export function subtractQuantities(a: Quantity, b: Quantity): Quantity {
  return { nanos: a.nanos - b.nanos, format: a.nanos === 0n ? b.format : a.format };
}

/** Whole units, rounded up (away from zero): bytes, pods. */
export function value(quantity: Quantity): bigint {
  return divideUp(quantity.nanos, nano);
}

/** Thousandths, rounded up (away from zero): CPU. */
export function milliValue(quantity: Quantity): bigint {
  return divideUp(quantity.nanos, 1_000_000n);
}

/** Canonical text: no precision lost, no fraction, the largest possible suffix. */
export function formatQuantity(quantity: Quantity): string {
  const { nanos, format } = quantity;
  if (nanos === 0n) return "0";
  const small = nanos > -1024n * nano && nanos < 1024n * nano;
  if (format === "BinarySI" && !small && nanos % nano === 0n) return formatBinary(nanos / nano);
  return formatDecimal(nanos, format === "DecimalExponent");
}

function formatBinary(units: bigint): string {
  let mantissa = units;
  let exponent = 0;
  while (exponent < 60 && mantissa % 1024n === 0n) {
    mantissa /= 1024n;
    exponent += 10;
  }
  return `${mantissa}${binarySuffixes.get(exponent) ?? ""}`;
}

function formatDecimal(nanos: bigint, scientific: boolean): string {
  let mantissa = nanos;
  let exponent = -9;
  const largest = scientific ? Number.POSITIVE_INFINITY : 18;
  while (exponent < largest && mantissa % 1000n === 0n) {
    mantissa /= 1000n;
    exponent += 3;
  }
  if (!scientific) return `${mantissa}${decimalSuffixes.get(exponent) ?? ""}`;
  return exponent === 0 ? String(mantissa) : `${mantissa}e${exponent}`;
}

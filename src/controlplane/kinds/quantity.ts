import { ParseError } from "../../lib/errors.ts";

/** A Kubernetes quantity: `value` counts billionths, so that `1n` (nano) is exact. */
export interface Quantity {
  readonly value: bigint;
  readonly format: "BinarySI" | "DecimalSI" | "DecimalExponent";
}

const nano = 1_000_000_000n;
const binary: Readonly<Record<string, bigint>> = {
  Ki: 1n << 10n,
  Mi: 1n << 20n,
  Gi: 1n << 30n,
  Ti: 1n << 40n,
  Pi: 1n << 50n,
  Ei: 1n << 60n,
};
/** Decimal suffixes as powers of ten. */
const decimal: Readonly<Record<string, number>> = {
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

/**
 * Reads `500m`, `64Mi`, `1e3`, `0.5`. Parts below a billionth are rounded up, as the API does.
 *
 * @throws {ParseError} for anything else.
 */
export function parseQuantity(textValue: string, path = "quantity"): Quantity {
  const match =
    /^([+-]?)(\d+(?:\.\d*)?|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d{1,3}|)$/.exec(
      textValue,
    );
  if (match === null) throw new ParseError(path, "a quantity such as 500m or 64Mi");
  const [, sign = "", digits = "", suffix = ""] = match;
  const [whole = "", fraction = ""] = digits.split(".");
  const scaled = BigInt(`${whole}${fraction}` || "0");
  let format: Quantity["format"] = "DecimalSI";
  let numerator = scaled * nano;
  let denominator = 10n ** BigInt(fraction.length);
  const factor = binary[suffix];
  if (factor !== undefined) {
    format = "BinarySI";
    numerator *= factor;
  } else {
    const exponential = /^[eE][+-]?\d+$/.test(suffix);
    if (exponential) format = "DecimalExponent";
    const exponent = exponential ? Number(suffix.slice(1)) : (decimal[suffix] ?? 0);
    if (exponent >= 0) numerator *= 10n ** BigInt(exponent);
    else denominator *= 10n ** BigInt(-exponent);
  }
  const magnitude = (numerator + denominator - 1n) / denominator;
  return { value: sign === "-" ? -magnitude : magnitude, format };
}

/** The quantity, or undefined when it is not one. Numbers count as their decimal text. */
export function quantityOf(value: unknown): Quantity | undefined {
  if (typeof value !== "string" && typeof value !== "number") return undefined;
  try {
    return parseQuantity(String(value));
  } catch {
    return undefined;
  }
}

function formatBinary(value: bigint): string | undefined {
  // Below one Ki, or with a fraction, the API falls back to decimal.
  const magnitude = value < 0n ? -value : value;
  if (magnitude < 1024n * nano || value % nano !== 0n) return undefined;
  let rest = value / nano;
  let suffix = "";
  for (const name of Object.keys(binary)) {
    if (rest % 1024n !== 0n) break;
    rest /= 1024n;
    suffix = name;
  }
  return `${rest}${suffix}`;
}

/** Canonical text, as the API stores it: `1024Mi` becomes `1Gi`, `0.5` becomes `500m`. */
export function formatQuantity(quantity: Quantity): string {
  if (quantity.value === 0n) return "0";
  if (quantity.format === "BinarySI") {
    const formatted = formatBinary(quantity.value);
    if (formatted !== undefined) return formatted;
  }
  let rest = quantity.value;
  let exponent = -9;
  while (exponent < 18 && rest % 1000n === 0n) {
    rest /= 1000n;
    exponent += 3;
  }
  if (quantity.format === "DecimalExponent")
    return exponent === 0 ? `${rest}` : `${rest}e${exponent}`;
  const suffix = Object.entries(decimal).find(([, power]) => power === exponent)?.[0] ?? "";
  return `${rest}${suffix}`;
}

/** Canonical text of anything that reads as a quantity; other values are returned unchanged. */
export function canonicalQuantity(value: unknown): unknown {
  const quantity = quantityOf(value);
  return quantity === undefined ? value : formatQuantity(quantity);
}

const shape = /^([+-]?)(\d*)(?:\.(\d*))?(?:([eE][+-]?\d+)|(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?)$/;

const decimal: readonly (readonly [string, number])[] = [
  ["E", 18],
  ["P", 15],
  ["T", 12],
  ["G", 9],
  ["M", 6],
  ["k", 3],
  ["", 0],
  ["m", -3],
  ["u", -6],
  ["n", -9],
];
const binary = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const nano = 1_000_000_000n;

function ceilDivide(value: bigint, by: bigint): bigint {
  const quotient = value / by;
  return value % by > 0n ? quotient + 1n : quotient;
}

/** A quantity in units of 1e-9, rounded up as the API does; undefined when it is not one. */
export function nanosOf(text: string): bigint | undefined {
  const match = shape.exec(text);
  if (match === null) return undefined;
  const [, sign = "", whole = "", fraction = "", exponent, suffix = ""] = match;
  if (whole === "" && fraction === "") return undefined;
  const digits = BigInt(`${whole}${fraction}`);
  const binaryPower = suffix.endsWith("i") ? binary.indexOf(suffix) : 0;
  const shift =
    exponent === undefined
      ? (decimal.find(([name]) => name === suffix)?.[1] ?? 0)
      : Number(exponent.slice(1));
  if (Math.abs(shift) > 400 || fraction.length > 400) return undefined;
  const scaled = digits * 1024n ** BigInt(binaryPower);
  const power = shift - fraction.length + 9;
  const value =
    power >= 0 ? scaled * 10n ** BigInt(power) : ceilDivide(scaled, 10n ** BigInt(-power));
  return sign === "-" ? -value : value;
}

function inBinary(nanos: bigint): string | undefined {
  if (nanos % nano !== 0n) return undefined;
  let value = nanos / nano;
  // Below 1024 the API falls back to the decimal form.
  if (value > -1024n && value < 1024n) return undefined;
  let power = 0;
  while (value !== 0n && value % 1024n === 0n && power < binary.length - 1) {
    value /= 1024n;
    power += 1;
  }
  return `${value}${binary[power] ?? ""}`;
}

function inExponent(nanos: bigint): string {
  let value = nanos;
  let power = -9;
  while (value !== 0n && value % 1000n === 0n && power < 18) {
    value /= 1000n;
    power += 3;
  }
  return power === 0 || value === 0n ? `${value}` : `${value}e${power}`;
}

/**
 * The form in which the API prints a quantity (`0.5` → `500m`, `1024Mi` → `1Gi`), or undefined when `text` is none.
 */
export function canonicalQuantity(text: string): string | undefined {
  const nanos = nanosOf(text);
  if (nanos === undefined) return undefined;
  if (nanos === 0n) return "0";
  if (text.endsWith("i")) {
    const form = inBinary(nanos);
    if (form !== undefined) return form;
  } else if (/[eE][+-]?\d+$/.test(text)) return inExponent(nanos);
  for (const [suffix, power] of decimal) {
    const unit = 10n ** BigInt(power + 9);
    if (nanos % unit === 0n) return `${nanos / unit}${suffix}`;
  }
  return `${nanos}n`;
}

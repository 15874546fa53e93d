/** Nanoseconds in each unit that Go's time.ParseDuration knows. */
const unitNanos: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  "\u00B5s": 1e3,
  "\u03BCs": 1e3,
  ms: 1e6,
  s: 1e9,
  m: 6e10,
  h: 3.6e12,
};
const nanosPerMs = 1e6;
/** Go keeps durations in 63 bits. */
const maxNanos = 2 ** 63;
const syntax = /^([-+]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|\u00B5s|\u03BCs|ms|s|m|h))+|0)$/;
const part = /(\d+\.?\d*|\.\d+)(ns|us|\u00B5s|\u03BCs|ms|s|m|h)/g;

/** Milliseconds of a Go duration such as `1h30m`, `100ms` or `0`; undefined when it is none (metav1.Duration). */
export function parseGoDuration(text: string): number | undefined {
  const [, sign, body = ""] = syntax.exec(text) ?? [];
  if (sign === undefined) return undefined;
  let nanos = 0;
  for (const [, count = "", unit = ""] of body.matchAll(part)) {
    nanos += Number(count) * (unitNanos[unit] ?? 0);
  }
  if (nanos >= maxNanos) return undefined;
  const ms = Math.trunc(nanos) / nanosPerMs;
  return sign === "-" && ms !== 0 ? -ms : ms;
}

function fraction(nanos: number, unit: number, name: string): string {
  const digits = String(Math.round((nanos % unit) * (1e9 / unit))).padStart(9, "0");
  const rest = digits.replace(/0+$/, "");
  return `${Math.floor(nanos / unit)}${rest === "" ? "" : `.${rest}`}${name}`;
}

/** As Go prints durations: `2m0s`, `100ms`, `1h0m0s`. */
export function formatGoDuration(ms: number): string {
  if (ms < 0) return `-${formatGoDuration(-ms)}`;
  const nanos = Math.round(ms * nanosPerMs);
  if (nanos === 0) return "0s";
  if (nanos < 1e3) return `${nanos}ns`;
  if (nanos < 1e6) return fraction(nanos, 1e3, "\u00B5s");
  if (nanos < 1e9) return fraction(nanos, 1e6, "ms");
  const minutes = Math.floor(nanos / 6e10);
  const seconds = fraction(nanos - minutes * 6e10, 1e9, "s");
  if (minutes === 0) return seconds;
  const hours = Math.floor(minutes / 60);
  return hours === 0 ? `${minutes}m${seconds}` : `${hours}h${minutes % 60}m${seconds}`;
}

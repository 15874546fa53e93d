const binary = ["B", "KiB", "MiB", "GiB", "TiB"] as const;
const decimal = ["B/s", "kB/s", "MB/s", "GB/s"] as const;

/** Three significant digits at most, never in exponents: `0`, `7.5`, `12`, `1023`. */
function digits(value: number): string {
  if (value >= 99.95) return value.toFixed(0);
  const text = value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
  return text.replace(/\.?0+$/, "");
}

function scaled(value: number, base: number, units: readonly string[]): string {
  let rest = Math.max(value, 0);
  let unit = 0;
  // 1023.7 KiB would be shown as 1024 KiB.
  while (rest >= base - 0.5 && unit < units.length - 1) {
    rest /= base;
    unit += 1;
  }
  return `${unit === 0 ? rest.toFixed(0) : digits(rest)} ${units[unit] ?? ""}`;
}

/** Memory and disks: `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  return scaled(bytes, 1024, binary);
}

/** Traffic, as networks count it: `1.2 MB/s`. */
export function formatRate(bytesPerSecond: number): string {
  return scaled(bytesPerSecond, 1000, decimal);
}

/** CPU: `0.25`, `12.5`. */
export function formatCores(cores: number): string {
  return digits(Math.max(cores, 0));
}

/** CPU of one pod, which is mostly far below a core: `250m`, and `1.5` from one on. */
export function formatPodCores(cores: number): string {
  const milli = Math.round(cores * 1000);
  return milli < 1000 ? `${Math.max(milli, 0)}m` : formatCores(cores);
}

/** A share of a whole: `<1 %`, `43 %`; empty when there is no whole. */
export function formatShare(part: number, whole: number): string {
  if (!(whole > 0)) return "";
  const percent = (part / whole) * 100;
  return percent > 0 && percent < 1 ? "<1 %" : `${Math.round(percent)} %`;
}

/** A duration as `kubectl get` shows ages: `42s`, `5m10s`, `3h7m`, `2d4h`, `45d`. */
export function formatAge(milliseconds: number): string {
  const seconds = Math.max(Math.floor(milliseconds / 1000), 0);
  const [minutes, hours, days] = [60, 3600, 86_400].map((unit) => Math.floor(seconds / unit)) as [
    number,
    number,
    number,
  ];
  if (seconds < 120) return `${seconds}s`;
  if (minutes < 10) return pair(minutes, "m", seconds % 60, "s");
  if (hours < 3) return `${minutes}m`;
  if (hours < 8) return pair(hours, "h", minutes % 60, "m");
  if (hours < 48) return `${hours}h`;
  if (days < 8) return pair(days, "d", hours % 24, "h");
  return `${days}d`;
}

function pair(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large}${largeUnit}` : `${large}${largeUnit}${small}${smallUnit}`;
}

/** How long ago an RFC 3339 time was by the clock `now`; `-` for a time that is none. */
export function formatSince(time: string | undefined, now: number): string {
  const at = Date.parse(time ?? "");
  return Number.isNaN(at) ? "-" : formatAge(now - at);
}

/** `1 pod`, `2 pods`. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

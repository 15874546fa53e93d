const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

/** `0 B`, `512 KiB`, `1.9 GiB`: at most three digits. */
export function bytes(count: number): string {
  let value = Math.max(count, 0);
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const text = unit === 0 || value >= 9.95 ? value.toFixed(0) : value.toFixed(1);
  return `${text} ${units[unit] ?? "B"}`;
}

/** `0`, `0.05`, `1.5`, `12`. */
export function cores(count: number): string {
  if (count >= 9.95) return count.toFixed(0);
  const text = count.toFixed(count >= 0.995 ? 1 : 2);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** `36 %` */
export function percent(share: number): string {
  return `${Math.round(Math.min(Math.max(share, 0), 9.99) * 100)} %`;
}

/** How much of it: a share between 0 and 1. Of nothing it is 0. */
export function shareOf(part: number, whole: number): number {
  return whole > 0 ? Math.min(Math.max(part / whole, 0), 1) : 0;
}

/** A span of time in two units at most: `4s`, `3m12s`, `5h`, `2d3h`, as kubectl shows ages. */
export function span(ms: number): string {
  const seconds = Math.max(Math.floor(ms / 1000), 0);
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return two(minutes, "m", seconds % 60, "s");
  if (minutes < 180) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 8) return two(hours, "h", minutes % 60, "m");
  if (hours < 48) return `${hours}h`;
  const days = Math.floor(hours / 24);
  return days < 8 ? two(days, "d", hours % 24, "h") : `${days}d`;
}

function two(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large}${largeUnit}` : `${large}${largeUnit}${small}${smallUnit}`;
}

/** The span since an RFC 3339 time; empty for a text that is none. */
export function since(time: string | undefined, now: number): string {
  const at = Date.parse(time ?? "");
  return Number.isNaN(at) ? "" : span(now - at);
}

/** `1 pod`, `2 pods`. */
export function counted(count: number, one: string, more = `${one}s`): string {
  return `${count} ${count === 1 ? one : more}`;
}

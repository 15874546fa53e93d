/** Delay before try number `failures + 1`: `baseMs`, doubling, at most `maxMs`; full second half is random. */
export function jitteredBackoffMs(
  failures: number,
  limits: { readonly baseMs: number; readonly maxMs: number },
  random: () => number,
): number {
  if (failures <= 0) return 0;
  const full = Math.min(limits.baseMs * 2 ** Math.min(failures - 1, 30), limits.maxMs);
  return full / 2 + (random() * full) / 2;
}

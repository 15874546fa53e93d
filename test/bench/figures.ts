// What benchmarks do with their figures.

/** The value below which `share` of them lie; NaN of none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(Math.ceil(sorted.length * share) - 1, 0)] ?? Number.NaN;
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

export const round = (value: number, digits = 2): number => Number(value.toFixed(digits));

/** One line for people; `digits` of the milliseconds. */
export function spread(values: readonly number[], digits: number): string {
  const [p50, p90, p99] = [0.5, 0.9, 0.99].map((share) => round(quantile(values, share), digits));
  return `p50 ${p50} ms  p90 ${p90} ms  p99 ${p99} ms  n=${values.length}`;
}

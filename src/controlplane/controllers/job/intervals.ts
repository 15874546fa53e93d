/** Completion indexes from `first` to `last`, both included. */
export interface Interval {
  readonly first: number;
  readonly last: number;
}

/** In increasing order, apart from each other by at least one index. */
export type Intervals = readonly Interval[];

/** All indexes of both lists, as few intervals as possible. */
export function mergeIntervals(left: Intervals, right: Intervals): Intervals {
  const merged: { first: number; last: number }[] = [];
  for (const { first, last } of [...left, ...right].toSorted((a, b) => a.first - b.first)) {
    const previous = merged.at(-1);
    if (previous === undefined || first > previous.last + 1) merged.push({ first, last });
    else previous.last = Math.max(previous.last, last);
  }
  return merged;
}

/** `intervals` and single indexes, in any order. */
export function withIndexes(intervals: Intervals, indexes: Iterable<number>): Intervals {
  return mergeIntervals(
    intervals,
    [...indexes].map((index) => ({ first: index, last: index })),
  );
}

/** How many indexes there are. */
export function countIndexes(intervals: Intervals): number {
  return intervals.reduce((sum, { first, last }) => sum + last - first + 1, 0);
}

export function hasIndex(intervals: Intervals, index: number): boolean {
  let [low, high] = [0, intervals.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((intervals[middle]?.last ?? 0) >= index) high = middle;
    else low = middle + 1;
  }
  const found = intervals[low];
  return found !== undefined && found.first <= index;
}

/** How many indexes are in both lists. */
export function countCommon(left: Intervals, right: Intervals): number {
  let [a, b, count] = [0, 0, 0];
  for (;;) {
    const [one, other] = [left[a], right[b]];
    if (one === undefined || other === undefined) return count;
    count += Math.max(0, Math.min(one.last, other.last) - Math.max(one.first, other.first) + 1);
    if (one.last < other.last) a += 1;
    else b += 1;
  }
}

/** `1,3-5,7`: the text of `status.completedIndexes`. Two neighbours are written as two. */
export function formatIntervals(intervals: Intervals): string {
  return intervals
    .map(({ first, last }) => {
      if (first === last) return String(first);
      return `${first}${last === first + 1 ? "," : "-"}${last}`;
    })
    .join(",");
}

/** Reads {@link formatIntervals}' text; what is unreadable or not below `completions` is left out. */
export function parseIntervals(text: string | undefined, completions: number): Intervals {
  const found: Interval[] = [];
  for (const part of (text ?? "").split(",")) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    if (match === null) continue;
    const first = Number(match[1]);
    const last = Math.min(Number(match[2] ?? match[1]), completions - 1);
    if (first <= last) found.push({ first, last });
  }
  return mergeIntervals([], found);
}

/** The first `count` indexes below `completions` that `taken` lacks. */
export function firstMissing(taken: Intervals, count: number, completions: number): number[] {
  const missing: number[] = [];
  let candidate = 0;
  for (const { first, last } of [...taken, { first: completions, last: completions }]) {
    for (; candidate < Math.min(first, completions); candidate += 1) {
      if (missing.length >= count) return missing;
      missing.push(candidate);
    }
    candidate = Math.max(candidate, last + 1);
  }
  return missing;
}

/** What is wrong with a list of completion indexes such as `1,3-5,7`, or how many indexes it names. */
export type IndexList =
  | { readonly kind: "valid"; readonly total: number }
  | { readonly kind: "invalid"; readonly message: string };

type Interval =
  | { readonly kind: "valid"; readonly first: number; readonly last: number }
  | { readonly kind: "invalid"; readonly message: string };

function quoted(text: string): string {
  return JSON.stringify(text);
}

function parseInterval(text: string, completions: number): Interval {
  const limits = text.split("-");
  if (limits.length > 2) {
    const message = `the fragment ${quoted(text)} violates the requirement that an index interval can have at most two parts separated by '-'`;
    return { kind: "invalid", message };
  }
  const numbers: number[] = [];
  for (const limit of limits) {
    if (!/^\+?\d+$/.test(limit)) {
      return {
        kind: "invalid",
        message: `cannot convert string to integer for index: ${quoted(limit)}`,
      };
    }
    if (Number(limit) >= completions)
      return { kind: "invalid", message: `too large index: ${quoted(limit)}` };
    numbers.push(Number(limit));
  }
  const [first = 0, last] = numbers;
  if (last === undefined) return { kind: "valid", first, last: first };
  if (first >= last) return { kind: "invalid", message: notIncreasing(first, last) };
  return { kind: "valid", first, last };
}

function notIncreasing(previous: number, current: number): string {
  return `non-increasing order, previous: ${previous}, current: ${current}`;
}

/** Reads a list of indexes of a Job with so many completions (JobStatus.completedIndexes). */
export function checkIndexes(text: string, completions: number): IndexList {
  if (text === "") return { kind: "valid", total: 0 };
  let total = 0;
  let previous = -1;
  for (const part of text.split(",")) {
    const interval = parseInterval(part, completions);
    if (interval.kind === "invalid") return interval;
    const { first, last } = interval;
    if (previous >= first) return { kind: "invalid", message: notIncreasing(previous, first) };
    total += last - first + 1;
    previous = last;
  }
  return { kind: "valid", total };
}

function readable(text: string, completions: number): { first: number; last: number }[] {
  return text.split(",").flatMap((part) => {
    const interval = parseInterval(part, completions);
    return interval.kind === "valid" ? [interval] : [];
  });
}

/** The first index that is in both lists. Unreadable parts are left out: their own check reports them. */
export function overlappingIndex(
  completed: string,
  failed: string,
  completions: number,
): number | undefined {
  if (completed === "" || failed === "") return undefined;
  const [left, right] = [readable(completed, completions), readable(failed, completions)];
  let [a, b] = [0, 0];
  for (;;) {
    const [one, other] = [left[a], right[b]];
    if (one === undefined || other === undefined) return undefined;
    if (one.first <= other.last && other.first <= one.last) return Math.max(one.first, other.first);
    if (one.first <= other.first) a += 1;
    else b += 1;
  }
}

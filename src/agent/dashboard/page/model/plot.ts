import { type UsagePoint, usageStepSeconds } from "./messages.ts";

/** Seconds that a plot shows: the least of these that holds all points. */
const windows = [120, 300, 900, 1800, 3600] as const;

/** How many seconds back a plot of `points` looks. */
export function windowOf(points: readonly UsagePoint[]): number {
  const first = points[0]?.[0] ?? 0;
  const span = (points.at(-1)?.[0] ?? 0) - first;
  return windows.find((seconds) => span <= seconds) ?? windows[windows.length - 1] ?? 3600;
}

const steps = [1, 1.5, 2, 3, 4, 5, 6, 8, 10];

/** The upper end of an axis for values up to `value`: a round number in powers of `base`, 10 or 1024. */
export function niceCeiling(value: number, base: 10 | 1024): number {
  if (!(value > 0)) return 1;
  const unit = base === 10 ? 1 : 1024 ** Math.floor(Math.log2(value) / 10);
  const power = unit * 10 ** Math.floor(Math.log10(value / unit));
  const step = steps.find((candidate) => candidate * power >= value * 0.999) ?? 10;
  return step * power;
}

export interface Frame {
  readonly width: number;
  readonly height: number;
  /** Seconds: the right end of the time axis. */
  readonly end: number;
  /** Seconds. */
  readonly span: number;
  /** The value at the upper end. */
  readonly ceiling: number;
}

/** Where a moment is, from the left. */
export function xOf(time: number, { end, span, width }: Frame): number {
  return round(width - ((end - time) / span) * width);
}

/** Where a value is, from above. */
export function yOf(value: number, { ceiling, height }: Frame): number {
  return round(height - Math.min(Math.max(value / ceiling, 0), 1) * height);
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** Points without a gap between them: the dashboard or the agent was away for longer than four steps. */
function runs(points: readonly UsagePoint[]): readonly (readonly UsagePoint[])[] {
  const all: UsagePoint[][] = [];
  for (const point of points) {
    const run = all.at(-1);
    const previous = run?.at(-1)?.[0];
    if (run !== undefined && previous !== undefined && point[0] - previous <= usageStepSeconds * 4)
      run.push(point);
    else all.push([point]);
  }
  return all;
}

export interface Paths {
  readonly line: string;
  readonly area: string;
}

/** The `d` of a line through member `index` of the points, and of the area below it. Gaps stay gaps. */
export function pathsOf(
  points: readonly UsagePoint[],
  index: 1 | 2 | 3 | 4 | 5,
  frame: Frame,
): Paths {
  const shown = points.filter(([time]) => time >= frame.end - frame.span - usageStepSeconds);
  let line = "";
  let area = "";
  for (const run of runs(shown)) {
    const corners = run.map((point) => `${xOf(point[0], frame)} ${yOf(point[index], frame)}`);
    const first = xOf(run[0]?.[0] ?? 0, frame);
    const last = xOf(run.at(-1)?.[0] ?? 0, frame);
    // A single point is a dot: a line of no length with round ends.
    line += `M${corners.join("L")}${corners.length === 1 ? "h0" : ""}`;
    area += `M${first} ${frame.height}L${corners.join("L")}L${last} ${frame.height}Z`;
  }
  return { line, area };
}

/** The point nearest to `x` from the left; undefined without points. */
export function nearest(
  points: readonly UsagePoint[],
  x: number,
  frame: Frame,
): UsagePoint | undefined {
  let best: UsagePoint | undefined;
  let distance = Number.POSITIVE_INFINITY;
  for (const point of points) {
    const away = Math.abs(xOf(point[0], frame) - x);
    if (away < distance) [best, distance] = [point, away];
  }
  return best;
}

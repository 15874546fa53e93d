import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import type { UsagePoint } from "../../../src/agent/dashboard/page/model/messages.ts";
import {
  type Frame,
  nearest,
  niceCeiling,
  pathsOf,
  windowOf,
} from "../../../src/agent/dashboard/page/model/plot.ts";

function points(...values: readonly (readonly [time: number, cpu: number])[]): UsagePoint[] {
  return values.map(([time, cpu]) => [time, cpu, 0, 0, 0, 0]);
}

const frame: Frame = { width: 100, height: 50, end: 1000, span: 100, ceiling: 10 };

describe("plots", () => {
  test("a line goes from the left to the right, and its area down to the base", () => {
    const { area, line } = pathsOf(points([980, 0], [985, 5], [1000, 10]), 1, {
      ...frame,
    });
    assert.equal(line, "M80 50L85 25L100 0");
    assert.equal(area, "M80 50L80 50L85 25L100 0L100 50Z");
  });

  test("a time without data is a gap, not a line", () => {
    const { line } = pathsOf(points([905, 1], [910, 1], [990, 1], [995, 1]), 1, frame);
    assert.equal(line.match(/M/g)?.length, 2);
  });

  test("a single point can be seen", () => {
    assert.equal(pathsOf(points([1000, 5]), 1, frame).line, "M100 25h0");
  });

  test("without points there is nothing", () => {
    assert.deepEqual(pathsOf([], 1, frame), { line: "", area: "" });
    assert.equal(nearest([], 3, frame), undefined);
    assert.equal(windowOf([]), 120);
  });

  test("the time shown grows with what is known, to an hour", () => {
    const last = (span: number): number => windowOf(points([1000, 1], [1000 + span, 1]));
    assert.deepEqual(
      [60, 120, 121, 900, 901, 3600, 9999].map(last),
      [120, 120, 300, 900, 1800, 3600, 3600],
    );
  });

  test("the pointer finds the nearest point", () => {
    const all = points([900, 1], [950, 2], [1000, 3]);
    assert.equal(nearest(all, 54, frame)?.[1], 2);
    assert.equal(nearest(all, -10, frame)?.[1], 1);
  });

  test("an axis ends at a round number that holds every value and wastes less than half", () => {
    assert.equal(niceCeiling(0, 10), 1);
    assert.equal(niceCeiling(0.42, 10), 0.5);
    assert.equal(niceCeiling(170_000, 10), 200_000);
    assert.equal(niceCeiling(2.2 * 1024 ** 3, 1024), 3 * 1024 ** 3);
    fc.assert(
      fc.property(
        fc.double({ min: 1e-3, max: 1e15, noNaN: true }),
        fc.constantFrom(10 as const, 1024 as const),
        (value, base) => {
          const ceiling = niceCeiling(value, base);
          assert.ok(ceiling >= value * 0.999 && ceiling <= value * 2.1, `${value} ${ceiling}`);
        },
      ),
    );
  });
});

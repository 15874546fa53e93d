import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { CpuRate } from "../../../src/kubelet/stats/cpu-rate.ts";

const second = 1e9;

describe("cpu rate", () => {
  test("the first reading shows the whole life so far", () => {
    assert.equal(new CpuRate(10_000).note({ timeMs: 14_000, cpuNs: 2 * second }), second / 2);
  });

  test("without a known start the first reading shows nothing", () => {
    assert.equal(new CpuRate(undefined).note({ timeMs: 14_000, cpuNs: second }), undefined);
  });

  test("a reader each 15 s sees the last 15 s", () => {
    const rate = new CpuRate(0);
    rate.note({ timeMs: 0, cpuNs: 0 });
    assert.equal(rate.note({ timeMs: 15_000, cpuNs: 15 * second }), second);
    assert.equal(rate.note({ timeMs: 30_000, cpuNs: 15 * second }), 0);
    assert.equal(rate.note({ timeMs: 45_000, cpuNs: 30 * second }), second);
  });

  test("many readers see windows of 10 to 20 s, never less", () => {
    const rate = new CpuRate(0);
    rate.note({ timeMs: 0, cpuNs: 0 });
    for (let at = 1; at <= 30; at += 1) {
      // Busy for the first ten seconds only.
      const cpuNs = Math.min(at, 10) * second;
      const seen = rate.note({ timeMs: at * 1000, cpuNs }) ?? -1;
      if (at <= 10) assert.equal(seen, second);
      else if (at < 20) assert.ok(seen >= 0 && seen < second, `${at}: ${seen}`);
    }
    assert.equal(rate.note({ timeMs: 31_000, cpuNs: 10 * second }), 0);
  });

  test("a counter or a clock that goes back begins a new window instead of a negative one", () => {
    const rate = new CpuRate(0);
    rate.note({ timeMs: 10_000, cpuNs: 9 * second });
    assert.equal(rate.note({ timeMs: 20_000, cpuNs: second }), undefined);
    assert.equal(rate.note({ timeMs: 30_000, cpuNs: 2 * second }), second / 10);
    assert.equal(rate.note({ timeMs: 25_000, cpuNs: 3 * second }), undefined);
  });
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { CpuRates } from "../../../src/kubelet/stats/cpu-rates.ts";

const second = 1e9;

describe("cpu rates", () => {
  test("the first reading shows the whole life so far", () => {
    const rates = new CpuRates();
    assert.equal(rates.note("c", { timeMs: 14_000, cpuNs: 2 * second }, 10_000), second / 2);
  });

  test("without a known start the first reading shows nothing", () => {
    assert.equal(new CpuRates().note("c", { timeMs: 14_000, cpuNs: second }, undefined), undefined);
  });

  test("a reader each 15 s sees the last 15 s", () => {
    const rates = new CpuRates();
    rates.note("c", { timeMs: 0, cpuNs: 0 }, 0);
    assert.equal(rates.note("c", { timeMs: 15_000, cpuNs: 15 * second }, 0), second);
    assert.equal(rates.note("c", { timeMs: 30_000, cpuNs: 15 * second }, 0), 0);
    assert.equal(rates.note("c", { timeMs: 45_000, cpuNs: 30 * second }, 0), second);
  });

  test("many readers see windows of 10 to 20 s, never less", () => {
    const rates = new CpuRates();
    rates.note("c", { timeMs: 0, cpuNs: 0 }, 0);
    for (let at = 1; at <= 30; at += 1) {
      // Busy for the first ten seconds only.
      const cpuNs = Math.min(at, 10) * second;
      const rate = rates.note("c", { timeMs: at * 1000, cpuNs }, 0) ?? -1;
      if (at <= 10) assert.equal(rate, second);
      else if (at < 20) assert.ok(rate >= 0 && rate < second, `${at}: ${rate}`);
    }
    assert.equal(rates.note("c", { timeMs: 31_000, cpuNs: 10 * second }, 0), 0);
  });

  test("a counter that went back begins anew instead of going negative", () => {
    const rates = new CpuRates();
    rates.note("c", { timeMs: 10_000, cpuNs: 9 * second }, 0);
    assert.equal(rates.note("c", { timeMs: 20_000, cpuNs: second }, 18_000), second / 2);
  });

  test("what has gone is forgotten", () => {
    const rates = new CpuRates();
    rates.note("c", { timeMs: 0, cpuNs: 0 }, 0);
    rates.keepOnly(new Set());
    assert.equal(rates.note("c", { timeMs: 20_000, cpuNs: second }, undefined), undefined);
  });
});

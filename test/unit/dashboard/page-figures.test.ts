import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  counted,
  formatAge,
  formatBytes,
  formatCores,
  formatPodCores,
  formatRate,
  formatShare,
  formatSince,
} from "../../../src/agent/dashboard/page/model/format.ts";

describe("figures of the dashboard", () => {
  const cases: readonly (readonly [string, string, string])[] = [
    ["bytes below a KiB", formatBytes(512), "512 B"],
    ["bytes with one unit", formatBytes(1536), "1.5 KiB"],
    ["no 1024 KiB", formatBytes(1024 ** 2 - 1), "1 MiB"],
    ["a GiB and a bit", formatBytes(2.29 * 1024 ** 3), "2.29 GiB"],
    ["three digits at most", formatBytes(123.4 * 1024 ** 2), "123 MiB"],
    ["more than the largest unit", formatBytes(5000 * 1024 ** 4), "5000 TiB"],
    ["nothing", formatBytes(0), "0 B"],
    ["less than nothing", formatBytes(-5), "0 B"],
    ["traffic in thousands", formatRate(1_240_000), "1.24 MB/s"],
    ["no traffic", formatRate(0), "0 B/s"],
    ["cores", formatCores(0.4249), "0.42"],
    ["many cores", formatCores(12.34), "12.3"],
    ["cores of a pod", formatPodCores(0.0121), "12m"],
    ["a pod with more than a core", formatPodCores(1.5), "1.5"],
    ["a pod with nearly one", formatPodCores(0.9996), "1"],
    ["a share", formatShare(1, 3), "33 %"],
    ["a small share is not none", formatShare(1, 1000), "<1 %"],
    ["none is none", formatShare(0, 1000), "0 %"],
    ["a share of nothing", formatShare(1, 0), ""],
    ["one", counted(1, "pod"), "1 pod"],
    ["several", counted(0, "pod waits", "pods wait"), "0 pods wait"],
  ];
  for (const [name, got, wanted] of cases) test(name, () => assert.equal(got, wanted));

  const ages: readonly (readonly [number, string])[] = [
    [0, "0s"],
    [119, "119s"],
    [120, "2m"],
    [310, "5m10s"],
    [600, "10m"],
    [3 * 3600 - 1, "179m"],
    [3 * 3600 + 420, "3h7m"],
    [8 * 3600 + 59, "8h"],
    [2 * 86_400 + 4 * 3600, "2d4h"],
    [45 * 86_400, "45d"],
    [-3, "0s"],
  ];
  for (const [seconds, wanted] of ages) {
    test(`${seconds} seconds are ${wanted}, as kubectl has it`, () =>
      assert.equal(formatAge(seconds * 1000), wanted));
  }

  test("what is no time has no age", () => {
    assert.equal(formatSince(undefined, 0), "-");
    assert.equal(formatSince("soon", 0), "-");
    assert.equal(formatSince("1970-01-01T00:00:01Z", 6000), "5s");
  });
});

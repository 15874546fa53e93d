import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { assert as check, integer, property } from "fast-check";

import { formatGoDuration, parseGoDuration } from "../../../src/config/go-duration.ts";

describe("durations as Go writes them", () => {
  const good: readonly (readonly [text: string, ms: number, printed: string])[] = [
    ["0", 0, "0s"],
    ["0s", 0, "0s"],
    ["-0", 0, "0s"],
    ["10s", 10_000, "10s"],
    ["1h30m", 5_400_000, "1h30m0s"],
    ["1m30.5s", 90_500, "1m30.5s"],
    [".5s", 500, "500ms"],
    ["1.s", 1000, "1s"],
    ["100ms", 100, "100ms"],
    ["1.5ms", 1.5, "1.5ms"],
    ["20us", 0.02, "20\u00B5s"],
    ["20\u00B5s", 0.02, "20\u00B5s"],
    ["20\u03BCs", 0.02, "20\u00B5s"],
    ["5ns", 0.000_005, "5ns"],
    ["-1m", -60_000, "-1m0s"],
    ["+2m", 120_000, "2m0s"],
    ["24h", 86_400_000, "24h0m0s"],
    ["1h1h", 7_200_000, "2h0m0s"],
  ];
  for (const [text, ms, printed] of good) {
    test(`${text} is ${ms} ms, printed ${printed}`, () => {
      assert.equal(parseGoDuration(text), ms);
      assert.equal(formatGoDuration(ms), printed);
    });
  }

  for (const text of [
    "",
    "1",
    "s",
    "1d",
    "1 s",
    "1h 30m",
    "1e3s",
    "0x1s",
    "--1s",
    "1.2.3s",
    "99999999999h",
    "\u0661s",
  ]) {
    test(`${JSON.stringify(text)} is none`, () => {
      assert.equal(parseGoDuration(text), undefined);
    });
  }

  test("what is printed is read as the same duration", () => {
    check(
      property(integer({ min: -1e12, max: 1e12 }), (micros) => {
        const ms = micros / 1000;
        const back = parseGoDuration(formatGoDuration(ms)) ?? Number.NaN;
        assert.ok(Math.abs(back - ms) < 0.000_001, `${ms} ${back}`);
      }),
    );
  });
});

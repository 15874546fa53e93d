import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { FailureLog } from "../../../src/kubelet/pods/failure-log.ts";

const minute = 60_000;

/** Levels of reasons that come a minute apart. */
function levels(log: FailureLog, reasons: readonly string[], from = 0): readonly string[] {
  return reasons.map((reason, index) => log.level(reason, (from + index) * minute));
}

describe("why a pod does not get on", () => {
  test("is told once per reason, then every five minutes, also where reasons alternate", () => {
    const reasons = Array.from({ length: 14 }, (_, index) =>
      index % 2 === 0 ? "pull failed" : "Back-off pulling",
    );
    const loud = levels(new FailureLog(), reasons).flatMap((level, index) =>
      level === "warn" ? [index] : [],
    );
    assert.deepEqual(loud, [0, 1, 6, 11]);
  });

  test("is the same reason whatever its numbers and ids", () => {
    const reasons = ["try 1 of 0123456789abcdef", "try 22 of fedcba9876543210", "out of memory"];
    assert.deepEqual(levels(new FailureLog(), reasons), ["warn", "debug", "warn"]);
  });

  test("is no news within five minutes of a recovery, and is after them", () => {
    const log = new FailureLog();
    assert.deepEqual(levels(log, ["away"]), ["warn"]);
    log.recovered(minute);
    assert.deepEqual(levels(log, ["away"], 2), ["debug"]);
    log.recovered(6 * minute);
    assert.deepEqual(levels(log, ["away", "back-off", "away"], 7), ["warn", "warn", "debug"]);
  });

  test("is told no more often when every text is another one", () => {
    const log = new FailureLog();
    const reasons = Array.from({ length: 300 }, (_, index) => "x".repeat(index + 1));
    const loud = reasons.filter((reason, index) => log.level(reason, index * 1000) === "warn");
    assert.equal(loud.length, 8);
  });
});

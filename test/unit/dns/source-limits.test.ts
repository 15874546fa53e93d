import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { SourceLimits } from "../../../src/dns/source-limits.ts";

function asks(limits: SourceLimits, source: string, times: number, now: number): number {
  let allowed = 0;
  for (let turn = 0; turn < times; turn += 1) if (limits.take(source, now)) allowed += 1;
  return allowed;
}

describe("what one address may ask", () => {
  it("is a burst, then so many in a second, and a burst again after a rest", () => {
    const limits = new SourceLimits({ perSecond: 100, burst: 50, most: 10 });
    assert.equal(asks(limits, "a", 80, 0), 50);
    assert.equal(asks(limits, "a", 80, 100), 10);
    let allowed = 0;
    for (let now = 101; now <= 1100; now += 1) allowed += asks(limits, "a", 5, now);
    assert.ok(Math.abs(allowed - 100) <= 1, String(allowed));
    assert.equal(asks(limits, "a", 500, 60_000), 50);
    assert.equal(asks(limits, "a", 500, 60_000), 0);
  });

  it("is nothing to the others", () => {
    const limits = new SourceLimits({ perSecond: 100, burst: 50, most: 10 });
    assert.equal(asks(limits, "a", 1000, 0), 50);
    assert.equal(asks(limits, "b", 40, 0), 40);
  });

  it("a full table drops who is at rest, and counts the rest as one", () => {
    const limits = new SourceLimits({ perSecond: 10, burst: 20, most: 4 });
    for (const source of ["a", "b", "c", "d"]) assert.equal(asks(limits, source, 20, 0), 20);
    assert.equal(asks(limits, "e", 15, 0) + asks(limits, "f", 15, 0), 20, "together");
    assert.equal(limits.size, 4);
    // All rested but one.
    assert.equal(asks(limits, "a", 100, 2000), 20);
    assert.equal(asks(limits, "e", 100, 2000), 20);
    assert.equal(asks(limits, "f", 100, 2000), 20);
    assert.equal(limits.size, 3);
    assert.equal(asks(limits, "a", 100, 2000), 0, "who is busy is not forgotten");
  });

  it("invented addresses cost neither memory nor time", () => {
    const limits = new SourceLimits({ perSecond: 1, burst: 2, most: 100 });
    for (let turn = 0; turn < 100_000; turn += 1)
      limits.take(`10.0.${turn >> 8}.${turn}`, turn / 1000);
    assert.ok(limits.size <= 100);
  });
});

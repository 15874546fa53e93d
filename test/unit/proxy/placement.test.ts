import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import { backendID, placeBackends } from "../../../src/proxy/placement.ts";
import type { Backend } from "../../../src/proxy/types.ts";

const pod = (number: number): Backend => ({ ip: `10.0.${number >> 8}.${number & 255}`, port: 80 });
const pods = (numbers: readonly number[]): readonly Backend[] => numbers.map(pod);
const ids = (backends: readonly Backend[]): readonly string[] => backends.map(backendID);

/** Slots that have another backend than before, and those that are gone. */
function changedSlots(before: readonly Backend[], after: readonly Backend[]): number {
  const [a, b] = [ids(before), ids(after)];
  return Array.from({ length: Math.max(a.length, b.length) }, (_, at) => a[at] !== b[at]).filter(
    Boolean,
  ).length;
}

describe("slots of endpoints", () => {
  const before = pods(Array.from({ length: 300 }, (_, at) => at));

  it("cost two when one endpoint goes: its own, which the last one takes, and the last", () => {
    for (const gone of [0, 150, 299]) {
      const wanted = before.filter((_, at) => at !== gone);
      const placed = placeBackends(ids(before), wanted);
      assert.equal(changedSlots(before, placed), gone === 299 ? 1 : 2);
    }
  });
  it("cost one when an endpoint comes, wherever its address sorts", () => {
    for (const at of [0, 150, 300]) {
      const wanted = before.toSpliced(at, 0, pod(1000));
      assert.equal(changedSlots(before, placeBackends(ids(before), wanted)), 1);
    }
  });
  it("cost one when an endpoint takes another's place", () => {
    const wanted = [pod(1000), ...before.slice(1, 100), ...before.slice(101), pod(0)];
    assert.equal(changedSlots(before, placeBackends(ids(before), wanted)), 1);
  });
  it("are as wanted when nothing is known, and the list itself when it is right", () => {
    assert.equal(placeBackends([], before), before);
    assert.equal(placeBackends(ids(before), before), before);
  });
  it("always hold each wanted endpoint once, and keep whoever can stay", () => {
    const list = fc.uniqueArray(fc.integer({ min: 0, max: 400 }), { maxLength: 300 });
    fc.assert(
      fc.property(list, list, (had, want) => {
        const [was, wanted] = [pods(had), pods(want)];
        const placed = placeBackends(ids(was), wanted);
        assert.deepEqual(ids(placed).toSorted(), ids(wanted).toSorted());
        const kept = new Set(ids(wanted));
        const stays = (at: number): boolean => at < want.length && kept.has(ids(was)[at] ?? "");
        if (want.length > 1) {
          for (const at of was.keys()) if (stays(at)) assert.equal(ids(placed)[at], ids(was)[at]);
        }
      }),
    );
  });
});

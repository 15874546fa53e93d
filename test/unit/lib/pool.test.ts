import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { parsedList, Pool } from "../../../src/lib/pool.ts";

describe("a pool", () => {
  it("gives equal values the same memory", () => {
    const pool = new Pool<readonly { readonly port: number }[]>();
    const first = pool.alike([{ port: 80 }]);
    assert.equal(pool.alike([{ port: 80 }]), first);
    assert.notEqual(pool.alike([{ port: 81 }]), first);
    assert.deepEqual(first, [{ port: 80 }]);
  });
  it("forgets rather than grow for ever, and stays right", () => {
    const pool = new Pool<string>();
    for (let count = 0; count < 30_000; count += 1)
      assert.equal(pool.alike(`${count}`), `${count}`);
  });
});

describe("a parsed list", () => {
  it("leaves out what the parser makes nothing of, and tells it the place in the original", () => {
    const places: number[] = [];
    const parsed = parsedList(["a", 1, "b"], (item, index) => {
      places.push(index);
      return typeof item === "string" ? item : undefined;
    });
    assert.deepEqual(parsed, ["a", "b"]);
    assert.deepEqual(places, [0, 1, 2]);
  });
  it("of what is no list is empty", () => {
    for (const value of [undefined, null, {}, "abc", 7]) {
      assert.deepEqual(
        parsedList(value, (item) => item),
        [],
      );
    }
  });
});

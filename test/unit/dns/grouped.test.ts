import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import { Grouped } from "../../../src/dns/grouped.ts";

interface Thing {
  readonly key: string;
  readonly value: number;
}

const operation = fc.record({
  remove: fc.boolean(),
  group: fc.constantFrom("a", "b"),
  key: fc.constantFrom("x", "y", "z"),
  value: fc.nat(9),
});

describe("values by a key", () => {
  it("is a Map of Maps to who asks", () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 30 }), (operations) => {
        const grouped = new Grouped<Thing>();
        const model = new Map<string, Map<string, Thing>>([
          ["a", new Map()],
          ["b", new Map()],
        ]);
        for (const { remove, group, key, value } of operations) {
          if (remove) {
            grouped.remove(group, key);
            model.get(group)?.delete(key);
          } else {
            grouped.add(group, { key, value });
            model.get(group)?.set(key, { key, value });
          }
          for (const [name, expected] of model) {
            assert.deepEqual(grouped.get(name), [...expected.values()]);
          }
        }
      }),
    );
  });

  it("holds a text once", () => {
    const grouped = new Grouped<string>();
    for (const text of ["a/b", "a/b", "a/c", "a/b"]) grouped.add("10.0.0.1", text);
    assert.deepEqual(grouped.get("10.0.0.1"), ["a/b", "a/c"]);
    grouped.remove("10.0.0.1", "a/b");
    grouped.remove("10.0.0.2", "a/b");
    assert.deepEqual(grouped.get("10.0.0.1"), ["a/c"]);
  });
});

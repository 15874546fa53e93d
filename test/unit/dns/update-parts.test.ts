import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { parseDnsService, parseDnsSlice } from "../../../src/dns/parse.ts";
import type { RecordsUpdate } from "../../../src/dns/types.ts";
import { UpdateParts } from "../../../src/dns/update-parts.ts";

function part(names: readonly string[], more: Partial<RecordsUpdate> = {}): RecordsUpdate {
  return {
    full: true,
    services: names.map((name) =>
      parseDnsService({ metadata: { namespace: "default", name }, spec: {} }),
    ),
    slices: names.map((name) => parseDnsSlice({ metadata: { namespace: "default", name } })),
    removedServices: [],
    removedSlices: [],
    namespaces: undefined,
    ...more,
  };
}

function names(update: RecordsUpdate | undefined): readonly string[] | undefined {
  return update?.services.map(({ name }) => name);
}

describe("an update in parts", () => {
  it("is nothing before the last part, then all of it", () => {
    const parts = new UpdateParts();
    assert.equal(parts.join(part(["a", "b"]), true), undefined);
    assert.equal(parts.join(part(["c"]), true), undefined);
    const whole = parts.join(part(["d"], { namespaces: ["default"] }), false);
    assert.deepEqual(names(whole), ["a", "b", "c", "d"]);
    assert.deepEqual(whole, part(["a", "b", "c", "d"], { namespaces: ["default"] }));
  });

  it("leaves nothing behind for the next", () => {
    const parts = new UpdateParts();
    parts.join(part(["a"]), true);
    parts.join(part([]), false);
    const next = part(["b"], { full: false });
    assert.deepEqual(parts.join(next, false), next);
  });
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { qosClass } from "../../../src/controlplane/kinds/pod-qos.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";

const full = { limits: { cpu: "1", memory: "64Mi" }, requests: { cpu: "1", memory: "64Mi" } };

describe("status.qosClass", () => {
  const cases: readonly (readonly [string, JsonObject, string])[] = [
    ["nothing asked for", { containers: [{}] }, "BestEffort"],
    ["limits that equal the requests", { containers: [{ resources: full }] }, "Guaranteed"],
    ["one container without", { containers: [{ resources: full }, {}] }, "Burstable"],
    [
      "an init container without",
      { containers: [{ resources: full }], initContainers: [{}] },
      "Burstable",
    ],
    ["the pod's own resources", { containers: [{}], resources: full }, "Guaranteed"],
    [
      "the pod's own request",
      { containers: [{}], resources: { requests: { cpu: "1" } } },
      "Burstable",
    ],
  ];
  for (const [what, spec, expected] of cases) {
    test(`${what}: ${expected}`, () => {
      assert.equal(qosClass(spec), expected);
    });
  }
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { Node } from "../../../src/api/types.gen.ts";
import { csiNodeDriver, installPatch, uninstallPatch } from "../../../src/kubelet/csi/csi-node.ts";

const key = "csi.volume.kubernetes.io/nodeid";

function node(annotation?: string, labels: Record<string, string> = {}): Node {
  return {
    metadata: {
      labels,
      ...(annotation === undefined ? {} : { annotations: { [key]: annotation } }),
    },
  };
}

const info = { nodeID: "i-1", maxVolumes: 0, topology: {} };

describe("what a Node is told of a driver", () => {
  it("is its id, beside those of others, and labels that are not there yet", () => {
    const topology = { zone: "a", region: "r" };
    assert.deepEqual(
      installPatch(node('{"z.example":"9"}', { zone: "a" }), "a.example", { ...info, topology }),
      {
        metadata: {
          annotations: { [key]: '{"a.example":"i-1","z.example":"9"}' },
          labels: { region: "r" },
        },
      },
    );
  });

  it("is nothing when it knows", () => {
    assert.equal(installPatch(node('{"a.example":"i-1"}'), "a.example", info), undefined);
  });

  it("is not written over something that cannot be read", () => {
    assert.throws(() => installPatch(node("[]"), "a.example", info), {
      message: /failed to parse node's "csi\.volume\.kubernetes\.io\/nodeid" annotation value/,
    });
    assert.throws(() => installPatch(node("{"), "a.example", info), /failed to parse/);
  });

  it("goes with it, and the annotation with the last one", () => {
    assert.equal(uninstallPatch(node(), "a.example"), undefined);
    assert.equal(uninstallPatch(node('{"b":"1"}'), "a.example"), undefined);
    assert.deepEqual(uninstallPatch(node('{"a.example":"i-1","b":"1"}'), "a.example"), {
      metadata: { annotations: { [key]: '{"b":"1"}' } },
    });
    assert.deepEqual(uninstallPatch(node('{"a.example":"i-1"}'), "a.example"), {
      metadata: { annotations: { [key]: null } },
    });
  });
});

describe("a driver in the CSINode", () => {
  it("has its topology's keys in order, and no count where it gives none", () => {
    assert.deepEqual(csiNodeDriver("d", { ...info, topology: { b: "1", a: "2" } }), {
      name: "d",
      nodeID: "i-1",
      topologyKeys: ["a", "b"],
    });
  });

  for (const [maxVolumes, count] of [
    [1, 1],
    [3_000_000_000, 2 ** 31 - 1],
  ] as const) {
    it(`that can have ${maxVolumes} volumes has count ${count}`, () => {
      assert.deepEqual(csiNodeDriver("d", { ...info, maxVolumes }).allocatable, { count });
    });
  }

  it("with a count below zero has none", () => {
    assert.equal(csiNodeDriver("d", { ...info, maxVolumes: -1 }).allocatable, undefined);
  });
});

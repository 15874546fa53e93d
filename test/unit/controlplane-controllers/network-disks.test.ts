import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import type {
  Node,
  PersistentVolume,
  PersistentVolumeClaim,
  PersistentVolumeSpec,
  Pod,
} from "../../../src/api/types.gen.ts";
import { networkDiskName } from "../../../src/controlplane/controllers/attach-detach/network-disks.ts";
import {
  type AttachPlan,
  forceDetachMs,
  planAttachments,
} from "../../../src/controlplane/controllers/attach-detach/plan.ts";

const name = "kubernetes.io/iscsi/10.0.0.1:iqn.a:1";
const meta = (of: string): { name: string; uid: string; resourceVersion: string } => ({
  name: of,
  uid: `uid-${of}`,
  resourceVersion: "1",
});

interface NodeFacts {
  readonly attached?: boolean;
  readonly inUse?: boolean;
  readonly ready?: boolean;
}

function node(of: string, { attached, inUse, ready = true }: NodeFacts = {}): Stored<Node> {
  return {
    metadata: {
      ...meta(of),
      annotations: { "volumes.kubernetes.io/controller-managed-attach-detach": "true" },
    },
    status: {
      conditions: [{ type: "Ready", status: ready ? "True" : "Unknown" }],
      volumesAttached: attached === true ? [{ name, devicePath: "" }] : [],
      volumesInUse: inUse === true ? [name] : [],
    },
  };
}

function volume(more: PersistentVolumeSpec = {}): Stored<PersistentVolume> {
  return {
    metadata: meta("pv"),
    spec: {
      accessModes: ["ReadWriteOnce"],
      claimRef: { namespace: "default", name: "data", uid: "uid-data" },
      iscsi: { targetPortal: "10.0.0.1", iqn: "iqn.a", lun: 1 },
      ...more,
    },
    status: { phase: "Bound" },
  };
}

const claim: Stored<PersistentVolumeClaim> = {
  metadata: { ...meta("data"), namespace: "default" },
  spec: { volumeName: "pv" },
  status: { phase: "Bound" },
};

function pod(of: string, nodeName: string): Stored<Pod> {
  return {
    metadata: { ...meta(of), namespace: "default" },
    spec: {
      nodeName,
      containers: [],
      volumes: [{ name: "v", persistentVolumeClaim: { claimName: "data" } }],
    },
  };
}

function plan(
  nodes: readonly Stored<Node>[],
  pods: readonly Stored<Pod>[],
  more: { readonly volume?: Stored<PersistentVolume>; readonly unwantedMs?: number } = {},
): AttachPlan {
  return planAttachments({
    pods,
    nodes: new Map(nodes.map((each) => [each.metadata.name, each])),
    attachments: [],
    claim: (key) => (key === "default/data" ? claim : undefined),
    volume: (of) => (of === "pv" ? (more.volume ?? volume()) : undefined),
    driver: () => undefined,
    now: 1_000_000,
    unwantedSince: () => (more.unwantedMs === undefined ? undefined : 1_000_000 - more.unwantedMs),
  });
}

describe("a disk over the network", () => {
  test("is named as upstream names it", () => {
    assert.equal(networkDiskName(volume()), name);
    const fc = (source: PersistentVolumeSpec["fc"]): string | undefined =>
      networkDiskName(volume({ iscsi: undefined, fc: source }));
    assert.equal(fc({ targetWWNs: ["50a", "50b"], lun: 2 }), "kubernetes.io/fc/[50a 50b]:2");
    assert.equal(fc({ wwids: ["36"] }), "kubernetes.io/fc/[36]");
    assert.equal(fc(undefined), undefined);
  });

  test("is given to the first node that wants it, and refused to others with the names of its users", () => {
    const { refused, report } = plan([node("a"), node("b")], [pod("one", "a"), pod("two", "b")]);
    assert.deepEqual(report, [{ node: "a", names: [name] }]);
    assert.deepEqual(
      refused.map(({ messages: [first] }) => [first?.[0].metadata.name, first?.[1]]),
      [["two", 'Multi-Attach error for volume "pv" Volume is already used by pod(s) one']],
    );
  });

  test("is given to several nodes when its modes say so", () => {
    const shared = volume({ accessModes: ["ReadOnlyMany"] });
    const pods = [pod("one", "a"), pod("two", "b")];
    const { refused, report } = plan([node("a"), node("b")], pods, { volume: shared });
    assert.deepEqual(
      report.map((each) => each.node),
      ["a", "b"],
    );
    assert.deepEqual(refused, []);
  });

  test("stays with a node that has it mounted, though its pod is gone, and goes once it is unmounted", () => {
    const busy = plan([node("a", { attached: true, inUse: true }), node("b")], [pod("two", "b")]);
    assert.deepEqual(busy.report, []);
    assert.equal(busy.refused.length, 1);
    assert.deepEqual(busy.unwanted, [`${name} on a`]);
    assert.equal(busy.recheckMs, forceDetachMs);
    const free = plan([node("a", { attached: true }), node("b")], [pod("two", "b")]);
    assert.deepEqual(free.report, [
      { node: "a", names: [] },
      { node: "b", names: [name] },
    ]);
  });

  test("is taken from a node that is lost, after six minutes and not before", () => {
    const nodes = [node("a", { attached: true, inUse: true, ready: false }), node("b")];
    assert.deepEqual(plan(nodes, [pod("two", "b")], { unwantedMs: 1000 }).report, []);
    const late = plan(nodes, [pod("two", "b")], { unwantedMs: forceDetachMs });
    assert.deepEqual(
      late.report.map((each) => each.node),
      ["a", "b"],
    );
  });
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { Lease, Taint, Toleration } from "../../../src/api/types.gen.ts";
import type { Stored } from "../../../src/api/object.ts";
import { CidrAllocator } from "../../../src/controlplane/controllers/node-ipam/cidr-allocator.ts";
import {
  assessNode,
  evictionIntervalMs,
  zoneState,
} from "../../../src/controlplane/controllers/node-lifecycle/health.ts";
import { evictionTime } from "../../../src/controlplane/controllers/node-lifecycle/taint-eviction.ts";
import { planTaints } from "../../../src/controlplane/controllers/node-lifecycle/taints.ts";
import { findGarbagePods } from "../../../src/controlplane/controllers/pod-gc/pod-gc-controller.ts";
import { parseCidr } from "../../../src/lib/cidr.ts";
import { ago, node, now, pod } from "./builders.ts";

function lease(renewTime: string): Stored<Lease> {
  return {
    metadata: { name: "n1", namespace: "kube-node-lease", uid: "l", resourceVersion: "1" },
    spec: { renewTime },
  };
}

describe("node health", () => {
  const first = assessNode(node(), lease("a"), undefined, { now, monotonic: 1000 });

  test("a node is believed for fifty seconds after its last sign of life", () => {
    assert.equal(first.ready, "True");
    const later = assessNode(node(), lease("a"), first.heartbeat, { now, monotonic: 51_000 });
    assert.equal(later.conditions, undefined);
  });

  test("after that its conditions are Unknown, with the API's reasons", () => {
    const lost = assessNode(node(), lease("a"), first.heartbeat, { now, monotonic: 51_001 });
    assert.deepEqual([lost.wasReady, lost.ready], ["True", "Unknown"]);
    assert.deepEqual(lost.conditions?.[0], {
      type: "Ready",
      status: "Unknown",
      reason: "NodeStatusUnknown",
      message: "Kubelet stopped posting node status.",
      lastTransitionTime: "2026-01-01T12:00:00Z",
    });
    assert.deepEqual(
      lost.conditions?.slice(1).map(({ type, reason }) => [type, reason]),
      ["MemoryPressure", "DiskPressure", "PIDPressure"].map((type) => [
        type,
        "NodeStatusNeverUpdated",
      ]),
    );
  });

  test("what is Unknown already is not written again", () => {
    const lost = assessNode(node(), lease("a"), first.heartbeat, { now, monotonic: 90_000 });
    const silent = node({ conditions: [...(lost.conditions ?? [])] });
    const seen = assessNode(silent, lease("a"), undefined, { now, monotonic: 90_000 });
    const again = assessNode(silent, lease("a"), seen.heartbeat, { now, monotonic: 190_000 });
    assert.equal(again.conditions, undefined);
    assert.equal(again.ready, "Unknown");
  });

  test("a renewed lease is a sign of life whatever the node's clock says", () => {
    const renewed = assessNode(node(), lease("b"), first.heartbeat, { now, monotonic: 90_000 });
    assert.equal(renewed.heartbeat.seenAt, 90_000);
    assert.equal(renewed.conditions, undefined);
  });

  test("a node that never posted a status has a minute from its creation", () => {
    const silent = (createdAgo: number): string =>
      assessNode(node({ conditions: [], createdAgo }), undefined, undefined, {
        now,
        monotonic: 0,
      }).conditions?.[0]?.reason ?? "none";
    assert.equal(silent(59), "none");
    assert.equal(silent(61), "NodeStatusNeverUpdated");
  });

  test("most of a zone lost slows evictions down, all of it is full disruption", () => {
    assert.equal(zoneState(["True", "Unknown"]), "normal");
    assert.equal(zoneState(["True", "Unknown", "False", "Unknown"]), "partial");
    assert.equal(zoneState(["Unknown"]), "full");
    assert.equal(zoneState([]), "normal");
    assert.equal(evictionIntervalMs("partial", 10), undefined);
    assert.equal(evictionIntervalMs("partial", 51), 100_000);
    assert.equal(evictionIntervalMs("full", 10), 10_000);
  });
});

describe("taints", () => {
  const key = (name: string): string => `node.kubernetes.io/${name}`;

  test("follow the conditions and the cordon, and leave foreign ones in place", () => {
    const foreign: Taint = { key: "dedicated", value: "gpu", effect: "NoSchedule" };
    const stale: Taint = { key: key("not-ready"), effect: "NoSchedule" };
    const planned = planTaints(
      node({
        spec: { taints: [stale, foreign], unschedulable: true },
        conditions: [
          { type: "Ready", status: "Unknown" },
          { type: "DiskPressure", status: "True" },
          { type: "MemoryPressure", status: "False" },
        ],
      }),
      "keep",
      now,
    );
    assert.deepEqual(
      planned?.map((taint) => taint.key),
      ["dedicated", key("unreachable"), key("disk-pressure"), key("unschedulable")],
    );
  });

  test("the eviction taint changes with the wish, and not when it is to be kept", () => {
    const unreachable: Taint = { key: key("unreachable"), effect: "NoExecute" };
    const tainted = node({ spec: { taints: [unreachable] } });
    assert.equal(planTaints(tainted, "keep", now), undefined);
    assert.deepEqual(planTaints(tainted, "none", now), []);
    assert.deepEqual(planTaints(tainted, "not-ready", now), [
      { key: key("not-ready"), effect: "NoExecute", timeAdded: "2026-01-01T12:00:00Z" },
    ]);
  });

  test("a ready node loses the taint it was born with", () => {
    const born = node({ spec: { taints: [{ key: key("not-ready"), effect: "NoSchedule" }] } });
    assert.deepEqual(planTaints(born, "none", now), []);
  });
});

describe("taint eviction", () => {
  const taint: Taint = { key: "k", effect: "NoExecute", timeAdded: ago(100) };
  const cases: readonly {
    title: string;
    taints?: readonly Taint[];
    tolerations: readonly Toleration[];
    arrivedAgo?: number;
    want: number | "never";
  }[] = [
    { title: "no toleration: at once", tolerations: [], want: 0 },
    {
      title: "tolerated without a limit: never",
      tolerations: [{ operator: "Exists" }],
      want: "never",
    },
    {
      title: "tolerated for a time: counted from the taint",
      tolerations: [{ key: "k", operator: "Exists", tolerationSeconds: 300 }],
      arrivedAgo: 5000,
      want: now + 200_000,
    },
    {
      title: "a pod that came after the taint has its full time",
      tolerations: [{ key: "k", operator: "Exists", tolerationSeconds: 300 }],
      arrivedAgo: 10,
      want: now + 290_000,
    },
    {
      title: "the shortest time counts",
      tolerations: [
        { key: "k", operator: "Exists", tolerationSeconds: 300 },
        { operator: "Exists", tolerationSeconds: 30 },
      ],
      want: now - 70_000,
    },
    {
      title: "a toleration for another value does not help",
      tolerations: [{ key: "k", operator: "Equal", value: "x" }],
      want: 0,
    },
    {
      title: "NoSchedule evicts nobody",
      taints: [{ key: "k", effect: "NoSchedule" }],
      tolerations: [],
      want: "never",
    },
  ];
  for (const { title, taints, tolerations, arrivedAgo, want } of cases) {
    test(title, () => {
      const result = evictionTime(taints ?? [taint], tolerations, {
        arrivedAt: now - (arrivedAgo ?? 5000) * 1000,
      });
      assert.deepEqual(result, want === "never" ? { kind: "never" } : { kind: "at", time: want });
    });
  }
});

describe("pod networks", () => {
  test("every node gets its own range, taken ones are skipped, full is full", () => {
    const allocator = new CidrAllocator(parseCidr("10.244.0.0/22"), 24);
    allocator.occupy("10.244.1.0/24");
    allocator.occupy("192.168.0.0/16");
    const given = [allocator.allocate(), allocator.allocate(), allocator.allocate()];
    assert.deepEqual(given, ["10.244.0.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
    assert.equal(allocator.allocate(), undefined);
    allocator.release("10.244.2.0/24");
    assert.equal(allocator.allocate(), "10.244.2.0/24");
  });

  test("a bigger range in use takes all parts it covers", () => {
    const allocator = new CidrAllocator(parseCidr("10.244.0.0/22"), 24);
    allocator.occupy("10.244.0.0/23");
    assert.equal(allocator.allocate(), "10.244.2.0/24");
  });
});

describe("pod garbage", () => {
  test("pods of missing nodes and unscheduled pods that are being deleted are found", () => {
    const lost = pod({ name: "lost", spec: { nodeName: "gone" } });
    const stuck = pod({ name: "stuck", deleting: true });
    const fine = pod({ name: "fine", spec: { nodeName: "n1" } });
    const found = findGarbagePods([lost, stuck, fine], (name) => name === "n1", 10);
    assert.deepEqual(found, [
      { kind: "orphaned", pod: lost, node: "gone" },
      { kind: "unscheduled", pod: stuck },
    ]);
  });

  test("the oldest terminated pods beyond the threshold go", () => {
    const pods = [30, 20, 10].map((createdAgo) =>
      pod({ name: `p${createdAgo}`, createdAgo, phase: "Succeeded" }),
    );
    const found = findGarbagePods(pods, () => true, 2);
    assert.deepEqual(
      found.map((each) => each.pod.metadata.name),
      ["p30"],
    );
  });
});

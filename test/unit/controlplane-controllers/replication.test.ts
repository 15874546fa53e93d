import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import {
  computeReplicaStatus,
  planScale,
  slowStartBatches,
} from "../../../src/controlplane/controllers/replication/decide.ts";
import { sortClaims } from "../../../src/controlplane/controllers/shared/ownership.ts";
import { Expectations } from "../../../src/controlplane/controllers/replication/expectations.ts";
import { podsToRemove } from "../../../src/controlplane/controllers/replication/rank.ts";
import { podFromTemplate } from "../../../src/controlplane/controllers/replication/replica-controller.ts";
import type { ReplicaWorkload } from "../../../src/controlplane/controllers/replication/workload.ts";
import { replicationControllerKind } from "../../../src/controlplane/controllers/replication/workload.ts";
import type { PodParts } from "./builders.ts";
import { now, pod } from "./builders.ts";

function workload(
  replicas: number,
  more: { deleting?: boolean; minReadySeconds?: number } = {},
): ReplicaWorkload {
  return replicationControllerKind.parse({
    metadata: {
      name: "web",
      namespace: "default",
      uid: "rc",
      resourceVersion: "1",
      generation: 3,
      deletionTimestamp: more.deleting === true ? "2026-01-01T00:00:00Z" : undefined,
    },
    spec: {
      replicas,
      minReadySeconds: more.minReadySeconds,
      selector: { app: "web" },
      template: {
        metadata: { labels: { app: "web", tier: "front" }, annotations: { note: "x" } },
        spec: { containers: [{ name: "c", image: "i" }] },
      },
    },
  });
}

const nobody = { active: [], terminating: undefined };

describe("order of removal", () => {
  const table: readonly { rule: string; first: PodParts; second: PodParts }[] = [
    {
      rule: "unassigned before assigned",
      first: { ready: true },
      second: { spec: { nodeName: "n" } },
    },
    {
      rule: "pending before running",
      first: { phase: "Pending", spec: { nodeName: "n" } },
      second: { phase: "Running", spec: { nodeName: "n" } },
    },
    {
      rule: "not ready before ready",
      first: { ready: false, spec: { nodeName: "n" } },
      second: { ready: true, spec: { nodeName: "n" } },
    },
    {
      rule: "lower deletion cost before higher",
      first: {
        annotations: { "controller.kubernetes.io/pod-deletion-cost": "-5" },
        spec: { nodeName: "n" },
      },
      second: { spec: { nodeName: "n" } },
    },
    {
      rule: "shorter ready before longer ready",
      first: { ready: true, readyAgo: 1, spec: { nodeName: "n" } },
      second: { ready: true, readyAgo: 1000, spec: { nodeName: "n" } },
    },
    {
      rule: "more restarts before fewer",
      first: { restarts: 3, spec: { nodeName: "n" } },
      second: { restarts: 0, spec: { nodeName: "n" } },
    },
    {
      rule: "younger before older",
      first: { createdAgo: 1, spec: { nodeName: "n" } },
      second: { createdAgo: 10_000, spec: { nodeName: "n" } },
    },
  ];
  for (const { rule, first, second } of table) {
    test(rule, () => {
      const [a, b] = [pod(first), pod(second)];
      for (const list of [
        [a, b],
        [b, a],
      ])
        assert.deepEqual(podsToRemove(list, [], 1, now), [a]);
    });
  }

  test("a pod on the node with more ready siblings goes first", () => {
    const crowded = [1, 2].map((n) =>
      pod({ name: `crowded-${n}`, ready: true, spec: { nodeName: "n1" } }),
    );
    const alone = pod({ name: "alone", ready: true, spec: { nodeName: "n2" } });
    const [chosen] = podsToRemove([alone, ...crowded], [alone, ...crowded], 1, now);
    assert.equal(chosen?.spec?.nodeName, "n1");
  });

  test("pods of related workloads count on their node, ready or not", () => {
    const [here, there] = ["n1", "n2"].map((nodeName) =>
      pod({ name: `mine-${nodeName}`, ready: true, spec: { nodeName } }),
    );
    assert.ok(here !== undefined && there !== undefined);
    const sibling = pod({ name: "sibling", ready: false, spec: { nodeName: "n2" } });
    assert.deepEqual(podsToRemove([here, there], [here, there, sibling], 1, now), [there]);
  });

  test("is the same whatever the order of the list", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            ready: fc.boolean(),
            restarts: fc.nat(3),
            createdAgo: fc.integer({ min: 1, max: 100_000 }),
            readyAgo: fc.integer({ min: 1, max: 100_000 }),
            spec: fc.constantFrom({}, { nodeName: "n1" }, { nodeName: "n2" }),
          }),
          { minLength: 2, maxLength: 8 },
        ),
        fc.nat(7),
        (parts, count) => {
          const pods = parts.map((each) => pod(each));
          const names = (list: readonly ReturnType<typeof pod>[]): readonly string[] =>
            list.map(({ metadata }) => metadata.name).toSorted();
          assert.deepEqual(
            names(podsToRemove(pods, pods, count, now)),
            names(podsToRemove(pods.toReversed(), pods, count, now)),
          );
        },
      ),
    );
  });
});

describe("ownership", () => {
  test("selected pods without an owner are adopted, owned ones that no longer match are released", () => {
    const owned = pod({ owner: "rc" });
    const orphan = pod();
    const strayed = pod({ owner: "rc", labels: { app: "other" } });
    const foreign = pod({ owner: "another" });
    const claims = sortClaims(workload(1), [owned, orphan, strayed, foreign]);
    assert.deepEqual(claims, { owned: [owned], adopt: [orphan], release: [strayed] });
  });

  test("a controller that is being deleted adopts and releases nothing", () => {
    const claims = sortClaims(workload(1, { deleting: true }), [
      pod(),
      pod({ owner: "rc", labels: {} }),
    ]);
    assert.deepEqual(claims, { owned: [], adopt: [], release: [] });
  });

  test("an empty selector claims nothing", () => {
    const empty = replicationControllerKind.parse({
      metadata: { name: "x", namespace: "default", uid: "rc", resourceVersion: "1" },
      spec: {},
    });
    assert.deepEqual(sortClaims(empty, [pod()]).adopt, []);
  });
});

describe("scaling", () => {
  test("too few pods are created, too many removed, the right number left alone", () => {
    const pods = [pod(), pod()];
    assert.deepEqual(planScale(workload(5), pods, pods, now), { kind: "create", count: 3 });
    assert.deepEqual(planScale(workload(2), pods, pods, now), { kind: "none" });
    const down = planScale(workload(0), pods, pods, now);
    assert.equal(down.kind === "delete" ? down.pods.length : -1, 2);
  });

  test("a controller that is being deleted neither creates nor removes", () => {
    assert.deepEqual(planScale(workload(5, { deleting: true }), [], [], now), { kind: "none" });
  });

  test("one round creates at most 500", () => {
    assert.deepEqual(planScale(workload(2000), [], [], now), { kind: "create", count: 500 });
  });

  test("creation starts slowly and doubles", () => {
    assert.deepEqual(slowStartBatches(10), [1, 2, 4, 3]);
    assert.deepEqual(slowStartBatches(1), [1]);
    assert.deepEqual(slowStartBatches(0), []);
  });

  test("a pod carries the template's metadata and its owner", () => {
    const owner = { apiVersion: "v1", kind: "ReplicationController", name: "web", uid: "rc" };
    assert.deepEqual(podFromTemplate(workload(1), owner), {
      metadata: {
        generateName: "web-",
        namespace: "default",
        ownerReferences: [owner],
        labels: { app: "web", tier: "front" },
        annotations: { note: "x" },
      },
      spec: { containers: [{ name: "c", image: "i" }] },
    });
  });
});

describe("status", () => {
  test("counts labelled, ready and available pods", () => {
    const pods = [
      pod({ ready: true, readyAgo: 5, labels: { app: "web", tier: "front" } }),
      pod({ ready: true, readyAgo: 60 }),
      pod(),
    ];
    const status = computeReplicaStatus(
      workload(3, { minReadySeconds: 10 }),
      { active: pods, terminating: undefined },
      undefined,
      now,
    );
    assert.deepEqual(status, {
      replicas: 3,
      fullyLabeledReplicas: 1,
      readyReplicas: 2,
      availableReplicas: 1,
      terminatingReplicas: undefined,
      observedGeneration: 3,
      conditions: [],
    });
  });

  test("a failure becomes the ReplicaFailure condition, keeps its time, and goes when scaling works", () => {
    const failure = { reason: "FailedCreate", message: "quota" } as const;
    const first = computeReplicaStatus(workload(1), nobody, failure, now);
    assert.deepEqual(first.conditions, [
      {
        type: "ReplicaFailure",
        status: "True",
        reason: "FailedCreate",
        message: "quota",
        lastTransitionTime: "2026-01-01T12:00:00Z",
      },
    ]);
    const failing = { ...workload(1), status: first };
    const later = computeReplicaStatus(failing, nobody, failure, now + 60_000);
    assert.deepEqual(later.conditions, first.conditions);
    assert.deepEqual(computeReplicaStatus(failing, nobody, undefined, now).conditions, []);
  });
});

describe("expectations", () => {
  test("hold scaling until every creation was seen", () => {
    const expectations = new Expectations(() => 0);
    assert.equal(expectations.satisfied("rc"), true);
    expectations.expectCreations("rc", 2);
    expectations.creationObserved("rc");
    assert.equal(expectations.satisfied("rc"), false);
    expectations.creationObserved("rc");
    assert.equal(expectations.satisfied("rc"), true);
  });

  test("count a deletion once however often it is seen", () => {
    const expectations = new Expectations(() => 0);
    expectations.expectDeletions("rc", ["a", "b"]);
    expectations.deletionObserved("rc", "a");
    expectations.deletionObserved("rc", "a");
    assert.equal(expectations.satisfied("rc"), false);
    expectations.deletionObserved("rc", "b");
    assert.equal(expectations.satisfied("rc"), true);
  });

  test("are given up after five minutes", () => {
    let time = 0;
    const expectations = new Expectations(() => time);
    expectations.expectCreations("rc", 1);
    time = 5 * 60_000 + 1;
    assert.equal(expectations.satisfied("rc"), true);
  });
});

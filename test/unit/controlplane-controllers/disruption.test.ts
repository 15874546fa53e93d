import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { PodDisruptionBudgetSpec } from "../../../src/api/types.gen.ts";
import type {
  OwnerScale,
  StoredBudget,
} from "../../../src/controlplane/controllers/disruption/decide.ts";
import {
  budgetStatus,
  expectation,
  failedStatus,
  pendingDisruptions,
  staleDisruptionMs,
} from "../../../src/controlplane/controllers/disruption/decide.ts";
import type { StoredPod } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import { ago, now, pod } from "./builders.ts";

function budget(
  spec: PodDisruptionBudgetSpec,
  disrupted: Record<string, string> = {},
): StoredBudget {
  return {
    metadata: { name: "b", namespace: "default", uid: "u", resourceVersion: "1", generation: 3 },
    spec: { selector: { matchLabels: { app: "web" } }, ...spec },
    status: {
      currentHealthy: 0,
      desiredHealthy: 0,
      expectedPods: 0,
      disruptionsAllowed: 0,
      disruptedPods: disrupted,
    },
  };
}

const ready = (name: string, owner?: string): StoredPod =>
  pod({ name, ready: true, ...(owner === undefined ? {} : { owner }) });

/** Owners by uid; pods without one are unmanaged. */
function scales(replicas: Record<string, number>): (pod: StoredPod) => OwnerScale {
  return ({ metadata }) => {
    const uid = metadata.ownerReferences?.[0]?.uid;
    const wanted = uid === undefined ? undefined : replicas[uid];
    if (uid === undefined) return { kind: "unmanaged" };
    return wanted === undefined
      ? { kind: "unknown", message: "no such owner" }
      : { kind: "scale", uid, replicas: wanted };
  };
}

describe("what a budget expects", () => {
  const two = [ready("a", "rc"), ready("b", "rc")];
  const cases = [
    { spec: { minAvailable: 2 }, want: { expectedPods: 2, desiredHealthy: 2, unmanaged: false } },
    {
      spec: { minAvailable: "50%" },
      want: { expectedPods: 5, desiredHealthy: 3, unmanaged: false },
    },
    { spec: { maxUnavailable: 1 }, want: { expectedPods: 5, desiredHealthy: 4, unmanaged: false } },
    {
      spec: { maxUnavailable: "30%" },
      want: { expectedPods: 5, desiredHealthy: 3, unmanaged: false },
    },
    { spec: { maxUnavailable: 9 }, want: { expectedPods: 5, desiredHealthy: 0, unmanaged: false } },
    { spec: {}, want: { expectedPods: 0, desiredHealthy: 0, unmanaged: false } },
  ];
  for (const { spec, want } of cases)
    test(`of two pods that are five: ${JSON.stringify(spec)}`, () =>
      assert.deepEqual(expectation(budget(spec), two, scales({ rc: 5 })), want));

  test("several owners add up, pods of nobody are noted", () => {
    const pods = [...two, ready("c", "rs"), ready("d")];
    assert.deepEqual(expectation(budget({ maxUnavailable: 1 }), pods, scales({ rc: 2, rs: 3 })), {
      expectedPods: 5,
      desiredHealthy: 4,
      unmanaged: true,
    });
  });

  test("an owner that cannot be counted is an error, but not for a plain minimum", () => {
    assert.equal(expectation(budget({ maxUnavailable: 1 }), two, scales({})), "no such owner");
    assert.equal(typeof expectation(budget({ minAvailable: 1 }), two, scales({})), "object");
  });
});

describe("what a budget allows", () => {
  const allowed = (
    of: StoredBudget,
    pods: readonly StoredPod[],
    desiredHealthy: number,
  ): number | undefined =>
    budgetStatus(of, pods, { expectedPods: 3, desiredHealthy, unmanaged: false }, now)
      .disruptionsAllowed;
  const three = ["a", "b", "c"].map((name) => ready(name));

  test("healthy pods above the minimum", () => {
    assert.equal(allowed(budget({}), three, 2), 1);
    assert.equal(allowed(budget({}), three, 3), 0);
    assert.equal(allowed(budget({}), three.slice(0, 1), 3), 0);
  });

  test("pods that are not ready, leaving, or about to be evicted are not healthy", () => {
    assert.equal(allowed(budget({}), [...three, pod({ ready: false })], 2), 1);
    assert.equal(allowed(budget({}), [...three, pod({ ready: true, deleting: true })], 2), 1);
    assert.equal(allowed(budget({}, { a: ago(10) }), three, 2), 0);
  });

  test("an eviction that did not come for two minutes is forgotten and reported", () => {
    const late = budget({}, { a: ago(121), b: ago(20), gone: ago(5) });
    assert.equal(allowed(late, three, 1), 1);
    const { disruptedPods, overdue, recheckMs } = pendingDisruptions(late, three, now);
    assert.deepEqual(disruptedPods, { b: ago(20) });
    assert.deepEqual(
      overdue.map(({ metadata }) => metadata.name),
      ["a"],
    );
    assert.equal(recheckMs, 100_000);
  });

  test("nothing while no pods are expected", () => {
    const expected = { expectedPods: 0, desiredHealthy: 0, unmanaged: false };
    assert.equal(budgetStatus(budget({}), three, expected, now).disruptionsAllowed, 0);
  });

  test("the condition says which, and moves its time only when it changes", () => {
    const expected = { expectedPods: 3, desiredHealthy: 2, unmanaged: false };
    const first = budgetStatus(budget({}), three, expected, now);
    assert.deepEqual(first.conditions, [
      {
        type: "DisruptionAllowed",
        status: "True",
        reason: "SufficientPods",
        message: "",
        observedGeneration: 3,
        lastTransitionTime: ago(0),
      },
    ]);
    const later = budgetStatus({ ...budget({}), status: first }, three, expected, now + 60_000);
    assert.equal(later.conditions?.[0]?.lastTransitionTime, ago(0));
    const fewer = { ...expected, desiredHealthy: 3 };
    const lost = budgetStatus({ ...budget({}), status: first }, three, fewer, now + 60_000);
    assert.deepEqual(
      [lost.conditions?.[0]?.reason, lost.conditions?.[0]?.lastTransitionTime],
      ["InsufficientPods", ago(-60)],
    );
  });

  test("nothing when it cannot be worked out", () => {
    const status = failedStatus(
      { ...budget({}), status: { ...failedStatus(budget({}), "", now), disruptionsAllowed: 4 } },
      "found no controllers",
      now,
    );
    assert.equal(status.disruptionsAllowed, 0);
    const [condition] = status.conditions ?? [];
    assert.deepEqual(
      [condition?.reason, condition?.message],
      ["SyncFailed", "found no controllers"],
    );
  });
});

describe("a DisruptionTarget that nobody follows up", () => {
  const target = (reason: string, seconds: number, more: Parameters<typeof pod>[0] = {}) => {
    const what = pod(more);
    const condition = {
      type: "DisruptionTarget",
      status: "True" as const,
      reason,
      lastTransitionTime: ago(seconds),
    };
    return { ...what, status: { ...what.status, conditions: [condition] } };
  };

  test("is stale after two minutes", () => {
    assert.equal(staleDisruptionMs(target("PreemptionByScheduler", 30), now), 90_000);
    assert.equal(staleDisruptionMs(target("PreemptionByScheduler", 200), now), 0);
  });

  test("unless the pod is leaving, has ended, or the node said it", () => {
    assert.equal(staleDisruptionMs(pod(), now), undefined);
    assert.equal(
      staleDisruptionMs(target("EvictionByEvictionAPI", 200, { deleting: true }), now),
      undefined,
    );
    assert.equal(
      staleDisruptionMs(target("EvictionByEvictionAPI", 200, { phase: "Failed" }), now),
      undefined,
    );
    assert.equal(staleDisruptionMs(target("TerminationByKubelet", 200), now), undefined);
  });
});

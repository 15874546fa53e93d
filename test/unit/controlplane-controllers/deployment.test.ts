import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import type { Deployment, DeploymentCondition, ReplicaSet } from "../../../src/api/types.gen.ts";
import { newReplicaSetAnnotations } from "../../../src/controlplane/controllers/deployment/annotations.ts";
import type { DeploymentPlan } from "../../../src/controlplane/controllers/deployment/plan.ts";
import {
  planDeployment,
  replicaSetName,
} from "../../../src/controlplane/controllers/deployment/plan.ts";
import {
  planRollback,
  wantedRollback,
} from "../../../src/controlplane/controllers/deployment/rollback.ts";
import {
  sameTemplate,
  templateHash,
} from "../../../src/controlplane/controllers/deployment/template.ts";
import {
  resolveFenceposts,
  viewDeployment,
  viewReplicaSet,
} from "../../../src/controlplane/controllers/deployment/view.ts";
import { ago, now } from "./builders.ts";
import {
  deployment,
  desired,
  history,
  max,
  replicaSet,
  revision,
  template,
} from "./deployment-builders.ts";

function plan(
  object: Stored<Deployment>,
  replicaSets: readonly Stored<ReplicaSet>[],
  hasPods: (uid: string) => boolean = () => false,
): DeploymentPlan {
  return planDeployment(
    viewDeployment(object),
    replicaSets.map((each) => viewReplicaSet(each)),
    { now, hasPods },
  );
}

/** Sizes that the plan gives, by name. */
function sizes({ updates }: DeploymentPlan): Record<string, number> {
  return Object.fromEntries(updates.map(({ view, replicas }) => [view.name, replicas]));
}

function reason(conditions: readonly DeploymentCondition[], type: string): string | undefined {
  return conditions.find((condition) => condition.type === type)?.reason;
}

function progressing(reasonText: string, secondsAgo = 0): DeploymentCondition[] {
  const time = ago(secondsAgo);
  return [
    {
      type: "Progressing",
      status: "True",
      reason: reasonText,
      lastUpdateTime: time,
      lastTransitionTime: time,
    },
  ];
}

describe("maxSurge and maxUnavailable", () => {
  const table = [
    { replicas: 2, surge: "0%", unavailable: "1%", want: [0, 1] },
    { replicas: 1, surge: "0%", unavailable: "1%", want: [0, 1] },
    { replicas: 2, surge: "1%", unavailable: "25%", want: [1, 0] },
    { replicas: 1, surge: "1%", unavailable: "0%", want: [1, 0] },
    { replicas: 10, surge: "25%", unavailable: "25%", want: [3, 2] },
    { replicas: 4, surge: 3, unavailable: 2, want: [3, 2] },
    { replicas: 4, surge: undefined, unavailable: undefined, want: [0, 1] },
  ];
  for (const { replicas, surge, unavailable, want } of table) {
    test(`of ${replicas}: ${String(surge)} and ${String(unavailable)}`, () => {
      const found = resolveFenceposts(surge, unavailable, replicas);
      assert.deepEqual([found.surge, found.unavailable], want);
    });
  }

  test("never leave fewer than none", () => {
    const rollingUpdate = { maxSurge: 0, maxUnavailable: 9 };
    const view = viewDeployment(
      deployment(3, { spec: { strategy: { type: "RollingUpdate", rollingUpdate } } }),
    );
    assert.equal(view.maxUnavailable, 3);
    const recreate = viewDeployment(deployment(3, { spec: { strategy: { type: "Recreate" } } }));
    assert.deepEqual([recreate.maxSurge, recreate.maxUnavailable], [0, 0]);
  });
});

describe("templates", () => {
  const base = template("v1");
  const withRequests = (cpu: string): typeof base => ({
    ...base,
    spec: { containers: [{ name: "c", image: "v1", resources: { requests: { cpu } } }] },
  });

  test("are the same whatever the spelling", () => {
    const labels = { "pod-template-hash": "abc", app: "web" };
    const spec = { volumes: [], nodeSelector: {}, containers: [{ image: "v1", name: "c" }] };
    const other = { spec, metadata: { labels } };
    assert.equal(sameTemplate(base, other), true);
    assert.equal(templateHash(base, undefined), templateHash(other, undefined));
    assert.equal(sameTemplate(withRequests("500m"), withRequests("0.5")), true);
  });

  test("differ by what makes other pods", () => {
    assert.equal(sameTemplate(base, template("v2")), false);
    assert.equal(sameTemplate(base, withRequests("1")), false);
    const volume = (source: object): typeof base => ({
      ...base,
      spec: { containers: [], volumes: [{ name: "v", ...source }] },
    });
    assert.equal(sameTemplate(volume({ emptyDir: {} }), volume({})), false);
  });

  test("have a hash that is stable, can be a label, and changes with the collision count", () => {
    assert.equal(templateHash(base, undefined), "548df6b887");
    const hashes = [undefined, 1, 2].map((count) => templateHash(base, count));
    assert.equal(new Set(hashes).size, 3);
    for (const hash of hashes) assert.match(hash, /^[bcdfghjklmnpqrstvwxz2456789]{1,10}$/);
  });

  test("name their ReplicaSet within the limit of names", () => {
    assert.equal(replicaSetName("web", "abc"), "web-abc");
    assert.equal(replicaSetName("d".repeat(253), "abc").length, 253);
  });
});

describe("annotations of the new ReplicaSet", () => {
  test("are the Deployment's own, without what is only its own", () => {
    const found = newReplicaSetAnnotations(
      { kept: "x" },
      { note: "y", [revision]: "7", "kubectl.kubernetes.io/last-applied-configuration": "{}" },
      3n,
    );
    assert.deepEqual(found, { kept: "x", note: "y", [revision]: "3" });
  });

  test("remember the revisions it had, and never step back", () => {
    const back = newReplicaSetAnnotations({ [revision]: "1" }, {}, 3n);
    assert.deepEqual(back, { [revision]: "3", [history]: "1" });
    assert.deepEqual(newReplicaSetAnnotations(back, {}, 5n), {
      [revision]: "5",
      [history]: "1,3",
    });
    assert.deepEqual(newReplicaSetAnnotations({ [revision]: "9" }, {}, 3n), { [revision]: "9" });
  });

  test("keep the history within its limit, losing the oldest", () => {
    const long = Array.from({ length: 600 }, (_, index) => String(1000 + index)).join(",");
    const found = newReplicaSetAnnotations({ [revision]: "1600", [history]: long }, {}, 1601n);
    const kept = found[history] ?? "";
    assert.ok(kept.length <= 2000);
    assert.ok(kept.endsWith(",1599,1600"));
  });
});

describe("a rolling update", () => {
  test("begins with a ReplicaSet of the full size when there is none", () => {
    const first = plan(deployment(3, { annotations: { note: "y" } }), []);
    assert.equal(first.create?.spec?.replicas, 3);
    assert.deepEqual(first.create?.metadata?.annotations, {
      note: "y",
      [revision]: "1",
      [desired]: "3",
      [max]: "4",
    });
    assert.equal(first.revision, "1");
    assert.equal(reason(first.status.conditions, "Progressing"), "NewReplicaSetCreated");
    assert.equal(reason(first.status.conditions, "Available"), "MinimumReplicasUnavailable");
    assert.equal(first.status.unavailableReplicas, 3);
  });

  test("counts revisions beyond what a double can hold", () => {
    const annotations = { [revision]: "3546343826724305832" };
    const { revision: next } = plan(deployment(1, { image: "v2" }), [
      replicaSet("v1", { replicas: 1, annotations }),
    ]);
    assert.equal(next, "3546343826724305833");
  });

  test("begins with the surge, and what may be unavailable goes at once", () => {
    const rolling = plan(deployment(10, { image: "v2" }), [
      replicaSet("v1", { replicas: 10, annotations: { [revision]: "4", [desired]: "10" } }),
    ]);
    assert.equal(rolling.create?.spec?.replicas, 3);
    assert.equal(rolling.revision, "5");
    assert.deepEqual(sizes(rolling), { v1: 8 });
  });

  test("does not shrink the old for new pods that are not available", () => {
    const status = { availableReplicas: 0, readyReplicas: 0 };
    const waiting = plan(deployment(10, { image: "v2" }), [
      replicaSet("v1", { replicas: 8 }),
      replicaSet("v2", { replicas: 5, status, annotations: { [revision]: "1" } }),
    ]);
    assert.deepEqual(sizes(waiting), {});
  });

  test("takes unhealthy old pods first, from the oldest ReplicaSet on", () => {
    const cleaning = plan(deployment(10, { image: "v3" }), [
      replicaSet("v1", { replicas: 8, createdAgo: 300 }),
      replicaSet("v2", { replicas: 4, createdAgo: 200, status: { availableReplicas: 0 } }),
      replicaSet("v3", { replicas: 0, createdAgo: 100, annotations: { [revision]: "1" } }),
    ]);
    // One more of the new fits below 13.
    assert.deepEqual(sizes(cleaning), { v3: 1 });
    const full = plan(deployment(10, { image: "v3" }), [
      replicaSet("v1", { replicas: 8, createdAgo: 300 }),
      replicaSet("v2", { replicas: 5, createdAgo: 200, status: { availableReplicas: 0 } }),
      replicaSet("v3", { replicas: 0, createdAgo: 100, annotations: { [revision]: "1" } }),
    ]);
    assert.deepEqual(sizes(full), { v2: 0 });
  });

  test("does not count pods that a ReplicaSet is about to lose", () => {
    const rollingUpdate = { maxSurge: 1, maxUnavailable: 0 };
    const spec = { strategy: { type: "RollingUpdate", rollingUpdate } } as const;
    const lagging = plan(deployment(3, { image: "v2", spec }), [
      replicaSet("v1", { replicas: 2, status: { replicas: 3, availableReplicas: 3 } }),
      replicaSet("v2", { replicas: 2, annotations: { [revision]: "1" } }),
    ]);
    assert.deepEqual(sizes(lagging), { v1: 1 });
  });

  test("takes minReadySeconds and changed annotations to its ReplicaSet", () => {
    const { updates } = plan(
      deployment(1, { annotations: { note: "y" }, spec: { minReadySeconds: 7 } }),
      [replicaSet("v1", { replicas: 1, annotations: { [revision]: "1" } })],
    );
    assert.deepEqual(
      updates.map(({ minReadySeconds, annotations }) => [minReadySeconds, annotations["note"]]),
      [[7, "y"]],
    );
  });
});

describe("scaling", () => {
  const scaled = (
    replicas: number,
    before: Record<string, number>,
    spec: Partial<NonNullable<Deployment["spec"]>> = {},
  ): Record<string, number> => {
    const total = Object.values(before).reduce((sum, each) => sum + each, 0);
    const names = Object.keys(before);
    const image = names.at(-1) ?? "v1";
    const result = plan(
      deployment(replicas, { image, spec }),
      names.map((name, index) =>
        replicaSet(name, {
          replicas: before[name] ?? 0,
          createdAgo: 1000 - index,
          annotations: { [revision]: String(index + 1), [desired]: "1000", [max]: String(total) },
        }),
      ),
    );
    return { ...before, ...sizes(result) };
  };
  const exact = {
    strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 0, maxUnavailable: 1 } },
  } as const;

  test("of the one active ReplicaSet goes to the full size", () => {
    assert.deepEqual(scaled(12, { v1: 10 }), { v1: 12 });
    assert.deepEqual(scaled(5, { v1: 0, v2: 10 }), { v1: 0, v2: 5 });
  });

  test("of several is in proportion, the largest taking what rounding leaves", () => {
    assert.deepEqual(scaled(12, { v1: 5, v2: 5 }, exact), { v1: 6, v2: 6 });
    assert.deepEqual(scaled(20, { v1: 5, v2: 5, v3: 0 }, exact), { v1: 10, v2: 10, v3: 0 });
    assert.deepEqual(scaled(6, { v1: 8, v2: 2 }, exact), { v1: 5, v2: 1 });
    assert.deepEqual(scaled(8, { v1: 5, v2: 5 }, exact), { v1: 4, v2: 4 });
    assert.deepEqual(scaled(0, { v1: 8, v2: 2 }), { v1: 0, v2: 0 });
    // Conformance: 8 + 5 of 10 with 3 surge, to 30.
    const rollingUpdate = { maxSurge: 3, maxUnavailable: 2 };
    const surging = { strategy: { type: "RollingUpdate", rollingUpdate } } as const;
    assert.deepEqual(scaled(30, { v1: 8, v2: 5 }, surging), { v1: 20, v2: 13 });
  });

  test("is told from rolling by the size noted on the ReplicaSets, which follows", () => {
    const { updates } = plan(deployment(5, { image: "v2" }), [
      replicaSet("v1", { replicas: 5, annotations: { [desired]: "3" } }),
    ]);
    assert.equal(updates[0]?.annotations[desired], "5");
  });

  test("of a paused Deployment needs no new ReplicaSet", () => {
    const paused = plan(deployment(5, { image: "v2", spec: { paused: true } }), [
      replicaSet("v1", { replicas: 3, annotations: { [desired]: "3" } }),
    ]);
    assert.equal(paused.create, undefined);
    assert.deepEqual(sizes(paused), { v1: 5 });
    assert.equal(reason(paused.status.conditions, "Progressing"), "DeploymentPaused");
  });
});

describe("Recreate", () => {
  const spec = { strategy: { type: "Recreate" } } as const;

  test("takes the old pods first, waits until none may run, then makes the new", () => {
    const object = deployment(2, { image: "v2", spec });
    const down = plan(object, [replicaSet("v1", { replicas: 2 })]);
    assert.deepEqual([sizes(down), down.create], [{ v1: 0 }, undefined]);
    const counted = plan(object, [replicaSet("v1", { status: { replicas: 1 } })]);
    assert.deepEqual([sizes(counted), counted.create], [{}, undefined]);
    const ending = plan(object, [replicaSet("v1")], (uid) => uid === "uid-v1");
    assert.deepEqual([sizes(ending), ending.create], [{}, undefined]);
    assert.equal(plan(object, [replicaSet("v1")]).create?.spec?.replicas, 2);
  });

  test("brings several active ReplicaSets down although the size changed too", () => {
    const annotations = { [desired]: "7" };
    const down = plan(deployment(2, { image: "v2", spec }), [
      replicaSet("v1", { replicas: 2, annotations }),
      replicaSet("v2", { replicas: 1, annotations: { ...annotations, [revision]: "2" } }),
    ]);
    assert.deepEqual(sizes(down), { v1: 0 });
  });
});

describe("progress", () => {
  const current = replicaSet("v1", { replicas: 2, annotations: { [revision]: "1" } });

  test("is complete when all pods are new and available", () => {
    const { status, recheckMs } = plan(deployment(2), [current]);
    assert.equal(reason(status.conditions, "Progressing"), "NewReplicaSetAvailable");
    assert.equal(status.conditions.at(-1)?.message, 'ReplicaSet "v1" has successfully progressed.');
    assert.equal(recheckMs, undefined);
  });

  test("renews its time with each sign of life, keeping the transition", () => {
    const conditions = progressing("ReplicaSetUpdated", 30);
    const object = deployment(3, {
      spec: {},
      status: { replicas: 2, updatedReplicas: 2, readyReplicas: 1, conditions },
    });
    const { status } = plan(object, [
      replicaSet("v1", { replicas: 3, status: { availableReplicas: 2 } }),
    ]);
    const condition = status.conditions.find(({ type }) => type === "Progressing");
    assert.equal(condition?.reason, "ReplicaSetUpdated");
    assert.equal(condition.lastUpdateTime, ago(0));
    assert.equal(condition.lastTransitionTime, ago(30));
  });

  const stuck = (secondsAgo: number, reasonText = "ReplicaSetUpdated"): DeploymentPlan =>
    plan(
      deployment(2, {
        status: {
          replicas: 2,
          updatedReplicas: 2,
          observedGeneration: 2,
          conditions: progressing(reasonText, secondsAgo),
        },
      }),
      [replicaSet("v1", { replicas: 2, status: { readyReplicas: 0, availableReplicas: 0 } })],
    );

  test("that stays away is a failure after the deadline, and looked at then", () => {
    const waiting = stuck(590);
    assert.equal(reason(waiting.status.conditions, "Progressing"), "ReplicaSetUpdated");
    assert.equal(waiting.recheckMs, 11_000);
    const late = stuck(601);
    const condition = late.status.conditions.find(({ type }) => type === "Progressing");
    assert.deepEqual(
      [condition?.status, condition?.reason, condition?.message],
      ["False", "ProgressDeadlineExceeded", 'ReplicaSet "v1" has timed out progressing.'],
    );
    assert.equal(late.recheckMs, undefined);
  });

  test("of a finished rollout is not judged again, nor while paused", () => {
    const lost = stuck(10_000, "NewReplicaSetAvailable");
    assert.equal(reason(lost.status.conditions, "Progressing"), "NewReplicaSetAvailable");
    assert.equal(lost.recheckMs, undefined);
    const resumed = stuck(10_000, "DeploymentPaused");
    assert.equal(reason(resumed.status.conditions, "Progressing"), "DeploymentResumed");
  });

  test("is not spoken of without a deadline", () => {
    const spec = { progressDeadlineSeconds: 2 ** 31 - 1 };
    const { status } = plan(deployment(2, { spec }), [current]);
    assert.equal(reason(status.conditions, "Progressing"), undefined);
  });

  test("the failure to make pods is the Deployment's too, and goes with it", () => {
    const conditions = [
      {
        type: "ReplicaFailure",
        status: "True",
        reason: "FailedCreate",
        message: "quota",
        lastTransitionTime: ago(5),
      },
    ];
    const failing = plan(deployment(2), [
      replicaSet("v1", { replicas: 2, status: { replicas: 0, conditions } }),
    ]);
    assert.equal(reason(failing.status.conditions, "ReplicaFailure"), "FailedCreate");
    const again = deployment(2, { status: { conditions: [...failing.status.conditions] } });
    assert.equal(reason(plan(again, [current]).status.conditions, "ReplicaFailure"), undefined);
  });

  test("a status that says the same is not written", () => {
    const first = plan(deployment(2), [current]);
    const { conditions, ...counts } = first.status;
    const settled = deployment(2, {
      annotations: { [revision]: "1" },
      status: { ...counts, conditions: [...conditions] },
    });
    assert.equal(plan(settled, [current]).statusChanged, false);
  });
});

describe("history", () => {
  test("beyond the limit goes, lowest revision first, never what has pods or is not observed", () => {
    const finished = {
      replicas: 1,
      updatedReplicas: 1,
      availableReplicas: 1,
      observedGeneration: 2,
    };
    const old = (name: string, number: number, status = {}): Stored<ReplicaSet> =>
      replicaSet(name, { annotations: { [revision]: String(number) }, status });
    const { deletions } = plan(
      deployment(1, { image: "v9", spec: { revisionHistoryLimit: 1 }, status: finished }),
      [
        old("c", 3),
        old("b", 2, { replicas: 1 }),
        old("a", 1),
        old("d", 4, { observedGeneration: 0 }),
        old("e", 5),
        replicaSet("v9", { replicas: 1, annotations: { [revision]: "9" } }),
      ],
    );
    assert.deepEqual(
      deletions.map(({ name }) => name),
      ["a", "c"],
    );
  });

  test("is left alone before the rollout is complete", () => {
    const { deletions } = plan(deployment(1, { image: "v9", spec: { revisionHistoryLimit: 0 } }), [
      replicaSet("a"),
      replicaSet("v9", { replicas: 1, annotations: { [revision]: "9" } }),
    ]);
    assert.deepEqual(deletions, []);
  });
});

describe("rollback by annotation", () => {
  const to = (number: string): Stored<Deployment> =>
    deployment(1, {
      image: "v2",
      annotations: { "deprecated.deployment.rollback.to": number, note: "new", [revision]: "2" },
    });
  const views = [
    viewReplicaSet(replicaSet("v1", { annotations: { [revision]: "1", note: "old" } })),
    viewReplicaSet(replicaSet("v2", { annotations: { [revision]: "2" } })),
  ];
  const outcome = (number: string): ReturnType<typeof planRollback> => {
    const view = viewDeployment(to(number));
    return planRollback(view, views, wantedRollback(view) ?? -1n);
  };

  test("takes template and annotations of that revision, or of the one before", () => {
    for (const number of ["1", "0"]) {
      const { template: wanted, annotations, event } = outcome(number);
      assert.equal(wanted.spec?.containers[0]?.image, "v1");
      assert.deepEqual(annotations, { note: "old", [revision]: "2" });
      assert.equal(event.message, 'Rolled back deployment "web" to revision 1');
    }
  });

  test("says why it does nothing", () => {
    assert.equal(outcome("2").event.reason, "DeploymentRollbackTemplateUnchanged");
    const missing = outcome("7");
    assert.equal(missing.event.reason, "DeploymentRollbackRevisionNotFound");
    assert.deepEqual(missing.annotations, { note: "new", [revision]: "2" });
  });
});

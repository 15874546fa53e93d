import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { podDisplayStatus, podTable } from "../../../src/controlplane/kinds/pod-table.ts";
import { StatusError } from "../../../src/controlplane/status-error.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { isRecord } from "../../../src/lib/guard.ts";
import { createCluster, now, type Cluster } from "./harness.ts";

function pod(spec: JsonObject = {}, metadata: JsonObject = {}): JsonObject {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "p", namespace: "default", ...metadata },
    spec: { containers: [{ name: "c", image: "nginx" }], ...spec },
  };
}

function stored(cluster: Cluster, spec: JsonObject = {}): JsonObject {
  const created = cluster.create("pods", "default", pod(spec));
  cluster.objects.put("pods", created);
  return created;
}

function change(object: JsonObject, edit: (spec: JsonObject) => void): JsonObject {
  const copy = structuredClone(object);
  if (isRecord(copy["spec"])) edit(copy["spec"]);
  return copy;
}

function specOf(object: JsonObject): JsonObject {
  return isRecord(object["spec"]) ? object["spec"] : {};
}

describe("updating a pod", () => {
  test("an image may change and counts as a new generation", () => {
    const cluster = createCluster();
    const old = stored(cluster);
    const updated = cluster.update(
      "pods",
      old,
      change(old, (spec) => {
        spec["containers"] = [{ ...(spec["containers"] as JsonObject[])[0], image: "nginx:2" }];
      }),
    );
    assert.equal((updated["metadata"] as JsonObject)["generation"], 2);
  });

  test("everything else is refused with the list of what may change", () => {
    const cluster = createCluster();
    const old = stored(cluster);
    const wanted = change(old, (spec) => {
      spec["hostname"] = "other";
    });
    assert.throws(
      () => cluster.update("pods", old, wanted),
      (error) =>
        error instanceof StatusError &&
        error.status === 422 &&
        error.message.startsWith(
          'Pod "p" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,',
        ),
    );
  });

  test("tolerations may be added, not taken away", () => {
    const cluster = createCluster();
    const old = stored(cluster, { tolerations: [{ key: "k", operator: "Exists" }] });
    const more = change(old, (spec) => {
      spec["tolerations"] = [...(spec["tolerations"] as JsonObject[]), { operator: "Exists" }];
    });
    assert.equal((specOf(cluster.update("pods", old, more))["tolerations"] as unknown[]).length, 4);
    const fewer = change(old, (spec) => {
      spec["tolerations"] = [];
    });
    assert.throws(
      () => cluster.update("pods", old, fewer),
      /existing toleration can not be modified except its tolerationSeconds/,
    );
  });

  test("the main endpoint ignores status, the status endpoint ignores spec", () => {
    const cluster = createCluster();
    const old = stored(cluster);
    const both = change(old, (spec) => {
      spec["nodeName"] = "elsewhere";
    });
    both["status"] = { phase: "Running", qosClass: "BestEffort" };
    const status = cluster.update("pods", old, both, { subresource: "status" });
    assert.equal(specOf(status)["nodeName"], undefined);
    assert.deepEqual(status["status"], both["status"]);
    const main = cluster.update("pods", old, { ...old, status: { phase: "Running" } });
    assert.deepEqual(main["status"], old["status"]);
  });
});

describe("deleting a pod", () => {
  const grace = (object: JsonObject, requested?: number): number | undefined =>
    createCluster().kind("pods").strategy.deletionGraceSeconds?.(object, requested);
  const bound = { nodeName: "n1", terminationGracePeriodSeconds: 30 };

  test("a bound pod gets its grace period, or the one that was asked for", () => {
    assert.equal(grace(pod(bound)), 30);
    assert.equal(grace(pod(bound), 5), 5);
    assert.equal(grace(pod(bound), 0), 0);
  });

  test("a pod that nothing runs for goes at once", () => {
    assert.equal(grace(pod({ terminationGracePeriodSeconds: 30 })), 0);
    assert.equal(grace({ ...pod(bound), status: { phase: "Succeeded" } }), 0);
  });
});

const running = { state: { running: { startedAt: "2026-11-21T11:00:00Z" } }, ready: true };

describe("the Status column", () => {
  const cases: readonly (readonly [string, string, JsonObject, JsonObject])[] = [
    ["the phase by itself", "Pending", {}, { phase: "Pending" }],
    [
      "a waiting reason",
      "CrashLoopBackOff",
      {},
      {
        phase: "Running",
        containerStatuses: [{ name: "c", state: { waiting: { reason: "CrashLoopBackOff" } } }],
      },
    ],
    [
      "init progress",
      "Init:1/2",
      { initContainers: [{ name: "a" }, { name: "b" }] },
      {
        phase: "Pending",
        initContainerStatuses: [
          { name: "a", state: { terminated: { exitCode: 0 } } },
          { name: "b", state: { running: {} } },
        ],
      },
    ],
    [
      "a failed init container",
      "Init:ExitCode:3",
      { initContainers: [{ name: "a" }] },
      {
        phase: "Pending",
        initContainerStatuses: [{ name: "a", state: { terminated: { exitCode: 3 } } }],
      },
    ],
    [
      "an exit without a reason",
      "ExitCode:1",
      {},
      {
        phase: "Failed",
        containerStatuses: [{ name: "c", state: { terminated: { exitCode: 1 } } }],
      },
    ],
    [
      "one container done, one running, not ready",
      "NotReady",
      { containers: [{ name: "a" }, { name: "b" }] },
      {
        phase: "Running",
        containerStatuses: [
          { name: "a", state: { terminated: { exitCode: 0, reason: "Completed" } } },
          { name: "b", ...running },
        ],
      },
    ],
    ["a reason of the pod", "Evicted", {}, { phase: "Failed", reason: "Evicted" }],
  ];
  for (const [title, expected, spec, status] of cases) {
    test(`${title}: ${expected}`, () => {
      assert.equal(podDisplayStatus({ ...pod(spec), status }), expected);
    });
  }

  test("a pod that is going is Terminating, unless it has ended", () => {
    const deleted = pod({}, { deletionTimestamp: "2026-11-21T12:00:00Z" });
    assert.equal(podDisplayStatus({ ...deleted, status: { phase: "Running" } }), "Terminating");
    assert.equal(podDisplayStatus({ ...deleted, status: { phase: "Succeeded" } }), "Succeeded");
  });

  test("restarts say when the last one was; sidecars count as ready", () => {
    const object = {
      ...pod(
        { initContainers: [{ name: "s", restartPolicy: "Always" }], nodeName: "n1" },
        { creationTimestamp: "2026-11-18T08:00:00Z" },
      ),
      status: {
        phase: "Running",
        podIPs: [{ ip: "10.244.0.7" }],
        initContainerStatuses: [{ name: "s", started: true, ...running }],
        containerStatuses: [
          {
            name: "c",
            restartCount: 2,
            lastState: { terminated: { finishedAt: "2026-11-21T11:55:00Z" } },
            ...running,
          },
        ],
      },
    };
    assert.deepEqual(podTable.row(object, now), [
      "p",
      "2/2",
      "Running",
      "2 (5m ago)",
      "3d4h",
      "10.244.0.7",
      "n1",
      "<none>",
      "<none>",
    ]);
  });
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { dig, ensureRecord, record } from "../../../src/controlplane/kinds/access.ts";
import { labelSelectorText } from "../../../src/controlplane/kinds/label-selector.ts";
import { StatusError } from "../../../src/controlplane/status-error.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { context, createCluster, now } from "./harness.ts";

const templateGeneration = "deprecated.daemonset.template.generation";

function workload(kind: string, spec: JsonObject = {}): JsonObject {
  return {
    apiVersion: "apps/v1",
    kind,
    metadata: { name: "web", creationTimestamp: new Date(now - 90_000).toISOString() },
    spec: {
      selector: { matchLabels: { app: "web" } },
      template: {
        metadata: { labels: { app: "web" } },
        spec: {
          containers: [
            { name: "c", image: "nginx:1" },
            { name: "d", image: "busybox:2" },
          ],
        },
      },
      ...spec,
    },
  };
}

const kinds = {
  "deployments.apps": "Deployment",
  "replicasets.apps": "ReplicaSet",
  "daemonsets.apps": "DaemonSet",
} as const;

type Change = (copy: JsonObject) => void;

/** A stored object of the resource, and functions that change a copy of it. */
function stored(resource: keyof typeof kinds): {
  readonly object: JsonObject;
  readonly write: (change: Change, subresource?: string) => JsonObject;
  /** Field and message of each cause; empty when it is allowed. */
  readonly refusal: (change: Change, subresource?: string) => readonly unknown[];
  readonly warnings: (change: Change) => readonly string[];
} {
  const cluster = createCluster();
  const object = cluster.create(resource, "default", workload(kinds[resource]));
  const changed = (change: Change): JsonObject => {
    const copy = structuredClone(object);
    change(copy);
    return copy;
  };
  const write = (change: Change, subresource?: string): JsonObject =>
    cluster.update(
      resource,
      object,
      changed(change),
      subresource === undefined ? {} : { subresource },
    );
  return {
    object,
    write,
    refusal: (change, subresource) => {
      try {
        write(change, subresource);
      } catch (error) {
        if (!(error instanceof StatusError)) throw error;
        return (error.details?.causes ?? []).map(({ field, message }) => [field, message]);
      }
      return [];
    },
    warnings: (change) => {
      const heard: string[] = [];
      const as = { ...context(), warn: (text: string) => heard.push(text) };
      cluster.update(resource, object, changed(change), { as });
      return heard;
    },
  };
}

/** Sets a member at a path of a copy. */
function set(value: unknown, ...path: string[]): Change {
  return (copy) => {
    let at = copy;
    for (const key of path.slice(0, -1)) at = ensureRecord(at, key);
    at[path.at(-1) ?? ""] = value;
  };
}

const generationOf = (object: JsonObject): unknown => dig(object, "metadata", "generation");

describe("generation", () => {
  for (const resource of ["deployments.apps", "replicasets.apps", "daemonsets.apps"] as const) {
    test(`of ${resource} starts at 1 and counts changes of the spec, not of labels or status`, () => {
      const { object, write } = stored(resource);
      assert.equal(generationOf(object), 1);
      assert.equal(generationOf(write(set(3, "spec", "minReadySeconds"))), 2);
      assert.equal(generationOf(write(set("b", "metadata", "labels", "a"))), 1);
      assert.equal(generationOf(write(set(3, "status", "observedGeneration"), "status")), 1);
      assert.equal(generationOf(write(set(9, "metadata", "generation"))), 1);
    });
  }

  test("of a Deployment counts its annotations, which its ReplicaSets get; of the others not", () => {
    const annotate = set("v", "metadata", "annotations", "k");
    assert.equal(generationOf(stored("deployments.apps").write(annotate)), 2);
    assert.equal(generationOf(stored("replicasets.apps").write(annotate)), 1);
    assert.equal(generationOf(stored("daemonsets.apps").write(annotate)), 1);
  });

  test("the template's generation of a DaemonSet is the server's, and counts its templates", () => {
    const { object, write } = stored("daemonsets.apps");
    const of = (one: JsonObject): unknown =>
      dig(one, "metadata", "annotations", templateGeneration);
    assert.equal(of(object), "1");
    assert.equal(of(write(set("2", "spec", "template", "spec", "hostname"))), "2");
    assert.equal(of(write(set(3, "spec", "minReadySeconds"))), "1");
    assert.equal(of(write(set({}, "metadata", "annotations"))), "1");
    assert.equal(of(write(set({}, "metadata", "annotations"), "status")), "1");
    assert.equal(of(write(set({ [templateGeneration]: "7" }, "metadata", "annotations"))), "1");
    assert.throws(
      () => write(set({ [templateGeneration]: "seven" }, "metadata", "annotations")),
      /strconv.ParseInt: parsing "seven": invalid syntax/,
    );
  });
});

describe("an update", () => {
  const other = { matchLabels: { app: "other" } };
  const mismatch = [
    "spec.template.metadata.labels",
    'Invalid value: {"app":"web"}: `selector` does not match template `labels`',
  ];
  const immutable = [
    "spec.selector",
    'Invalid value: {"matchLabels":{"app":"other"}}: field is immutable',
  ];

  test("may not change the selector, also together with the labels", () => {
    const change = set(other, "spec", "selector");
    assert.deepEqual(stored("deployments.apps").refusal(change), [mismatch, immutable]);
    assert.deepEqual(stored("replicasets.apps").refusal(change), [mismatch, immutable]);
    assert.deepEqual(stored("daemonsets.apps").refusal(change), [immutable, mismatch]);
    const both = (copy: JsonObject): void => {
      change(copy);
      set({ app: "other" }, "spec", "template", "metadata", "labels")(copy);
    };
    assert.deepEqual(stored("deployments.apps").refusal(both), [immutable]);
  });

  test("of the same selector in another order of its members is none", () => {
    const { refusal } = stored("deployments.apps");
    const again = { matchExpressions: [], matchLabels: { app: "web" } };
    assert.deepEqual(refusal(set(again, "spec", "selector")), []);
  });

  test("that takes a number out gets the default again", () => {
    const { write } = stored("deployments.apps");
    const spec = record(
      write((copy) => {
        const wanted = ensureRecord(copy, "spec");
        for (const key of ["replicas", "revisionHistoryLimit", "progressDeadlineSeconds"])
          delete wanted[key];
        set(7, "spec", "strategy", "rollingUpdate", "maxSurge")(copy);
      })["spec"],
    );
    assert.deepEqual(
      [spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]],
      [1, 10, 600],
    );
    assert.deepEqual(dig(spec, "strategy", "rollingUpdate"), {
      maxUnavailable: "25%",
      maxSurge: 7,
    });
  });

  test("does not touch the status", () => {
    const { write } = stored("replicasets.apps");
    assert.deepEqual(write(set(9, "status", "replicas"))["status"], { replicas: 0 });
  });

  test("warns of the template only when that changes", () => {
    const twice = [
      {
        name: "c",
        image: "n",
        env: [
          { name: "A", value: "1" },
          { name: "A", value: "2" },
        ],
      },
    ];
    const { warnings } = stored("deployments.apps");
    assert.deepEqual(warnings(set(twice, "spec", "template", "spec", "containers")), [
      'spec.template.spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply',
    ]);
    const bound = [
      {
        name: "c",
        image: "n",
        ports: [{ name: "p", containerPort: 80, protocol: "TCP", hostIP: "192.0.2.1" }],
      },
    ];
    assert.deepEqual(warnings(set(bound, "spec", "template", "spec", "containers")), [
      "spec.template.spec.containers[0].ports[0]: hostIP set without hostPort: {Name:p HostPort:0 ContainerPort:80 Protocol:TCP HostIP:192.0.2.1}",
    ]);
    assert.deepEqual(warnings(set(3, "spec", "replicas")), []);
  });
});

describe("a status", () => {
  test("is all that its endpoint writes: not the spec, not a Deployment's labels", () => {
    const { write } = stored("deployments.apps");
    const after = write((copy) => {
      copy["status"] = { replicas: 2, readyReplicas: 1 };
      set(77, "spec", "replicas")(copy);
      set("yes", "metadata", "labels", "changed")(copy);
    }, "status");
    assert.deepEqual(after["status"], { replicas: 2, readyReplicas: 1 });
    assert.equal(dig(after, "spec", "replicas"), 1);
    assert.equal(dig(after, "metadata", "labels"), undefined);
  });

  test("shows the times of its conditions, known or not", () => {
    const conditions = [{ type: "Available", status: "True" }];
    const timesOf = (resource: keyof typeof kinds): unknown =>
      dig(
        stored(resource).write(set(conditions, "status", "conditions"), "status"),
        "status",
        "conditions",
      );
    assert.deepEqual(timesOf("deployments.apps"), [
      { type: "Available", status: "True", lastUpdateTime: null, lastTransitionTime: null },
    ]);
    for (const resource of ["replicasets.apps", "daemonsets.apps"] as const)
      assert.deepEqual(timesOf(resource), [
        { type: "Available", status: "True", lastTransitionTime: null },
      ]);
  });

  test("cannot have more parts than the whole, nor negative ones", () => {
    const status = { replicas: 2, readyReplicas: 3, availableReplicas: 4, collisionCount: -1 };
    assert.deepEqual(stored("deployments.apps").refusal(set(status, "status"), "status"), [
      ["status.collisionCount", "Invalid value: -1: must be greater than or equal to 0"],
      ["status.readyReplicas", "Invalid value: 3: cannot be greater than status.replicas"],
      ["status.availableReplicas", "Invalid value: 4: cannot be greater than status.replicas"],
      ["status.availableReplicas", "Invalid value: 4: cannot be greater than readyReplicas"],
    ]);
    const labeled = { replicas: 1, fullyLabeledReplicas: 2 };
    assert.deepEqual(stored("replicasets.apps").refusal(set(labeled, "status"), "status"), [
      ["status.fullyLabeledReplicas", "Invalid value: 2: cannot be greater than status.replicas"],
    ]);
    assert.deepEqual(
      stored("daemonsets.apps").refusal(set(-1, "status", "numberReady"), "status"),
      [["status.numberReady", "Invalid value: -1: must be greater than or equal to 0"]],
    );
  });

  test("never counts collisions backwards", () => {
    const cluster = createCluster();
    const object = cluster.create("deployments.apps", "default", workload("Deployment"));
    const old = { ...object, status: { collisionCount: 3 } };
    const writing =
      (status: JsonObject): (() => unknown) =>
      () =>
        cluster.update("deployments.apps", old, { ...object, status }, { subresource: "status" });
    assert.doesNotThrow(writing({ collisionCount: 4 }));
    assert.throws(writing({ collisionCount: 2 }), /collisionCount: .*cannot be decremented/);
    assert.throws(writing({}), /collisionCount: Invalid value: 0: cannot be decremented/);
  });
});

test("a name that cannot be a host name is warned of, when it is new and otherwise legal", () => {
  const cluster = createCluster();
  const warningsFor = (kind: "deployments.apps" | "daemonsets.apps", name: string): string[] => {
    const heard: string[] = [];
    const as = { ...context(), warn: (text: string) => heard.push(text) };
    const object = { ...workload(kinds[kind]), metadata: { name } };
    cluster.create(kind, "default", object, as);
    return heard;
  };
  assert.deepEqual(warningsFor("deployments.apps", "a.b"), [
    "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
  ]);
  assert.deepEqual(warningsFor("deployments.apps", "ab"), []);
  assert.deepEqual(warningsFor("deployments.apps", "Not Legal"), []);
  assert.deepEqual(warningsFor("daemonsets.apps", "a.b"), []);
});

describe("a row of the Table", () => {
  const row = (
    resource: keyof typeof kinds,
    status: JsonObject,
    spec: JsonObject = {},
  ): unknown => {
    const cluster = createCluster();
    const object = cluster.create(resource, "default", workload(kinds[resource], spec));
    return cluster.kind(resource).table.row({ ...object, status }, now);
  };
  const wide = ["90s", "c,d", "nginx:1,busybox:2"];

  test("of a Deployment", () => {
    const status = { replicas: 3, readyReplicas: 2, updatedReplicas: 1, availableReplicas: 1 };
    assert.deepEqual(row("deployments.apps", status, { replicas: 3 }), [
      "web",
      "2/3",
      1,
      1,
      ...wide,
      "app=web",
    ]);
  });

  test("of a ReplicaSet", () => {
    const selector = {
      matchExpressions: [
        { key: "tier", operator: "In", values: ["b", "a"] },
        { key: "app", operator: "Exists" },
      ],
    };
    const template = {
      metadata: { labels: { app: "web", tier: "a" } },
      spec: dig(workload("ReplicaSet"), "spec", "template", "spec"),
    };
    const status = { replicas: 1, readyReplicas: 1 };
    assert.deepEqual(row("replicasets.apps", status, { selector, template }), [
      "web",
      1,
      1,
      1,
      ...wide,
      "app,tier in (a,b)",
    ]);
  });

  test("of a DaemonSet", () => {
    const status = {
      desiredNumberScheduled: 5,
      currentNumberScheduled: 4,
      numberReady: 3,
      updatedNumberScheduled: 2,
      numberAvailable: 1,
    };
    assert.deepEqual(row("daemonsets.apps", status), [
      "web",
      5,
      4,
      3,
      2,
      1,
      "<none>",
      ...wide,
      "app=web",
    ]);
  });

  test("of a ControllerRevision names its controller", () => {
    const { table } = createCluster().kind("controllerrevisions.apps");
    const owner = {
      apiVersion: "apps/v1",
      kind: "DaemonSet",
      name: "web",
      uid: "1",
      controller: true,
    };
    const metadata = { name: "web-1", ownerReferences: [owner] };
    assert.deepEqual(table.row({ metadata, revision: 2, data: {} }, now).slice(0, 3), [
      "web-1",
      "daemonset.apps/web",
      2,
    ]);
    const orphan = { metadata: { name: "web-1" }, revision: 2 };
    assert.equal(table.row(orphan, now)[1], "<none>");
  });
});

test("a ControllerRevision never changes its data; its number may", () => {
  const cluster = createCluster();
  const revision = { metadata: { name: "r" }, revision: 1, data: { a: { b: 1 } } };
  const old = cluster.create("controllerrevisions.apps", "default", revision);
  const renumbered = cluster.update("controllerrevisions.apps", old, { ...old, revision: 2 });
  assert.equal(renumbered["revision"], 2);
  assert.throws(
    () => cluster.update("controllerrevisions.apps", old, { ...old, data: { a: { b: 2 } } }),
    /data: Invalid value: \{"a":\{"b":2\}\}: field is immutable/,
  );
});

test("a selector is written as clients write it, by key", () => {
  const cases: readonly (readonly [unknown, string])[] = [
    [undefined, ""],
    [{}, ""],
    [{ matchLabels: { b: "2", a: "1" } }, "a=1,b=2"],
    [
      {
        matchLabels: { m: "1" },
        matchExpressions: [
          { key: "z", operator: "NotIn", values: ["y", "x", "y"] },
          { key: "old", operator: "DoesNotExist" },
          { key: "app", operator: "In", values: ["one"] },
        ],
      },
      "app in (one),m=1,!old,z notin (x,y)",
    ],
  ];
  for (const [selector, shown] of cases) assert.equal(labelSelectorText(selector), shown);
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { OwnerReference } from "../../../src/api/types.gen.ts";
import type { OwnerVerdict } from "../../../src/controlplane/controllers/garbage-collector/decide.ts";
import { decideCollection } from "../../../src/controlplane/controllers/garbage-collector/decide.ts";
import type { OwnedMeta } from "../../../src/controlplane/controllers/garbage-collector/graph.ts";
import {
  isDeletingDependents,
  isOrphaning,
  OwnerGraph,
} from "../../../src/controlplane/controllers/garbage-collector/graph.ts";
import type { Leftovers } from "../../../src/controlplane/controllers/namespace/conditions.ts";
import {
  isEmpty,
  namespaceConditions,
} from "../../../src/controlplane/controllers/namespace/conditions.ts";
import { now } from "./builders.ts";

function owner(uid: string, blockOwnerDeletion = false): OwnerReference {
  return { apiVersion: "v1", kind: "ConfigMap", name: uid, uid, blockOwnerDeletion };
}

function meta(uid: string, more: Partial<OwnedMeta> = {}): OwnedMeta {
  return {
    uid,
    name: uid,
    namespace: "default",
    owners: [],
    finalizers: [],
    deleting: false,
    ...more,
  };
}

function verdicts(...states: readonly OwnerVerdict["state"][]): readonly OwnerVerdict[] {
  return states.map((state, index) => ({ reference: owner(`o${index}`), state }));
}

describe("garbage collection", () => {
  const cases: readonly {
    title: string;
    object?: Partial<OwnedMeta>;
    owners: readonly OwnerVerdict[];
    dependents?: readonly OwnedMeta[];
    want: ReturnType<typeof decideCollection>;
  }[] = [
    { title: "without owners it stays", owners: [], want: { kind: "keep" } },
    { title: "with its owner it stays", owners: verdicts("solid"), want: { kind: "keep" } },
    {
      title: "one of two owners gone: only the reference goes",
      owners: verdicts("solid", "absent"),
      want: { kind: "drop-references", uids: ["o1"] },
    },
    {
      title: "all owners gone: it goes",
      owners: verdicts("absent", "absent"),
      want: { kind: "delete", policy: "Background", unblock: false },
    },
    {
      title: "its own orphan finalizer is honoured",
      object: { finalizers: ["orphan"] },
      owners: verdicts("absent"),
      want: { kind: "delete", policy: "Orphan", unblock: false },
    },
    {
      title:
        "under an owner in foreground deletion, with dependents: foreground too, and its owner waits for it",
      owners: verdicts("waiting-for-dependents"),
      dependents: [meta("child")],
      want: { kind: "delete", policy: "Foreground", unblock: false },
    },
    {
      title:
        "with a dependent that waits for its own dependents: a cycle, which must not block itself",
      owners: verdicts("waiting-for-dependents"),
      dependents: [
        meta("child"),
        meta("ring", { deleting: true, finalizers: ["foregroundDeletion"] }),
      ],
      want: { kind: "delete", policy: "Foreground", unblock: true },
    },
    {
      title: "under an owner in foreground deletion, without dependents: it just goes",
      owners: verdicts("waiting-for-dependents"),
      want: { kind: "delete", policy: "Background", unblock: false },
    },
  ];
  for (const { title, object, owners, dependents, want } of cases) {
    test(title, () => {
      assert.deepEqual(decideCollection(meta("x", object), owners, dependents ?? []), want);
    });
  }

  const resource = {
    group: "",
    version: "v1",
    plural: "configmaps",
    kind: "ConfigMap",
    namespaced: true,
    verbs: new Set<string>(),
  };

  test("dependents are known before their owner, and follow changed references", () => {
    const graph = new OwnerGraph();
    graph.set(resource, meta("child", { owners: [owner("parent", true)] }));
    assert.deepEqual(
      graph.dependents("parent").map((each) => each.meta.uid),
      ["child"],
    );
    graph.set(resource, meta("parent"));
    assert.equal(graph.blockingDependents("parent").length, 1);
    graph.set(resource, meta("child", { owners: [owner("other")] }));
    assert.deepEqual(graph.dependents("parent"), []);
    assert.equal(graph.blockingDependents("other").length, 0);
    graph.delete("child");
    assert.deepEqual(graph.dependents("other"), []);
    assert.equal(graph.size, 1);
  });

  test("finalizers mean a policy only once the object is being deleted", () => {
    const finalizers = ["foregroundDeletion", "orphan"];
    assert.equal(isDeletingDependents(meta("x", { finalizers })), false);
    assert.equal(isDeletingDependents(meta("x", { finalizers, deleting: true })), true);
    assert.equal(isOrphaning(meta("x", { finalizers, deleting: true })), true);
  });
});

describe("namespace conditions", () => {
  const nothing: Leftovers = {
    discoveryFailure: undefined,
    contentFailures: [],
    remaining: [],
    finalizers: [],
  };

  test("name what is left and what holds it", () => {
    const left: Leftovers = {
      ...nothing,
      remaining: [
        { resource: "pods", count: 2 },
        { resource: "configmaps", count: 1 },
      ],
      finalizers: ["example.com/keep", "example.com/keep"],
    };
    assert.equal(isEmpty(left), false);
    const conditions = namespaceConditions([], left, now);
    const message = (type: string): string | undefined =>
      conditions?.find((each) => each.type === type)?.message;
    assert.equal(
      message("NamespaceContentRemaining"),
      "Some resources are remaining: configmaps has 1 resource instances, pods has 2 resource instances",
    );
    assert.equal(
      message("NamespaceFinalizersRemaining"),
      "Some content in the namespace has finalizers remaining: example.com/keep in 2 resource instances",
    );
  });

  test("are written once, and a change of message alone keeps the transition time", () => {
    const some: Leftovers = { ...nothing, remaining: [{ resource: "pods", count: 2 }] };
    const first = namespaceConditions([], some, now) ?? [];
    assert.equal(first.length, 5);
    assert.equal(namespaceConditions(first, some, now + 5000), undefined);
    const fewer: Leftovers = { ...nothing, remaining: [{ resource: "pods", count: 1 }] };
    const second = namespaceConditions(first, fewer, now + 5000);
    const remaining = second?.find(({ type }) => type === "NamespaceContentRemaining");
    assert.equal(remaining?.lastTransitionTime, "2026-01-01T12:00:00Z");
    const done = namespaceConditions(second ?? [], nothing, now + 9000);
    const removed = done?.find(({ type }) => type === "NamespaceContentRemaining");
    assert.deepEqual(
      [removed?.status, removed?.reason, removed?.lastTransitionTime],
      ["False", "ContentRemoved", "2026-01-01T12:00:09Z"],
    );
    assert.equal(isEmpty(nothing), true);
  });
});

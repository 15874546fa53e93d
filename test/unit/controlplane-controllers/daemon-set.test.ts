import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import type {
  ControllerRevision,
  DaemonSet,
  DaemonSetSpec,
  PodSpec,
} from "../../../src/api/types.gen.ts";
import { eligibility } from "../../../src/controlplane/controllers/daemon-set/eligibility.ts";
import { FailedPodBackoff } from "../../../src/controlplane/controllers/daemon-set/failed-pod-backoff.ts";
import {
  revisionData,
  revisionsToDelete,
  sortHistory,
} from "../../../src/controlplane/controllers/daemon-set/history.ts";
import type { Plan } from "../../../src/controlplane/controllers/daemon-set/plan.ts";
import {
  observe,
  planNodes,
  planUpdate,
} from "../../../src/controlplane/controllers/daemon-set/plan.ts";
import {
  revisionLabel,
  targetNode,
  templateFor,
} from "../../../src/controlplane/controllers/daemon-set/pods.ts";
import { computeStatus } from "../../../src/controlplane/controllers/daemon-set/status.ts";
import {
  parseDaemonSet,
  updateLimits,
} from "../../../src/controlplane/controllers/daemon-set/view.ts";
import type { StoredPod } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import type { NodeParts, PodParts } from "./builders.ts";
import { node, now, pod } from "./builders.ts";

const current = "new";

function daemonSet(
  spec: Partial<DaemonSetSpec> = {},
  podSpec: Partial<PodSpec> = {},
): Stored<DaemonSet> {
  return {
    metadata: { namespace: "default", name: "d", uid: "d", resourceVersion: "1", generation: 3 },
    spec: {
      selector: { matchLabels: { app: "d" } },
      template: {
        metadata: { labels: { app: "d" } },
        spec: { containers: [{ name: "c", image: "i" }], ...podSpec },
      },
      ...spec,
    },
  };
}

interface DaemonPodParts extends Omit<PodParts, "spec"> {
  readonly on: string;
  readonly hash?: string;
  readonly bound?: boolean;
}

function daemonPod(parts: DaemonPodParts): StoredPod {
  const template = templateFor(parseDaemonSet(daemonSet()), parts.hash ?? current, parts.on);
  const affinity = template.spec?.affinity;
  return pod({
    owner: "d",
    ready: true,
    labels: { app: "d", [revisionLabel]: parts.hash ?? current },
    ...parts,
    spec: { affinity, ...(parts.bound === false ? {} : { nodeName: parts.on }) },
  });
}

interface Case {
  readonly spec?: Partial<DaemonSetSpec>;
  readonly podSpec?: Partial<PodSpec>;
  readonly nodes?: readonly NodeParts[];
  readonly pods: readonly StoredPod[];
}

const three: readonly NodeParts[] = [{ name: "a" }, { name: "b" }, { name: "c" }];

function plan(
  { spec, podSpec, nodes = three, pods }: Case,
  make: typeof planNodes,
): {
  readonly create: readonly string[];
  readonly remove: readonly string[];
  readonly ended: number;
} {
  const view = parseDaemonSet(daemonSet(spec, podSpec));
  const facts = { view, nodes: nodes.map((parts) => node(parts)), hash: current, now };
  const { create, remove, ended }: Plan = make(observe(facts, pods));
  return { create, remove: remove.map(({ metadata }) => metadata.name), ended: ended.length };
}

describe("which nodes a daemon belongs on", () => {
  const at = (parts: NodeParts, podSpec: Partial<PodSpec> = {}): readonly boolean[] => {
    const { shouldRun, shouldContinue } = eligibility(
      parseDaemonSet(daemonSet({}, podSpec)),
      node(parts),
    );
    return [shouldRun, shouldContinue];
  };
  const taint = (
    key: string,
    effect: "NoSchedule" | "NoExecute" | "PreferNoSchedule",
  ): NodeParts => ({
    spec: { taints: [{ key, effect }] },
  });

  const cases: readonly (readonly [string, readonly boolean[], readonly boolean[]])[] = [
    ["an ordinary node", at({}), [true, true]],
    ["a node without the selected label", at({}, { nodeSelector: { x: "y" } }), [false, false]],
    ["a node with it", at({ labels: { x: "y" } }, { nodeSelector: { x: "y" } }), [true, true]],
    ["another node than the template names", at({}, { nodeName: "other" }), [false, false]],
    ["a taint against new pods", at(taint("x", "NoSchedule")), [false, true]],
    ["a taint against all pods", at(taint("x", "NoExecute")), [false, false]],
    ["a mere preference", at(taint("x", "PreferNoSchedule")), [true, true]],
    ["a cordoned node", at(taint("node.kubernetes.io/unschedulable", "NoSchedule")), [true, true]],
    ["a lost node", at(taint("node.kubernetes.io/unreachable", "NoExecute")), [true, true]],
    [
      "a node without network",
      at(taint("node.kubernetes.io/network-unavailable", "NoSchedule")),
      [false, true],
    ],
    [
      "a node without network, for a pod on the node's own",
      at(taint("node.kubernetes.io/network-unavailable", "NoSchedule"), { hostNetwork: true }),
      [true, true],
    ],
  ];
  for (const [name, found, expected] of cases) {
    test(name, () => assert.deepEqual(found, expected));
  }
});

describe("one pod on every node", () => {
  test("creates where there is none, removes where none belongs", () => {
    const nodes = [
      { name: "a" },
      { name: "b", labels: { x: "y" } },
      { name: "c", labels: { x: "y" } },
    ];
    const pods = [daemonPod({ name: "p", on: "a" }), daemonPod({ on: "b" })];
    const podSpec = { nodeSelector: { x: "y" } };
    assert.deepEqual(plan({ nodes, pods, podSpec }, planNodes), {
      create: ["c"],
      remove: ["p"],
      ended: 0,
    });
  });

  test("keeps the oldest of several; bound ones count as older", () => {
    const pods = [
      daemonPod({ name: "waiting", on: "a", bound: false, createdAgo: 500 }),
      daemonPod({ name: "young", on: "a", createdAgo: 10 }),
      daemonPod({ name: "old", on: "a", createdAgo: 20 }),
    ];
    const { remove } = plan({ nodes: [{ name: "a" }], pods }, planNodes);
    assert.deepEqual(remove, ["young", "waiting"]);
  });

  test("a pod that is going holds its place until it is gone, unless pods may overlap", () => {
    const pods = [daemonPod({ on: "a", deleting: true })];
    const nodes = [{ name: "a" }];
    assert.deepEqual(plan({ nodes, pods }, planNodes).create, []);
    const updateStrategy = { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } };
    assert.deepEqual(plan({ nodes, pods, spec: { updateStrategy } }, planNodes).create, ["a"]);
  });

  test("ended pods are named, and so are pods that wait for a node that is gone", () => {
    const pods = [
      daemonPod({ on: "a", phase: "Failed" }),
      daemonPod({ on: "b", phase: "Succeeded" }),
      daemonPod({ name: "stranded", on: "gone", bound: false }),
      daemonPod({ on: "gone-too" }),
    ];
    assert.deepEqual(plan({ nodes: [{ name: "a" }, { name: "b" }], pods }, planNodes), {
      create: [],
      remove: ["stranded"],
      ended: 2,
    });
  });
});

describe("replacing old pods", () => {
  const old = (name: string, on: string, ready = true): StoredPod =>
    daemonPod({ name, on, hash: "old", ready });

  test("only as many as may be unavailable, counting what is so already", () => {
    const pods = [old("pa", "a"), old("pb", "b"), old("pc", "c")];
    assert.deepEqual(plan({ pods }, planUpdate).remove, ["pa"]);
    const two = { updateStrategy: { rollingUpdate: { maxUnavailable: "50%" } } };
    assert.deepEqual(plan({ pods, spec: two }, planUpdate).remove, ["pa", "pb"]);
    const waiting = [daemonPod({ on: "a", ready: false }), old("pb", "b"), old("pc", "c")];
    assert.deepEqual(plan({ pods: waiting }, planUpdate).remove, []);
    assert.deepEqual(plan({ pods: [old("pa", "a"), old("pb", "b")] }, planUpdate).remove, []);
  });

  test("those that serve nobody at once", () => {
    const pods = [old("pa", "a", false), old("pb", "b", false), old("pc", "c")];
    assert.deepEqual(plan({ pods }, planUpdate).remove, ["pa", "pb"]);
  });

  test("never with OnDelete", () => {
    const pods = [old("pa", "a", false)];
    const spec = { updateStrategy: { type: "OnDelete" as const } };
    assert.deepEqual(plan({ pods, spec }, planUpdate), { create: [], remove: [], ended: 0 });
  });

  const surge = { updateStrategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } } };

  test("with surge: a new pod beside the old one, which goes when the new one is available", () => {
    const pods = [old("pa", "a"), old("pb", "b"), old("pc", "c")];
    assert.deepEqual(plan({ pods, spec: surge }, planUpdate), {
      create: ["a"],
      remove: [],
      ended: 0,
    });
    const fresh = daemonPod({ on: "a", ready: false });
    assert.deepEqual(plan({ pods: [...pods, fresh], spec: surge }, planUpdate).create, []);
    const ready = daemonPod({ on: "a" });
    const next = plan({ pods: [...pods, ready], spec: surge }, planUpdate);
    assert.deepEqual(next, { create: ["b"], remove: ["pa"], ended: 0 });
  });

  test("with surge: a pod that has to leave its node stays until another serves", () => {
    const nodes = [{ name: "a" }, { name: "b", labels: { x: "y" } }];
    const podSpec = { nodeSelector: { x: "y" } };
    const leaving = old("pa", "a");
    const waiting = [leaving, daemonPod({ on: "b", ready: false })];
    assert.deepEqual(plan({ nodes, podSpec, spec: surge, pods: waiting }, planUpdate).remove, []);
    const served = [leaving, daemonPod({ on: "b" })];
    assert.deepEqual(plan({ nodes, podSpec, spec: surge, pods: served }, planUpdate).remove, [
      "pa",
    ]);
  });

  test("limits are rounded up, and are never both zero", () => {
    const limits = (maxUnavailable: string | number, maxSurge: string | number): unknown =>
      updateLimits(
        parseDaemonSet(
          daemonSet({ updateStrategy: { rollingUpdate: { maxUnavailable, maxSurge } } }),
        ),
        5,
      );
    assert.deepEqual(limits("30%", 0), { maxUnavailable: 2, maxSurge: 0 });
    assert.deepEqual(limits(0, "1%"), { maxUnavailable: 0, maxSurge: 1 });
    assert.deepEqual(limits(0, 0), { maxUnavailable: 1, maxSurge: 0 });
  });
});

test("the pod's template names its node to the scheduler and keeps other affinity", () => {
  const podAffinity = { requiredDuringSchedulingIgnoredDuringExecution: [] };
  const nodeAffinity = {
    requiredDuringSchedulingIgnoredDuringExecution: {
      nodeSelectorTerms: [{ matchExpressions: [{ key: "x", operator: "Exists" as const }] }],
    },
  };
  const view = parseDaemonSet(daemonSet({}, { affinity: { podAffinity, nodeAffinity } }));
  const template = templateFor(view, "h", "n7");
  assert.equal(template.metadata?.labels?.[revisionLabel], "h");
  assert.deepEqual(template.spec?.affinity?.podAffinity, podAffinity);
  assert.equal(targetNode(pod({ spec: { affinity: template.spec?.affinity } })), "n7");
  assert.equal(targetNode(pod({ spec: { nodeName: "n8" } })), "n8");
  assert.equal(targetNode(pod()), undefined);
  assert.equal(template.spec?.tolerations?.length, 6);
});

test("the numbers of a DaemonSet", () => {
  const nodes: readonly NodeParts[] = [
    ...three,
    { name: "tainted", spec: { taints: [{ key: "x", effect: "NoSchedule" }] } },
  ];
  const pods = [
    daemonPod({ on: "a" }),
    daemonPod({ on: "b", hash: "old", readyAgo: 5 }),
    daemonPod({ on: "tainted" }),
  ];
  const object = daemonSet({ minReadySeconds: 10 });
  const view = parseDaemonSet(object);
  const facts = { view, nodes: nodes.map((parts) => node(parts)), hash: current, now };
  assert.deepEqual(computeStatus(observe(facts, pods), object, true), {
    desiredNumberScheduled: 3,
    currentNumberScheduled: 2,
    numberMisscheduled: 1,
    numberReady: 2,
    numberAvailable: 1,
    numberUnavailable: 2,
    updatedNumberScheduled: 1,
    observedGeneration: 3,
    collisionCount: undefined,
    conditions: undefined,
  });
});

test("failed pods are replaced after 1 s, 2 s, 4 s, ...; a long calm starts again", () => {
  const backoff = new FailedPodBackoff();
  assert.equal(backoff.next("d/1/a", now), 0);
  assert.equal(backoff.next("d/1/a", now + 400), 600);
  assert.equal(backoff.next("d/1/b", now + 400), 0);
  assert.equal(backoff.next("d/1/a", now + 1000), 0);
  assert.equal(backoff.next("d/1/a", now + 2000), 1000);
  assert.equal(backoff.next("d/1/a", now + 3000), 0);
  assert.equal(backoff.next("d/1/a", now + 3000), 4000);
  const later = now + 2 * 3600 * 1000;
  assert.equal(backoff.next("d/1/a", later), 0);
  assert.equal(backoff.next("d/1/a", later), 1000);
  backoff.forget("d");
  assert.equal(backoff.next("d/1/a", later), 0);
});

describe("the history of templates", () => {
  function revision(number: number, object: Stored<DaemonSet>): Stored<ControllerRevision> {
    const name = `d-${number}`;
    const labels = { [revisionLabel]: `h${number}` };
    return {
      metadata: { name, uid: name, resourceVersion: "1", labels },
      revision: number,
      data: revisionData(object),
    };
  }
  const image = (text: string): Stored<DaemonSet> =>
    daemonSet({}, { containers: [{ name: "c", image: text }] });

  test("a template that comes back becomes the newest, duplicates are told", () => {
    const revisions = [revision(1, image("1")), revision(2, image("2")), revision(3, image("1"))];
    const { current: same, old, number } = sortHistory(image("1"), revisions);
    assert.deepEqual(
      same.map((each) => each.revision),
      [3, 1],
    );
    assert.deepEqual(
      old.map((each) => each.revision),
      [2],
    );
    assert.equal(number, 3);
    assert.equal(sortHistory(image("4"), revisions).number, 4);
  });

  test("the text of a revision has its members in the order of their names", () => {
    assert.equal(
      JSON.stringify(revisionData(image("1"))),
      '{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"d"}},"spec":{"containers":[{"image":"1","name":"c"}]}}}}',
    );
  });

  test("beyond the limit the oldest go, never one that a pod is of", () => {
    const old = [4, 1, 2, 3].map((number) => revision(number, image(String(number))));
    const gone = revisionsToDelete(old, 2, new Set(["h1"]));
    assert.deepEqual(
      gone.map((each) => each.revision),
      [2, 3],
    );
    assert.deepEqual(revisionsToDelete(old, 4, new Set()), []);
  });
});

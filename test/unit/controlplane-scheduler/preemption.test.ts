import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { StoredPod } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import { labelMatcher } from "../../../src/controlplane/scheduler/label-matcher.ts";
import { Nominations } from "../../../src/controlplane/scheduler/nominations.ts";
import { podInfo } from "../../../src/controlplane/scheduler/pod-info.ts";
import type { DisruptionBudget } from "../../../src/controlplane/scheduler/preemption.ts";
import type { PodParts } from "../controlplane-controllers/builders.ts";
import { ago, pod } from "../controlplane-controllers/builders.ts";
import type { World } from "./world.ts";
import { apart, asking, nameOf, preempt, preemption, term } from "./world.ts";

/** A running pod: name, cpu and priority; since when, in seconds. */
function running(
  name: string,
  cpu: string,
  priority: number,
  more: PodParts & { readonly since?: number; readonly node?: string } = {},
): StoredPod {
  const what = asking(
    { cpu },
    { name, ...more, spec: { ...more.spec, priority, nodeName: more.node ?? "n1" } },
  );
  return { ...what, status: { ...what.status, startTime: ago(more.since ?? 100) } };
}

function wanting(cpu: string, priority: number, parts: PodParts = {}): StoredPod {
  return asking({ cpu }, { name: "new", ...parts, spec: { ...parts.spec, priority } });
}

function budget(
  app: string,
  disruptionsAllowed: number,
  disrupted: string[] = [],
): DisruptionBudget {
  return {
    namespace: "default",
    selector: labelMatcher({ matchLabels: { app } }),
    disruptionsAllowed,
    disruptedPods: new Set(disrupted),
  };
}

const one = [{ name: "n1" }];
const two = [{ name: "n1" }, { name: "n2" }];

interface Case {
  readonly title: string;
  readonly pod: StoredPod;
  readonly world: World;
  readonly want: string;
}

describe("victims on a node", () => {
  const cases: readonly Case[] = [
    {
      title: "one is enough, the least important",
      pod: wanting("2", 100),
      world: { nodes: one, pods: [running("a", "2", 10), running("b", "2", 5)] },
      want: "n1: b",
    },
    {
      title: "a less important one that is too small stays when a bigger one must leave anyway",
      pod: wanting("3", 100),
      world: { nodes: one, pods: [running("big", "3", 10), running("small", "1", 5)] },
      want: "n1: big",
    },
    {
      title: "of equals the one that started last",
      pod: wanting("2", 100),
      world: {
        nodes: one,
        pods: [running("young", "2", 5, { since: 10 }), running("old", "2", 5, { since: 99 })],
      },
      want: "n1: young",
    },
    {
      title: "equals of the new pod never leave",
      pod: wanting("2", 10),
      world: { nodes: one, pods: [running("a", "4", 10)] },
      want: "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
    },
    {
      title: "not even all of them would be enough",
      pod: wanting("4", 100),
      world: { nodes: one, pods: [running("a", "2", 10), running("vip", "1", 1000)] },
      want: "preemption: 0/1 nodes are available: 1 Insufficient cpu.",
    },
    {
      title: "a node that could never do is not tried",
      pod: wanting("64", 100),
      world: { nodes: one, pods: [running("a", "2", 10)] },
      want: "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
    },
    {
      title: "host ports are freed",
      pod: pod({
        spec: {
          priority: 1,
          containers: [{ name: "c", ports: [{ containerPort: 1, hostPort: 80 }] }],
        },
      }),
      world: {
        nodes: one,
        pods: [
          running("x", "1", 0),
          pod({
            name: "holder",
            spec: {
              nodeName: "n1",
              containers: [{ name: "c", ports: [{ containerPort: 1, hostPort: 80 }] }],
            },
          }),
        ],
      },
      want: "n1: holder",
    },
    {
      title: "who keeps the pod away leaves",
      pod: wanting("1", 100),
      world: {
        nodes: [{ name: "n1", labels: { zone: "a" } }],
        pods: [
          running("bystander", "1", 1),
          running("hermit", "1", 10, {
            labels: { app: "x" },
            spec: { affinity: apart(term("web")) },
          }),
        ],
      },
      want: "n1: hermit",
    },
    {
      title: "whom the pod keeps away from leaves",
      pod: wanting("1", 100, { spec: { affinity: apart(term("noisy")) } }),
      world: {
        nodes: [{ name: "n1", labels: { zone: "a" } }],
        pods: [running("noisy", "1", 1, { labels: { app: "noisy" } }), running("quiet", "1", 0)],
      },
      want: "n1: noisy",
    },
    {
      title: "topology spread is counted without those who leave",
      pod: wanting("1", 100, {
        spec: {
          nodeSelector: { zone: "a" },
          topologySpreadConstraints: [
            {
              maxSkew: 1,
              topologyKey: "zone",
              whenUnsatisfiable: "DoNotSchedule",
              nodeAffinityPolicy: "Ignore",
              labelSelector: { matchLabels: { app: "web" } },
            },
          ],
        },
      }),
      world: {
        nodes: [
          { name: "n1", labels: { zone: "a" } },
          { name: "n2", labels: { zone: "b" } },
        ],
        pods: [running("web-1", "1", 1), running("other", "1", 0, { labels: { app: "x" } })],
      },
      want: "n1: web-1",
    },
    {
      title: "a more important pod that hopes for the room counts",
      pod: wanting("2", 100),
      world: {
        nodes: one,
        pods: [running("a", "2", 1), running("b", "2", 2)],
        nominated: { n1: [wanting("2", 200, { name: "hopes" })] },
      },
      want: "n1: b, a",
    },
  ];
  for (const { title, pod: what, world, want } of cases)
    test(title, () => assert.equal(preemption(what, world), want));
});

describe("which node", () => {
  const cases: readonly Case[] = [
    {
      title: "where the most important victim is least important",
      pod: wanting("4", 100),
      world: {
        nodes: two,
        pods: [
          running("a", "4", 10),
          running("b", "2", 5, { node: "n2" }),
          running("c", "2", 5, { node: "n2" }),
        ],
      },
      want: "n2: b, c",
    },
    {
      title: "then where the priorities add up to less",
      pod: wanting("4", 100),
      world: {
        nodes: two,
        pods: [
          running("a1", "2", 10),
          running("a2", "2", 9),
          running("b1", "2", 10, { node: "n2" }),
          running("b2", "2", 1, { node: "n2" }),
        ],
      },
      want: "n2: b1, b2",
    },
    {
      title: "then where fewer leave, even if priorities are negative",
      pod: wanting("4", 100),
      world: {
        nodes: two,
        pods: [
          running("a1", "2", -10),
          running("a2", "2", -10),
          running("b", "4", -10, { node: "n2" }),
        ],
      },
      want: "n2: b",
    },
    {
      title: "then where the victims started last",
      pod: wanting("4", 100),
      world: {
        nodes: two,
        pods: [
          running("old", "4", 1, { since: 99 }),
          running("new", "4", 1, { since: 9, node: "n2" }),
        ],
      },
      want: "n2: new",
    },
    {
      title: "each node says why it will not do",
      pod: wanting("4", 100),
      world: {
        nodes: [...two, { name: "n3", spec: { unschedulable: true } }, { name: "n4" }],
        pods: [
          running("vip", "1", 1000),
          running("a", "1", 1),
          running("vip2", "1", 1000, { node: "n2" }),
          running("b", "1", 1, { node: "n4" }),
          running("vip4", "1", 1000, { node: "n4" }),
        ],
      },
      want: "preemption: 0/4 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling, 2 Insufficient cpu.",
    },
  ];
  for (const { title, pod: what, world, want } of cases)
    test(title, () => assert.equal(preemption(what, world), want));
});

describe("disruption budgets", () => {
  const a = running("a", "4", 1, { labels: { app: "a" } });
  const b = running("b", "4", 50, { labels: { app: "b" }, node: "n2" });
  const both = { nodes: two, pods: [a, b] };

  test("come before priorities when nodes are compared", () => {
    assert.equal(preemption(wanting("4", 100), both), "n1: a");
    assert.equal(preemption(wanting("4", 100), { ...both, budgets: [budget("a", 0)] }), "n2: b");
  });

  test("do not save a pod when nothing else helps", () => {
    const world = { nodes: one, pods: [a], budgets: [budget("a", 0)] };
    assert.equal(preemption(wanting("4", 100), world), "n1: a");
  });

  test("save a pod on a node where another will do, although that is more important", () => {
    const pods = [
      running("saved", "2", 1, { labels: { app: "a" } }),
      running("goes", "2", 50, { labels: { app: "b" } }),
    ];
    assert.equal(
      preemption(wanting("2", 100), { nodes: one, pods, budgets: [budget("a", 0)] }),
      "n1: goes",
    );
    assert.equal(
      preemption(wanting("2", 100), { nodes: one, pods, budgets: [budget("a", 1)] }),
      "n1: saved",
    );
  });

  test("that are spent on a pod already do not count it again", () => {
    const world = { ...both, budgets: [budget("a", 0, ["a"])] };
    assert.equal(preemption(wanting("4", 100), world), "n1: a");
  });

  test("of another namespace say nothing", () => {
    const world = { ...both, budgets: [{ ...budget("a", 0), namespace: "other" }] };
    assert.equal(preemption(wanting("4", 100), world), "n1: a");
  });
});

describe("who may preempt", () => {
  const leaving = (more: PodParts = {}): StoredPod => {
    const gone = running("gone", "4", 1, { deleting: true, ...more });
    const condition = {
      type: "DisruptionTarget",
      status: "True" as const,
      reason: "PreemptionByScheduler",
    };
    return { ...gone, status: { ...gone.status, conditions: [condition] } };
  };

  test("not with preemptionPolicy Never", () => {
    const what = wanting("4", 100, { spec: { preemptionPolicy: "Never" } });
    assert.deepEqual(preempt(what, { nodes: one, pods: [running("a", "4", 1)] }), {
      kind: "none",
      message: "preemption: not eligible due to preemptionPolicy=Never.",
      renounce: false,
    });
  });

  test("not again while its victims are leaving", () => {
    const world = { nodes: two, pods: [leaving(), running("b", "4", 1, { node: "n2" })] };
    assert.deepEqual(preempt(wanting("4", 100), { ...world, nominatedNode: "n1" }), {
      kind: "none",
      message: "preemption: not eligible due to a terminating pod on the nominated node.",
      renounce: false,
    });
    const elsewhere = preempt(wanting("4", 100), { ...world, nominatedNode: "n2" });
    assert.equal(elsewhere.kind, "node");
  });

  test("again when the nominated node has become impossible", () => {
    const nodes = [{ name: "n1", spec: { unschedulable: true } }, { name: "n2" }];
    const world = { nodes, pods: [leaving(), running("b", "4", 1, { node: "n2" })] };
    assert.equal(preemption(wanting("4", 100), { ...world, nominatedNode: "n1" }), "n2: b");
  });

  test("a hopeless pod gives its nomination up", () => {
    const found = preempt(wanting("64", 100), { nodes: one, nominatedNode: "n1" });
    assert.equal(found.kind === "none" && found.renounce, true);
  });
});

describe("nominations", () => {
  const shown = (nominatedNodeName: string | undefined): StoredPod => {
    const what = pod({ name: "p" });
    return { ...what, status: { ...what.status, nominatedNodeName } };
  };

  test("an update that does not show our nomination yet leaves it", () => {
    const nominations = new Nominations();
    nominations.set(podInfo(shown(undefined)), "n1");
    nominations.observe(shown(undefined), shown(undefined));
    assert.equal(nominations.nodeOf(shown(undefined)), "n1");
  });

  test("an update that still shows the nomination before leaves the new one", () => {
    const nominations = new Nominations();
    nominations.observe(shown("n1"), undefined);
    nominations.set(podInfo(shown("n1")), "n2");
    nominations.observe(shown("n1"), shown("n1"));
    assert.equal(nominations.nodeOf(shown("n1")), "n2");
  });

  test("what others write holds: set, changed, taken back, bound", () => {
    const nominations = new Nominations();
    nominations.observe(shown("n1"), undefined);
    assert.deepEqual([...nominations.byNode().keys()], ["n1"]);
    nominations.observe(shown("n2"), shown("n1"));
    assert.deepEqual([...nominations.byNode().keys()], ["n2"]);
    nominations.observe(shown(undefined), shown("n2"));
    assert.equal(nominations.nodeOf(shown(undefined)), undefined);
    nominations.set(podInfo(shown(undefined)), "n1");
    nominations.observe(pod({ name: "p", spec: { nodeName: "n1" } }), shown(undefined));
    assert.equal(nominations.byNode().size, 0);
  });

  test("a pod of the same name is another pod", () => {
    const nominations = new Nominations();
    nominations.set(podInfo(shown(undefined)), "n1");
    const successor = pod({ name: "p", uid: "another" });
    assert.equal(nominations.nodeOf(successor), undefined);
    nominations.observe(successor, undefined);
    assert.equal(nominations.byNode().size, 0);
  });

  test("those who must give way are the less important ones of that node", () => {
    const nominations = new Nominations();
    for (const [name, priority, target] of [
      ["low", 1, "n1"],
      ["equal", 5, "n1"],
      ["away", 1, "n2"],
    ] as const)
      nominations.set(podInfo(pod({ name, spec: { priority } })), target);
    assert.deepEqual(nominations.lessImportant("n1", 5).map(nameOf), ["low"]);
  });
});

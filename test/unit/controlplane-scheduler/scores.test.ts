import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { Affinity, WeightedPodAffinityTerm } from "../../../src/api/types.gen.ts";
import type { StoredPod } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import { affinityPreference } from "../../../src/controlplane/scheduler/plugins/inter-pod-affinity.ts";
import type { ScorePlugin } from "../../../src/controlplane/scheduler/plugins/plugin.ts";
import {
  balancedAllocation,
  imageLocality,
  leastAllocated,
  nodePreference,
  taintPreference,
} from "../../../src/controlplane/scheduler/plugins/scores.ts";
import { spreadPreference } from "../../../src/controlplane/scheduler/plugins/topology-spread.ts";
import { podInfo } from "../../../src/controlplane/scheduler/pod-info.ts";
import {
  defaultProfile,
  profiles,
  randomProfile,
  roundRobinProfile,
  spreadProfile,
} from "../../../src/controlplane/scheduler/profiles.ts";
import type { NodeParts } from "../controlplane-controllers/builders.ts";
import { node, pod } from "../controlplane-controllers/builders.ts";
import type { World } from "./world.ts";
import { asking, place, snapshot, term, together } from "./world.ts";

function scores(plugin: ScorePlugin, what: StoredPod, world: World): readonly number[] | undefined {
  const seen = snapshot(world);
  return plugin.score(podInfo(what), seen, seen.nodes);
}

const mega = 1024 * 1024;
const three: readonly NodeParts[] = [
  { name: "n1", labels: { zone: "a", "kubernetes.io/hostname": "n1" } },
  { name: "n2", labels: { zone: "a", "kubernetes.io/hostname": "n2" } },
  { name: "n3", labels: { zone: "b", "kubernetes.io/hostname": "n3" } },
];

describe("resources", () => {
  const nodes = [
    { name: "n1" },
    { name: "n2", allocatable: { cpu: "2", memory: "4Gi", pods: "9" } },
  ];

  test("free share of cpu and memory, rounded down each", () => {
    // n1: (4000-1000)/4000 = 75, (8-2)/8 = 75; n2: (2000-1000)/2000 = 50, (4-2)/4 = 50.
    assert.deepEqual(
      scores(leastAllocated, asking({ cpu: "1", memory: "2Gi" }), { nodes }),
      [75, 50],
    );
  });

  test("a container that asks for nothing counts as 100m and 200 MiB", () => {
    const busy = Array.from({ length: 10 }, () => pod({ spec: { nodeName: "n1" } }));
    // n1: 11 * 100m of 4000m leaves 72.5; 11 * 200 of 8192 MiB leaves 73.1. n2: 95 and 95.1.
    assert.deepEqual(scores(leastAllocated, pod(), { nodes, pods: busy }), [72, 95]);
  });

  test("what exceeds the node scores nothing", () => {
    assert.deepEqual(
      scores(leastAllocated, asking({ cpu: "3", memory: "2Gi" }), { nodes }),
      [50, 25],
    );
  });

  test("balance: better than before is above 75, worse is below", () => {
    const cpuHeavy = asking({ cpu: "2" }, { spec: { nodeName: "n1" } });
    const want = asking({ memory: "4Gi" });
    // n1 goes from |0.5 - 0| / 2 to |0.5 - 0.5| / 2: 75 -> 100. n2 from 0 to |0 - 1| / 2: 100 -> 50.
    assert.deepEqual(scores(balancedAllocation, want, { nodes, pods: [cpuHeavy] }), [87, 50]);
  });

  test("balance does not concern a pod that asks for nothing", () => {
    assert.equal(scores(balancedAllocation, pod(), { nodes }), undefined);
  });
});

describe("stated preferences", () => {
  test("PreferNoSchedule taints count against a node, the most give 0", () => {
    const taints = (...keys: string[]) => ({
      taints: keys.map((key) => ({ key, effect: "PreferNoSchedule" as const })),
    });
    const nodes = [
      { name: "n1", spec: taints("a", "b") },
      { name: "n2", spec: taints("a") },
      { name: "n3", spec: taints("c") },
    ];
    const tolerant = pod({ spec: { tolerations: [{ key: "c", operator: "Exists" }] } });
    assert.deepEqual(scores(taintPreference, tolerant, { nodes }), [0, 50, 100]);
  });

  test("weights of node affinity add up", () => {
    const preference = (key: string, weight: number) => ({
      weight,
      preference: { matchExpressions: [{ key, operator: "Exists" as const }] },
    });
    const affinity: Affinity = {
      nodeAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: [
          preference("disk", 10),
          preference("gpu", 30),
        ],
      },
    };
    const nodes = [
      { name: "n1", labels: { disk: "" } },
      { name: "n2", labels: { disk: "", gpu: "" } },
      { name: "n3" },
    ];
    assert.deepEqual(scores(nodePreference, pod({ spec: { affinity } }), { nodes }), [25, 100, 0]);
    assert.equal(scores(nodePreference, pod(), { nodes }), undefined);
  });

  const weighted = (app: string, weight: number): WeightedPodAffinityTerm[] => [
    { weight, podAffinityTerm: term(app) },
  ];

  test("preferred company draws, preferred distance pushes, over the whole domain", () => {
    const affinity: Affinity = {
      podAffinity: { preferredDuringSchedulingIgnoredDuringExecution: weighted("db", 10) },
      podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: weighted("noisy", 10) },
    };
    const db = pod({ labels: { app: "db" }, spec: { nodeName: "n1" } });
    const noisy = pod({ labels: { app: "noisy" }, spec: { nodeName: "n3" } });
    const what = pod({ spec: { affinity } });
    assert.deepEqual(
      scores(affinityPreference, what, { nodes: three, pods: [db, noisy] }),
      [100, 100, 0],
    );
  });

  test("the wishes of pods that are there count as well, their required ones with 1", () => {
    const wish = (nodeName: string, affinity: Affinity): StoredPod =>
      pod({ labels: { app: "x" }, spec: { nodeName, affinity } });
    const draws = wish("n1", together(term("web")));
    assert.deepEqual(
      scores(affinityPreference, pod(), { nodes: three, pods: [draws] }),
      [100, 100, 0],
    );
    const pushes = wish("n3", {
      podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: weighted("web", 5) },
    });
    assert.deepEqual(
      scores(affinityPreference, pod(), { nodes: three, pods: [pushes] }),
      [100, 100, 0],
    );
    assert.equal(
      scores(affinityPreference, pod(), {
        nodes: three,
        pods: [pod({ spec: { nodeName: "n1" } })],
      }),
      undefined,
    );
  });
});

describe("topology spread", () => {
  const anyway = (maxSkew: number, topologyKey = "zone") =>
    pod({
      spec: {
        topologySpreadConstraints: [
          {
            maxSkew,
            topologyKey,
            whenUnsatisfiable: "ScheduleAnyway",
            labelSelector: { matchLabels: { app: "web" } },
          },
        ],
      },
    });
  const webs = [pod({ spec: { nodeName: "n1" } }), pod({ spec: { nodeName: "n1" } })];

  test("a domain with fewer copies is better", () => {
    // Two domains weigh ln 4: 2 * 1.386 = 2.77 -> 3 against 0.
    assert.deepEqual(
      scores(spreadPreference, anyway(1), { nodes: three, pods: webs }),
      [0, 0, 100],
    );
  });

  test("a higher skew waters the difference down", () => {
    // 2.77 + 4 = 6.77 -> 7 against 4: (100 * (7 + 4 - 7)) / 7.
    assert.deepEqual(
      scores(spreadPreference, anyway(5), { nodes: three, pods: webs }),
      [57, 57, 100],
    );
  });

  test("nodes without the label of a stated constraint score nothing", () => {
    const nodes = [...three, { name: "n4" }];
    assert.deepEqual(scores(spreadPreference, anyway(1), { nodes, pods: webs }), [0, 0, 100, 0]);
  });

  test("without copies all are equal", () => {
    assert.deepEqual(scores(spreadPreference, anyway(1), { nodes: three }), [100, 100, 100]);
  });

  test("the pods of a workload spread by hostname without saying so", () => {
    const world = { nodes: three, pods: webs, workload: { app: "web" } };
    // Hostname: 3 domains weigh ln 5 = 1.609: 2 * 1.609 + 2 = 5.2; zone: one domain, "": 2 * ln 3 + 4, but no label.
    assert.deepEqual(scores(spreadPreference, pod(), world), [40, 100, 100]);
    assert.equal(scores(spreadPreference, pod(), { nodes: three, pods: webs }), undefined);
  });

  test("a pod with constraints of its own has no defaults", () => {
    const what = pod({
      spec: {
        topologySpreadConstraints: [
          {
            maxSkew: 1,
            topologyKey: "zone",
            whenUnsatisfiable: "DoNotSchedule",
            labelSelector: {},
          },
        ],
      },
    });
    const world = { nodes: three, pods: webs, workload: { app: "web" } };
    assert.equal(scores(spreadPreference, what, world), undefined);
  });
});

describe("images", () => {
  test("big images that are there draw, less so when few nodes have them", () => {
    const image = node().status?.images ?? [];
    assert.deepEqual(image, []);
    const have = (name: string, sizeBytes: number): NodeParts => ({
      name,
      images: [{ names: ["docker.io/library/i:latest"], sizeBytes }],
    });
    const what = pod({ spec: { containers: [{ name: "c", image: "docker.io/library/i" }] } });
    // 1000 MiB on one of two nodes counts as 500: (500 - 23) / (1000 - 23).
    assert.deepEqual(
      scores(imageLocality, what, { nodes: [have("n1", 1000 * mega), { name: "n2" }] }),
      [48, 0],
    );
    assert.deepEqual(
      scores(imageLocality, what, { nodes: [have("n1", 5000 * mega), have("n2", 20 * mega)] }),
      [100, 0],
    );
  });
});

describe("profiles", () => {
  const nodes = [{ name: "n1" }, { name: "n2" }, { name: "n3" }];
  const on = (nodeName: string, parts: Parameters<typeof pod>[0] = {}): StoredPod =>
    pod({ ...parts, spec: { nodeName } });

  test("are these four", () => {
    assert.deepEqual(
      profiles.map(({ name }) => name),
      ["default-scheduler", "spread", "random", "round-robin"],
    );
  });

  test("the default prefers emptier nodes", () => {
    const busy = asking({ cpu: "2", memory: "4Gi" }, { spec: { nodeName: "n1" } });
    assert.equal(place(pod(), { nodes: nodes.slice(0, 2), pods: [busy] }), "n2");
  });

  test("the default breaks ties by the given randomness", () => {
    const chosen = [0, 0.4, 0.99].map((value) => place(pod(), { nodes }, defaultProfile, value));
    assert.deepEqual(chosen, ["n1", "n2", "n3"]);
  });

  test("random does not care how full a node is", () => {
    const pods = [asking({ cpu: "3" }, { spec: { nodeName: "n2" } })];
    const chosen = [0, 0.4, 0.99].map((value) =>
      place(pod(), { nodes, pods }, randomProfile, value),
    );
    assert.deepEqual(chosen, ["n1", "n2", "n3"]);
  });

  test("round-robin goes on after the last node, by name, and begins again", () => {
    const order = [undefined, "n1", "n2", "n3", "n22"].map((previous) =>
      place(pod(), { nodes: nodes.toReversed() }, roundRobinProfile, 0, previous),
    );
    assert.deepEqual(order, ["n1", "n2", "n3", "n1", "n3"]);
  });

  test("round-robin leaves out nodes that do not fit", () => {
    const pods = [asking({ cpu: "4" }, { spec: { nodeName: "n2" } })];
    assert.equal(place(asking({ cpu: "1" }), { nodes, pods }, roundRobinProfile, 0, "n1"), "n3");
  });

  test("spread takes the node with the fewest copies, however full it is", () => {
    const pods = [
      on("n1"),
      on("n2"),
      asking({ cpu: "3" }, { labels: { app: "x" }, spec: { nodeName: "n3" } }),
    ];
    const world = { nodes, pods, workload: { app: "web" } };
    assert.equal(place(pod(), world, spreadProfile), "n3");
  });

  test("spread takes the zone with the fewest copies first", () => {
    const zoned = ["a", "a", "b"].map((zone, index) => ({
      name: `n${index + 1}`,
      labels: { "topology.kubernetes.io/zone": zone },
    }));
    const pods = [on("n1"), on("n1"), on("n3")];
    assert.equal(
      place(pod(), { nodes: zoned, pods, workload: { app: "web" } }, spreadProfile),
      "n3",
    );
  });

  test("spread knows copies by their owner where nothing selects them", () => {
    const pods = [
      on("n1", { owner: "rc" }),
      on("n2", { owner: "other" }),
      on("n2"),
      on("n3", { owner: "rc" }),
    ];
    assert.equal(place(pod({ owner: "rc" }), { nodes, pods }, spreadProfile), "n2");
  });

  test("spread takes the node with the fewest pods for a pod of its own", () => {
    const pods = [on("n1"), on("n2"), on("n2"), on("n3")];
    assert.equal(place(pod(), { nodes, pods }, spreadProfile, 0.9), "n3");
  });

  test("what a node says in so many words comes before every policy", () => {
    const avoided = {
      name: "n1",
      spec: { taints: [{ key: "k", effect: "PreferNoSchedule" as const }] },
    };
    const world = { nodes: [avoided, { name: "n2" }], pods: [on("n2")] };
    for (const profile of profiles) assert.equal(place(pod(), world, profile), "n2", profile.name);
    for (const profile of profiles)
      assert.equal(place(pod(), { nodes: [avoided] }, profile), "n1", profile.name);
  });
});

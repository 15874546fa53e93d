import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { Affinity } from "../../../src/api/types.gen.ts";
import type { StoredPod } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import { defaultProfile, placePod } from "../../../src/controlplane/scheduler/place-pod.ts";
import { podRequests } from "../../../src/api/pod-requests.ts";
import { SchedulingQueue } from "../../../src/controlplane/scheduler/scheduling-queue.ts";
import type { Snapshot } from "../../../src/controlplane/scheduler/snapshot.ts";
import { ClusterCache } from "../../../src/controlplane/scheduler/snapshot.ts";
import type { NodeParts } from "./builders.ts";
import { ManualClock, node, pod } from "./builders.ts";

interface World {
  readonly nodes: readonly NodeParts[];
  readonly pods?: readonly StoredPod[];
}

function snapshot(world: World): Snapshot {
  const cache = new ClusterCache();
  for (const each of world.nodes) cache.setNode(node(each));
  for (const each of world.pods ?? []) cache.setPod(each);
  return cache.snapshot((name) => ({ "kubernetes.io/metadata.name": name }));
}

function place(what: StoredPod, world: World): string {
  const result = placePod(what, snapshot(world), defaultProfile, () => 0);
  return result.kind === "node" ? result.node : result.message;
}

function asking(requests: Record<string, string>): StoredPod {
  return pod({ spec: { containers: [{ name: "c", resources: { requests } }] } });
}

describe("requests", () => {
  const container = (cpu: string, more: { restartPolicy?: string } = {}) => ({
    name: `c${cpu}`,
    resources: { requests: { cpu } },
    ...more,
  });

  test("containers add up, the init phase counts by its peak, sidecars in both, overhead on top", () => {
    const requests = podRequests({
      spec: {
        containers: [container("100m"), container("200m")],
        initContainers: [
          container("50m", { restartPolicy: "Always" }),
          container("900m"),
          container("10m", { restartPolicy: "Always" }),
        ],
        overhead: { cpu: "5m" },
      },
    });
    assert.deepEqual([...requests], [["cpu", 955]]);
  });

  test("pod-level requests replace the sum", () => {
    const requests = podRequests({
      spec: {
        containers: [{ name: "c", resources: { requests: { cpu: "1", memory: "1Gi" } } }],
        resources: { requests: { cpu: "250m" } },
      },
    });
    assert.deepEqual(Object.fromEntries(requests), { cpu: 250, memory: 2 ** 30 });
  });
});

describe("filters", () => {
  const required = (key: string, values: readonly string[]): Affinity => ({
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [{ matchExpressions: [{ key, operator: "In", values: [...values] }] }],
      },
    },
  });
  const hostPort = (hostIP?: string) => ({
    containers: [{ name: "c", ports: [{ containerPort: 80, hostPort: 8080, hostIP }] }],
  });
  const taint = { key: "dedicated", value: "x", effect: "NoSchedule" as const };
  const together: Affinity = {
    podAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: [
        { topologyKey: "zone", labelSelector: { matchLabels: { app: "db" } } },
      ],
    },
  };
  const apart: Affinity = {
    podAntiAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: [
        { topologyKey: "zone", labelSelector: { matchLabels: { app: "web" } } },
      ],
    },
  };
  const spread = {
    topologySpreadConstraints: [
      {
        maxSkew: 1,
        topologyKey: "zone",
        whenUnsatisfiable: "DoNotSchedule" as const,
        labelSelector: { matchLabels: { app: "web" } },
      },
    ],
  };
  const two: readonly NodeParts[] = [
    { name: "n1", labels: { zone: "a" } },
    { name: "n2", labels: { zone: "b" } },
  ];

  const cases: readonly { title: string; pod: StoredPod; world: World; want: string }[] = [
    {
      title: "no nodes at all",
      pod: pod(),
      world: { nodes: [] },
      want: "no nodes available to schedule pods",
    },
    {
      title: "each resource that lacks is named",
      pod: asking({ cpu: "64", memory: "100Gi", "example.com/gpu": "1" }),
      world: { nodes: [{}] },
      want: "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient example.com/gpu, 1 Insufficient memory.",
    },
    {
      title: "what runs already counts",
      pod: asking({ cpu: "3" }),
      world: {
        nodes: [{}],
        pods: [
          pod({
            ...asking({ cpu: "2" }),
            spec: {
              nodeName: "n1",
              containers: [{ name: "c", resources: { requests: { cpu: "2" } } }],
            },
          }),
        ],
      },
      want: "0/1 nodes are available: 1 Insufficient cpu.",
    },
    {
      title: "terminal pods free their room",
      pod: asking({ cpu: "3" }),
      world: {
        nodes: [{}],
        pods: [
          pod({
            phase: "Succeeded",
            spec: {
              nodeName: "n1",
              containers: [{ name: "c", resources: { requests: { cpu: "2" } } }],
            },
          }),
        ],
      },
      want: "n1",
    },
    {
      title: "the number of pods is a resource",
      pod: pod(),
      world: {
        nodes: [{ allocatable: { cpu: "4", memory: "1Gi", pods: "1" } }],
        pods: [pod({ spec: { nodeName: "n1" } })],
      },
      want: "0/1 nodes are available: 1 Too many pods.",
    },
    {
      title: "cordoned, tainted and unlabelled nodes are counted by reason",
      pod: pod({ spec: { nodeSelector: { disk: "ssd" } } }),
      world: {
        nodes: [
          { name: "n1", spec: { unschedulable: true } },
          { name: "n2", spec: { taints: [taint] } },
          { name: "n3" },
          { name: "n4" },
        ],
      },
      want: "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector.",
    },
    {
      title: "a toleration opens a tainted node",
      pod: pod({ spec: { tolerations: [{ key: "dedicated", operator: "Equal", value: "x" }] } }),
      world: { nodes: [{ spec: { taints: [taint] } }] },
      want: "n1",
    },
    {
      title: "required node affinity chooses",
      pod: pod({ spec: { affinity: required("zone", ["b"]) } }),
      world: { nodes: two },
      want: "n2",
    },
    {
      title: "a host port in use on all addresses",
      pod: pod({ spec: hostPort("127.0.0.1") }),
      world: { nodes: [{}], pods: [pod({ spec: { ...hostPort(), nodeName: "n1" } })] },
      want: "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
    },
    {
      title: "the same host port on different addresses",
      pod: pod({ spec: hostPort("127.0.0.1") }),
      world: { nodes: [{}], pods: [pod({ spec: { ...hostPort("127.0.0.2"), nodeName: "n1" } })] },
      want: "n1",
    },
    {
      title: "a claim that cannot exist",
      pod: pod({
        spec: { volumes: [{ name: "v", persistentVolumeClaim: { claimName: "data" } }] },
      }),
      world: { nodes: [{}] },
      want: '0/1 nodes are available: persistentvolumeclaim "data" not found.',
    },
    {
      title: "required pod affinity joins its zone",
      pod: pod({ spec: { affinity: together } }),
      world: { nodes: two, pods: [pod({ labels: { app: "db" }, spec: { nodeName: "n2" } })] },
      want: "n2",
    },
    {
      title: "required pod affinity without anybody to join",
      pod: pod({ spec: { affinity: together } }),
      world: { nodes: two },
      want: "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.",
    },
    {
      title: "the first of a group that wants to be with itself",
      pod: pod({ labels: { app: "db" }, spec: { affinity: together } }),
      world: { nodes: [{ name: "n1", labels: { zone: "a" } }] },
      want: "n1",
    },
    {
      title: "anti-affinity of the new pod",
      pod: pod({ spec: { affinity: apart } }),
      world: { nodes: two, pods: [pod({ spec: { nodeName: "n1" } })] },
      want: "n2",
    },
    {
      title: "anti-affinity of a pod that is there",
      pod: pod(),
      world: {
        nodes: [{ name: "n1", labels: { zone: "a" } }],
        pods: [pod({ spec: { nodeName: "n1", affinity: apart } })],
      },
      want: "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
    },
    {
      title: "topology spread keeps the skew",
      pod: pod({ spec: spread }),
      world: { nodes: two, pods: [pod({ spec: { nodeName: "n1" } })] },
      want: "n2",
    },
    {
      title: "topology spread without the label",
      pod: pod({ spec: spread }),
      world: { nodes: [{}] },
      want: "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label).",
    },
  ];
  for (const { title, pod: what, world, want } of cases)
    test(title, () => assert.equal(place(what, world), want));
});

describe("preferences", () => {
  test("an emptier node is better", () => {
    const busy = pod({
      spec: {
        nodeName: "n1",
        containers: [{ name: "c", resources: { requests: { cpu: "2", memory: "4Gi" } } }],
      },
    });
    assert.equal(place(pod(), { nodes: [{ name: "n1" }, { name: "n2" }], pods: [busy] }), "n2");
  });

  test("siblings are spread even over unequal nodes", () => {
    const sibling = pod({ owner: "rc", spec: { nodeName: "big" } });
    const nodes = [
      { name: "big", allocatable: { cpu: "64", memory: "256Gi", pods: "110" } },
      { name: "small" },
    ];
    assert.equal(place(pod({ owner: "rc" }), { nodes, pods: [sibling] }), "small");
  });

  test("PreferNoSchedule is avoided, not forbidden", () => {
    const taints = [{ key: "k", effect: "PreferNoSchedule" as const }];
    const avoided = { name: "n1", spec: { taints } };
    assert.equal(place(pod(), { nodes: [avoided, { name: "n2" }] }), "n2");
    assert.equal(place(pod(), { nodes: [avoided] }), "n1");
  });

  test("preferred node affinity wins over nothing", () => {
    const preferred: Affinity = {
      nodeAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: [
          {
            weight: 10,
            preference: { matchExpressions: [{ key: "disk", operator: "Exists" }] },
          },
        ],
      },
    };
    const nodes = [{ name: "n1" }, { name: "n2", labels: { disk: "ssd" } }];
    assert.equal(place(pod({ spec: { affinity: preferred } }), { nodes }), "n2");
  });

  test("equal nodes are chosen by the given randomness", () => {
    const world = snapshot({ nodes: [{ name: "n1" }, { name: "n2" }, { name: "n3" }] });
    const chosen = [0, 0.4, 0.99].map((value) =>
      placePod(pod(), world, defaultProfile, () => value),
    );
    assert.deepEqual(chosen, [
      { kind: "node", node: "n1" },
      { kind: "node", node: "n2" },
      { kind: "node", node: "n3" },
    ]);
  });
});

describe("assumed pods", () => {
  test("hold their room until the API shows them or the binding fails", () => {
    const cache = new ClusterCache();
    cache.setNode(node());
    const waiting = asking({ cpu: "3" });
    cache.setPod(waiting);
    cache.assume(waiting, "n1");
    const used = (): number | undefined =>
      cache.snapshot(() => undefined).nodes[0]?.requested.get("cpu");
    assert.equal(used(), 3000);
    // An older event of the same pod must not take the room away.
    cache.setPod(waiting);
    assert.equal(used(), 3000);
    cache.forget(waiting);
    assert.equal(used(), undefined);
  });
});

describe("scheduling queue", () => {
  async function settle(): Promise<void> {
    for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
  }

  test("higher priority first, then first come first served", async () => {
    const queue = new SchedulingQueue(new ManualClock());
    const { signal } = new AbortController();
    queue.add("a", 0);
    queue.add("b", 100);
    queue.add("c", 0);
    const order = [await queue.next(signal), await queue.next(signal), await queue.next(signal)];
    assert.deepEqual(order, ["b", "a", "c"]);
  });

  test("an unschedulable pod waits for a change and then for its back-off, 1 s doubling to 10 s", async () => {
    const clock = new ManualClock();
    const queue = new SchedulingQueue(clock);
    const abort = new AbortController();
    queue.add("a", 0);
    await queue.next(abort.signal);
    queue.unschedulable("a");
    for (const backoffMs of [1000, 2000, 4000, 8000, 10_000, 10_000]) {
      let got: string | undefined;
      const wait = async (): Promise<void> => {
        got = await queue.next(abort.signal);
      };
      const next = wait();
      clock.advance(60_000);
      await settle();
      assert.equal(got, undefined);
      queue.unschedulable("a");
      queue.clusterChanged();
      await settle();
      clock.advance(backoffMs - 1);
      await settle();
      assert.equal(got, undefined, `still in back-off before ${backoffMs}`);
      clock.advance(1);
      await next;
      assert.equal(got, "a");
      queue.unschedulable("a");
    }
    abort.abort();
  });

  test("without any change it is tried again after five minutes", async () => {
    const clock = new ManualClock();
    const queue = new SchedulingQueue(clock);
    const { signal } = new AbortController();
    queue.add("a", 0);
    await queue.next(signal);
    queue.unschedulable("a");
    const next = queue.next(signal);
    await settle();
    clock.advance(5 * 60_000);
    assert.equal(await next, "a");
  });

  test("ends on abort and forgets removed pods", async () => {
    const queue = new SchedulingQueue(new ManualClock());
    const abort = new AbortController();
    queue.add("a", 0);
    queue.remove("a");
    const next = queue.next(abort.signal);
    abort.abort();
    assert.equal(await next, undefined);
    assert.equal(queue.has("a"), false);
  });
});

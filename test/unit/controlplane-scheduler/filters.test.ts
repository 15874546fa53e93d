import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { podRequests } from "../../../src/api/pod-requests.ts";
import type {
  Affinity,
  NodeSelectorRequirement,
  TopologySpreadConstraint,
} from "../../../src/api/types.gen.ts";
import type { StoredPod } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import type { NodeParts } from "../controlplane-controllers/builders.ts";
import { pod } from "../controlplane-controllers/builders.ts";
import type { World } from "./world.ts";
import { apart, asking, place, term, together } from "./world.ts";

interface Case {
  readonly title: string;
  readonly pod: StoredPod;
  readonly world: World;
  readonly want: string;
}

function run(cases: readonly Case[]): void {
  for (const { title, pod: what, world, want } of cases)
    test(title, () => assert.equal(place(what, world), want));
}

const two: readonly NodeParts[] = [
  { name: "n1", labels: { zone: "a" } },
  { name: "n2", labels: { zone: "b" } },
];

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

describe("resources", () => {
  const there = (requests: Record<string, string>, phase?: "Succeeded") =>
    asking(requests, { spec: { nodeName: "n1" }, ...(phase === undefined ? {} : { phase }) });
  run([
    { title: "no nodes at all", pod: pod(), world: { nodes: [] }, want: "no nodes" },
    {
      title: "each resource that lacks is named",
      pod: asking({ cpu: "64", memory: "100Gi", "example.com/gpu": "1", "ephemeral-storage": "1" }),
      world: { nodes: [{}] },
      want: "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient ephemeral-storage, 1 Insufficient example.com/gpu, 1 Insufficient memory.",
    },
    {
      title: "what runs already counts",
      pod: asking({ cpu: "3" }),
      world: { nodes: [{}], pods: [there({ cpu: "2" })] },
      want: "0/1 nodes are available: 1 Insufficient cpu.",
    },
    {
      title: "the last bit of room can be used",
      pod: asking({ cpu: "2" }),
      world: { nodes: [{}], pods: [there({ cpu: "2" })] },
      want: "n1",
    },
    {
      title: "terminal pods free their room",
      pod: asking({ cpu: "3" }),
      world: { nodes: [{}], pods: [there({ cpu: "2" }, "Succeeded")] },
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
      title: "a request for nothing asks for nothing, even of what the node does not have",
      pod: asking({ "example.com/gpu": "0" }),
      world: { nodes: [{}] },
      want: "n1",
    },
  ]);
});

describe("nodes", () => {
  const taint = { key: "dedicated", value: "x", effect: "NoSchedule" as const };
  const cordon = { key: "node.kubernetes.io/unschedulable", operator: "Exists" as const };
  run([
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
      title: "a toleration opens a cordoned node",
      pod: pod({ spec: { tolerations: [cordon] } }),
      world: { nodes: [{ spec: { unschedulable: true } }] },
      want: "n1",
    },
    {
      title: "a toleration opens a tainted node",
      pod: pod({ spec: { tolerations: [{ key: "dedicated", operator: "Equal", value: "x" }] } }),
      world: { nodes: [{ spec: { taints: [taint] } }] },
      want: "n1",
    },
    {
      title: "a toleration of another value does not",
      pod: pod({ spec: { tolerations: [{ key: "dedicated", operator: "Equal", value: "y" }] } }),
      world: { nodes: [{ spec: { taints: [taint] } }] },
      want: "0/1 nodes are available: 1 node(s) had untolerated taint(s).",
    },
    {
      title: "a toleration of another effect does not",
      pod: pod({ spec: { tolerations: [{ operator: "Exists", effect: "NoExecute" }] } }),
      world: { nodes: [{ spec: { taints: [taint] } }] },
      want: "0/1 nodes are available: 1 node(s) had untolerated taint(s).",
    },
    {
      title: "NoExecute taints keep new pods away too",
      pod: pod(),
      world: { nodes: [{ spec: { taints: [{ key: "k", effect: "NoExecute" }] } }] },
      want: "0/1 nodes are available: 1 node(s) had untolerated taint(s).",
    },
  ]);
});

describe("node affinity", () => {
  const required = (...terms: NodeSelectorRequirement[][]): Affinity => ({
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: terms.map((matchExpressions) => ({ matchExpressions })),
      },
    },
  });
  const named = (...names: string[]): Affinity => ({
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: names.map((name) => ({
          matchFields: [{ key: "metadata.name", operator: "In", values: [name] }],
        })),
      },
    },
  });
  const cores: readonly NodeParts[] = [
    { name: "n1", labels: { cores: "4" } },
    { name: "n2", labels: { cores: "16" } },
  ];
  const refused = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
  const affine = (affinity: Affinity): StoredPod => pod({ spec: { affinity } });
  run([
    {
      title: "In chooses",
      pod: affine(required([{ key: "zone", operator: "In", values: ["b"] }])),
      world: { nodes: two },
      want: "n2",
    },
    {
      title: "NotIn and DoesNotExist hold for nodes without the label",
      pod: affine(
        required([
          { key: "zone", operator: "NotIn", values: ["a"] },
          { key: "disk", operator: "DoesNotExist" },
        ]),
      ),
      world: { nodes: two },
      want: "n2",
    },
    {
      title: "Gt compares numbers, not text",
      pod: affine(required([{ key: "cores", operator: "Gt", values: ["5"] }])),
      world: { nodes: cores },
      want: "n2",
    },
    {
      title: "Lt compares numbers, not text",
      pod: affine(required([{ key: "cores", operator: "Lt", values: ["5"] }])),
      world: { nodes: cores },
      want: "n1",
    },
    {
      title: "the requirements of one term are all needed",
      pod: affine(
        required([
          { key: "zone", operator: "In", values: ["a"] },
          { key: "disk", operator: "Exists" },
        ]),
      ),
      world: { nodes: two },
      want: refused,
    },
    {
      title: "of several terms one is enough",
      pod: affine(
        required(
          [{ key: "disk", operator: "Exists" }],
          [{ key: "zone", operator: "In", values: ["b"] }],
        ),
      ),
      world: { nodes: two },
      want: "n2",
    },
    {
      title: "a selector and an affinity must both hold",
      pod: pod({
        spec: {
          nodeSelector: { zone: "a" },
          affinity: required([{ key: "zone", operator: "In", values: ["b"] }]),
        },
      }),
      world: { nodes: two },
      want: refused,
    },
    {
      title: "a node by its name",
      pod: affine(named("n2")),
      world: { nodes: two },
      want: "n2",
    },
    {
      title: "one of several nodes by their names",
      pod: affine(named("n1", "n2")),
      world: { nodes: [...two.slice(0, 1), { name: "n2", spec: { unschedulable: true } }] },
      want: "n1",
    },
    {
      title: "a node by its name that has no room; the others are not looked at",
      pod: asking({ cpu: "64" }, { spec: { affinity: named("n2") } }),
      world: { nodes: two },
      want: "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity].",
    },
    {
      title: "two names at once in one term",
      pod: affine({
        nodeAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: {
            nodeSelectorTerms: [
              {
                matchFields: [
                  { key: "metadata.name", operator: "In", values: ["n1"] },
                  { key: "metadata.name", operator: "In", values: ["n2"] },
                ],
              },
            ],
          },
        },
      }),
      world: { nodes: two },
      want: "0/2 nodes are available: pod affinity terms conflict.",
    },
  ]);
});

describe("host ports", () => {
  const port = (hostIP?: string, protocol?: "UDP") => ({
    containers: [
      { name: "c", image: "i", ports: [{ containerPort: 80, hostPort: 8080, hostIP, protocol }] },
    ],
  });
  const sidecar = {
    containers: [{ name: "c", image: "i" }],
    initContainers: [
      {
        name: "s",
        image: "i",
        restartPolicy: "Always" as const,
        ports: [{ containerPort: 80, hostPort: 8080 }],
      },
    ],
  };
  const taken =
    "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
  const world = (spec: ReturnType<typeof port> | typeof sidecar): World => ({
    nodes: [{}],
    pods: [pod({ spec: { ...spec, nodeName: "n1" } })],
  });
  run([
    {
      title: "in use on all addresses",
      pod: pod({ spec: port("127.0.0.1") }),
      world: world(port()),
      want: taken,
    },
    {
      title: "wanted on all addresses",
      pod: pod({ spec: port() }),
      world: world(port("127.0.0.1")),
      want: taken,
    },
    {
      title: "the same address",
      pod: pod({ spec: port("127.0.0.1") }),
      world: world(port("127.0.0.1")),
      want: taken,
    },
    {
      title: "different addresses",
      pod: pod({ spec: port("127.0.0.1") }),
      world: world(port("127.0.0.2")),
      want: "n1",
    },
    {
      title: "different protocols",
      pod: pod({ spec: port() }),
      world: world(port(undefined, "UDP")),
      want: "n1",
    },
    {
      title: "a sidecar's port counts",
      pod: pod({ spec: port() }),
      world: world(sidecar),
      want: taken,
    },
    {
      title: "an ordinary init container's port does not",
      pod: pod({ spec: port() }),
      world: world({
        ...sidecar,
        initContainers: sidecar.initContainers.map(({ name, image, ports }) => ({
          name,
          image,
          ports,
        })),
      } as unknown as typeof sidecar),
      want: "n1",
    },
  ]);
});

describe("claims", () => {
  run([
    {
      title: "a claim that cannot exist",
      pod: pod({
        spec: { volumes: [{ name: "v", persistentVolumeClaim: { claimName: "data" } }] },
      }),
      world: { nodes: [{}] },
      want: '0/1 nodes are available: persistentvolumeclaim "data" not found.',
    },
    {
      title: "an ephemeral claim that nobody will make",
      pod: pod({ name: "p", spec: { volumes: [{ name: "v", ephemeral: {} }] } }),
      world: { nodes: [{}] },
      want: '0/1 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim "p-v".',
    },
    {
      title: "a device claim",
      pod: pod({ spec: { resourceClaims: [{ name: "gpu", resourceClaimName: "mine" }] } }),
      world: { nodes: [{}] },
      want: '0/1 nodes are available: resourceclaim "mine" not found.',
    },
  ]);
});

describe("pod affinity", () => {
  const db = (
    nodeName: string,
    more: Partial<{ namespace: string; labels: Record<string, string> }> = {},
  ) => pod({ labels: { app: "db" }, ...more, spec: { nodeName } });
  const nobody = "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.";
  const joins = (...terms: Parameters<typeof together>): StoredPod =>
    pod({ labels: { app: "web", version: "1" }, spec: { affinity: together(...terms) } });
  run([
    {
      title: "joins the zone",
      pod: joins(term("db")),
      world: { nodes: two, pods: [db("n2")] },
      want: "n2",
    },
    {
      title: "without anybody to join",
      pod: joins(term("db")),
      world: { nodes: two },
      want: nobody,
    },
    {
      title: "a pod of another namespace is nobody to join",
      pod: joins(term("db")),
      world: { nodes: two, pods: [db("n2", { namespace: "other" })] },
      want: nobody,
    },
    {
      title: "unless the term lists that namespace",
      pod: joins(term("db", { namespaces: ["other"] })),
      world: { nodes: two, pods: [db("n2", { namespace: "other" })] },
      want: "n2",
    },
    {
      title: "or selects it",
      pod: joins(term("db", { namespaceSelector: { matchLabels: { team: "a" } } })),
      world: {
        nodes: two,
        pods: [db("n1"), db("n2", { namespace: "other" })],
        namespaces: { other: { team: "a" } },
      },
      want: "n2",
    },
    {
      title: "an empty namespace selector means all",
      pod: joins(term("db", { namespaceSelector: {} })),
      world: { nodes: two, pods: [db("n2", { namespace: "other" })] },
      want: "n2",
    },
    {
      title: "one pod must match all terms",
      pod: joins(term("db"), term("cache")),
      world: {
        nodes: [{ name: "n1", labels: { zone: "a" } }],
        pods: [db("n1"), db("n1", { labels: { app: "cache" } })],
      },
      want: "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.",
    },
    {
      title: "matchLabelKeys asks for the pod's own value",
      pod: joins(term("db", { matchLabelKeys: ["version"] })),
      world: {
        nodes: two,
        pods: [
          db("n1", { labels: { app: "db", version: "2" } }),
          db("n2", { labels: { app: "db", version: "1" } }),
        ],
      },
      want: "n2",
    },
    {
      title: "mismatchLabelKeys asks for another",
      pod: joins(term("db", { mismatchLabelKeys: ["version"] })),
      world: {
        nodes: two,
        pods: [
          db("n1", { labels: { app: "db", version: "1" } }),
          db("n2", { labels: { app: "db", version: "2" } }),
        ],
      },
      want: "n2",
    },
    {
      title: "the first of a group that wants to be with itself",
      pod: pod({ labels: { app: "db" }, spec: { affinity: together(term("db")) } }),
      world: { nodes: [{ name: "n1", labels: { zone: "a" } }] },
      want: "n1",
    },
    {
      title: "the first of a group still needs the label",
      pod: pod({ labels: { app: "db" }, spec: { affinity: together(term("db")) } }),
      world: { nodes: [{}] },
      want: "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.",
    },
    {
      title: "the second of a group is not the first, even where the first cannot be joined",
      pod: pod({ labels: { app: "db" }, spec: { affinity: together(term("db")) } }),
      world: {
        nodes: [
          { name: "n1", labels: { zone: "a" }, spec: { unschedulable: true } },
          ...two.slice(1),
        ],
        pods: [db("n1")],
      },
      want: "0/2 nodes are available: 1 node(s) didn't match pod affinity rules, 1 node(s) were unschedulable.",
    },
  ]);
});

describe("pod anti-affinity", () => {
  run([
    {
      title: "of the new pod",
      pod: pod({ spec: { affinity: apart(term("web")) } }),
      world: { nodes: two, pods: [pod({ spec: { nodeName: "n1" } })] },
      want: "n2",
    },
    {
      title: "of the new pod, everywhere",
      pod: pod({ spec: { affinity: apart(term("web")) } }),
      world: { nodes: two.slice(0, 1), pods: [pod({ spec: { nodeName: "n1" } })] },
      want: "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.",
    },
    {
      title: "of a pod that is there",
      pod: pod(),
      world: {
        nodes: two.slice(0, 1),
        pods: [
          pod({ labels: { app: "x" }, spec: { nodeName: "n1", affinity: apart(term("web")) } }),
        ],
      },
      want: "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
    },
    {
      title: "of a pod that is there, by a namespace selector",
      pod: pod({ namespace: "b" }),
      world: {
        nodes: two,
        namespaces: { b: { team: "a" } },
        pods: [
          pod({
            labels: { app: "x" },
            spec: {
              nodeName: "n1",
              affinity: apart(term("web", { namespaceSelector: { matchLabels: { team: "a" } } })),
            },
          }),
        ],
      },
      want: "n2",
    },
    {
      title: "nodes without the label are outside",
      pod: pod({ spec: { affinity: apart(term("web")) } }),
      world: { nodes: [{ name: "n1" }], pods: [pod({ spec: { nodeName: "n1" } })] },
      want: "n1",
    },
  ]);
});

describe("topology spread", () => {
  const constraint = (more: Partial<TopologySpreadConstraint> = {}): TopologySpreadConstraint => ({
    maxSkew: 1,
    topologyKey: "zone",
    whenUnsatisfiable: "DoNotSchedule",
    labelSelector: { matchLabels: { app: "web" } },
    ...more,
  });
  const spread = (
    more: Partial<TopologySpreadConstraint> = {},
    parts: Parameters<typeof pod>[0] = {},
  ): StoredPod =>
    pod({ ...parts, spec: { ...parts.spec, topologySpreadConstraints: [constraint(more)] } });
  const on = (nodeName: string, parts: Parameters<typeof pod>[0] = {}): StoredPod =>
    pod({ ...parts, spec: { nodeName } });
  const cordoned: readonly NodeParts[] = [
    ...two.slice(0, 1),
    { name: "n2", labels: { zone: "b" }, spec: { taints: [{ key: "k", effect: "NoSchedule" }] } },
  ];
  const skewed =
    "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) had untolerated taint(s).";
  run([
    { title: "keeps the skew", pod: spread(), world: { nodes: two, pods: [on("n1")] }, want: "n2" },
    {
      title: "a larger skew leaves the choice",
      pod: spread({ maxSkew: 2 }, { spec: { nodeSelector: { zone: "a" } } }),
      world: { nodes: two, pods: [on("n1")] },
      want: "n1",
    },
    {
      title: "without the label",
      pod: spread(),
      world: { nodes: [{}] },
      want: "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label).",
    },
    {
      title: "pods of other namespaces, other labels or on their way out do not count",
      pod: spread({ nodeAffinityPolicy: "Ignore" }, { spec: { nodeSelector: { zone: "a" } } }),
      world: {
        nodes: two,
        pods: [
          on("n1", { namespace: "other" }),
          on("n1", { labels: { app: "x" } }),
          on("n1", { deleting: true }),
        ],
      },
      want: "n1",
    },
    {
      title: "a pod that its own constraint does not select adds nothing",
      pod: spread(
        { labelSelector: { matchLabels: { app: "db" } }, nodeAffinityPolicy: "Ignore" },
        { spec: { nodeSelector: { zone: "a" } } },
      ),
      world: { nodes: two, pods: [on("n1", { labels: { app: "db" } })] },
      want: "n1",
    },
    {
      title: "too few domains count as empty ones",
      pod: spread({ minDomains: 3 }),
      world: { nodes: two, pods: [on("n1"), on("n2")] },
      want: "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints.",
    },
    {
      title: "domains that node affinity rules out do not count",
      pod: spread({}, { spec: { nodeSelector: { zone: "a" } } }),
      world: { nodes: two, pods: [on("n1")] },
      want: "n1",
    },
    {
      title: "nodeAffinityPolicy Ignore counts them",
      pod: spread({ nodeAffinityPolicy: "Ignore" }, { spec: { nodeSelector: { zone: "a" } } }),
      world: { nodes: two, pods: [on("n1")] },
      want: "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) didn't match pod topology spread constraints.",
    },
    {
      title: "tainted domains count",
      pod: spread(),
      world: { nodes: cordoned, pods: [on("n1")] },
      want: skewed,
    },
    {
      title: "nodeTaintsPolicy Honor leaves them out",
      pod: spread({ nodeTaintsPolicy: "Honor" }),
      world: { nodes: cordoned, pods: [on("n1")] },
      want: "n1",
    },
    {
      title: "matchLabelKeys counts the same version only",
      pod: spread(
        { matchLabelKeys: ["version"] },
        { labels: { app: "web", version: "2" }, spec: { nodeSelector: { zone: "a" } } },
      ),
      world: { nodes: two, pods: [on("n1", { labels: { app: "web", version: "1" } })] },
      want: "n1",
    },
  ]);
});

describe("nominated pods", () => {
  const big = (priority: number): StoredPod =>
    asking({ cpu: "3" }, { name: `p${priority}`, spec: { priority } });
  run([
    {
      title: "the room of a more important one is kept",
      pod: asking({ cpu: "2" }),
      world: { nodes: [{}], nominated: { n1: [big(10)] } },
      want: "0/1 nodes are available: 1 Insufficient cpu.",
    },
    {
      title: "the room of an equal one is kept too: it was first",
      pod: asking({ cpu: "2" }, { spec: { priority: 10 } }),
      world: { nodes: [{}], nominated: { n1: [big(10)] } },
      want: "0/1 nodes are available: 1 Insufficient cpu.",
    },
    {
      title: "the room of a less important one is not",
      pod: asking({ cpu: "2" }, { spec: { priority: 20 } }),
      world: { nodes: [{}], nominated: { n1: [big(10)] } },
      want: "n1",
    },
    {
      title: "nobody can count on the company of a pod that may not come",
      pod: pod({ spec: { affinity: together(term("db")) } }),
      world: {
        nodes: two.slice(0, 1),
        nominated: { n1: [pod({ labels: { app: "db" }, spec: { priority: 10 } })] },
      },
      want: "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.",
    },
    {
      title: "nor offend one that may",
      pod: pod({ spec: { affinity: apart(term("db")) } }),
      world: {
        nodes: two.slice(0, 1),
        nominated: { n1: [pod({ labels: { app: "db" }, spec: { priority: 10 } })] },
      },
      want: "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.",
    },
    {
      title: "a pod takes the node it was nominated to, even if another is better",
      pod: asking({ cpu: "1" }),
      world: {
        nodes: two,
        pods: [asking({ cpu: "3" }, { spec: { nodeName: "n1" } })],
        nominatedNode: "n1",
      },
      want: "n1",
    },
  ]);
});

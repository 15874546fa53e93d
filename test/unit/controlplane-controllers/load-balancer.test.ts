import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { Stored } from "../../../src/api/object.ts";
import type { EndpointSlice, Node, Service, ServiceSpec } from "../../../src/api/types.gen.ts";
import { balancerNode } from "../../../src/controlplane/controllers/load-balancer/nodes.ts";
import {
  type BalancerWorld,
  planLoadBalancers,
} from "../../../src/controlplane/controllers/load-balancer/plan.ts";
import {
  assignmentPatch,
  cleanupPatch,
} from "../../../src/controlplane/controllers/load-balancer/status.ts";
import { needsCleanup } from "../../../src/controlplane/controllers/load-balancer/wanted.ts";
import type { ListeningSocket } from "../../../src/lib/listening-sockets.ts";
import { ago, node, now, pod } from "./builders.ts";

const finalizer = "service.kubernetes.io/load-balancer-cleanup";

interface NodeWish {
  readonly ips: readonly string[];
  readonly external?: readonly string[];
  readonly ready?: boolean;
  readonly labels?: Record<string, string>;
  readonly taint?: string;
}

function machine(name: string, wish: NodeWish): Stored<Node> {
  const made = node({
    name,
    ...(wish.labels === undefined ? {} : { labels: wish.labels }),
    ...(wish.taint === undefined
      ? {}
      : { spec: { taints: [{ key: wish.taint, effect: "NoSchedule" }] } }),
  });
  const address = (type: string) => (ip: string) => ({ type, address: ip });
  return {
    ...made,
    status: {
      addresses: [
        ...wish.ips.map(address("InternalIP")),
        ...(wish.external ?? []).map(address("ExternalIP")),
        { type: "Hostname", address: name },
      ],
      conditions: [{ type: "Ready", status: wish.ready === false ? "Unknown" : "True" }],
      daemonEndpoints: { kubeletEndpoint: { Port: 10_250 } },
    },
  };
}

/** A Service; `age` in seconds decides who is older. */
function balancer(
  name: string,
  age: number,
  spec: Partial<ServiceSpec> = {},
  rest: Partial<Stored<Service>> = {},
): Stored<Service> {
  return {
    metadata: {
      name,
      namespace: "default",
      uid: `uid-${name}`,
      resourceVersion: "7",
      creationTimestamp: ago(age),
    },
    spec: {
      type: "LoadBalancer",
      clusterIP: "10.96.0.7",
      ipFamilies: ["IPv4"],
      selector: { app: name },
      ports: [{ port: 80, protocol: "TCP" }],
      ...spec,
    },
    ...rest,
  };
}

const n1 = machine("n1", { ips: ["192.0.2.1"] });
const n2 = machine("n2", { ips: ["192.0.2.2"] });

/** What each Service gets: its addresses, or why it has none, by name. */
function plan(
  services: readonly Stored<Service>[],
  world: Partial<Omit<BalancerWorld, "nodes" | "services">> & {
    readonly nodes?: readonly Stored<Node>[];
  } = {},
) {
  const { nodes = [n1], ...rest } = world;
  const made = planLoadBalancers({
    services,
    nodes: nodes.map((each) => balancerNode(each)),
    pods: [],
    slicesOf: () => [],
    machine: undefined,
    ...rest,
  });
  const all = [...made.assignments].map(([key, { ingress, problems }]) => [
    key.replace("default/", ""),
    [...ingress.map(({ ip }) => ip), ...problems.map(({ message }) => shortened(message))],
  ]);
  return { got: Object.fromEntries(all) as Record<string, string[]>, hidden: made.hidden };
}

function shortened(message: string): string {
  return message.replace("Error syncing load balancer: failed to ensure load balancer: ", "");
}

function slice(nodeName: string, ready = true): EndpointSlice {
  return {
    addressType: "IPv4",
    endpoints: [{ addresses: ["10.244.0.2"], nodeName, conditions: { ready } }],
  };
}

describe("which addresses a load balancer has", () => {
  it("are those of all nodes, the external ones first, in the Service's families", () => {
    const dual = machine("n1", { ips: ["192.0.2.1", "2001:db8::1"], external: ["198.51.100.1"] });
    const other = machine("n2", { ips: ["192.0.2.2"], external: ["2001:DB8:0::2"] });
    const { got } = plan(
      [
        balancer("both", 9, { ipFamilies: ["IPv6", "IPv4"], ports: [{ port: 1 }] }),
        balancer("four", 9, { ports: [{ port: 2 }] }),
        balancer("six", 9, { ipFamilies: ["IPv6"], ports: [{ port: 3 }] }),
      ],
      { nodes: [dual, other] },
    );
    assert.deepEqual(got, {
      both: ["2001:db8::2", "2001:db8::1", "198.51.100.1", "192.0.2.1", "192.0.2.2"],
      four: ["198.51.100.1", "192.0.2.1", "192.0.2.2"],
      six: ["2001:db8::2", "2001:db8::1"],
    });
  });

  it("say which family no node has", () => {
    const { got } = plan([balancer("web", 9, { ipFamilies: ["IPv4", "IPv6"] })]);
    assert.deepEqual(got, { web: ["192.0.2.1", "no available node has an IPv6 address"] });
  });

  const eligibility: readonly (readonly [string, readonly Stored<Node>[], readonly string[]])[] = [
    [
      "one that is not ready, while another is",
      [n1, machine("n2", { ips: ["192.0.2.2"], ready: false })],
      ["192.0.2.1"],
    ],
    [
      "nobody, when none is ready: the engine of an only machine may restart",
      [machine("n1", { ips: ["192.0.2.1"], ready: false })],
      ["192.0.2.1"],
    ],
    [
      "one that the autoscaler removes",
      [n1, machine("n2", { ips: ["192.0.2.2"], taint: "ToBeDeletedByClusterAutoscaler" })],
      ["192.0.2.1"],
    ],
    [
      "nobody for another taint",
      [n1, machine("n2", { ips: ["192.0.2.2"], taint: "maintenance" })],
      ["192.0.2.1", "192.0.2.2"],
    ],
    ...(["", "true", "1", "yes"] as const).map(
      (value) => [`one whose label says "${value}"`, [n1, excluded(value)], ["192.0.2.1"]] as const,
    ),
    ...(["false", "F", "0"] as const).map(
      (value) =>
        [
          `nobody whose label says "${value}"`,
          [n1, excluded(value)],
          ["192.0.2.1", "192.0.2.2"],
        ] as const,
    ),
    ["all", [excluded("true")], ["There are no available nodes for LoadBalancer"]],
    [
      "one that is being deleted",
      [n1, { ...n2, metadata: { ...n2.metadata, deletionTimestamp: ago(0) } }],
      ["192.0.2.1"],
    ],
  ];
  for (const [what, nodes, expected] of eligibility) {
    it(`leave out ${what}`, () => {
      assert.deepEqual(plan([balancer("web", 9)], { nodes }).got, { web: expected });
    });
  }

  function excluded(value: string): Stored<Node> {
    const labels = { "node.kubernetes.io/exclude-from-external-load-balancers": value };
    return machine("n2", { ips: ["192.0.2.2"], labels });
  }

  it("are only those of nodes with a ready endpoint under externalTrafficPolicy Local", () => {
    const services = [balancer("web", 9, { externalTrafficPolicy: "Local" })];
    const nodes = [n1, n2];
    const of = (...slices: EndpointSlice[]): unknown =>
      plan(services, { nodes, slicesOf: () => slices }).got["web"];
    assert.deepEqual(of(slice("n2")), ["192.0.2.2"]);
    assert.deepEqual(of(slice("n1", false), slice("n2")), ["192.0.2.2"]);
    assert.deepEqual(of(slice("n1"), slice("n2")), ["192.0.2.1", "192.0.2.2"]);
    // While a single pod is replaced its clients' address must not go away.
    assert.deepEqual(of(slice("n1", false)), ["192.0.2.1", "192.0.2.2"]);
    assert.deepEqual(of(), ["192.0.2.1", "192.0.2.2"]);
  });

  it("are the one that spec.loadBalancerIP asks for, if it is a node's", () => {
    const of = (loadBalancerIP: string): unknown =>
      plan([balancer("web", 9, { loadBalancerIP })], {
        nodes: [n1, machine("n2", { ips: ["192.0.2.2", "2001:db8::2"] })],
      }).got["web"];
    assert.deepEqual(of("192.0.2.2"), ["192.0.2.2"]);
    assert.deepEqual(of("203.0.113.5"), [
      "spec.loadBalancerIP 203.0.113.5 is not an address of an available node",
    ]);
    assert.deepEqual(of("lb.example.com"), [
      "spec.loadBalancerIP lb.example.com is not an address of an available node",
    ]);
    assert.deepEqual(of("2001:db8:0::2"), [
      "spec.loadBalancerIP 2001:db8:0::2 is not of its IP families",
    ]);
  });

  it("are nobody's who is of another class, another type, or going", () => {
    const going = balancer("going", 9);
    const { got } = plan([
      balancer("foreign", 9, { loadBalancerClass: "example.com/lb" }),
      balancer("plain", 9, { type: "ClusterIP" }),
      { ...going, metadata: { ...going.metadata, deletionTimestamp: ago(0) } },
      balancer("ours", 1, { loadBalancerClass: "remora.io/node" }),
    ]);
    assert.deepEqual(got, { ours: ["192.0.2.1"] });
  });
});

describe("ports that several want", () => {
  const taken = (by: string, port = "80/TCP", ip = "192.0.2.1"): string =>
    `port ${port} of ${ip} is taken by ${by}`;

  it("are the older Service's, and of two of one age the first's by name", () => {
    const { got } = plan([balancer("b", 5), balancer("c", 9), balancer("a", 5)]);
    assert.deepEqual(got, {
      c: ["192.0.2.1"],
      a: [taken("Service default/c")],
      b: [taken("Service default/c")],
    });
    assert.deepEqual(plan([balancer("b", 5), balancer("a", 5)]).got, {
      a: ["192.0.2.1"],
      b: [taken("Service default/a")],
    });
  });

  it("are told of in one sentence, however many nodes there are", () => {
    const nodes = Array.from({ length: 8 }, (_, index) =>
      machine(`n${index + 1}`, { ips: [`192.0.2.${index + 1}`] }),
    );
    const { got } = plan([balancer("a", 9), balancer("b", 5)], { nodes });
    const shown = [1, 2, 3, 4, 5].map((last) => `192.0.2.${last}`).join(", ");
    assert.deepEqual(got["b"], [taken("Service default/a", "80/TCP", `${shown} and 3 more`)]);
  });

  it("are counted by protocol", () => {
    const udp = balancer("udp", 1, { ports: [{ port: 80, protocol: "UDP" }] });
    assert.deepEqual(plan([balancer("tcp", 9), udp]).got, {
      tcp: ["192.0.2.1"],
      udp: ["192.0.2.1"],
    });
  });

  it("leave nothing to who does not get all, so that a third has what it could not", () => {
    const both = balancer("both", 5, { ports: [{ port: 80 }, { port: 443 }] });
    const third = balancer("third", 1, { ports: [{ port: 443 }] });
    assert.deepEqual(plan([balancer("first", 9), both, third]).got, {
      first: ["192.0.2.1"],
      both: [taken("Service default/first")],
      third: ["192.0.2.1"],
    });
  });

  it("are looked at address by address", () => {
    const near = balancer("near", 9, { externalTrafficPolicy: "Local" });
    const { got } = plan([near, balancer("wide", 5)], {
      nodes: [n1, n2],
      slicesOf: (key) => (key === "default/near" ? [slice("n1")] : []),
    });
    assert.deepEqual(got, {
      near: ["192.0.2.1"],
      wide: ["192.0.2.2", taken("Service default/near")],
    });
  });

  it("are also those of external addresses, and of load balancers that others gave", () => {
    const external = balancer("external", 9, { type: "ClusterIP", externalIPs: ["192.0.2.1"] });
    const foreign = balancer(
      "foreign",
      8,
      { loadBalancerClass: "example.com/lb", ports: [{ port: 81 }] },
      { status: { loadBalancer: { ingress: [{ ip: "192.0.2.1" }] } } },
    );
    const web = balancer("web", 1, { ports: [{ port: 80 }, { port: 81 }] });
    assert.deepEqual(plan([external, foreign, web]).got, {
      web: [taken("Service default/external"), taken("Service default/foreign", "81/TCP")],
    });
  });

  it("are not those of younger external addresses, which is told", () => {
    const external = balancer("external", 1, { type: "ClusterIP", externalIPs: ["192.0.2.1"] });
    const own = balancer("own", 9, { externalIPs: ["192.0.2.1"], ports: [{ port: 81 }] });
    const { got, hidden } = plan([external, balancer("web", 5), own]);
    assert.deepEqual(got, { web: ["192.0.2.1"], own: ["192.0.2.1"] });
    assert.deepEqual([...hidden], [["default/external", taken("Service default/web")]]);
  });

  it("are node ports' of older Services; of younger ones they hide them, which is told", () => {
    const ports = [{ port: 1, nodePort: 30_080 }];
    const nodePort = (age: number): Stored<Service> =>
      balancer("np", age, { type: "NodePort", ports });
    const web = balancer("web", 5, { ports: [{ port: 30_080 }] });
    const older = plan([nodePort(9), web]);
    assert.deepEqual(older.got, { web: [taken("node port of Service default/np", "30080/TCP")] });
    assert.equal(older.hidden.size, 0);
    const younger = plan([nodePort(1), web]);
    assert.deepEqual(younger.got, { web: ["192.0.2.1"] });
    assert.deepEqual(
      [...younger.hidden],
      [["default/np", "node port 30080/TCP is hidden by the load balancer of Service default/web"]],
    );
    const health = balancer("health", 9, { ports, healthCheckNodePort: 30_080 });
    assert.deepEqual(
      plan([{ ...health, spec: { ...health.spec, ports: [{ port: 2 }] } }, web]).got,
      {
        health: ["192.0.2.1"],
        web: [taken("health check node port of Service default/health", "30080/TCP")],
      },
    );
  });

  it("may be its own node port", () => {
    const ports = [{ port: 30_080, nodePort: 30_080 }];
    const { got, hidden } = plan([balancer("web", 5, { ports })]);
    assert.deepEqual(got, { web: ["192.0.2.1"] });
    assert.equal(hidden.size, 0);
  });

  it("are pods' who have them as host ports, unless they are the Service's own", () => {
    const port = (hostIP?: string) => ({
      containerPort: 8080,
      hostPort: 80,
      ...(hostIP === undefined ? {} : { hostIP }),
    });
    const holding = (app: string, hostIP?: string, phase?: "Succeeded") =>
      pod({
        name: "holder",
        labels: { app },
        ...(phase === undefined ? {} : { phase }),
        spec: { nodeName: "n1", containers: [{ name: "c", image: "i", ports: [port(hostIP)] }] },
      });
    const of = (holder: ReturnType<typeof holding>): unknown =>
      plan([balancer("web", 9)], { nodes: [n1, n2], pods: [holder] }).got["web"];
    const refused = taken("pod default/holder as a host port of node n1");
    assert.deepEqual(of(holding("other")), ["192.0.2.2", refused]);
    assert.deepEqual(of(holding("other", "192.0.2.1")), ["192.0.2.2", refused]);
    assert.deepEqual(of(holding("other", "0.0.0.0")), ["192.0.2.2", refused]);
    assert.deepEqual(of(holding("other", "127.0.0.1")), ["192.0.2.1", "192.0.2.2"]);
    assert.deepEqual(of(holding("other", undefined, "Succeeded")), ["192.0.2.1", "192.0.2.2"]);
    // Either way its pods answer.
    assert.deepEqual(of(holding("web")), ["192.0.2.1", "192.0.2.2"]);
  });

  it("are the kubelet's, the proxy's and the API server's, on the nodes that have them", () => {
    const own = { nodeName: "n1", apiServerPort: 6443, listeners: [] };
    const of = (port: number, protocol: "TCP" | "UDP" = "TCP"): unknown =>
      plan([balancer("web", 9, { ports: [{ port, protocol }] })], { nodes: [n1, n2], machine: own })
        .got["web"];
    assert.deepEqual(of(10_250), [
      taken("the kubelet API of node n1", "10250/TCP"),
      taken("the kubelet API of node n2", "10250/TCP", "192.0.2.2"),
    ]);
    assert.deepEqual(of(10_256), [
      taken("the Service proxy of node n1", "10256/TCP"),
      taken("the Service proxy of node n2", "10256/TCP", "192.0.2.2"),
    ]);
    assert.deepEqual(of(6443), ["192.0.2.2", taken("the API server", "6443/TCP")]);
    assert.deepEqual(of(10_250, "UDP"), ["192.0.2.1", "192.0.2.2"]);
    // Nothing of ours answers on the node's own addresses there.
    for (const port of [53, 10_248, 10_249]) assert.deepEqual(of(port), ["192.0.2.1", "192.0.2.2"]);
  });

  it("are a program's that listens on the control plane's machine, unless the Service had it first", () => {
    const socket = (ip: string, family: "IPv4" | "IPv6" = "IPv4"): ListeningSocket => ({
      protocol: "TCP",
      family,
      ip,
      port: 22,
      uid: 0,
    });
    const ports = [{ port: 22, protocol: "TCP" as const }];
    const had = { status: { loadBalancer: { ingress: [{ ip: "192.0.2.1", ports }] } } };
    const of = (listener: ListeningSocket, rest: Partial<Stored<Service>> = {}): unknown =>
      plan([balancer("web", 9, { ports }, rest)], {
        machine: { nodeName: "n1", apiServerPort: 6443, listeners: [listener] },
      }).got["web"];
    const refused = (at: string): string[] => [
      taken(`a program on node n1 that listens on ${at}`, "22/TCP"),
    ];
    assert.deepEqual(of(socket("0.0.0.0")), refused("0.0.0.0:22"));
    assert.deepEqual(of(socket("192.0.2.1")), refused("192.0.2.1:22"));
    assert.deepEqual(of(socket("::", "IPv6")), refused("[::]:22"));
    assert.deepEqual(of(socket("127.0.0.1")), ["192.0.2.1"]);
    assert.deepEqual(of(socket("::1", "IPv6")), ["192.0.2.1"]);
    assert.deepEqual(of({ ...socket("0.0.0.0"), protocol: "UDP" }), ["192.0.2.1"]);
    assert.deepEqual(of(socket("0.0.0.0"), had), ["192.0.2.1"]);
  });

  it("are left alone on other machines when they are below 1024: sshd is usually everywhere", () => {
    const of = (number: number, ip: string): unknown =>
      plan([balancer("web", 9, { ports: [{ port: number }] })], {
        nodes: [n1, n2],
        machine: {
          nodeName: "n1",
          apiServerPort: 6443,
          listeners: [{ protocol: "TCP", family: "IPv4", ip, port: number, uid: 0 }],
        },
      }).got["web"];
    assert.deepEqual(of(22, "0.0.0.0"), [
      taken("a program on node n1 that listens on 0.0.0.0:22", "22/TCP"),
      taken(
        "a program on node n1 that listens on 0.0.0.0:22, and may do so on node n2",
        "22/TCP",
        "192.0.2.2",
      ),
    ]);
    // That one address of the other machine is its own affair.
    assert.deepEqual(of(22, "192.0.2.1"), [
      "192.0.2.2",
      taken("a program on node n1 that listens on 192.0.2.1:22", "22/TCP"),
    ]);
    assert.deepEqual(of(2222, "0.0.0.0"), [
      "192.0.2.2",
      taken("a program on node n1 that listens on 0.0.0.0:2222", "2222/TCP"),
    ]);
  });
});

describe("what is written of a load balancer", () => {
  const ingress = [
    { ip: "192.0.2.1", ipMode: "VIP", ports: [{ port: 80, protocol: "TCP" as const }] },
  ];
  const settled = (): Stored<Service> => {
    const web = balancer("web", 9, {}, { status: { loadBalancer: { ingress } } });
    return { ...web, metadata: { ...web.metadata, finalizers: ["other", finalizer] } };
  };
  const problem = { reason: "SyncLoadBalancerFailed", message: "m", conflict: true } as const;

  it("is finalizer and address in one write, with the version as a lock", () => {
    const found = assignmentPatch(balancer("web", 9), { ingress, problems: [] }, now);
    assert.deepEqual(found, {
      change: "ensured",
      patch: {
        metadata: { resourceVersion: "7", uid: "uid-web", finalizers: [finalizer] },
        status: { loadBalancer: { ingress }, conditions: null },
      },
    });
  });

  it("is nothing when it stands there already, in whatever order", () => {
    assert.equal(assignmentPatch(settled(), { ingress, problems: [] }, now), undefined);
    const shuffled = ingress.map(({ ip, ipMode, ports }) => ({ ports, ipMode, ip }));
    assert.equal(assignmentPatch(settled(), { ingress: shuffled, problems: [] }, now), undefined);
  });

  it("tells other hosts from another load balancer", () => {
    const moved = ingress.map((each) => ({ ...each, ip: "192.0.2.9" }));
    const other = ingress.map((each) => ({
      ...each,
      ports: [{ port: 81, protocol: "TCP" as const }],
    }));
    const change = (to: typeof ingress): unknown =>
      assignmentPatch(settled(), { ingress: to, problems: [] }, now)?.change;
    assert.equal(change(moved), "hosts");
    assert.equal(change(other), "ensured");
    assert.equal(change([]), "hosts");
  });

  it("has a condition while ports are refused, since when, and leaves those of others", () => {
    const others = {
      type: "Other",
      status: "True",
      reason: "R",
      message: "",
      lastTransitionTime: ago(9),
    } as const;
    const before = { ...settled(), status: { loadBalancer: {}, conditions: [others] } };
    const first = assignmentPatch(before, { ingress: [], problems: [problem] }, now);
    const mine = {
      type: "LoadBalancerPortsError",
      status: "True",
      reason: "PortConflict",
      message: "m",
      lastTransitionTime: ago(0),
    };
    assert.deepEqual(first?.patch.status.conditions, [others, mine]);
    assert.equal(first?.change, "ensured");
    const later = {
      ...before,
      status: { loadBalancer: {}, conditions: [others, { ...mine, status: "True" as const }] },
    };
    assert.equal(
      assignmentPatch(later, { ingress: [], problems: [problem] }, now + 5000),
      undefined,
    );
    const again = { ...problem, message: "n" };
    const changed = assignmentPatch(later, { ingress: [], problems: [again] }, now + 5000);
    assert.deepEqual(changed?.patch.status.conditions?.[1], { ...mine, message: "n" });
    const over = assignmentPatch(later, { ingress: [], problems: [] }, now + 5000);
    assert.deepEqual(over?.patch.status.conditions, [others]);
  });

  it("is taken back with the finalizer, and other finalizers stay", () => {
    assert.deepEqual(cleanupPatch(settled(), now), {
      metadata: { resourceVersion: "7", uid: "uid-web", finalizers: ["other"] },
      status: { loadBalancer: { ingress: null }, conditions: null },
    });
  });

  it("is taken back of what is deleted or of another type; another class has its own finalizer's controller", () => {
    const web = settled();
    const of = (change: Partial<Stored<Service>>, spec: Partial<ServiceSpec> = {}): boolean =>
      needsCleanup({ ...web, ...change, spec: { ...web.spec, ...spec } });
    const deleted = { metadata: { ...web.metadata, deletionTimestamp: ago(0) } };
    assert.equal(of({}), false);
    assert.equal(of(deleted), true);
    assert.equal(of({}, { type: "ClusterIP" }), true);
    assert.equal(of(deleted, { loadBalancerClass: "remora.io/node" }), true);
    assert.equal(of(deleted, { loadBalancerClass: "example.com/lb" }), false);
    assert.equal(of({ metadata: { ...deleted.metadata, finalizers: ["other"] } }), false);
  });
});

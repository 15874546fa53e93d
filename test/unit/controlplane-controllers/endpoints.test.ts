import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import type { EndpointSlice } from "../../../src/api/types.gen.ts";
import type {
  SliceInput,
  StoredSlice,
} from "../../../src/controlplane/controllers/endpoint-slices/plan.ts";
import { planSlices } from "../../../src/controlplane/controllers/endpoint-slices/plan.ts";
import { planEndpoints } from "../../../src/controlplane/controllers/endpoints/endpoints-controller.ts";
import {
  isManagedService,
  TriggerTimes,
} from "../../../src/controlplane/controllers/endpoints/service-endpoints.ts";
import { computeSubsets } from "../../../src/controlplane/controllers/endpoints/subsets.ts";
import { ago, node, now, pod, service } from "./builders.ts";

const onNode = { nodeName: "n1" };

describe("Endpoints", () => {
  test("ready pods are addresses, others are notReadyAddresses, without an IP they are absent", () => {
    const subsets = computeSubsets(service(), [
      pod({ name: "b", ip: "10.0.0.2", ready: true, spec: onNode }),
      pod({ name: "a", ip: "10.0.0.1", ready: true, spec: onNode }),
      pod({ name: "c", ip: "10.0.0.3", spec: onNode }),
      pod({ name: "d" }),
    ]);
    assert.equal(subsets.length, 1);
    assert.deepEqual(
      subsets[0]?.addresses?.map(({ ip }) => ip),
      ["10.0.0.1", "10.0.0.2"],
    );
    assert.deepEqual(
      subsets[0]?.notReadyAddresses?.map(({ ip }) => ip),
      ["10.0.0.3"],
    );
    assert.deepEqual(subsets[0]?.ports, [{ name: "http", port: 8080, protocol: "TCP" }]);
    assert.deepEqual(subsets[0]?.addresses?.[0], {
      ip: "10.0.0.1",
      nodeName: "n1",
      targetRef: { kind: "Pod", namespace: "default", name: "a", uid: "uid-a" },
    });
  });

  test("terminating pods leave, unless not-ready addresses are wanted", () => {
    const going = pod({ ip: "10.0.0.1", ready: true, deleting: true });
    assert.deepEqual(computeSubsets(service(), [going]), []);
    const wanted = computeSubsets(service({ publishNotReadyAddresses: true }), [going]);
    assert.equal(wanted[0]?.addresses?.length, 1);
  });

  test("terminal pods are never published", () => {
    const done = pod({ ip: "10.0.0.1", phase: "Succeeded" });
    assert.deepEqual(computeSubsets(service({ publishNotReadyAddresses: true }), [done]), []);
  });

  test("pods that resolve a named port differently are in different subsets", () => {
    const named = service({ ports: [{ port: 80, targetPort: "web", protocol: "TCP" }] });
    const withPort = (name: string, ip: string, port: number): ReturnType<typeof pod> =>
      pod({
        name,
        ip,
        ready: true,
        spec: { containers: [{ name: "c", ports: [{ name: "web", containerPort: port }] }] },
      });
    const subsets = computeSubsets(named, [
      withPort("a", "10.0.0.1", 8080),
      withPort("b", "10.0.0.2", 9090),
      pod({ name: "c", ip: "10.0.0.3", ready: true }),
    ]);
    assert.deepEqual(
      subsets.map((each) => [each.addresses?.[0]?.ip, each.ports?.[0]?.port]),
      [
        ["10.0.0.1", 8080],
        ["10.0.0.2", 9090],
      ],
    );
  });

  test("a headless Service without ports has addresses and no ports, and the label", () => {
    const headless = service({ clusterIP: "None", ports: undefined });
    const wanted = planEndpoints(headless, [pod({ ip: "10.0.0.1", ready: true })], undefined, now);
    assert.deepEqual(wanted?.subsets?.[0]?.ports, undefined);
    assert.deepEqual(wanted?.metadata?.labels, {
      team: "a",
      "endpoints.kubernetes.io/managed-by": "endpoint-controller",
      "service.kubernetes.io/headless": "",
    });
    assert.equal(
      wanted?.metadata?.annotations?.["endpoints.kubernetes.io/last-change-trigger-time"],
      "2026-01-01T12:00:00Z",
    );
  });

  test("hostname is published under the Service that governs the subdomain only", () => {
    const named = pod({
      ip: "10.0.0.1",
      ready: true,
      spec: { hostname: "db-0", subdomain: "web" },
    });
    assert.equal(computeSubsets(service(), [named])[0]?.addresses?.[0]?.hostname, "db-0");
    const other = pod({ ip: "10.0.0.1", ready: true, spec: { hostname: "db-0", subdomain: "x" } });
    assert.equal(computeSubsets(service(), [other])[0]?.addresses?.[0]?.hostname, undefined);
  });

  test("more than a thousand addresses are cut and marked, ready ones kept", () => {
    const pods = Array.from({ length: 1200 }, (_, n) =>
      pod({ name: `p${n}`, ip: `10.1.${n >> 8}.${n & 255}`, ready: n % 2 === 0 }),
    );
    const wanted = planEndpoints(service(), pods, undefined, undefined);
    assert.equal(wanted?.subsets?.[0]?.addresses?.length, 600);
    assert.equal(wanted?.subsets?.[0]?.notReadyAddresses?.length, 400);
    assert.equal(
      wanted?.metadata?.annotations?.["endpoints.kubernetes.io/over-capacity"],
      "truncated",
    );
  });

  test("an object that is right is not written again", () => {
    const pods = [pod({ ip: "10.0.0.1", ready: true })];
    const wanted = planEndpoints(service(), pods, undefined, now);
    const stored = {
      ...wanted,
      metadata: { ...wanted?.metadata, name: "web", uid: "e", resourceVersion: "9" },
    };
    assert.equal(planEndpoints(service(), pods, stored, now), undefined);
    const relabelled = service();
    relabelled.metadata.labels = { team: "b" };
    assert.equal(
      planEndpoints(relabelled, pods, stored, undefined)?.metadata?.labels?.["team"],
      "b",
    );
  });

  test("Services without a selector and ExternalName Services are left alone", () => {
    assert.equal(isManagedService(service({ selector: undefined })), false);
    assert.equal(isManagedService(service({ selector: {} })), false);
    assert.equal(isManagedService(service({ type: "ExternalName" })), false);
  });
});

let serial = 0;

/** Stores a plan's slices the way a server would. */
function applied(existing: readonly StoredSlice[], input: SliceInput): readonly StoredSlice[] {
  const plan = planSlices(input);
  const gone = new Set(plan.remove.map(({ metadata }) => metadata.name));
  const store = (slice: EndpointSlice): StoredSlice => {
    serial += 1;
    const name = slice.metadata?.name ?? `slice-${serial}`;
    return {
      ...slice,
      metadata: { ...slice.metadata, name, uid: name, resourceVersion: String(serial) },
    };
  };
  const updated = new Map(plan.update.map((each) => [each.metadata?.name, store(each)]));
  return [
    ...existing
      .filter(({ metadata }) => !gone.has(metadata.name))
      .map((each) => updated.get(each.metadata.name) ?? each),
    ...plan.create.map((each) => store(each)),
  ];
}

function input(
  pods: SliceInput["pods"],
  existing: readonly StoredSlice[] = [],
  more: Partial<SliceInput> = {},
): SliceInput {
  return {
    service: service(),
    pods,
    existing,
    node: () => node({ labels: { "topology.kubernetes.io/zone": "z1" } }),
    triggeredAt: undefined,
    ...more,
  };
}

describe("EndpointSlices", () => {
  test("an endpoint carries conditions, target, node and zone", () => {
    const { create } = planSlices(
      input([pod({ name: "a", ip: "10.0.0.1", ready: true, spec: onNode })]),
    );
    assert.deepEqual(create, [
      {
        addressType: "IPv4",
        ports: [{ name: "http", port: 8080, protocol: "TCP" }],
        endpoints: [
          {
            addresses: ["10.0.0.1"],
            conditions: { ready: true, serving: true, terminating: false },
            targetRef: { kind: "Pod", namespace: "default", name: "a", uid: "uid-a" },
            nodeName: "n1",
            zone: "z1",
          },
        ],
        metadata: {
          namespace: "default",
          generateName: "web-",
          ownerReferences: [
            {
              apiVersion: "v1",
              kind: "Service",
              name: "web",
              uid: "service-uid",
              controller: true,
              blockOwnerDeletion: true,
            },
          ],
          labels: {
            team: "a",
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
          },
        },
      },
    ]);
  });

  const conditions: readonly {
    title: string;
    parts: Parameters<typeof pod>[0];
    publish?: boolean;
    want: { ready: boolean; serving: boolean; terminating: boolean };
  }[] = [
    {
      title: "a terminating pod that still serves is not ready",
      parts: { ready: true, deleting: true },
      want: { ready: false, serving: true, terminating: true },
    },
    {
      title: "a pod that is not ready",
      parts: {},
      want: { ready: false, serving: false, terminating: false },
    },
    {
      title: "publishNotReadyAddresses makes every endpoint ready",
      parts: { deleting: true },
      publish: true,
      want: { ready: true, serving: false, terminating: true },
    },
  ];
  for (const { title, parts, publish, want } of conditions) {
    test(title, () => {
      const { create } = planSlices(
        input([pod({ ...parts, ip: "10.0.0.1" })], [], {
          service: service({ publishNotReadyAddresses: publish }),
        }),
      );
      assert.deepEqual(create[0]?.endpoints?.[0]?.conditions, want);
    });
  }

  test("a Service without pods has one empty slice, which the first endpoint takes over", () => {
    const empty = applied([], input([]));
    assert.equal(empty.length, 1);
    assert.deepEqual([empty[0]?.ports, empty[0]?.endpoints], [[], []]);
    assert.deepEqual(planSlices(input([], empty)), {
      create: [],
      update: [],
      remove: [],
      skippedPods: [],
    });
    const plan = planSlices(input([pod({ ip: "10.0.0.1", ready: true })], empty));
    assert.deepEqual([plan.create.length, plan.update.length, plan.remove.length], [0, 1, 0]);
    assert.equal(plan.update[0]?.metadata?.name, empty[0]?.metadata.name);
  });

  test("slices hold a hundred endpoints each, and one change rewrites one slice", () => {
    const pods = Array.from({ length: 250 }, (_, n) =>
      pod({ name: `p${n}`, ip: `10.2.0.${n}`, ready: true }),
    );
    const slices = applied([], input(pods));
    assert.deepEqual(slices.map((each) => String(each.endpoints?.length)).toSorted(), [
      "100",
      "100",
      "50",
    ]);
    const changed = pods.with(7, pod({ name: "p7", ip: "10.2.0.7", ready: false }));
    const plan = planSlices(input(changed, slices));
    assert.deepEqual([plan.create.length, plan.update.length, plan.remove.length], [0, 1, 0]);
  });

  test("a pod on an unknown node is left out and reported", () => {
    const plan = planSlices(
      input([pod({ name: "lost", ip: "10.0.0.1", ready: true })], [], { node: () => undefined }),
    );
    assert.deepEqual(plan.skippedPods, ["lost"]);
    assert.equal(plan.create[0]?.endpoints?.length, 0);
  });

  test("slices of an earlier Service of that name go", () => {
    const old = applied([], input([pod({ ip: "10.0.0.1", ready: true })]));
    const renewed = service();
    renewed.metadata.uid = "another-uid";
    const plan = planSlices(
      input([pod({ name: "x", ip: "10.0.0.9", ready: true })], old, { service: renewed }),
    );
    assert.deepEqual([plan.create.length, plan.update.length, plan.remove.length], [1, 0, 1]);
  });

  test("trafficDistribution becomes hints on ready endpoints", () => {
    const hints = (distribution: string): unknown =>
      planSlices(
        input([pod({ ip: "10.0.0.1", ready: true, spec: onNode })], [], {
          service: service({ trafficDistribution: distribution }),
        }),
      ).create[0]?.endpoints?.[0]?.hints;
    assert.deepEqual(hints("PreferClose"), { forZones: [{ name: "z1" }] });
    assert.deepEqual(hints("PreferSameNode"), {
      forZones: [{ name: "z1" }],
      forNodes: [{ name: "n1" }],
    });
  });

  test("from any state one plan leads to exactly the wanted endpoints, and the next changes nothing", () => {
    const podSet = fc.uniqueArray(fc.integer({ min: 0, max: 399 }), { maxLength: 260 });
    fc.assert(
      fc.property(podSet, podSet, (before, after) => {
        const pods = (numbers: readonly number[], ready: boolean): SliceInput["pods"] =>
          numbers.map((n) =>
            pod({ name: `p${n}`, ip: `10.3.${n >> 8}.${n & 255}`, ready: ready || n % 3 === 0 }),
          );
        const first = applied([], input(pods(before, true)));
        const wanted = input(pods(after, false), first);
        const second = applied(first, wanted);
        const addresses = second.flatMap(({ endpoints }) =>
          (endpoints ?? []).map((each) => String(each.addresses[0])),
        );
        assert.deepEqual(
          addresses.toSorted(),
          after.map((n) => `10.3.${n >> 8}.${n & 255}`).toSorted(),
        );
        assert.ok(second.every(({ endpoints }) => (endpoints ?? []).length <= 100));
        assert.ok(second.length > 0);
        const again = planSlices({ ...wanted, existing: second });
        assert.deepEqual(
          [again.create.length, again.update.length, again.remove.length],
          [0, 0, 0],
        );
      }),
      { numRuns: 40 },
    );
  });
});

test("the trigger time is that of the earliest new change", () => {
  const triggers = new TriggerTimes();
  const first = [pod({ name: "a", readyAgo: 30 }), pod({ name: "b", readyAgo: 20 })];
  assert.equal(triggers.next("k", service(), first), now - 1_000_000);
  assert.equal(triggers.next("k", service(), first), undefined);
  const changed = [pod({ name: "a", readyAgo: 5 }), pod({ name: "b", readyAgo: 2 })];
  assert.equal(triggers.next("k", service(), changed), Date.parse(ago(5)));
});

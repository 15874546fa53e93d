import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import type { Stored } from "../../../src/api/object.ts";
import type { Service } from "../../../src/api/types.gen.ts";
import type { BalancerNode } from "../../../src/controlplane/controllers/load-balancer/nodes.ts";
import {
  type BalancerPlan,
  planLoadBalancers,
} from "../../../src/controlplane/controllers/load-balancer/plan.ts";
import { ago, pod } from "./builders.ts";

const nodes: readonly BalancerNode[] = [1, 2].map((number) => ({
  name: `n${number}`,
  eligible: true,
  ready: true,
  kubeletPort: 10_250,
  addresses: [{ ip: `192.0.2.${number}`, family: "IPv4", type: "InternalIP" }],
}));

const port = fc.record({
  port: fc.integer({ min: 80, max: 83 }),
  protocol: fc.constantFrom("TCP" as const, "UDP" as const),
  nodePort: fc.constantFrom(0, 81, 83),
});

const service = fc
  .record({
    age: fc.integer({ min: 1, max: 3 }),
    type: fc.constantFrom("LoadBalancer" as const, "NodePort" as const, "ClusterIP" as const),
    external: fc.constantFrom<readonly string[]>([], ["192.0.2.1"]),
    asked: fc.constantFrom("", "", "192.0.2.2", "203.0.113.1"),
    ports: fc.uniqueArray(port, {
      minLength: 1,
      maxLength: 3,
      selector: ({ port: number, protocol }) => `${number}/${protocol}`,
    }),
  })
  .map(({ age, type, external, asked, ports }) => (name: string): Stored<Service> => ({
    metadata: {
      name,
      namespace: "default",
      uid: name,
      resourceVersion: "1",
      creationTimestamp: ago(age),
    },
    spec: {
      type,
      ipFamilies: ["IPv4"],
      externalIPs: [...external],
      ...(asked === "" ? {} : { loadBalancerIP: asked }),
      ports,
    },
  }));

const services = fc
  .array(service, { maxLength: 8 })
  .map((list) => list.map((make, index) => make(`s${index}`)));

const holder = pod({
  name: "holder",
  labels: { app: "other" },
  spec: {
    nodeName: "n2",
    containers: [{ name: "c", image: "i", ports: [{ containerPort: 1, hostPort: 82 }] }],
  },
});

function plan(list: readonly Stored<Service>[]): BalancerPlan {
  return planLoadBalancers({
    services: list,
    nodes,
    pods: [holder],
    slicesOf: () => [],
    machine: undefined,
  });
}

/** `address protocol port` of all that were given out. */
function given({ assignments }: BalancerPlan): readonly string[] {
  return [...assignments.values()].flatMap(({ ingress }) =>
    ingress.flatMap(({ ip, ports }) =>
      (ports ?? []).map(({ port: number, protocol }) => `${ip} ${protocol} ${number}`),
    ),
  );
}

const runs = { numRuns: 300 };

describe("however Services want ports", () => {
  it("no port of an address is given out twice, and none that a pod has", () => {
    fc.assert(
      fc.property(services, (list) => {
        const all = given(plan(list));
        assert.equal(new Set(all).size, all.length);
        assert.ok(!all.includes("192.0.2.2 TCP 82"));
      }),
      runs,
    );
  });

  it("an address comes with all ports, and what is not given is explained", () => {
    fc.assert(
      fc.property(services, (list) => {
        const { assignments } = plan(list);
        for (const each of list) {
          const found = assignments.get(`default/${each.metadata.name}`);
          assert.equal(found !== undefined, each.spec?.type === "LoadBalancer");
          if (found === undefined) continue;
          for (const { ports } of found.ingress)
            assert.equal(ports?.length, each.spec?.ports?.length);
          const wanted = each.spec?.loadBalancerIP === undefined ? 2 : 1;
          if (found.ingress.length < wanted) assert.ok(found.problems.length > 0);
          else assert.deepEqual(found.problems, []);
        }
      }),
      runs,
    );
  });

  it("the order in which they are told of changes nothing", () => {
    fc.assert(
      fc.property(services, (list) => {
        const { assignments, hidden } = plan(list);
        const reversed = plan(list.toReversed());
        assert.deepEqual(reversed.assignments, assignments);
        assert.deepEqual(reversed.hidden, hidden);
      }),
      runs,
    );
  });

  it("younger ones never take anything from the oldest", () => {
    fc.assert(
      fc.property(services, (list) => {
        const oldest = list.toSorted((a, b) => (rank(a) < rank(b) ? -1 : 1)).slice(0, 3);
        const among = plan(list).assignments;
        for (const [key, alone] of plan(oldest).assignments) {
          assert.deepEqual(among.get(key)?.ingress, alone.ingress);
        }
      }),
      runs,
    );
  });
});

function rank({ metadata }: Stored<Service>): string {
  return `${metadata.creationTimestamp} default/${metadata.name}`;
}

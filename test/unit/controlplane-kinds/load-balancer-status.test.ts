import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { validateServiceStatus } from "../../../src/controlplane/kinds/service-status.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { context, createCluster } from "./harness.ts";

function errors(ingress: readonly JsonObject[], type = "LoadBalancer"): readonly string[] {
  return validateServiceStatus({ spec: { type }, status: { loadBalancer: { ingress } } }).map(
    ({ field, message }) => `${field.replace("status.loadBalancer.ingress", "")} ${message}`,
  );
}

describe("the status of a load balancer", () => {
  const cases: readonly (readonly [string, readonly JsonObject[], readonly string[]])[] = [
    ["an address with its mode", [{ ip: "192.0.2.1", ipMode: "VIP" }], []],
    ["a name", [{ hostname: "lb.example.com" }], []],
    ["both", [{ ip: "2001:db8::1", ipMode: "Proxy", hostname: "lb.example.com" }], []],
    [
      "what is no address",
      [
        { ip: "192.0.2.1", ipMode: "VIP" },
        { ip: "x; flush", ipMode: "VIP" },
      ],
      [
        '[1].ip Invalid value: "x; flush": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
      ],
    ],
    [
      "no mode",
      [{ ip: "192.0.2.1" }],
      ["[0].ipMode Required value: must be specified when `ip` is set"],
    ],
    [
      "a mode without an address",
      [{ hostname: "lb.example.com", ipMode: "VIP" }],
      ["[0].ipMode Forbidden: may not be specified when `ip` is not set"],
    ],
    [
      "another mode",
      [{ ip: "192.0.2.1", ipMode: "Magic" }],
      ['[0].ipMode Unsupported value: "Magic": supported values: "Proxy", "VIP"'],
    ],
    [
      "an address as a name",
      [{ hostname: "192.0.2.1" }],
      ['[0].hostname Invalid value: "192.0.2.1": must be a DNS name, not an IP address'],
    ],
  ];
  for (const [what, ingress, expected] of cases) {
    it(`${expected.length === 0 ? "may be" : "is refused with"} ${what}`, () => {
      assert.deepEqual(errors(ingress), expected);
    });
  }

  it("is for Services of that type alone", () => {
    const ingress = [{ ip: "192.0.2.1", ipMode: "VIP" }];
    assert.deepEqual(errors(ingress, "NodePort"), [
      " Forbidden: may only be used when `spec.type` is 'LoadBalancer'",
    ]);
    assert.deepEqual(errors([], "NodePort"), []);
  });

  it("goes at once when the type changes", () => {
    const cluster = createCluster();
    const { strategy } = cluster.kind("services");
    const old: JsonObject = {
      metadata: { name: "web", namespace: "default" },
      spec: { type: "LoadBalancer", ports: [{ port: 80 }], clusterIP: "10.96.0.9" },
      status: { loadBalancer: { ingress: [{ ip: "192.0.2.1", ipMode: "VIP" }] } },
    };

    const changed = (type: string): unknown => {
      const object = structuredClone(old);
      object["spec"] = { ...(old["spec"] as JsonObject), type };
      strategy.prepareForUpdate(object, old, context());
      return object["status"];
    };
    assert.deepEqual(changed("NodePort"), { loadBalancer: {} });
    assert.deepEqual(changed("LoadBalancer"), old["status"]);
  });
});

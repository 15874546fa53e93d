import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { parseDnsService, parseDnsSlice } from "../../../src/dns/parse.ts";
import { SharedValues } from "../../../src/dns/shared-values.ts";

const port = { name: "http", protocol: "TCP", port: 80 };

function service(name: string, ports: readonly object[] = [port]): unknown {
  const spec = { clusterIP: "10.96.0.1", clusterIPs: ["10.96.0.1"], ports };
  return { metadata: { namespace: "default", name }, spec };
}

function slice(name: string): unknown {
  const labels = { "kubernetes.io/service-name": name };
  const endpoints = [{ addresses: ["10.0.0.1"] }];
  return { metadata: { namespace: "default", name, labels }, ports: [port], endpoints };
}

describe("what objects have in common", () => {
  it("changes nothing of what they say, and lists of ports are one", () => {
    const shared = new SharedValues();
    // As a message brings them: nothing of one is the same object as in another.
    const [a, b] = ["a", "b"].map((name) => structuredClone(parseDnsService(service(name))));
    const c = structuredClone(parseDnsSlice(slice("a")));
    assert.ok(a && b);
    const [keptA, keptB, keptC] = [shared.service(a), shared.service(b), shared.slice(c)];
    assert.deepEqual([keptA, keptB, keptC], [a, b, c]);
    assert.equal(keptA.ports, keptB.ports);
    assert.equal(keptA.ports, keptC.ports);
    assert.notEqual(a.ports, b.ports);
  });

  it("keeps different lists apart", () => {
    const shared = new SharedValues();
    const lists = [
      [port],
      [port, port],
      [{ ...port, port: 81 }],
      [{ ...port, protocol: "UDP" }],
      [],
    ];
    const parsed = lists.map((ports) => parseDnsService(service("a", ports)));
    for (const each of parsed) assert.deepEqual(shared.service(each), each);
  });

  it("stays right when somebody makes up more than it keeps", () => {
    const shared = new SharedValues();
    for (let number = 1; number <= 10_000; number += 1) {
      const parsed = parseDnsService(service("a", [{ ...port, port: number }]));
      assert.equal(shared.service(parsed).ports[0]?.port, number);
    }
  });
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  clientUsagesProblem,
  isStale,
  kubeletClientProblem,
  kubeletServingProblem,
  servingApprovalProblem,
  signers,
  validity,
  x509Usages,
} from "../../../src/controlplane/controllers/certificates/rules.ts";
import { csr, parsed, requestPEM } from "./requests.ts";

const hour = 3_600_000;

describe("what a signer looks at", () => {
  const client = ["digital signature", "client auth"];
  const cases: readonly [string, string | undefined, string | undefined][] = [
    ["a node", kubeletClientProblem(parsed(), client), undefined],
    ["with an RSA key", kubeletClientProblem(parsed(), [...client, "key encipherment"]), undefined],
    [
      "another group",
      kubeletClientProblem(parsed("system:node:n1", ["system:masters"]), client),
      "subject organization is not system:nodes",
    ],
    [
      "a second group",
      kubeletClientProblem(parsed("system:node:n1", ["system:nodes", "system:masters"]), client),
      "subject organization is not system:nodes",
    ],
    [
      "no node",
      kubeletClientProblem(parsed("admin"), client),
      "subject common name does not begin with system:node:",
    ],
    [
      "a client with a host name",
      kubeletClientProblem(parsed("system:node:n1", ["system:nodes"], ["n1"]), client),
      "DNS subjectAltNames are not allowed",
    ],
    [
      "a client with an address",
      kubeletClientProblem(parsed("system:node:n1", ["system:nodes"], ["192.0.2.1"]), client),
      "IP subjectAltNames are not allowed",
    ],
    [
      "a client that wants to serve",
      kubeletClientProblem(parsed(), [...client, "server auth"]),
      "usages did not match [client auth digital signature key encipherment]",
    ],
    [
      "a server without a name",
      kubeletServingProblem(parsed(), ["digital signature", "server auth"]),
      "DNS or IP subjectAltName is required",
    ],
    ["a user", clientUsagesProblem(["client auth"]), undefined],
    [
      "a user who wants to sign",
      clientUsagesProblem(["client auth", "cert sign"]),
      "invalid usage for client certificate: cert sign",
    ],
    [
      "a user who is no client",
      clientUsagesProblem(["digital signature"]),
      "missing required usage for client certificate: client auth",
    ],
  ];
  for (const [title, problem, wanted] of cases)
    test(`${title}: ${wanted ?? "is signed"}`, () => assert.equal(problem, wanted));
});

describe("who gets a serving certificate without being looked at by a person", () => {
  const node = {
    metadata: { name: "n1" },
    status: {
      addresses: [
        { type: "InternalIP", address: "192.0.2.1" },
        { type: "InternalIP", address: "2001:db8::1" },
        { type: "Hostname", address: "n1" },
      ],
    },
  };
  const other = {
    metadata: { name: "n9" },
    status: { addresses: [{ type: "InternalIP", address: "192.0.2.9" }] },
  };
  const usages = ["digital signature", "server auth"] as const;
  function problem(
    names: readonly string[],
    options: {
      user?: string;
      groups?: string[];
      commonName?: string;
      noNode?: boolean;
      node?: typeof node;
    } = {},
  ): string | undefined {
    const {
      user = "system:node:n1",
      groups = ["system:nodes"],
      commonName = "system:node:n1",
    } = options;
    const pem = requestPEM(commonName, ["system:nodes"], names);
    const spec = { username: user, groups };
    return servingApprovalProblem(
      csr(signers.kubeletServing, [...usages], pem, spec),
      parsed(commonName, ["system:nodes"], names),
      {
        nodes: options.noNode === true ? [other] : [other, options.node ?? node],
        clusterIP: "10.96.0.1",
      },
    );
  }
  /** n1 says itself what its addresses are. */
  const claims = (...addresses: readonly string[]): typeof node => ({
    ...node,
    status: {
      addresses: addresses.map((address) => ({
        type: /^[\d:]/.test(address) ? "InternalIP" : "Hostname",
        address,
      })),
    },
  });
  const claimed = (name: string): string | undefined => problem([name], { node: claims(name) });
  const cases: readonly [string, string | undefined, string | undefined][] = [
    ["its own names", problem(["n1", "192.0.2.1", "2001:db8:0::1"]), undefined],
    ["some of them", problem(["192.0.2.1"]), undefined],
    ["another's address", problem(["n1", "192.0.2.9"]), "not an address of node n1: 192.0.2.9"],
    ["another's name", problem(["n1", "n2"]), "not an address of node n1: n2"],
    [
      "a Service's name",
      problem(["kubernetes.default"]),
      "not an address of node n1: kubernetes.default",
    ],
    [
      "for another node",
      problem(["n1"], { commonName: "system:node:n2" }),
      "subject common name is not that of the requestor, system:node:n1",
    ],
    ["asked by an administrator", problem(["n1"], { user: "admin" }), "the requestor is no node"],
    ["asked outside of the group", problem(["n1"], { groups: [] }), "the requestor is no node"],
    ["another node's address, claimed", claimed("192.0.2.9"), "also of node n9: 192.0.2.9"],
    ["another node's name, claimed", claimed("N9"), "also of node n9: N9"],
    ["the API server's address", claimed("10.96.0.1"), "not for a node: 10.96.0.1"],
    ["the API server's name", claimed("kubernetes"), "not for a node: kubernetes"],
    [
      "a Service's long name",
      claimed("db.prod.svc.cluster.local"),
      "not for a node: db.prod.svc.cluster.local",
    ],
    ["any name", claimed("*.example.com"), "not for a node: *.example.com"],
    ["this machine, whichever", claimed("127.0.0.1"), "not for a node: 127.0.0.1"],
    ["the same in IPv6", claimed("::1"), "not for a node: ::1"],
    ["before the node is there", problem(["n1"], { noNode: true }), "node n1 does not exist yet"],
  ];
  for (const [title, found, wanted] of cases)
    test(`${title}: ${wanted ?? "is approved"}`, () => assert.equal(found, wanted));
});

test("a certificate lives a year at most, ten minutes at least, and not longer than its authority", () => {
  const now = Date.UTC(2026, 0, 1);
  const far = now + 20 * 365 * 24 * hour;
  const life = (seconds: number | undefined, end = far): number =>
    (validity(seconds, now, end).notAfter - now) / 60_000;
  assert.equal(validity(undefined, now, far).notBefore, now - 5 * 60_000);
  assert.equal(life(undefined), 365 * 24 * 60 - 5);
  assert.equal(life(100 * 365 * 24 * 3600), 365 * 24 * 60 - 5);
  assert.equal(life(24 * 3600), 24 * 60 - 5);
  assert.equal(life(3600), 60);
  assert.equal(life(60), 10);
  assert.equal(life(undefined, now + hour), 60);
  assert.throws(() => validity(undefined, now, now), /refusing to sign a certificate that expired/);
});

test("usages become X.509's", () => {
  assert.deepEqual(
    x509Usages(["digital signature", "signing", "key encipherment", "server auth"]),
    {
      keyUsages: [0, 2],
      extendedKeyUsages: ["1.3.6.1.5.5.7.3.1"],
    },
  );
});

describe("requests that have served are removed", () => {
  const start = Date.parse("2026-01-01T00:00:00Z");
  const at = (hours: number): number => start + hours * hour + 1;
  const condition = (type: string): { type: string; status: string; lastUpdateTime: string } => ({
    type,
    status: "True",
    lastUpdateTime: "2026-01-01T00:00:00Z",
  });
  const request = csr(signers.kubeletClient, ["client auth"], requestPEM());
  const cases: readonly [string, Parameters<typeof isStale>[0], number | undefined, number][] = [
    ["undecided", request, undefined, 24],
    ["denied", { ...request, status: { conditions: [condition("Denied")] } }, undefined, 1],
    ["approved", { ...request, status: { conditions: [condition("Approved")] } }, undefined, 24],
    [
      "failed",
      { ...request, status: { conditions: [condition("Approved"), condition("Failed")] } },
      undefined,
      1,
    ],
    [
      "issued",
      { ...request, status: { conditions: [condition("Approved")], certificate: "x" } },
      at(1000),
      1,
    ],
  ];
  for (const [title, object, expiresAt, hours] of cases) {
    test(`${title} after ${hours} h`, () => {
      assert.equal(isStale(object, expiresAt, at(hours) - 2), false);
      assert.equal(isStale(object, expiresAt, at(hours)), true);
    });
  }
  test("and one whose certificate has expired at once", () => {
    const issued = {
      ...request,
      status: { conditions: [condition("Approved")], certificate: "x" },
    };
    assert.equal(isStale(issued, at(0), at(0) + 1), true);
  });
});

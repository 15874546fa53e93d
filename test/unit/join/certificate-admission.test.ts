import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { record, records } from "../../../src/controlplane/kinds/access.ts";
import type { JsonObject, RequestContext, UserInfo } from "../../../src/controlplane/types.ts";
import { certificateAuthority, newPrivateKey } from "../../../src/lib/x509.ts";
import { bootstrapObjects } from "../../../src/controlplane/bootstrap-objects.ts";
import { context, createCluster } from "../controlplane-kinds/harness.ts";
import { requestPEM } from "./requests.ts";

const resource = "certificatesigningrequests.certificates.k8s.io";

function user(name: string, ...groups: readonly string[]): RequestContext {
  const who: UserInfo = { name, uid: "", groups: [...groups, "system:authenticated"], extra: {} };
  return context(who);
}

const node = user("system:node:n1", "system:nodes");
const controller = user("system:serviceaccount:kube-system:certificate-controller");
const servingApprover = user("system:serviceaccount:kube-system:kubelet-serving-approver");

function input(pem: string, spec: JsonObject = {}): JsonObject {
  return {
    apiVersion: "certificates.k8s.io/v1",
    kind: "CertificateSigningRequest",
    metadata: { name: "x" },
    spec: {
      request: Buffer.from(pem).toString("base64"),
      signerName: "kubernetes.io/kube-apiserver-client-kubelet",
      usages: ["digital signature", "client auth"],
      ...spec,
    },
  };
}

function clusterWithRoles(): ReturnType<typeof createCluster> {
  const cluster = createCluster();
  for (const { resource: kind, object } of bootstrapObjects()) cluster.objects.put(kind, object);
  return cluster;
}

const approved = { type: "Approved", status: "True", reason: "R" };
const authority = certificateAuthority({ commonName: "ca" }, newPrivateKey(), {
  notBefore: 0,
  notAfter: 1_000_000_000_000,
});
const certificate = Buffer.from(authority).toString("base64");

describe("a certificate signing request", () => {
  test("says who asks, whatever the client writes", () => {
    const made = clusterWithRoles().create(
      resource,
      "",
      { ...input(requestPEM()), status: { conditions: [approved], certificate } },
      node,
    );
    assert.equal(record(made["spec"])["username"], "system:node:n1");
    assert.deepEqual(record(made["spec"])["groups"], ["system:nodes", "system:authenticated"]);
    assert.deepEqual(made["status"], {});
  });

  const refused: readonly [string, JsonObject, RequestContext, RegExp][] = [
    [
      "of a node for another",
      input(requestPEM("system:node:n2")),
      node,
      /can only create a node CSR with CN=system:node:n1/,
    ],
    [
      "for system:masters",
      input(requestPEM("me", ["system:masters"]), {
        signerName: "kubernetes.io/kube-apiserver-client",
      }),
      context(),
      /use of kubernetes.io\/kube-apiserver-client signer with system:masters group is not allowed/,
    ],
    [
      "with a broken signature",
      input(tampered(requestPEM())),
      context(),
      /spec.request: Invalid value: .*signature: expected one that the request's own key has made/,
    ],
    ["for nothing", input(requestPEM(), { usages: [] }), context(), /spec.usages: Required value/],
    [
      "for something unknown",
      input(requestPEM(), { usages: ["client auth", "flying"] }),
      context(),
      /spec.usages\[1\]: Unsupported value: "flying": supported values: "any", "cert sign"/,
    ],
    [
      "twice for the same",
      input(requestPEM(), { usages: ["client auth", "client auth"] }),
      context(),
      /spec.usages\[1\]: Duplicate value: "client auth"/,
    ],
    [
      "for a minute",
      input(requestPEM(), { expirationSeconds: 60 }),
      context(),
      /spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 600 seconds/,
    ],
    [
      "to nobody",
      input(requestPEM(), { signerName: "me" }),
      context(),
      /spec.signerName: Invalid value: "me": must be a fully qualified domain and path of the form/,
    ],
    [
      "to the signer of old",
      input(requestPEM(), { signerName: "kubernetes.io/legacy-unknown" }),
      context(),
      /the legacy signerName is not allowed via this API version/,
    ],
  ];
  for (const [title, object, as, message] of refused) {
    test(`is refused: ${title}`, () => {
      assert.throws(() => clusterWithRoles().create(resource, "", object, as), message);
    });
  }
});

function tampered(pem: string): string {
  const body = pem.replaceAll(/-----[^-]+-----|\s/g, "");
  const bytes = Buffer.from(body, "base64");
  const last = bytes.length - 1;
  bytes[last] = (bytes[last] ?? 0) ^ 1;
  return `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
}

describe("approval and signature are two rights", () => {
  function world(signerName = "kubernetes.io/kube-apiserver-client-kubelet"): {
    readonly stored: JsonObject;
    change(subresource: string | undefined, status: JsonObject, as: RequestContext): JsonObject;
  } {
    const cluster = clusterWithRoles();
    const stored = cluster.create(resource, "", input(requestPEM(), { signerName }), context());
    return {
      stored,
      change(subresource, status, as) {
        const next = { ...structuredClone(stored), status };
        const options = subresource === undefined ? { as } : { subresource, as };
        return cluster.update(resource, stored, next, options);
      },
    };
  }

  test("who may approve does, and the time is noted", () => {
    const done = world().change("approval", { conditions: [approved], certificate }, controller);
    const [condition] = records(record(done["status"])["conditions"]);
    assert.equal(condition?.["type"], "Approved");
    assert.match(String(condition?.["lastUpdateTime"]), /^2026-11-21T12:00:00Z$/);
    assert.equal(record(done["status"])["certificate"], undefined, "approval does not sign");
  });

  test("the main endpoint does neither", () => {
    const done = world().change(undefined, { conditions: [approved], certificate }, context());
    assert.deepEqual(record(done["status"]), {});
  });

  test("who may sign does", () => {
    const done = world().change("status", { certificate }, controller);
    assert.equal(record(done["status"])["certificate"], certificate);
  });

  const client = "kubernetes.io/kube-apiserver-client";
  const serving = "kubernetes.io/kubelet-serving";
  const refusals: readonly [string, string, string, JsonObject, RequestContext, RegExp][] = [
    [
      "approve for users: not the controller",
      client,
      "approval",
      { conditions: [approved] },
      controller,
      /user not permitted to approve requests with signerName "kubernetes.io\/kube-apiserver-client"/,
    ],
    [
      "approve for nodes: not the approver of serving certificates",
      "kubernetes.io/kube-apiserver-client-kubelet",
      "approval",
      { conditions: [approved] },
      servingApprover,
      /user not permitted to approve requests/,
    ],
    [
      "sign: not who only approves",
      serving,
      "status",
      { certificate },
      servingApprover,
      /user not permitted to sign requests with signerName "kubernetes.io\/kubelet-serving"/,
    ],
    [
      "approve on the way of a signature",
      serving,
      "status",
      { conditions: [approved] },
      controller,
      /status.conditions: Forbidden: updates may not add a condition of type "Approved"/,
    ],
    [
      "both at once",
      serving,
      "approval",
      { conditions: [approved, { type: "Denied", status: "True" }] },
      servingApprover,
      /status.conditions: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive/,
    ],
    [
      "half an approval",
      serving,
      "approval",
      { conditions: [{ type: "Approved", status: "False" }] },
      servingApprover,
      /status.conditions\[0\].status: Unsupported value: "False": supported values: "True"/,
    ],
    [
      "something that is no certificate",
      serving,
      "status",
      { certificate: Buffer.from("hello").toString("base64") },
      controller,
      /status.certificate: Invalid value: "<certificate data>": must contain at least one CERTIFICATE PEM block/,
    ],
  ];
  for (const [title, signer, subresource, status, as, message] of refusals) {
    test(`refused: ${title}`, () => {
      assert.throws(() => world(signer).change(subresource, status, as), message);
    });
  }

  test("what is decided stays decided, and what is issued stays", () => {
    const cluster = clusterWithRoles();
    const stored = cluster.create(resource, "", input(requestPEM()), context());
    const issued = { ...stored, status: { conditions: [approved], certificate } };
    const change = (subresource: string, status: JsonObject): unknown =>
      cluster.update(resource, issued, { ...stored, status }, { subresource });
    assert.throws(
      () => change("approval", { conditions: [] }),
      /updates may not remove a condition of type "Approved"/,
    );
    const other = certificateAuthority({ commonName: "b" }, newPrivateKey(), {
      notBefore: 0,
      notAfter: 1_000_000_000_000,
    });
    assert.throws(
      () =>
        change("status", {
          conditions: [approved],
          certificate: Buffer.from(other).toString("base64"),
        }),
      /status.certificate: Forbidden: updates may not modify existing certificate content/,
    );
  });
});

import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { after, before, test } from "node:test";

import {
  clientWish,
  requestCertificate,
  RequestRefusedError,
  servingWish,
} from "../../../src/agent/certificates/request-certificate.ts";
import { joinCluster } from "../../../src/agent/join/join-cluster.ts";
import {
  clusterInfo,
  signaturePrefix,
  tokenNamespace,
  tokenSecretName,
} from "../../../src/api/bootstrap-token.ts";
import { isNotFound } from "../../../src/api/errors.ts";
import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
import { createObject, getObject, listObjects, patchObject } from "../../../src/api/objects.ts";
import {
  CERTIFICATE_SIGNING_REQUESTS,
  CONFIG_MAPS,
  NODES,
  SECRETS,
} from "../../../src/api/resources.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { certificationRequest } from "../../../src/lib/pkcs10.ts";
import { newPrivateKey } from "../../../src/lib/x509.ts";
import { eventually, startWorld, type World } from "../controlplane-controllers/world.ts";
import {
  clusterInfoWith,
  createToken,
  joinOptions,
  type Machine,
  startMachine,
} from "./fixture.ts";

const token = { id: "abcdef", secret: "0123456789abcdef" };
let world: World;
let machine: Machine;
/** Node n2, which has joined. */
let client: HttpClient;

before(async () => {
  world = await startWorld();
  machine = await startMachine();
  await createToken(world, token);
  await clusterInfoWith(world, (data) => `${signaturePrefix}${token.id}` in data);
  await joinCluster(await joinOptions(world, machine, token), world.signal);
  client = createHttpClient({
    kubeconfig: await loadKubeconfig(machine.paths.kubeconfig),
    userAgent: "test",
    clock: systemClock,
    logger: silentLogger,
  });
});
after(async () => {
  await client.close();
  await world.close();
  await machine.close();
});

const usages = ["digital signature", "client auth"] as const;

test("a user's certificate waits for a person, who may say yes or no", async () => {
  const key = newPrivateKey();
  const pem = certificationRequest(key, {
    subject: { commonName: "jane", organizations: ["dev"] },
  });
  const request = async (name: string): Promise<void> => {
    await createObject(
      world.client,
      CERTIFICATE_SIGNING_REQUESTS,
      {
        metadata: { name },
        spec: {
          request: Buffer.from(pem).toString("base64"),
          signerName: "kubernetes.io/kube-apiserver-client",
          usages: [...usages],
          expirationSeconds: 3600,
        },
      },
      world,
    );
  };
  await request("jane-yes");
  await request("jane-no");
  const decide = async (name: string, type: string): Promise<void> => {
    const at = { name, patch: { status: { conditions: [{ type, status: "True" }] } } };
    await patchObject(world.client, CERTIFICATE_SIGNING_REQUESTS, at, {
      ...world,
      subresource: "approval",
      type: "application/merge-patch+json",
    });
  };
  await decide("jane-no", "Denied");
  await decide("jane-yes", "Approved");
  const issued = await eventually("the certificate", async () => {
    const at = { name: "jane-yes" };
    const found = await getObject(world.client, CERTIFICATE_SIGNING_REQUESTS, at, world);
    return found.status?.certificate;
  });
  const text = new X509Certificate(Buffer.from(issued, "base64"));
  assert.equal(text.subject, "O=dev\nCN=jane");
  const lifeMs = text.validToDate.getTime() - text.validFromDate.getTime();
  assert.equal(lifeMs, 65 * 60_000, "an hour, and five minutes for clocks that are behind");
  const denied = await getObject(
    world.client,
    CERTIFICATE_SIGNING_REQUESTS,
    { name: "jane-no" },
    world,
  );
  assert.equal(denied.status?.certificate, undefined);
});

test("an approved request that its signer does not take is marked as failed", async () => {
  const pem = certificationRequest(newPrivateKey(), { subject: { commonName: "jane" } });
  await createObject(
    world.client,
    CERTIFICATE_SIGNING_REQUESTS,
    {
      metadata: { name: "wrong" },
      spec: {
        request: Buffer.from(pem).toString("base64"),
        signerName: "kubernetes.io/kube-apiserver-client",
        usages: ["server auth"],
      },
    },
    world,
  );
  const patch = { status: { conditions: [{ type: "Approved", status: "True" }] } };
  await patchObject(
    world.client,
    CERTIFICATE_SIGNING_REQUESTS,
    { name: "wrong", patch },
    { ...world, subresource: "approval", type: "application/merge-patch+json" },
  );
  const failed = await eventually("the failure", async () => {
    const at = { name: "wrong" };
    const found = await getObject(world.client, CERTIFICATE_SIGNING_REQUESTS, at, world);
    return found.status?.conditions?.find(({ type }) => type === "Failed");
  });
  assert.equal(failed.reason, "SignerValidationFailure");
  assert.equal(failed.message, "invalid usage for client certificate: server auth");
});

test("a serving certificate for an address that the node does not have waits until it has it", async () => {
  const address = (ip: string): { type: string; address: string } => ({
    type: "InternalIP",
    address: ip,
  });
  const status = { addresses: [address("192.0.2.2")] };
  await createObject(client, NODES, { metadata: { name: "n2" }, status }, world);
  const stop = new AbortController();
  let issued: string | undefined;
  const deps = { client, clock: systemClock, logger: silentLogger };
  const wish = servingWish("n2", ["192.0.2.77"]);
  const ask = async (): Promise<void> => {
    issued = await requestCertificate(deps, newPrivateKey(), wish, stop.signal);
  };
  const asking = ask();
  await eventually("the request", async () => {
    const { items } = await listObjects(world.client, CERTIFICATE_SIGNING_REQUESTS, {
      ...world,
      fieldSelector: "spec.signerName=kubernetes.io/kubelet-serving",
    });
    return items.length === 1 ? items : undefined;
  });
  // Other requests are decided meanwhile: this one was looked at as well.
  await requestCertificate(deps, newPrivateKey(), clientWish("n2"), stop.signal);
  assert.equal(issued, undefined);
  const patch = { status: { addresses: [address("192.0.2.2"), address("192.0.2.77")] } };
  const type = "application/merge-patch+json";
  await patchObject(
    client,
    NODES,
    { name: "n2", patch },
    { ...world, subresource: "status", type },
  );
  await asking;
  assert.equal(new X509Certificate(issued ?? "").subjectAltName, "IP Address:192.0.2.77");
});

test("a node asks in its own name only", async () => {
  const deps = { client, clock: systemClock, logger: silentLogger };
  await assert.rejects(
    requestCertificate(deps, newPrivateKey(), clientWish("n1"), world.signal),
    /can only create a node CSR with CN=system:node:n2/,
  );
});

test("a denied request ends the wait with its reason", async () => {
  const key = newPrivateKey();
  const wish = servingWish("n2", ["192.0.2.99"]);
  const deps = { client, clock: systemClock, logger: silentLogger };
  const asking = requestCertificate(deps, key, wish, world.signal);
  const refused = assert.rejects(asking, (error) => {
    assert.ok(error instanceof RequestRefusedError);
    assert.match(error.message, /was denied \(Policy: not this one\): ask the cluster's/);
    return true;
  });
  const pending = await eventually("the request", async () => {
    const { items } = await listObjects(world.client, CERTIFICATE_SIGNING_REQUESTS, world);
    return items.find(
      (item) =>
        item.spec.signerName === wish.signerName && (item.status?.conditions ?? []).length === 0,
    );
  });
  const denial = { type: "Denied", status: "True", reason: "Policy", message: "not this one" };
  await patchObject(
    world.client,
    CERTIFICATE_SIGNING_REQUESTS,
    { name: pending.metadata.name, patch: { status: { conditions: [denial] } } },
    { ...world, subresource: "approval", type: "application/merge-patch+json" },
  );
  await refused;
});

test("an expired token goes, its signature with it, and nobody comes in with it", async () => {
  const late = { id: "latest", secret: "0123456789abcdef" };
  const expiration = new Date(world.clock.now() + 3_600_000).toISOString();
  await createToken(world, late, { expiration });
  await clusterInfoWith(world, (data) => `${signaturePrefix}latest` in data);
  const kubeconfig = await loadKubeconfig(world.controlPlane.files.adminKubeconfig);
  const bearer = createHttpClient({
    kubeconfig: { ...kubeconfig, user: { name: "t", token: `${late.id}.${late.secret}` } },
    userAgent: "test",
    clock: systemClock,
    logger: silentLogger,
  });
  await listObjects(bearer, CERTIFICATE_SIGNING_REQUESTS, world);
  await assert.rejects(listObjects(bearer, SECRETS, world), { status: 403 });
  world.clock.leap(3_700_000);
  await eventually("the Secret is gone", async () => {
    const at = { namespace: tokenNamespace, name: tokenSecretName(late.id) };
    try {
      await getObject(world.client, SECRETS, at, world);
      return undefined;
    } catch (error) {
      if (isNotFound(error)) return true;
      throw error;
    }
  });
  const data = await clusterInfoWith(world, (each) => !(`${signaturePrefix}latest` in each));
  assert.ok(`${signaturePrefix}${token.id}` in data, "the others stay");
  await assert.rejects(listObjects(bearer, CERTIFICATE_SIGNING_REQUESTS, world), { status: 401 });
  await bearer.close();
});

test("what is in cluster-info is signed anew when somebody changes it", async () => {
  const before = await clusterInfoWith(world, () => true);
  const patch = { data: { kubeconfig: `${before["kubeconfig"] ?? ""}# changed\n` } };
  await patchObject(world.client, CONFIG_MAPS, { ...clusterInfo, patch }, world);
  const name = `${signaturePrefix}${token.id}`;
  await clusterInfoWith(world, (data) => data[name] !== before[name]);
});

test("served requests are cleaned away", async () => {
  world.clock.leap(26 * 3_600_000);
  await eventually("no requests", async () => {
    const { items } = await listObjects(world.client, CERTIFICATE_SIGNING_REQUESTS, world);
    return items.length === 0 ? true : undefined;
  });
});

import assert from "node:assert/strict";
import { createPrivateKey, type KeyObject } from "node:crypto";
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { clientWish, requestName } from "../../../src/agent/certificates/request-certificate.ts";
import { commonName } from "../../../src/agent/certificates/validity.ts";
import { joinCluster } from "../../../src/agent/join/join-cluster.ts";
import { joinNode, type JoinNodeOptions } from "../../../src/agent/join/join-node.ts";
import { signaturePrefix } from "../../../src/api/bootstrap-token.ts";
import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
import { createObject, deleteObject, getObject, listObjects } from "../../../src/api/objects.ts";
import {
  CERTIFICATE_SIGNING_REQUESTS,
  CONFIG_MAPS,
  ENDPOINT_SLICES,
  NODES,
  SECRETS,
} from "../../../src/api/resources.ts";
import { startControlPlane } from "../../../src/controlplane/control-plane.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { errorCode, SetupError } from "../../../src/lib/errors.ts";
import { jsonLogger, silentLogger } from "../../../src/lib/log.ts";
import { parseCertificationRequest } from "../../../src/lib/pkcs10.ts";
import { certificateAuthority, newPrivateKey, publicKeyInfo } from "../../../src/lib/x509.ts";
import {
  eventually,
  LeapingClock,
  options,
  registerNode,
  startWorld,
  type World,
} from "../controlplane-controllers/world.ts";
import { PatientClock } from "../certificates/fixture.ts";
import {
  clusterInfoWith,
  createToken,
  joinOptions,
  type Machine,
  startMachine,
} from "./fixture.ts";

const token = { id: "abcdef", secret: "0123456789abcdef" };
let world: World;

before(async () => {
  world = await startWorld();
  await createToken(world, token);
  await clusterInfoWith(world, (data) => `${signaturePrefix}${token.id}` in data);
});
after(async () => {
  await world.close();
});

/** A machine that is gone after the test. */
async function machineFor(t: { after: (end: () => Promise<void>) => void }): Promise<Machine> {
  const machine = await startMachine();
  t.after(() => machine.close());
  return machine;
}

async function clientOf(path: string): Promise<HttpClient> {
  return createHttpClient({
    kubeconfig: await loadKubeconfig(path),
    userAgent: "test",
    clock: systemClock,
    logger: silentLogger,
  });
}

function refusedWith(text: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof SetupError, String(error));
    assert.match(error.message, text);
    assert.ok(!error.message.includes(token.secret), "the secret is nobody's business");
    return true;
  };
}

test("a machine with a token becomes a node, and needs the token only once", async (t) => {
  const machine = await machineFor(t);
  const lines: string[] = [];
  const logger = jsonLogger({ write: (line) => lines.push(line), now: Date.now, level: "debug" });
  const options = await joinOptions(world, machine, token, { logger });
  await joinCluster(options, world.signal);
  const pair = await machine.paths.client.read();
  assert.ok(pair !== undefined);
  assert.equal(commonName(pair.certificate), "system:node:n2");
  for (const path of [machine.paths.client.currentPath, machine.paths.kubeconfig])
    assert.equal((await stat(path)).mode & 0o777, 0o600, path);
  const client = await clientOf(machine.paths.kubeconfig);
  t.after(() => client.close());
  const node = await createObject(client, NODES, { metadata: { name: "n2" } }, world);
  assert.equal(node.metadata.name, "n2");
  // One identity is enough for the proxy half.
  await listObjects(client, ENDPOINT_SLICES, world);
  await assert.rejects(listObjects(client, SECRETS, world), { status: 403 });
  assert.ok(!lines.join("").includes(token.secret));
  const before = await readFile(machine.paths.client.currentPath, "utf8");
  // The server is gone, the token too: what lies on the disk is enough.
  await joinCluster({ ...options, token: undefined, server: "https://127.0.0.1:1" }, world.signal);
  assert.equal(await readFile(machine.paths.client.currentPath, "utf8"), before);
  await deleteObject(world.client, NODES, { name: "n2" }, world);
});

test("a start goes on with the key and the request of one that was cut off", async (t) => {
  const machine = await machineFor(t);
  const options = await joinOptions(world, machine, token, { nodeName: "cut-off" });
  // Cut off before the answer: the key is on the disk, the request with the server.
  await assert.rejects(joinCluster({ ...options, caHashes: [] }, world.signal), SetupError);
  const key = await machine.paths.client.nextKey();
  await joinCluster(options, world.signal);
  const pair = await machine.paths.client.read();
  assert.ok(pair?.certificate.checkPrivateKey(key));
  const name = requestName(key, clientWish("cut-off"));
  await getObject(world.client, CERTIFICATE_SIGNING_REQUESTS, { name }, world);
  // The next certificate gets a key of its own.
  const next = await machine.paths.client.nextKey();
  assert.notDeepEqual(publicKeyInfo(next), publicKeyInfo(key));
});

test("a Node of the name that is Ready keeps the name", async (t) => {
  const machine = await machineFor(t);
  await registerNode(world, "taken");
  const options = await joinOptions(world, machine, token, { nodeName: "taken" });
  await assert.rejects(
    joinCluster(options, world.signal),
    refusedWith(/has a node taken that is Ready: give this machine another name/),
  );
  await deleteObject(world.client, NODES, { name: "taken" }, world);
});

test("every mistake is one sentence with its remedy", async (t) => {
  const machine = await machineFor(t);
  const server = `https://127.0.0.1:${world.controlPlane.port}`;
  const expired = { id: "expire", secret: "0123456789abcdef" };
  const silent = { id: "silent", secret: "0123456789abcdef" };
  await createToken(world, silent, { "usage-bootstrap-authentication": "false" });
  await clusterInfoWith(world, (data) => `${signaturePrefix}silent` in data);
  const closed = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => closed.once("listening", resolve));
  const address = closed.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  await new Promise((resolve) => closed.close(resolve));
  const mistakes: readonly [string, Parameters<typeof joinOptions>[3], RegExp][] = [
    ["no token", { token: undefined }, /has not joined yet: give a token with --token-file/],
    ["no hash", { caHashes: [] }, /^give --ca-hash, which "remora token create" prints/],
    [
      "expired",
      { token: expired },
      /does not know token expire: it has expired or is mistyped; make a new one/,
    ],
    [
      "wrong secret",
      { token: { ...token, secret: "fedcba9876543210" } },
      /the token's secret does not fit what .* has signed with token abcdef/,
    ],
    [
      "wrong hash",
      { caHashes: [`sha256:${"0".repeat(64)}`] },
      /the CA of .* has the hash sha256:[0-9a-f]{64}, which --ca-hash does not name/,
    ],
    [
      "may not authenticate",
      { token: silent },
      /refuses the token: it has expired or may not authenticate; make a new one/,
    ],
    [
      "unreachable",
      { server: `https://127.0.0.1:${port}` },
      /does not answer \(.*ECONNREFUSED.*\): check the address, and that the API server runs/,
    ],
    [
      "another name",
      { server: server.replace("127.0.0.1", "[::ffff:127.0.0.1]") },
      /the certificate of .* does not name that host: give --join one of the names/,
    ],
  ];
  for (const [what, change, text] of mistakes) {
    const wrong = await joinOptions(world, machine, token, change);
    await assert.rejects(joinCluster(wrong, world.signal), refusedWith(text), what);
  }
  await assert.rejects(stat(machine.paths.kubeconfig), (error) => errorCode(error) === "ENOENT");
});

test("a clock that is far off is named", async (t) => {
  const machine = await machineFor(t);
  const other = await startMachine();
  t.after(() => other.close());
  const first = await startControlPlane(options(other.rootDir, systemClock), world.signal);
  const client = await clientOf(first.files.adminKubeconfig);
  await createToken({ ...world, client }, token);
  await client.close();
  await first.close();
  // Made anew by a server that lives the day after tomorrow.
  await rm(join(other.rootDir, "pki", "apiserver.crt"));
  const clock = new LeapingClock();
  clock.leap(2 * 24 * 60 * 60 * 1000);
  const ahead = await startControlPlane(options(other.rootDir, clock), world.signal);
  t.after(() => ahead.close());
  const wrong = await joinOptions(world, machine, token, {
    server: `https://127.0.0.1:${ahead.port}`,
    skipCAVerification: true,
    caHashes: [],
    patienceMs: 10_000,
  });
  await assert.rejects(
    joinCluster(wrong, world.signal),
    refusedWith(/is not valid at this machine's time, .*: set the clocks of both machines/),
  );
});

test("an expired certificate asks for a token, and takes one", async (t) => {
  const machine = await machineFor(t);
  const options = await joinOptions(world, machine, token, { nodeName: "late" });
  await joinCluster(options, world.signal);
  const clock = new LeapingClock();
  clock.leap(400 * 24 * 60 * 60 * 1000);
  await assert.rejects(
    joinCluster({ ...options, clock, token: undefined }, world.signal),
    refusedWith(/the certificate of node late expired at .*: start with a new token/),
  );
  await assert.rejects(
    joinCluster({ ...options, nodeName: "other" }, world.signal),
    refusedWith(/has joined as late, not as other: give --hostname-override/),
  );
  await assert.rejects(
    joinCluster({ ...options, caHashes: [`sha256:${"0".repeat(64)}`] }, world.signal),
    refusedWith(/has joined another cluster than the one --ca-hash names/),
  );
});

test("anonymous requests see cluster-info and nothing else", async (t) => {
  const kubeconfig = await loadKubeconfig(world.controlPlane.files.adminKubeconfig);
  const client = createHttpClient({
    kubeconfig: { ...kubeconfig, user: { name: "" } },
    userAgent: "test",
    clock: systemClock,
    logger: silentLogger,
  });
  t.after(() => client.close());
  const at = (name: string): { namespace: string; name: string } => ({
    namespace: "kube-public",
    name,
  });
  await getObject(client, CONFIG_MAPS, at("cluster-info"), world);
  for (const refused of [
    getObject(client, CONFIG_MAPS, at("kube-root-ca.crt"), world),
    listObjects(client, CONFIG_MAPS, { ...world, namespace: "kube-public" }),
    deleteObject(client, CONFIG_MAPS, at("cluster-info"), world),
    listObjects(client, NODES, world),
  ])
    await assert.rejects(refused, { status: 401 });
});

test("a joined node takes its configuration from the cluster", async (t) => {
  const machine = await machineFor(t);
  const { server, caHashes } = await joinOptions(world, machine, token);
  const joined = await joinNode(
    {
      server,
      token: () => Promise.resolve(token),
      caHashes,
      skipCAVerification: false,
      rootDir: machine.rootDir,
      nodeName: "n3",
      ownProxyCredentials: false,
      userAgent: "test",
      clock: systemClock,
      logger: silentLogger,
      random: () => 0.5,
    },
    world.signal,
  );
  t.after(() => joined.close());
  assert.deepEqual(joined.cluster, {
    clusterDNS: ["10.96.0.10"],
    clusterDomain: "cluster.local",
    serverTLSBootstrap: true,
    rotateCertificates: true,
    podCIDRs: ["10.244.0.0/16"],
    serviceCIDRs: ["10.96.0.0/16"],
  });
  assert.ok(joined.rotation !== undefined, "the cluster says that certificates rotate");
});

test("a CA that was renewed with its key reaches the node at its next start", async (t) => {
  const machine = await machineFor(t);
  const { server, caHashes } = await joinOptions(world, machine, token);
  const options: JoinNodeOptions = {
    server,
    token: () => Promise.resolve(token),
    caHashes,
    skipCAVerification: false,
    rootDir: machine.rootDir,
    nodeName: "n4",
    ownProxyCredentials: false,
    userAgent: "test",
    clock: systemClock,
    logger: silentLogger,
    random: () => 0.5,
  };
  await (await joinNode(options, world.signal)).close();
  const now = await readFile(machine.paths.ca, "utf8");
  const keyOf = async (path: string): Promise<KeyObject> => createPrivateKey(await readFile(path));
  const authority = (key: KeyObject): string =>
    certificateAuthority({ commonName: "remora-ca" }, key, {
      notBefore: Date.now() - 86_400_000,
      notAfter: Date.now() + 86_400_000,
    });
  // What the node got long ago.
  const old = authority(await keyOf(join(world.dataDir, "pki", "ca.key")));
  await writeFile(machine.paths.ca, old);
  await (await joinNode(options, world.signal)).close();
  assert.equal(await readFile(machine.paths.ca, "utf8"), now);
  // Beside the right one stands another, as while keys are changed: it is the administrator's to decide.
  const both = `${old}${authority(newPrivateKey())}`;
  await writeFile(machine.paths.ca, both);
  await (await joinNode(options, world.signal)).close();
  assert.equal(await readFile(machine.paths.ca, "utf8"), now, "fewer keys than before are fine");
});

test("a certificate that expires under way is asked for with the token that is there by then", async (t) => {
  const machine = await machineFor(t);
  const { server, caHashes } = await joinOptions(world, machine, token);
  const clock = new PatientClock();
  const lines: string[] = [];
  let inFile: typeof token | undefined = token;
  const joined = await joinNode(
    {
      server,
      token: () => Promise.resolve(inFile),
      caHashes,
      skipCAVerification: false,
      rootDir: machine.rootDir,
      nodeName: "n5",
      ownProxyCredentials: true,
      userAgent: "test",
      clock,
      logger: jsonLogger({ write: (line) => lines.push(line), now: Date.now, level: "info" }),
      random: () => 0.5,
    },
    world.signal,
  );
  const stop = new AbortController();
  const running = joined.rotation?.run(stop.signal);
  t.after(async () => {
    stop.abort();
    await running;
    await joined.close();
  });
  inFile = undefined;
  await clock.pass(400 * 86_400_000);
  await eventually("the sentence", () =>
    Promise.resolve(
      lines.some((line) => /node n5 has expired: start again with a new token/.test(line)) ||
        undefined,
    ),
  );
  inFile = token;
  await clock.pass(3000);
  await eventually("a request in the token's name", async () => {
    const { items } = await listObjects(world.client, CERTIFICATE_SIGNING_REQUESTS, world);
    const own = items.filter(({ spec }) => {
      const text = Buffer.from(spec.request, "base64").toString("utf8");
      return parseCertificationRequest(text).commonName === "system:node:n5";
    });
    return own.length > 1
      ? own.every(({ spec }) => spec.username === "system:bootstrap:abcdef")
      : undefined;
  });
});

test("a damaged pair is named with its remedy", async (t) => {
  const machine = await machineFor(t);
  const options = await joinOptions(world, machine, token, { nodeName: "damaged" });
  await joinCluster(options, world.signal);
  await writeFile(machine.paths.client.currentPath, "-----BEGIN CERTIFICATE-----\n");
  await assert.rejects(
    joinCluster(options, world.signal),
    refusedWith(
      /does not hold a certificate and its key .*; delete it, then join again with a token/,
    ),
  );
});

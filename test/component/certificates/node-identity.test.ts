import assert from "node:assert/strict";
import { readFile, readlink, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import {
  type NodeIdentity,
  type NodeIdentityOptions,
  openNodeIdentity,
} from "../../../src/agent/certificates/node-identity.ts";
import { createHttpClient } from "../../../src/api/http-client.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
import { createObject, deleteObject, listObjects } from "../../../src/api/objects.ts";
import { CERTIFICATE_SIGNING_REQUESTS, NODES } from "../../../src/api/resources.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { SetupError } from "../../../src/lib/errors.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import {
  eventually,
  LeapingClock,
  startWorld,
  type World,
} from "../controlplane-controllers/world.ts";
import { createToken } from "../join/fixture.ts";
import { afterwards, directoryFor, pairOf, PatientClock, subjectOf, type Test } from "./fixture.ts";

const token = { id: "abcdef", secret: "0123456789abcdef" };
const dayMs = 86_400_000;
let world: World;
let caPEM: string;

before(async () => {
  world = await startWorld();
  await createToken(world, token);
  caPEM = await readFile(world.controlPlane.files.clientCA, "utf8");
});
after(async () => {
  await world.close();
});

/** A kubeconfig as kubeadm writes them: everything embedded. */
function embedded(user: object): string {
  const server = `https://127.0.0.1:${world.controlPlane.port}`;
  const authority = Buffer.from(caPEM).toString("base64");
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "c", cluster: { server, "certificate-authority-data": authority } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
    users: [{ name: "u", user }],
  });
}

function embeddedPair({ cert, key }: { readonly cert: string; readonly key: string }): string {
  return embedded({
    "client-certificate-data": Buffer.from(cert).toString("base64"),
    "client-key-data": Buffer.from(key).toString("base64"),
  });
}

interface Machine {
  readonly options: NodeIdentityOptions;
  readonly bootstrapFile: string;
  open(other?: Partial<NodeIdentityOptions>): Promise<NodeIdentity>;
}

async function machineFor(t: Test, nodeName: string): Promise<Machine> {
  const rootDir = await directoryFor(t);
  const bootstrapFile = join(rootDir, "bootstrap-kubelet.conf");
  await writeFile(bootstrapFile, embedded({ token: `${token.id}.${token.secret}` }));
  const options: NodeIdentityOptions = {
    nodeName,
    kubeconfig: join(rootDir, "kubelet.conf"),
    rootDir,
    certDir: join(rootDir, "pki"),
    userAgent: "test",
    clock: systemClock,
    logger: silentLogger,
    random: () => 0.5,
  };
  return {
    options,
    bootstrapFile,
    open: async (other = {}) => {
      const identity = await openNodeIdentity({ ...options, ...other }, world.signal);
      afterwards(t, () => identity.close());
      return identity;
    },
  };
}

function sentence(text: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof SetupError, String(error));
    assert.match(error.message, text);
    assert.ok(!error.message.includes(token.secret), "the secret is nobody's business");
    return true;
  };
}

describe("a node with a bootstrap kubeconfig", () => {
  test("gets a certificate and a kubeconfig that names it, and needs the file only once", async (t) => {
    const machine = await machineFor(t, "b1");
    const { kubeconfig, certDir } = machine.options;
    const identity = await machine.open({ bootstrapKubeconfig: machine.bootstrapFile });
    assert.equal(identity.kubeconfig, kubeconfig);
    assert.ok(identity.rotation !== undefined, "what came by bootstrap is renewed");
    assert.equal((await stat(kubeconfig)).mode & 0o777, 0o600);
    const current = join(certDir, "kubelet-client-current.pem");
    assert.match(
      await readlink(current),
      new RegExp(`^${certDir}/kubelet-client-\\d{4}(-\\d\\d){5}\\.pem$`),
    );
    const { user, cluster } = await loadKubeconfig(kubeconfig);
    assert.deepEqual(user.clientCertificate, { kind: "file", path: current });
    assert.deepEqual(user.clientKey, { kind: "file", path: current });
    assert.deepEqual(cluster.ca, { kind: "data", pem: caPEM });
    const client = createHttpClient({
      kubeconfig: await loadKubeconfig(kubeconfig),
      userAgent: "test",
      clock: systemClock,
      logger: silentLogger,
    });
    afterwards(t, () => client.close());
    await createObject(client, NODES, { metadata: { name: "b1" } }, world);
    await deleteObject(world.client, NODES, { name: "b1" }, world);
    const before = await readFile(current, "utf8");
    // As kubeadm does when the node has joined.
    await rm(machine.bootstrapFile);
    await machine.open({ bootstrapKubeconfig: machine.bootstrapFile });
    assert.equal(await readFile(current, "utf8"), before);
  });

  test("that has lost nothing but its kubeconfig keeps its certificate", async (t) => {
    const machine = await machineFor(t, "b5");
    const { kubeconfig, certDir } = machine.options;
    const bootstrapKubeconfig = machine.bootstrapFile;
    await machine.open({ bootstrapKubeconfig });
    const current = join(certDir, "kubelet-client-current.pem");
    const before = await readFile(current, "utf8");
    await rm(kubeconfig);
    // The token has expired long ago.
    await writeFile(bootstrapKubeconfig, embedded({ token: "zzzzzz.0123456789abcdef" }));
    await machine.open({ bootstrapKubeconfig });
    assert.equal(await readFile(current, "utf8"), before);
    assert.equal((await loadKubeconfig(kubeconfig)).user.clientCertificate?.kind, "file");
    // What another cluster issued is of no use here.
    await rm(kubeconfig);
    await writeFile(current, pairOf("system:node:b5").pem);
    await assert.rejects(machine.open({ bootstrapKubeconfig }), sentence(/refuses what is in/));
  });

  test("asks anew when its certificate has expired, or its kubeconfig is damaged", async (t) => {
    const machine = await machineFor(t, "b2");
    const { kubeconfig } = machine.options;
    const bootstrapKubeconfig = machine.bootstrapFile;
    for (const text of [
      embeddedPair(pairOf("system:node:b2", { notBefore: 0, notAfter: 1000 })),
      "nonsense: [",
      embedded({ "client-certificate": "/nowhere", "client-key": "/nowhere" }),
    ]) {
      await writeFile(kubeconfig, text);
      await machine.open({ bootstrapKubeconfig });
      const { user } = await loadKubeconfig(kubeconfig);
      assert.equal(user.clientCertificate?.kind, "file");
    }
  });

  test("a certificate that expires under way is asked for anew by the running agent", async (t) => {
    const machine = await machineFor(t, "b3");
    const clock = new PatientClock();
    const bootstrapKubeconfig = machine.bootstrapFile;
    const identity = await machine.open({ bootstrapKubeconfig, clock });
    const requests = async (): Promise<number> => {
      const { items } = await listObjects(world.client, CERTIFICATE_SIGNING_REQUESTS, world);
      return items.filter(({ spec }) => spec.username === `system:bootstrap:${token.id}`).length;
    };
    const before = await requests();
    const stop = new AbortController();
    const running = identity.rotation?.run(stop.signal);
    await clock.pass(400 * dayMs);
    await eventually("a request in the token's name", async () =>
      (await requests()) > before ? true : undefined,
    );
    stop.abort();
    await running;
  });

  test("is told in a sentence what is wrong with it", async (t) => {
    const machine = await machineFor(t, "b4");
    const bootstrapKubeconfig = machine.bootstrapFile;
    await assert.rejects(
      machine.open({ bootstrapKubeconfig: "/nowhere" }),
      sentence(/\/nowhere does not exist/),
    );
    await writeFile(bootstrapKubeconfig, embedded({ token: "zzzzzz.0123456789abcdef" }));
    await assert.rejects(
      machine.open({ bootstrapKubeconfig }),
      sentence(
        /refuses what is in .*bootstrap-kubelet.conf: it has expired .*; put a new one there/,
      ),
    );
    await assert.rejects(machine.open(), sentence(/kubelet.conf does not exist/));
  });
});

describe("a node with a kubeconfig of its own", () => {
  test("keeps it as it is unless rotation is wanted", async (t) => {
    const machine = await machineFor(t, "k1");
    await writeFile(machine.options.kubeconfig, embeddedPair(pairOf("system:node:k1")));
    const identity = await machine.open();
    assert.equal(identity.rotation, undefined);
    assert.equal(identity.kubeconfig, machine.options.kubeconfig);
  });

  test("hands an embedded certificate over to rotation; what was renewed counts after that", async (t) => {
    const machine = await machineFor(t, "k2");
    const { kubeconfig, rootDir, certDir } = machine.options;
    const now = Date.now();
    const old = pairOf("system:node:k2", { notBefore: now - 2 * dayMs, notAfter: now + dayMs });
    await writeFile(kubeconfig, embeddedPair(old));
    const first = await machine.open({ rotate: true });
    assert.ok(first.rotation !== undefined);
    assert.equal(first.kubeconfig, join(rootDir, "rotated.kubeconfig"));
    const current = join(certDir, "kubelet-client-current.pem");
    assert.ok((await readFile(current, "utf8")).endsWith(old.pem));
    // Renewed since; the kubeconfig's own certificate has ended long ago.
    const renewed = pairOf("system:node:k2", { notBefore: now + dayMs, notAfter: now + 9 * dayMs });
    await writeFile(current, renewed.pem);
    const clock = new LeapingClock();
    clock.leap(3 * dayMs);
    await machine.open({ rotate: true, clock });
    assert.equal(await readFile(current, "utf8"), renewed.pem);
    // Somebody has put a newer one into the kubeconfig.
    const newer = pairOf("system:node:k2", {
      notBefore: now + 2 * dayMs,
      notAfter: now + 9 * dayMs,
    });
    await writeFile(kubeconfig, embeddedPair(newer));
    await machine.open({ rotate: true, clock });
    assert.ok((await readFile(current, "utf8")).endsWith(newer.pem));
  });

  test("an administrator's certificate, as kubeadm gives one at first, is replaced by a node's", async (t) => {
    const machine = await machineFor(t, "k3");
    const { kubeconfig, certDir } = machine.options;
    await writeFile(kubeconfig, await readFile(world.controlPlane.files.adminKubeconfig));
    const identity = await machine.open({ rotate: true });
    const stop = new AbortController();
    const running = identity.rotation?.run(stop.signal);
    const path = join(certDir, "kubelet-client-current.pem");
    await eventually("the node's own", async () =>
      subjectOf(await readFile(path, "utf8")).endsWith("CN=system:node:k3") ? true : undefined,
    );
    stop.abort();
    await running;
  });

  test("has nothing to renew when it comes with a token", async (t) => {
    const machine = await machineFor(t, "k4");
    await writeFile(machine.options.kubeconfig, embedded({ token: "x" }));
    const identity = await machine.open({ rotate: true });
    assert.equal(identity.rotation, undefined);
  });

  test("is told when it has expired, or is another's", async (t) => {
    const machine = await machineFor(t, "k5");
    const { kubeconfig } = machine.options;
    await writeFile(
      kubeconfig,
      embeddedPair(pairOf("system:node:k5", { notBefore: 0, notAfter: 1000 })),
    );
    for (const rotate of [true, false]) {
      await assert.rejects(
        machine.open({ rotate }),
        sentence(
          /kubelet.conf expired at 1970-.*: give a kubeconfig with a new one, or --bootstrap-kubeconfig/,
        ),
      );
    }
    await writeFile(kubeconfig, embeddedPair(pairOf("system:node:other")));
    await assert.rejects(
      machine.open(),
      sentence(/is that of node other, not of k5: give --hostname-override/),
    );
  });
});

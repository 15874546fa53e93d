import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { connect } from "node:tls";

import { clusterInfo } from "../../../src/api/bootstrap-token.ts";
import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
import { getObject } from "../../../src/api/objects.ts";
import { CONFIG_MAPS, ENDPOINT_SLICES, ENDPOINTS } from "../../../src/api/resources.ts";
import { type ControlPlane, startControlPlane } from "../../../src/controlplane/control-plane.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { eventually, options } from "../controlplane-controllers/world.ts";

interface Rig {
  readonly controlPlane: ControlPlane;
  readonly client: HttpClient;
  readonly dataDir: string;
}

/** A control plane of a machine that has `nodeIPs`, and no address that was chosen for it. */
async function rigFor(t: TestContext, nodeIPs: readonly string[]): Promise<Rig> {
  const dataDir = await mkdtemp(join(tmpdir(), "remora-addresses-"));
  const abort = new AbortController();
  const { advertiseAddress: _, ...rest } = options(dataDir, systemClock);
  const controlPlane = await startControlPlane({ ...rest, nodeIPs }, abort.signal);
  const client = createHttpClient({
    kubeconfig: await loadKubeconfig(controlPlane.files.adminKubeconfig),
    userAgent: "test",
    clock: systemClock,
    logger: silentLogger,
  });
  t.after(async () => {
    await client.close();
    await controlPlane.close();
    await rm(dataDir, { recursive: true });
  });
  return { controlPlane, client, dataDir };
}

/** Whom the API server says it is to somebody who comes now. */
async function shownNames(port: number): Promise<string> {
  const socket = connect({ port, host: "127.0.0.1", rejectUnauthorized: false });
  try {
    await new Promise((resolve, reject) => {
      socket.once("secureConnect", resolve);
      socket.once("error", reject);
    });
    return socket.getPeerX509Certificate()?.subjectAltName ?? "";
  } finally {
    socket.destroy();
  }
}

const kubernetes = { namespace: "default", name: "kubernetes" };

async function endpointOf({ client }: Rig): Promise<string> {
  const signal = AbortSignal.timeout(5000);
  const slice = await getObject(client, ENDPOINT_SLICES, kubernetes, { signal });
  const { subsets } = await getObject(client, ENDPOINTS, kubernetes, { signal });
  return [
    slice.addressType,
    ...(slice.endpoints ?? []).flatMap(({ addresses }) => addresses),
    ...(subsets ?? []).flatMap(({ addresses }) => (addresses ?? []).map(({ ip }) => ip)),
  ].join(" ");
}

async function becomes(rig: Rig, wanted: string): Promise<void> {
  await eventually(`the endpoint ${wanted}`, async () =>
    (await endpointOf(rig).catch(() => "")) === wanted ? true : undefined,
  );
}

async function joinServer({ client }: Rig): Promise<string> {
  const signal = AbortSignal.timeout(5000);
  const { data } = await getObject(client, CONFIG_MAPS, clusterInfo, { signal });
  return /server: (\S+)/.exec(data?.["kubeconfig"] ?? "")?.[1] ?? "";
}

test("certificates, endpoint and what joining machines read follow the machine's addresses", async (t) => {
  const rig = await rigFor(t, ["192.0.2.1"]);
  const { controlPlane, client, dataDir } = rig;
  const { port } = controlPlane;
  await becomes(rig, "IPv4 192.0.2.1 192.0.2.1");
  assert.match(await shownNames(port), /IP Address:192\.0\.2\.1\b/);

  const stop = new AbortController();
  const path = "/api/v1/namespaces";
  const query = { resourceVersion: "0" };
  const events = client.watch({ path, stallMs: 60_000, signal: stop.signal, query });
  const watching = events[Symbol.asyncIterator]();
  await watching.next();
  await controlPlane.setAddresses({
    nodeIPs: ["198.51.100.7"],
    present: ["198.51.100.7", "10.8.0.2"],
    local: ["10.244.0.1"],
  });
  const names = await shownNames(port);
  for (const name of ["198.51.100.7", "10.8.0.2", "127.0.0.1", "10.96.0.1"])
    assert.ok(names.includes(`IP Address:${name}`), `${name} in ${names}`);
  assert.doesNotMatch(names, /192\.0\.2\.1\b/);
  const nodeFile = join(dataDir, "pki", "kubelet-serving.crt");
  const node = new X509Certificate(await readFile(nodeFile)).subjectAltName ?? "";
  assert.match(node, /IP Address:198\.51\.100\.7/);
  assert.doesNotMatch(node, /192\.0\.2\.1\b|10\.8\.0\.2/);
  assert.equal(await joinServer(rig), `https://198.51.100.7:${port}`);
  await becomes(rig, "IPv4 198.51.100.7 198.51.100.7");
  // The watch of before is still open: what happens now comes through it.
  const next = watching.next();
  await client.request({
    method: "POST",
    path,
    body: { metadata: { name: "afterwards" } },
    signal: stop.signal,
  });
  for (let event = await next; !JSON.stringify(event).includes("afterwards");) {
    assert.equal(event.done, false, "the watch goes on");
    event = await watching.next();
  }
  stop.abort();
});

test("while the machine is in no network its pods reach the API server over a bridge", async (t) => {
  const rig = await rigFor(t, ["192.0.2.1"]);
  await becomes(rig, "IPv4 192.0.2.1 192.0.2.1");
  const local = ["10.244.0.1"];
  const file = join(rig.dataDir, "admin.conf");
  const { mtimeNs } = await stat(file, { bigint: true });
  await rig.controlPlane.setAddresses({ nodeIPs: ["192.0.2.1"], present: ["192.0.2.1"], local });
  const { mtimeNs: later } = await stat(file, { bigint: true });
  assert.equal(later, mtimeNs, "a bridge that comes is no reason to write anything");
  await rig.controlPlane.setAddresses({ nodeIPs: ["192.0.2.1"], present: [], local });
  await becomes(rig, "IPv4 10.244.0.1 10.244.0.1");
  assert.equal(await joinServer(rig), `https://192.0.2.1:${rig.controlPlane.port}`);
  await rig.controlPlane.setAddresses({ nodeIPs: ["192.0.2.1"], present: ["192.0.2.1"], local });
  await becomes(rig, "IPv4 192.0.2.1 192.0.2.1");
});

test("a machine that starts without any address gets its endpoint with the first one", async (t) => {
  const rig = await rigFor(t, []);
  assert.equal(await joinServer(rig), `https://n1:${rig.controlPlane.port}`);
  await rig.controlPlane.setAddresses({
    nodeIPs: ["192.0.2.9"],
    present: ["192.0.2.9"],
    local: [],
  });
  await becomes(rig, "IPv4 192.0.2.9 192.0.2.9");
  assert.equal(await joinServer(rig), `https://192.0.2.9:${rig.controlPlane.port}`);
});

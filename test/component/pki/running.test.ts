import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";

import { clusterInfo } from "../../../src/api/bootstrap-token.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
import { createObject, getObject } from "../../../src/api/objects.ts";
import { collectionPath } from "../../../src/api/resource.ts";
import { CONFIG_MAPS } from "../../../src/api/resources.ts";
import { eventually, startWorld } from "../controlplane-controllers/world.ts";

const dayMs = 86_400_000;

/** The certificate that the API server shows to somebody who comes now. */
async function shown(port: number): Promise<X509Certificate> {
  const socket = connect({ port, host: "127.0.0.1", rejectUnauthorized: false });
  try {
    await new Promise((resolve, reject) => {
      socket.once("secureConnect", resolve);
      socket.once("error", reject);
    });
    const certificate = socket.getPeerX509Certificate();
    assert.ok(certificate !== undefined);
    return certificate;
  } finally {
    socket.destroy();
  }
}

test("a control plane renews everything while it serves, and open watches go on", async (t) => {
  const world = await startWorld();
  t.after(() => world.close());
  const { client, clock, controlPlane, dataDir } = world;
  const at = (name: string): { namespace: string; name: string } => ({
    namespace: "default",
    name,
  });
  const stop = new AbortController();
  const names: string[] = [];
  const watching = (async () => {
    // Longer than what is slept here.
    const query = { fieldSelector: "metadata.name=seen", timeoutSeconds: 1_000_000_000 };
    const path = collectionPath(CONFIG_MAPS, "default");
    for await (const event of client.watch({ path, query, stallMs: 60_000, signal: stop.signal }))
      names.push(JSON.stringify(event));
  })();
  const ended = watching.then(
    () => "ended",
    (error: unknown) => (stop.signal.aborted ? "stopped" : String(error)),
  );
  const rootCA = async (): Promise<string> =>
    (await getObject(client, CONFIG_MAPS, at("kube-root-ca.crt"), world)).data?.["ca.crt"] ?? "";
  const oldCA = await eventually("the CA of the namespace", () => rootCA().catch(() => undefined));
  const first = await shown(controlPlane.port);
  const { user } = await loadKubeconfig(controlPlane.files.nodeKubeconfig);
  const nodeFile = join(dataDir, "pki", "node.crt");
  assert.deepEqual(user.clientCertificate, { kind: "file", path: nodeFile });
  const node = await readFile(nodeFile, "utf8");
  const admin = await readFile(controlPlane.files.adminKubeconfig, "utf8");

  // Long enough for every certificate, the authority's too.
  clock.leap(14 * 365 * dayMs);
  const next = await eventually("another certificate", async () => {
    const found = await shown(controlPlane.port);
    return found.serialNumber === first.serialNumber ? undefined : found;
  });
  assert.ok(next.validToDate.getTime() > clock.now());
  await eventually("the node's", async () =>
    (await readFile(nodeFile, "utf8")) === node ? undefined : true,
  );
  await eventually("the administrator's", async () =>
    (await readFile(controlPlane.files.adminKubeconfig, "utf8")) === admin ? undefined : true,
  );
  const newCA = await eventually("the CA in every namespace", async () => {
    const found = await rootCA();
    return found === oldCA ? undefined : found;
  });
  // Whoever has the old certificate of the authority trusts what the new one signs.
  for (const pem of [oldCA, newCA]) {
    const authority = new X509Certificate(pem);
    assert.ok(next.checkIssued(authority) && next.verify(authority.publicKey));
  }
  const info = await getObject(client, CONFIG_MAPS, clusterInfo, world);
  assert.ok(info.data?.["kubeconfig"]?.includes(Buffer.from(newCA).toString("base64")));

  await createObject(client, CONFIG_MAPS, { metadata: at("seen"), data: {} }, world);
  await eventually("the event", () => Promise.resolve(names[0]));
  stop.abort();
  assert.equal(await ended, "stopped");
});

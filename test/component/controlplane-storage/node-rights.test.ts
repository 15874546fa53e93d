import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
import {
  createObject,
  deleteObject,
  getObject,
  listObjects,
  patchObject,
} from "../../../src/api/objects.ts";
import {
  CSI_NODES,
  NODES,
  PERSISTENT_VOLUME_CLAIMS as CLAIMS,
  PERSISTENT_VOLUMES as VOLUMES,
  PODS,
  SECRETS,
  VOLUME_ATTACHMENTS,
} from "../../../src/api/resources.ts";
import type { PersistentVolume } from "../../../src/api/types.gen.ts";
import { findObject } from "../../../src/controlplane/controllers/shared/calls.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { World } from "../controlplane-controllers/world.ts";
import { eventually, registerNode, startWorld } from "../controlplane-controllers/world.ts";

const namespace = "default";
const finalizer = "remora.io/local-data";
const mergePatch = "application/merge-patch+json";

/** Everything over TLS, with the certificate of node n1. */
describe("the node's own certificate", () => {
  let world: World;
  let node: HttpClient;
  before(async () => {
    world = await startWorld();
    const { client, signal } = world;
    for (const name of ["n1", "n2"]) {
      await registerNode(world, name);
      const patch = { metadata: { labels: { "kubernetes.io/hostname": name } } };
      await patchObject(client, NODES, { name, patch }, { signal });
    }
    node = createHttpClient({
      kubeconfig: await loadKubeconfig(world.controlPlane.files.nodeKubeconfig),
      userAgent: "test",
      clock: systemClock,
      logger: silentLogger,
    });
  });
  after(async () => {
    await node.close();
    await world.close();
  });

  async function runPod(name: string, nodeName: string, claimName: string): Promise<void> {
    const { client, signal } = world;
    const body = {
      metadata: { namespace, name },
      spec: {
        nodeName,
        automountServiceAccountToken: false,
        containers: [{ name: "c", image: "i:1" }],
        volumes: [{ name: "v", persistentVolumeClaim: { claimName } }],
      },
    };
    await createObject(client, PODS, body, { signal });
  }

  test("opens the claim of its pod, the volume behind it, and the secret for mounting", async () => {
    const { client, signal } = world;
    for (const name of ["stage", "attach"])
      await createObject(client, SECRETS, { metadata: { namespace, name } }, { signal });
    const volume: PersistentVolume = {
      metadata: { name: "disk" },
      spec: {
        capacity: { storage: "1Gi" },
        accessModes: ["ReadWriteOnce"],
        storageClassName: "none",
        csi: {
          driver: "d",
          volumeHandle: "h",
          nodeStageSecretRef: { namespace, name: "stage" },
          controllerPublishSecretRef: { namespace, name: "attach" },
        },
      },
    };
    await createObject(client, VOLUMES, volume, { signal });
    await createObject(
      client,
      CLAIMS,
      {
        metadata: { namespace, name: "c" },
        spec: {
          accessModes: ["ReadWriteOnce"],
          resources: { requests: { storage: "1Gi" } },
          storageClassName: "none",
        },
      },
      { signal },
    );
    await eventually("bound", async () => {
      const claim = await getObject(client, CLAIMS, { namespace, name: "c" }, { signal });
      return claim.status?.phase === "Bound" ? true : undefined;
    });
    const refused = { status: 403 };
    await assert.rejects(getObject(node, VOLUMES, { name: "disk" }, { signal }), refused);
    await runPod("p", "n1", "c");
    await getObject(node, CLAIMS, { namespace, name: "c" }, { signal });
    await getObject(node, VOLUMES, { name: "disk" }, { signal });
    await getObject(node, SECRETS, { namespace, name: "stage" }, { signal });
    await assert.rejects(getObject(node, SECRETS, { namespace, name: "attach" }, { signal }), {
      status: 403,
      message: /no relationship found between node 'n1' and this object/,
    });
    const status = { capacity: { storage: "2Gi" } };
    await patchObject(
      node,
      CLAIMS,
      { namespace, name: "c", patch: { status } },
      { signal, subresource: "status", type: mergePatch },
    );
    await assert.rejects(
      patchObject(
        node,
        CLAIMS,
        { namespace, name: "c", patch: { status: { phase: "Lost" } } },
        { signal, subresource: "status", type: mergePatch },
      ),
      refused,
    );
    await deleteObject(client, PODS, { namespace, name: "p" }, { gracePeriodSeconds: 0, signal });
    await assert.rejects(getObject(node, VOLUMES, { name: "disk" }, { signal }), refused);
  });

  test("opens attachments to itself, and its own CSINode", async () => {
    const { client, signal } = world;
    const attach = (name: string, nodeName: string): Promise<unknown> =>
      createObject(
        client,
        VOLUME_ATTACHMENTS,
        {
          metadata: { name, finalizers: ["example.com/attacher"] },
          spec: { attacher: "d", nodeName, source: { persistentVolumeName: "disk" } },
        },
        { signal },
      );
    await attach("mine", "n1");
    await attach("theirs", "n2");
    await getObject(node, VOLUME_ATTACHMENTS, { name: "mine" }, { signal });
    await assert.rejects(getObject(node, VOLUME_ATTACHMENTS, { name: "theirs" }, { signal }), {
      status: 403,
    });
    await createObject(
      node,
      CSI_NODES,
      { metadata: { name: "n1" }, spec: { drivers: [] } },
      { signal },
    );
    await assert.rejects(
      createObject(
        node,
        CSI_NODES,
        { metadata: { name: "n2" }, spec: { drivers: [] } },
        { signal },
      ),
      { status: 403 },
    );
  });

  test("lets its own local volumes go, when they are to go, and no others", async () => {
    const { client, signal } = world;
    const local = (name: string, hostname: string): Promise<unknown> =>
      createObject(
        client,
        VOLUMES,
        {
          metadata: {
            name,
            annotations: { "pv.kubernetes.io/provisioned-by": "remora.io/local" },
            finalizers: [finalizer],
          },
          spec: {
            capacity: { storage: "1Gi" },
            accessModes: ["ReadWriteOnce"],
            local: { path: `/data/${name}` },
            nodeAffinity: {
              required: {
                nodeSelectorTerms: [
                  {
                    matchExpressions: [
                      { key: "kubernetes.io/hostname", operator: "In", values: [hostname] },
                    ],
                  },
                ],
              },
            },
          },
        },
        { signal },
      );
    await local("own", "n1");
    await local("other", "n2");
    const { items } = await listObjects(node, VOLUMES, { signal });
    assert.equal(
      items.filter(({ metadata }) => ["own", "other"].includes(metadata.name)).length,
      2,
    );
    const letGo = async (name: string, more: object = {}): Promise<unknown> => {
      const { metadata } = await getObject(client, VOLUMES, { name }, { signal });
      const finalizers = (metadata.finalizers ?? []).filter((each) => each !== finalizer);
      const patch = { metadata: { finalizers, ...more } };
      return patchObject(node, VOLUMES, { name, patch }, { signal, type: mergePatch });
    };
    const refused = {
      status: 403,
      message: /may only remove the finalizer remora\.io\/local-data of a volume of its own/,
    };
    await assert.rejects(letGo("own"), refused);
    for (const name of ["own", "other"]) await deleteObject(client, VOLUMES, { name }, { signal });
    await assert.rejects(letGo("own", { labels: { a: "b" } }), refused);
    await assert.rejects(letGo("other"), refused);
    await letGo("own");
    await eventually("it goes", async () =>
      (await findObject(client, { resource: VOLUMES, name: "own" }, signal)) === undefined
        ? true
        : undefined,
    );
    await assert.rejects(deleteObject(node, VOLUMES, { name: "other" }, { signal }), {
      status: 403,
    });
  });
});

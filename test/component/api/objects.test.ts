import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { isAlreadyExists, isConflict, isNotFound } from "../../../src/api/errors.ts";
import {
  createObject,
  deleteObject,
  getObject,
  listObjects,
  patchObject,
  updateObject,
} from "../../../src/api/objects.ts";
import { NODES, PODS } from "../../../src/api/resources.ts";
import type { Pod } from "../../../src/api/types.gen.ts";
import { ParseError } from "../../../src/lib/errors.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";

const { signal } = new AbortController();
const at = { namespace: "shop", name: "web" };

function pod(name = "web", spec: Partial<Pod["spec"]> = {}): Pod {
  return {
    metadata: { name, namespace: "shop" },
    spec: { containers: [{ name: "c", image: "i" }], ...spec },
  };
}

async function withServer(body: (server: FakeApiServer) => Promise<void>): Promise<void> {
  const server = await startFakeApiServer();
  try {
    await body(server);
  } finally {
    await server.close();
  }
}

describe("objects", () => {
  it("creates, reads, and refuses to create twice", () =>
    withServer(async ({ client, requests }) => {
      const options = { signal, fieldManager: "test" };
      const created = await createObject(client, PODS, pod(), options);
      assert.equal(created.metadata.namespace, "shop");
      assert.deepEqual(await getObject(client, PODS, at, { signal }), created);
      assert.deepEqual(
        [requests[0]?.path, requests[0]?.query.get("fieldManager")],
        ["/api/v1/namespaces/shop/pods", "test"],
      );
      assert.equal((requests[0]?.body as { kind: string } | undefined)?.kind, "Pod");
      await assert.rejects(createObject(client, PODS, pod(), { signal }), isAlreadyExists);
      await assert.rejects(getObject(client, PODS, { ...at, name: "x" }, { signal }), isNotFound);
    }));

  it("replaces only what it has read", () =>
    withServer(async (server) => {
      const read = server.put(PODS, pod());
      server.put(PODS, pod("web", { nodeName: "n1" }));
      await assert.rejects(updateObject(server.client, PODS, read, { signal }), isConflict);
      assert.equal(server.get(PODS, "shop/web")?.spec?.nodeName, "n1");
    }));

  it("keeps status and spec apart", () =>
    withServer(async (server) => {
      server.put(PODS, pod());
      const patch = { status: { phase: "Running", podIPs: [{ ip: "10.0.0.1" }] }, spec: null };
      const patched = await patchObject(
        server.client,
        PODS,
        { ...at, patch },
        { signal, subresource: "status" },
      );
      assert.equal(patched.status?.phase, "Running");
      assert.equal(patched.spec?.containers.length, 1);
      assert.equal(server.requests.at(-1)?.contentType, "application/strategic-merge-patch+json");
      await patchObject(
        server.client,
        PODS,
        { ...at, patch: { status: { phase: "x" } } },
        { signal },
      );
      assert.equal(server.get(PODS, "shop/web")?.status?.phase, "Running");
    }));

  it("merges lists by their key, or replaces them when asked to", () =>
    withServer(async (server) => {
      server.put(NODES, {
        metadata: { name: "n1" },
        status: { addresses: [{ type: "InternalIP", address: "1" }] },
      });
      const patchAddresses = async (addresses: unknown[]): Promise<unknown> => {
        const patch = { status: { addresses } };
        const options = { signal, subresource: "status" };
        const node = await patchObject(server.client, NODES, { name: "n1", patch }, options);
        return node.status?.addresses;
      };
      assert.deepEqual(await patchAddresses([{ type: "Hostname", address: "h" }]), [
        { type: "InternalIP", address: "1" },
        { type: "Hostname", address: "h" },
      ]);
      assert.deepEqual(
        await patchAddresses([{ $patch: "replace" }, { type: "InternalIP", address: "2" }]),
        [{ type: "InternalIP", address: "2" }],
      );
    }));

  it("deletes gracefully, then for good, and takes absence for success", () =>
    withServer(async (server) => {
      const { uid } = server.put(PODS, pod("web", { nodeName: "n1" })).metadata;
      const { client } = server;
      assert.equal(await deleteObject(client, PODS, at, { signal }), true);
      const dying = server.get(PODS, "shop/web");
      assert.equal(dying?.metadata.deletionGracePeriodSeconds, 30);
      await assert.rejects(
        deleteObject(client, PODS, at, { signal, uid: "other", gracePeriodSeconds: 0 }),
        isConflict,
      );
      await deleteObject(client, PODS, at, { signal, uid, gracePeriodSeconds: 0 });
      assert.equal(server.get(PODS, "shop/web"), undefined);
      assert.equal(await deleteObject(client, PODS, at, { signal }), false);
    }));

  it("lists all pages of a selection", () =>
    withServer(async (server) => {
      for (let index = 0; index < 1001; index += 1) {
        server.put(PODS, pod(`p${index}`, { nodeName: index === 0 ? "n2" : "n1" }));
      }
      const options = { signal, namespace: "shop", fieldSelector: "spec.nodeName=n1" };
      const { items, resourceVersion } = await listObjects(server.client, PODS, options);
      assert.equal(new Set(items.map(({ metadata }) => metadata.name)).size, 1000);
      assert.equal(resourceVersion, String(server.resourceVersion));
      assert.equal(server.requests.length, 2);
    }));

  it("starts a list again, in one piece, when its snapshot is gone", () =>
    withServer(async (server) => {
      for (let index = 0; index < 600; index += 1) server.put(PODS, pod(`p${index}`));
      server.inject(({ query }) => query.has("continue"), { status: 410, reason: "Expired" });
      const { items } = await listObjects(server.client, PODS, { signal });
      assert.equal(items.length, 600);
      assert.equal(server.requests.at(-1)?.query.get("limit"), null);
    }));

  it("does not take something else for an object or a list", () =>
    withServer(async (server) => {
      server.inject(() => true, { status: 200, text: "hello" }, 2);
      await assert.rejects(getObject(server.client, PODS, at, { signal }), ParseError);
      await assert.rejects(listObjects(server.client, PODS, { signal }), ParseError);
    }));
});

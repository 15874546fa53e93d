import assert from "node:assert/strict";
import { test } from "node:test";

import { CONFIG_MAPS } from "../../../src/api/resources.ts";
import { collectionPath } from "../../../src/api/resource.ts";
import { ReferencedObjects } from "../../../src/kubelet/objects/referenced-objects.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { startRealServer, type RealServer } from "./real-server.ts";
import { podWith, until } from "./pods.ts";

/** `pods` pods with one ConfigMap each. */
async function follow(
  server: RealServer,
  pods: number,
): Promise<{ objects: ReferencedObjects; stop: () => Promise<void>; woken: string[] }> {
  const signal = AbortSignal.timeout(5000);
  const namespace = { apiVersion: "v1", kind: "Namespace", metadata: { name: "default" } };
  await server.direct.request({
    method: "POST",
    path: "/api/v1/namespaces",
    body: namespace,
    signal,
  });
  const path = collectionPath(CONFIG_MAPS, "default");
  for (let index = 0; index < pods; index += 1) {
    const body = {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: `map-${index}` },
      data: { key: `${index}` },
    };
    await server.direct.request({ method: "POST", path, body, signal });
  }
  const stop = new AbortController();
  const woken: string[] = [];
  const objects = new ReferencedObjects({
    client: server.client,
    clock: systemClock,
    logger: silentLogger,
    random: () => 0,
    signal: stop.signal,
    wake: (uid) => woken.push(uid),
  });
  for (let index = 0; index < pods; index += 1) {
    objects.register(podWith(`pod-${index}`, [{ name: "v", configMap: { name: `map-${index}` } }]));
  }
  await Promise.all(
    Array.from({ length: pods }, async (_, index) => {
      const found = await objects.get(
        "ConfigMap",
        { namespace: "default", name: `map-${index}` },
        stop.signal,
      );
      assert.equal(found?.text["key"], `${index}`);
    }),
  );
  return {
    objects,
    woken,
    stop: async () => {
      stop.abort();
      await objects.idle();
    },
  };
}

test("110 pods with 110 ConfigMaps need 110 watches and at most 4 connections", async () => {
  const server = await startRealServer();
  try {
    const { stop } = await follow(server, 110);
    try {
      assert.equal(server.watches.length, 110);
      assert(server.connections <= 4, `${server.connections} connections were made`);
    } finally {
      await stop();
    }
    await until("no watch is left", () => server.watches.length === 0);
  } finally {
    await server.close();
  }
});

test("without HTTP/2 each watch holds a connection of its own, and all of them work", async () => {
  const server = await startRealServer(false);
  try {
    const { stop, woken } = await follow(server, 20);
    try {
      await until("all watches are open", () => server.watches.length === 20);
      assert(server.sockets >= 20, `${server.sockets} connections are open`);
      await server.direct.request({
        method: "PATCH",
        path: `${collectionPath(CONFIG_MAPS, "default")}/map-7`,
        contentType: "application/merge-patch+json",
        body: { data: { key: "new" } },
        signal: AbortSignal.timeout(5000),
      });
      await until("the pod was told", () => woken.includes("uid-of-pod-7"));
    } finally {
      await stop();
    }
  } finally {
    await server.close();
  }
});

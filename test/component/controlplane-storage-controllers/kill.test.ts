import assert from "node:assert/strict";
import { test } from "node:test";

import type { ApiClient } from "../../../src/api/client.ts";
import { createObject, deleteObject, listObjects, patchObject } from "../../../src/api/objects.ts";
import {
  NAMESPACES,
  NODES,
  PERSISTENT_VOLUME_CLAIMS as CLAIMS,
  PERSISTENT_VOLUMES as VOLUMES,
  STORAGE_CLASSES,
} from "../../../src/api/resources.ts";
import { LocalVolumesController } from "../../../src/controlplane/controllers/local-volumes/local-volumes.ts";
import { PersistentVolumeBinder } from "../../../src/controlplane/controllers/persistent-volume-binder/binder.ts";
import type { ControllerContext } from "../../../src/controlplane/controllers/shared/controller.ts";
import { createInformers } from "../../../src/controlplane/controllers/shared/informers.ts";
import {
  claimProtection,
  volumeProtection,
} from "../../../src/controlplane/controllers/volume-protection/volume-protection.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { startServer } from "../controlplane-kinds/server.ts";
import { newClaim, newVolume } from "./builders.ts";

const { signal } = new AbortController();

/** Lets so many writes through; the next one never comes back, as for a process that was killed. */
function dyingClient(client: ApiClient, writes: number, died: () => void): ApiClient {
  let left = writes;
  return {
    watch: (request) => client.watch(request),
    request: (request) => {
      if (request.method === "GET") return client.request(request);
      if (left > 0) {
        left -= 1;
        return client.request(request);
      }
      died();
      const { promise, reject } = Promise.withResolvers<never>();
      request.signal.addEventListener("abort", () => reject(new Error("killed")), { once: true });
      return promise;
    },
  };
}

/** The storage controllers as one process, until it is stopped. */
function startControllers(client: ApiClient): { stop(): Promise<void> } {
  const abort = new AbortController();
  const shared = { client, clock: systemClock, logger: silentLogger, random: Math.random };
  const caches = createInformers(shared);
  const context: ControllerContext = {
    ...shared,
    informers: caches.informers,
    recorder: { event: () => undefined },
  };
  const controllers = [
    new PersistentVolumeBinder(context, { ownProvisioners: new Set(["remora.io/local"]) }),
    volumeProtection(context),
    claimProtection(context),
    new LocalVolumesController(context),
  ];
  const running = Promise.all([
    caches.run(abort.signal),
    ...controllers.map((each) => each.run(abort.signal)),
  ]);
  return {
    stop: async () => {
      abort.abort();
      await running;
    },
  };
}

/** A cluster of one node that keeps volumes, and a class that binds at once. */
async function prepare(client: ApiClient): Promise<void> {
  await createObject(client, NAMESPACES, { metadata: { name: "default" } }, { signal });
  await createObject(
    client,
    NODES,
    {
      metadata: {
        name: "n1",
        labels: { "kubernetes.io/hostname": "n1" },
        annotations: { "remora.io/local-volumes": "/srv" },
      },
    },
    { signal },
  );
  await createObject(
    client,
    STORAGE_CLASSES,
    { metadata: { name: "local" }, provisioner: "remora.io/local" },
    { signal },
  );
}

interface State {
  readonly claims: readonly string[];
  readonly volumes: readonly string[];
}

async function stateOf(client: ApiClient): Promise<State> {
  const claims = await listObjects(client, CLAIMS, { signal });
  const volumes = await listObjects(client, VOLUMES, { signal });
  return {
    claims: claims.items.map(
      ({ metadata, spec, status }) =>
        `${metadata.name} ${status?.phase} ${spec?.volumeName === undefined ? "" : "tied"}`,
    ),
    volumes: volumes.items.map(
      ({ metadata, status, spec }) =>
        `${spec?.storageClassName ?? ""} ${status?.phase} ${metadata.deletionTimestamp === undefined ? "" : "going"} ${spec?.claimRef?.name}`,
    ),
  };
}

async function settles(client: ApiClient, wanted: State): Promise<void> {
  const end = performance.now() + 5000;
  let state = await stateOf(client);
  while (JSON.stringify(state) !== JSON.stringify(wanted)) {
    if (performance.now() > end) assert.deepEqual(state, wanted);
    await systemClock.sleep(5, signal);
    state = await stateOf(client);
  }
}

/** Kills the controllers before each of their writes in turn, and returns how many there were. */
async function killAtEachWrite(
  begin: (client: ApiClient) => Promise<void>,
  wanted: State,
): Promise<number> {
  for (let writes = 0; ; writes += 1) {
    const server = startServer();
    try {
      await prepare(server.client);
      await begin(server.client);
      const { promise: death, resolve: died } = Promise.withResolvers<void>();
      const doomed = startControllers(dyingClient(server.client, writes, died));
      let settled: boolean;
      try {
        settled = await Promise.race([
          death.then(() => false),
          settles(server.client, wanted).then(() => true),
        ]);
      } finally {
        await doomed.stop();
      }
      if (settled) return writes;
      const next = startControllers(server.client);
      try {
        await settles(server.client, wanted);
        // And it stays so: nothing that was begun twice is taken back.
        await systemClock.sleep(20, signal);
        assert.deepEqual(await stateOf(server.client), wanted);
      } finally {
        await next.stop();
      }
    } finally {
      server.close();
    }
  }
}

test("a binding that is killed before any of its writes is completed, with one volume", async () => {
  const writes = await killAtEachWrite(
    async (client) => {
      const volume = newVolume({ name: "v", storage: "2Gi" });
      await createObject(client, VOLUMES, volume, { signal });
      await createObject(client, CLAIMS, newClaim({ name: "c", storage: "1Gi" }), { signal });
    },
    { claims: ["c Bound tied"], volumes: [" Bound  c"] },
  );
  assert.ok(writes >= 4, `${writes} writes`);
});

test("a provisioning that is killed before any of its writes leaves one volume", async () => {
  const writes = await killAtEachWrite(
    async (client) => {
      const claim = newClaim({ name: "c", storage: "1Gi", className: "local" });
      await createObject(client, CLAIMS, claim, { signal });
    },
    { claims: ["c Bound tied"], volumes: ["local Bound  c"] },
  );
  assert.ok(writes >= 4, `${writes} writes`);
});

test("a claim deleted before its volume was made, or bound, leaves no volume that is not going", async () => {
  const writes = await killAtEachWrite(
    async (client) => {
      const claim = newClaim({ name: "c", storage: "1Gi", className: "local" });
      await createObject(client, CLAIMS, claim, { signal });
      const first = startControllers(client);
      await settles(client, { claims: ["c Bound tied"], volumes: ["local Bound  c"] });
      await first.stop();
      await deleteObject(client, CLAIMS, { namespace: "default", name: "c" }, { signal });
    },
    // What is left is the node's: it removes the data and takes its finalizer.
    { claims: [], volumes: ["local Released going c"] },
  );
  assert.ok(writes >= 3, `${writes} writes`);
});

test("an expansion that is killed between volume and claim is completed", async () => {
  for (let writes = 0; writes < 2; writes += 1) {
    const server = startServer();
    const { client } = server;
    await prepare(client);
    await patchObject(
      client,
      STORAGE_CLASSES,
      { name: "local", patch: { allowVolumeExpansion: true } },
      { signal },
    );
    const claim = newClaim({ name: "c", storage: "1Gi", className: "local" });
    await createObject(client, CLAIMS, claim, { signal });
    const first = startControllers(client);
    await settles(client, { claims: ["c Bound tied"], volumes: ["local Bound  c"] });
    await first.stop();
    const patch = { spec: { resources: { requests: { storage: "3Gi" } } } };
    await patchObject(client, CLAIMS, { namespace: "default", name: "c", patch }, { signal });
    const { promise: death, resolve: died } = Promise.withResolvers<void>();
    const doomed = startControllers(dyingClient(client, writes, died));
    await death;
    await doomed.stop();
    const next = startControllers(client);
    const end = performance.now() + 5000;
    for (;;) {
      const { items } = await listObjects(client, CLAIMS, { signal });
      if (items[0]?.status?.capacity?.["storage"] === "3Gi") break;
      assert.ok(performance.now() < end, "the claim never shows its size");
      await systemClock.sleep(5, signal);
    }
    const { items } = await listObjects(client, VOLUMES, { signal });
    assert.equal(items[0]?.spec?.capacity?.["storage"], "3Gi");
    await next.stop();
    server.close();
  }
});

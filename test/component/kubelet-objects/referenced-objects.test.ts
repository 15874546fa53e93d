import assert from "node:assert/strict";
import { test } from "node:test";

import { CONFIG_MAPS, SECRETS } from "../../../src/api/resources.ts";
import type { ConfigMap, Secret } from "../../../src/api/types.gen.ts";
import type { ReferencedObject } from "../../../src/kubelet/objects/keyed-object.ts";
import {
  type Reference,
  ReferencedObjects,
} from "../../../src/kubelet/objects/referenced-objects.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";
import { podWith, until } from "./pods.ts";

interface Stage {
  readonly api: FakeApiServer;
  readonly objects: ReferencedObjects;
  /** `pod kind/name` of each wake. */
  readonly woken: string[];
  readonly get: (name: string) => Promise<ReferencedObject | undefined>;
  /** How often the object was asked for by name. */
  readonly gets: (name: string) => number;
}

async function onStage(work: (stage: Stage) => Promise<void>): Promise<void> {
  const api = await startFakeApiServer();
  const stop = new AbortController();
  const woken: string[] = [];
  const objects = new ReferencedObjects({
    client: api.client,
    clock: systemClock,
    logger: silentLogger,
    random: () => 0,
    signal: stop.signal,
    wake: (uid: string, { kind, name }: Reference) => woken.push(`${uid} ${kind}/${name}`),
  });
  try {
    await work({
      api,
      objects,
      woken,
      get: async (name) => objects.get("ConfigMap", { namespace: "default", name }, stop.signal),
      gets: (name) =>
        api.requests.filter(({ path }) => path.endsWith(`/configmaps/${name}`)).length,
    });
  } finally {
    stop.abort();
    await objects.idle();
    await api.close();
  }
}

function map(name: string, more: Partial<ConfigMap> = {}): ConfigMap {
  return { apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace: "default" }, ...more };
}

const uses = (name: string, ...maps: readonly string[]): ReturnType<typeof podWith> =>
  podWith(
    name,
    maps.map((map) => ({ name: map, configMap: { name: map } })),
  );

test("pods that share an object share its watch, and it ends with the last of them", async () => {
  await onStage(async ({ api, get, objects }) => {
    api.put(CONFIG_MAPS, map("shared", { data: { key: "1" } }));
    objects.register(uses("a", "shared"));
    objects.register(uses("b", "shared"));
    const [one, two] = [await get("shared"), await get("shared")];
    assert.equal(one?.text["key"], "1");
    assert.equal(one, two, "parsed once for all");
    assert.equal(api.watchCount, 1);
    objects.unregister("uid-of-a");
    assert.equal(api.watchCount, 1);
    objects.unregister("uid-of-b");
    await until("the watch has ended", () => api.watchCount === 0);
  });
});

test("a pod whose references change follows the new ones only", async () => {
  await onStage(async ({ api, get, objects }) => {
    for (const name of ["old", "new"]) api.put(CONFIG_MAPS, map(name, { data: { name } }));
    objects.register(uses("a", "old"));
    assert.equal((await get("old"))?.text["name"], "old");
    objects.register(uses("a", "new"));
    assert.equal((await get("new"))?.text["name"], "new");
    await until("one watch is left", () => api.watchCount === 1);
  });
});

test("the first answer wakes nobody: who waits for it reads it", async () => {
  await onStage(async ({ api, get, objects, woken }) => {
    api.put(CONFIG_MAPS, map("map", { data: { key: "1" } }));
    objects.register(uses("a", "map"));
    assert.equal((await get("map"))?.text["key"], "1");
    assert.deepEqual(woken, []);
    api.put(CONFIG_MAPS, map("map", { data: { key: "2" } }));
    await until("the change was told", () => woken.length > 0);
    assert.deepEqual(woken, ["uid-of-a ConfigMap/map"]);
    assert.equal((await get("map"))?.text["key"], "2");
  });
});

test("what no pod can see of an object wakes nobody", async () => {
  await onStage(async ({ api, get, objects, woken }) => {
    const metadata = { name: "map", namespace: "default" };
    api.put(CONFIG_MAPS, map("map", { data: { key: "1" } }));
    objects.register(uses("a", "map"));
    await get("map");
    const labelled = { metadata: { ...metadata, labels: { touched: "yes" } }, data: { key: "1" } };
    api.put(CONFIG_MAPS, map("map", labelled));
    api.put(CONFIG_MAPS, map("map", { ...labelled, data: { key: "2" } }));
    await until("the second change was told", () => woken.length > 0);
    assert.equal(woken.length, 1);
  });
});

test("an object that appears later is told to the pods that miss it", async () => {
  await onStage(async ({ api, get, objects, woken }) => {
    objects.register(uses("a", "late"));
    objects.register(uses("b", "late"));
    assert.equal(await get("late"), undefined);
    api.put(CONFIG_MAPS, map("late", { data: { key: "1" } }));
    await until("both were told", () => woken.length === 2);
    assert.equal((await get("late"))?.text["key"], "1");
  });
});

test("a hundred pods that miss an object ask for it together", async () => {
  await onStage(async ({ api, get, gets, objects, woken }) => {
    api.put(CONFIG_MAPS, map("gone", { data: { key: "1" } }));
    for (let index = 0; index < 100; index += 1) objects.register(uses(`pod-${index}`, "gone"));
    assert.notEqual(await get("gone"), undefined);
    api.remove(CONFIG_MAPS, "default/gone");
    await until("all were told", () => woken.length === 100);
    const answers = await Promise.all(Array.from({ length: 100 }, async () => get("gone")));
    assert(answers.every((answer) => answer === undefined));
    assert.equal(gets("gone"), 1);
  });
});

test("an immutable object ends its watch and stays for its users, whatever takes its name", async () => {
  await onStage(async ({ api, get, objects, woken }) => {
    api.put(CONFIG_MAPS, map("fixed", { data: { key: "1" }, immutable: true }));
    objects.register(uses("a", "fixed"));
    assert.equal((await get("fixed"))?.text["key"], "1");
    await until("the watch has ended", () => api.watchCount === 0);
    api.remove(CONFIG_MAPS, "default/fixed");
    api.put(CONFIG_MAPS, map("fixed", { data: { key: "2" } }));
    objects.register(uses("b", "fixed"));
    assert.equal((await get("fixed"))?.text["key"], "1");
    assert.deepEqual(woken, []);
    objects.unregister("uid-of-a");
    objects.unregister("uid-of-b");
    objects.register(uses("c", "fixed"));
    assert.equal((await get("fixed"))?.text["key"], "2");
  });
});

test("an object that becomes immutable is told of once more and then no longer watched", async () => {
  await onStage(async ({ api, get, objects, woken }) => {
    api.put(CONFIG_MAPS, map("map", { data: { key: "1" } }));
    objects.register(uses("a", "map"));
    await get("map");
    api.put(CONFIG_MAPS, map("map", { data: { key: "2" }, immutable: true }));
    await until("the watch has ended", () => api.watchCount === 0);
    assert.equal(woken.length, 1);
    assert.equal((await get("map"))?.text["key"], "2");
  });
});

test("of an object only its bytes are kept, and binary keys are no text", async () => {
  await onStage(async ({ api, get, objects }) => {
    const binary = Buffer.from([0, 255, 10]);
    const data = { text: "ä\n", __proto__: "no" };
    api.put(CONFIG_MAPS, map("map", { data, binaryData: { raw: binary.toString("base64") } }));
    objects.register(uses("a", "map"));
    const found = await get("map");
    assert.deepEqual(Object.keys(found?.text ?? {}), ["text"]);
    assert.equal(Buffer.compare(found?.files.get("raw") ?? Buffer.alloc(0), binary), 0);
    assert.deepEqual(Object.keys(found ?? {}).toSorted(), ["files", "immutable", "type", "uid"]);
  });
});

test("secrets of every place that may name one are watched", async () => {
  await onStage(async ({ api, objects }) => {
    for (const name of ["volume", "source", "env", "from", "pull"]) {
      api.put<Secret>(SECRETS, { metadata: { name, namespace: "default" }, data: {} });
    }
    const pod = podWith("a", [
      { name: "v", secret: { secretName: "volume" } },
      { name: "p", projected: { sources: [{ secret: { name: "source" } }] } },
    ]);
    const [container] = pod.spec?.containers ?? [];
    assert(container !== undefined);
    container.env = [{ name: "E", valueFrom: { secretKeyRef: { name: "env", key: "k" } } }];
    container.envFrom = [{ secretRef: { name: "from" } }];
    if (pod.spec !== undefined) pod.spec.imagePullSecrets = [{ name: "pull" }];
    objects.register(pod);
    await until("five watches", () => api.watchCount === 5);
  });
});

test("who stops waiting for a shared question does not end it for the others", async () => {
  await onStage(async ({ api, get, objects }) => {
    objects.register(uses("a", "map"));
    await get("map");
    api.inject(({ path }) => path.endsWith("/configmaps/map"), "hang");
    const impatient = new AbortController();
    const asked = objects.get("ConfigMap", { namespace: "default", name: "map" }, impatient.signal);
    const other = get("map");
    impatient.abort();
    await assert.rejects(asked, { name: "AbortError" });
    api.put(CONFIG_MAPS, map("map", { data: { key: "1" } }));
    assert.equal(await Promise.race([other, Promise.resolve("waits")]), "waits");
    other.catch(() => undefined);
  });
});

test("a watch that the server refuses at first delays no pod, and is told of when it is up", async () => {
  await onStage(async ({ api, get, objects, woken }) => {
    api.put(CONFIG_MAPS, map("map", { data: { key: "1" } }));
    const refused = { status: 403, reason: "Forbidden", message: "no relationship found" };
    api.inject(({ query }) => query.get("watch") === "true", refused);
    objects.register(uses("a", "map"));
    const watches = (): number =>
      api.requests.filter(({ query }) => query.get("watch") === "true").length;
    assert.equal((await get("map"))?.text["key"], "1");
    assert.equal(watches(), 1, "before the watch is tried again");
    await until("the pod was told", () => woken.includes("uid-of-a ConfigMap/map"));
  });
});

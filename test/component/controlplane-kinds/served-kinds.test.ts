import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { dig, records, text } from "../../../src/controlplane/kinds/access.ts";
import type { JsonObject, KindDefinition } from "../../../src/controlplane/types.ts";
import { isRecord } from "../../../src/lib/guard.ts";
import { startServer, type Server } from "./server.ts";

const directory = new URL("../../fixtures/golden/", import.meta.url);

function pathOf(kind: KindDefinition, namespace: string): string {
  const root = kind.group === "" ? `/api/${kind.version}` : `/apis/${kind.group}/${kind.version}`;
  return namespace === ""
    ? `${root}/${kind.plural}`
    : `${root}/namespaces/${namespace}/${kind.plural}`;
}

const examples: Readonly<Record<string, JsonObject>> = {
  "clusterroles.rbac.authorization.k8s.io": { rules: [] },
  "clusterrolebindings.rbac.authorization.k8s.io": {
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "view" },
  },
  "events.events.k8s.io": {
    eventTime: "2026-01-01T00:00:00.123456Z",
    reportingController: "example.com/robot",
    reportingInstance: "robot-1",
    action: "Look",
    reason: "Seen",
    type: "Normal",
    note: "hello",
    regarding: { kind: "Pod", name: "p", namespace: "default" },
  },
  "csinodes.storage.k8s.io": { spec: { drivers: [] } },
  "csistoragecapacities.storage.k8s.io": { storageClassName: "fast", capacity: "1Gi" },
  "volumeattachments.storage.k8s.io": {
    spec: { attacher: "csi.example.com", nodeName: "n1", source: { persistentVolumeName: "v" } },
  },
  "volumeattributesclasses.storage.k8s.io": {
    driverName: "csi.example.com",
    parameters: { tier: "gold" },
  },
};

/** A recorded object of the kind, under a name of its own. */
function exampleOf(kind: KindDefinition): JsonObject {
  const resource = kind.group === "" ? kind.plural : `${kind.plural}.${kind.group}`;
  for (const file of readdirSync(directory)) {
    const golden: unknown = JSON.parse(readFileSync(new URL(file, directory), "utf8"));
    if (dig(golden, "resource") !== resource) continue;
    const accepted = records(dig(golden, "cases")).find((item) => item["code"] === 201);
    if (accepted !== undefined && isRecord(accepted["input"])) {
      return structuredClone(accepted["input"]);
    }
  }
  return { metadata: { name: "x" }, ...structuredClone(examples[resource] ?? {}) };
}

describe("every stored kind is served", () => {
  let server: Server;
  const { signal } = new AbortController();

  before(async () => {
    server = startServer();
    for (const name of ["default", "kube-system"]) {
      await server.client.request({
        method: "POST",
        path: "/api/v1/namespaces",
        body: { metadata: { name } },
        signal,
      });
    }
    await server.client.request({
      method: "POST",
      path: "/api/v1/namespaces/default/serviceaccounts",
      body: { metadata: { name: "default" } },
      signal,
    });
  });
  after(() => server.close());

  async function post(path: string, body: JsonObject): Promise<JsonObject> {
    const reply = await server.client.request({ method: "POST", path, body, signal });
    assert.ok(isRecord(reply));
    return reply;
  }

  const stored = startServer();
  const watched = stored.kinds.filter((kind) => kind.verbs.includes("watch"));
  stored.close();

  for (const kind of watched) {
    test(`a watch of ${kind.plural}.${kind.group} sees create, label and delete`, async (t) => {
      const path = pathOf(kind, kind.namespaced ? "default" : "");
      const example = exampleOf(kind);
      const name = kind.group === "" ? `w-${kind.plural}` : `w-${kind.plural}.${kind.group}`;
      example["metadata"] = { ...(isRecord(example["metadata"]) ? example["metadata"] : {}), name };
      const list = await server.client.request({ method: "GET", path, signal });
      const stop = new AbortController();
      t.after(() => stop.abort());
      const stream = server.client.watch({
        path,
        query: {
          watch: true,
          resourceVersion: text(dig(list, "metadata", "resourceVersion")),
          fieldSelector: `metadata.name=${name}`,
        },
        signal: stop.signal,
        stallMs: 10_000,
      });
      const events = stream[Symbol.asyncIterator]();
      const next = async (): Promise<readonly [unknown, unknown]> => {
        const step = await events.next();
        const value: unknown = step.value;
        return [dig(value, "type"), dig(value, "object", "metadata", "name")];
      };
      const first = next();
      const created = await post(path, example);
      assert.deepEqual(await first, ["ADDED", name]);
      assert.notEqual(text(dig(created, "metadata", "uid")), "");
      await server.client.request({
        method: "PATCH",
        path: `${path}/${name}`,
        contentType: "application/merge-patch+json",
        body: { metadata: { labels: { seen: "yes" } } },
        signal,
      });
      assert.deepEqual(await next(), ["MODIFIED", name]);
      await server.client.request({
        method: "DELETE",
        path: `${path}/${name}`,
        body: { propagationPolicy: "Background" },
        signal,
      });
      // A namespace stays, Terminating, until its controller has emptied it; volumes and claims until theirs know
      // that nothing uses them.
      const waits = [
        "namespaces",
        "persistentvolumes",
        "persistentvolumeclaims",
        "volumeattributesclasses",
      ];
      const last = waits.includes(kind.plural) ? "MODIFIED" : "DELETED";
      // A pod is told to end first, also when there is nothing to wait for.
      if (kind.plural === "pods") assert.deepEqual(await next(), ["MODIFIED", name]);
      assert.deepEqual(await next(), [last, name]);
      stop.abort();
    });
  }

  const pods = "/api/v1/namespaces/default/pods";
  const pod = (name: string): JsonObject => ({
    metadata: { name },
    spec: { containers: [{ name: "c", image: "nginx" }] },
  });
  const bindTo = (name: string, node: string): Promise<JsonObject> =>
    post(`${pods}/${name}/binding`, {
      apiVersion: "v1",
      kind: "Binding",
      metadata: { name },
      target: { kind: "Node", name: node },
    });

  test("a pod is bound once; then a delete and an eviction give it its grace period", async () => {
    await post(pods, pod("bound"));
    await bindTo("bound", "n1");
    const read = await server.client.request({ method: "GET", path: `${pods}/bound`, signal });
    assert.equal(dig(read, "spec", "nodeName"), "n1");
    assert.equal(records(dig(read, "status", "conditions"))[0]?.["type"], "PodScheduled");
    await assert.rejects(
      bindTo("bound", "n2"),
      /Operation cannot be fulfilled on pods\/binding "bound": pod bound is already assigned to node "n1"/,
    );
    await post(`${pods}/bound/eviction`, {
      apiVersion: "policy/v1",
      kind: "Eviction",
      metadata: { name: "bound" },
    });
    const going = await server.client.request({ method: "GET", path: `${pods}/bound`, signal });
    assert.equal(dig(going, "metadata", "deletionGracePeriodSeconds"), 30);
  });

  test("an Event is one object in both of its versions", async () => {
    const old = "/api/v1/namespaces/default/events";
    const strict = "/apis/events.k8s.io/v1/namespaces/default/events";
    const get = (path: string, query = {}): Promise<unknown> =>
      server.client.request({ method: "GET", path, query, signal });
    const example = { metadata: { name: "both" }, ...examples["events.events.k8s.io"] };
    const created = await post(strict, example);
    assert.equal(created["apiVersion"], "events.k8s.io/v1");
    const stored = await get(`${old}/both`);
    assert.equal(dig(stored, "apiVersion"), "v1");
    assert.equal(dig(stored, "involvedObject", "name"), "p");
    assert.equal(dig(stored, "message"), "hello");
    assert.equal(dig(stored, "reportingComponent"), "example.com/robot");
    assert.deepEqual(dig(stored, "metadata"), created["metadata"]);
    await post(old, {
      metadata: { name: "aged" },
      involvedObject: { kind: "Pod", name: "q", namespace: "default" },
      count: 3,
      source: { component: "kubelet" },
      lastTimestamp: "2026-01-01T00:00:00Z",
    });
    const aged = await get(`${strict}/aged`);
    assert.equal(dig(aged, "deprecatedCount"), 3);
    assert.equal(dig(aged, "deprecatedSource", "component"), "kubelet");
    assert.equal(dig(aged, "deprecatedLastTimestamp"), "2026-01-01T00:00:00Z");
    assert.equal(dig(aged, "regarding", "name"), "q");
    assert.equal(dig(aged, "involvedObject"), undefined);
    const selected = await get(strict, { fieldSelector: "regarding.name=q" });
    assert.deepEqual(
      records(dig(selected, "items")).map((item) => dig(item, "metadata", "name")),
      ["aged"],
    );
    assert.equal(dig(records(dig(selected, "items"))[0], "deprecatedCount"), 3);
    await assert.rejects(get(strict, { fieldSelector: "involvedObject.name=q" }), { status: 400 });
    await assert.rejects(post(strict, { ...example, metadata: { name: "bad" }, eventTime: null }), {
      status: 422,
      message: /eventTime: Required value/,
    });
    await assert.rejects(
      server.client.request({
        method: "PUT",
        path: `${strict}/both`,
        body: { ...example, note: "other" },
        signal,
      }),
      { status: 422, message: /message: Invalid value: "other": field is immutable/ },
    );
    const series = { count: 2, lastObservedTime: "2026-01-01T00:01:00.000000Z" };
    const again = await server.client.request({
      method: "PATCH",
      path: `${strict}/both`,
      contentType: "application/strategic-merge-patch+json",
      body: { series },
      signal,
    });
    assert.deepEqual(dig(again, "series"), series);
    assert.equal(dig(again, "note"), "hello");
  });

  test("a binding to nothing, or to something that is no node, is the client's fault", async () => {
    await post(pods, pod("unbound"));
    const bind = (
      name: string,
      target: JsonObject,
      metadata: JsonObject = {},
    ): Promise<JsonObject> =>
      post(`${pods}/unbound/binding`, {
        apiVersion: "v1",
        kind: "Binding",
        metadata: { name, ...metadata },
        target,
      });
    const refusals: readonly [Promise<JsonObject>, number, RegExp][] = [
      [bind("unbound", {}), 422, /^Binding "unbound" is invalid: target.name: Required value$/],
      [
        bind("unbound", { kind: "Pod", name: "n1" }),
        422,
        /target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>"$/,
      ],
      [bind("other", { name: "n1" }), 400, /^name in URL does not match name in Binding object$/],
      [
        bind("unbound", { name: "n1" }, { resourceVersion: "1" }),
        409,
        /Precondition failed: ResourceVersion in precondition: 1, ResourceVersion in object meta: \d+$/,
      ],
    ];
    for (const [reply, status, message] of refusals)
      await assert.rejects(reply, { status, message });
  });

  test("a token bound to a pod is good until the pod is gone", async () => {
    const created = await post(pods, pod("bearer"));
    const reply = await post("/api/v1/namespaces/default/serviceaccounts/default/token", {
      apiVersion: "authentication.k8s.io/v1",
      kind: "TokenRequest",
      spec: {
        audiences: [],
        boundObjectRef: {
          apiVersion: "v1",
          kind: "Pod",
          name: "bearer",
          uid: dig(created, "metadata", "uid"),
        },
      },
    });
    const token = dig(reply, "status", "token");
    const review = (): Promise<JsonObject> =>
      post("/apis/authentication.k8s.io/v1/tokenreviews", {
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenReview",
        spec: { token },
      });
    assert.equal(
      dig(await review(), "status", "user", "username"),
      "system:serviceaccount:default:default",
    );
    await server.client.request({ method: "DELETE", path: `${pods}/bearer`, signal });
    assert.notEqual(dig(await review(), "status", "authenticated"), true);
  });

  test("scale reads and writes replicas and names the selector", async () => {
    const path = "/api/v1/namespaces/default/replicationcontrollers";
    await post(path, {
      metadata: { name: "web" },
      spec: {
        template: {
          metadata: { labels: { app: "web" } },
          spec: { containers: [{ name: "c", image: "nginx" }] },
        },
      },
    });
    const scaled = await server.client.request({
      method: "PATCH",
      path: `${path}/web/scale`,
      contentType: "application/merge-patch+json",
      body: { spec: { replicas: 3 } },
      signal,
    });
    assert.equal(dig(scaled, "spec", "replicas"), 3);
    assert.equal(dig(scaled, "status", "selector"), "app=web");
    const read = await server.client.request({ method: "GET", path: `${path}/web`, signal });
    assert.equal(dig(read, "spec", "replicas"), 3);
    assert.equal(dig(read, "metadata", "generation"), 2);
  });

  test("access reviews ask the authorizer", async () => {
    const ask = (user: string, groups: readonly string[]): Promise<JsonObject> =>
      post("/apis/authorization.k8s.io/v1/subjectaccessreviews", {
        apiVersion: "authorization.k8s.io/v1",
        kind: "SubjectAccessReview",
        spec: {
          user,
          groups,
          resourceAttributes: { verb: "list", resource: "pods", namespace: "default" },
        },
      });
    assert.equal(dig(await ask("jane", []), "status", "allowed"), false);
    assert.equal(dig(await ask("root", ["system:masters"]), "status", "allowed"), true);
  });
});

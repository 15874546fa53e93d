import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type { ApiRequest } from "../../../src/api/client.ts";
import { dig, records } from "../../../src/controlplane/kinds/access.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { isRecord } from "../../../src/lib/guard.ts";
import { admin, startServer, type Server } from "./server.ts";

const apply = "application/apply-patch+yaml";
const merge = "application/merge-patch+json";
const namespace = "/apis/apps/v1/namespaces/default";

const workload = (kind: string, name: string): JsonObject => ({
  apiVersion: "apps/v1",
  kind,
  metadata: { name },
  spec: {
    replicas: 2,
    selector: { matchLabels: { app: "web" } },
    template: {
      metadata: { labels: { app: "web" } },
      spec: { containers: [{ name: "c", image: "nginx" }] },
    },
  },
});

const scaleOf = (name: string, replicas?: number, metadata: JsonObject = {}): JsonObject => ({
  apiVersion: "autoscaling/v1",
  kind: "Scale",
  metadata: { name, ...metadata },
  ...(replicas === undefined ? {} : { spec: { replicas } }),
});

describe("scale", () => {
  let server: Server;
  const { signal } = new AbortController();

  async function ask(
    method: ApiRequest["method"],
    path: string,
    rest: Partial<ApiRequest> = {},
  ): Promise<JsonObject> {
    const reply = await server.client.request({ method, path, signal, ...rest });
    assert.ok(isRecord(reply));
    return reply;
  }

  function applyScale(
    path: string,
    body: JsonObject,
    manager: string,
    force = false,
  ): Promise<JsonObject> {
    const query = { fieldManager: manager, force };
    return ask("PATCH", `${path}/scale`, { contentType: apply, body, query });
  }

  /** Manager, operation and subresource of who owns `spec.replicas`. */
  function ownersOfReplicas(object: JsonObject): unknown[] {
    return records(dig(object, "metadata", "managedFields"))
      .filter((entry) => dig(entry, "fieldsV1", "f:spec", "f:replicas") !== undefined)
      .map((entry) => [entry["manager"], entry["operation"], entry["subresource"]]);
  }

  before(async () => {
    server = startServer();
    await ask("POST", "/api/v1/namespaces", { body: { metadata: { name: "default" } } });
    for (const name of ["web", "applied", "checked", "zero"])
      await ask("POST", `${namespace}/deployments`, { body: workload("Deployment", name) });
    await ask("POST", `${namespace}/replicasets`, { body: workload("ReplicaSet", "web") });
  });
  after(() => server.close());

  for (const plural of ["deployments", "replicasets"]) {
    test(`${plural} are scaled by their Scale, and count it as a change of the spec`, async () => {
      const path = `${namespace}/${plural}/web`;
      const before = await ask("GET", `${path}/scale`);
      assert.deepEqual(before["spec"], { replicas: 2 });
      assert.deepEqual(before["status"], { replicas: 0, selector: "app=web" });
      const query = { fieldManager: "kubectl" };
      const body = { spec: { replicas: 5 } };
      const after = await ask("PATCH", `${path}/scale`, { contentType: merge, body, query });
      assert.equal(dig(after, "spec", "replicas"), 5);
      const object = await ask("GET", path);
      assert.equal(dig(object, "spec", "replicas"), 5);
      assert.equal(dig(object, "metadata", "generation"), 2);
      assert.deepEqual(ownersOfReplicas(object), [["kubectl", "Update", "scale"]]);
    });
  }

  test("a Scale of another object, name or version is refused, and so is a negative number", async () => {
    const path = `${namespace}/deployments/checked/scale`;
    const put = (body: JsonObject): Promise<JsonObject> => ask("PUT", path, { body });
    await assert.rejects(put(scaleOf("other", 3)), {
      status: 400,
      message: "the name of the object (other) does not match the name on the URL (checked)",
    });
    await assert.rejects(put(scaleOf("checked", 3, { uid: "nobody" })), { status: 409 });
    await assert.rejects(put(scaleOf("checked", 3, { resourceVersion: "1" })), {
      status: 409,
      message: /Operation cannot be fulfilled on deployments\.apps "checked"/,
    });
    await assert.rejects(put(scaleOf("checked", -3)), {
      status: 422,
      message:
        'Scale.autoscaling "checked" is invalid: spec.replicas: Invalid value: -3: must be greater than or equal to 0',
    });
    const missing = `${namespace}/deployments/nope/scale`;
    await assert.rejects(ask("PUT", missing, { body: scaleOf("nope", 1) }), {
      status: 404,
      message: 'deployments.apps "nope" not found',
    });
    const object = await ask("GET", `${namespace}/deployments/checked`);
    assert.equal(dig(object, "metadata", "generation"), 1);
  });

  test("an applied Scale takes the number over by force only, and shares it when all agree", async () => {
    const path = `${namespace}/deployments/applied`;
    await assert.rejects(applyScale(path, scaleOf("applied", 4), "hpa"), {
      status: 409,
      message:
        'Apply failed with 1 conflict: conflict with "admin" using autoscaling/v1: .spec.replicas',
    });
    const scale = await applyScale(path, scaleOf("applied", 4), "hpa", true);
    assert.equal(scale["kind"], "Scale");
    assert.equal(dig(scale, "spec", "replicas"), 4);
    await applyScale(path, scaleOf("applied", 4), "second");
    await assert.rejects(applyScale(path, scaleOf("applied", 5), "second"), {
      message: /conflict with "hpa" with subresource "scale": \.spec\.replicas/,
    });
    const object = await ask("GET", path);
    assert.equal(dig(object, "metadata", "generation"), 2);
    assert.deepEqual(ownersOfReplicas(object), [
      ["hpa", "Apply", "scale"],
      ["second", "Apply", "scale"],
    ]);
    // The template is still there: a Scale says nothing of it.
    assert.equal(records(dig(object, "spec", "template", "spec", "containers")).length, 1);
  });

  test("whoever applies a Scale without a number gives it up; what nobody wants is none", async () => {
    const path = `${namespace}/deployments/zero`;
    await applyScale(path, scaleOf("zero", 4), "hpa", true);
    await applyScale(path, scaleOf("zero"), "hpa");
    const object = await ask("GET", path);
    assert.equal(dig(object, "spec", "replicas"), 0);
    assert.deepEqual(ownersOfReplicas(object), []);
  });

  test("what cannot be a Scale cannot be applied as one", async () => {
    const path = `${namespace}/deployments/checked`;
    await assert.rejects(applyScale(path, { ...scaleOf("checked"), spec: { pods: 1 } }, "m"), {
      message:
        "failed to create typed patch object (/checked; autoscaling/v1, Kind=Scale): .spec.pods: field not declared in schema",
    });
    await assert.rejects(applyScale(path, workload("Deployment", "checked"), "m"), {
      message: "invalid object type: apps/v1, Kind=Deployment",
    });
    await assert.rejects(applyScale(`${namespace}/deployments/nope`, scaleOf("nope", 1), "m"), {
      status: 404,
    });
  });

  test("a Scale has a Table of its own", async () => {
    const reply = await server.handler.handle({
      method: "GET",
      path: `${namespace}/deployments/checked/scale`,
      query: new URLSearchParams(),
      accept: "application/json;as=Table;v=v1;g=meta.k8s.io",
      userAgent: "test",
      ifNoneMatch: "",
      body: undefined,
      user: admin,
      signal,
    });
    assert.ok(reply.kind === "object");
    const columns = records(reply.object["columnDefinitions"]).map((column) => column["name"]);
    assert.deepEqual(columns, ["Name", "Desired", "Available", "Age"]);
    const [row] = records(reply.object["rows"]);
    const cells: unknown = row?.["cells"];
    assert.deepEqual(Array.isArray(cells) ? cells.slice(0, 3) : cells, ["checked", 2, 0]);
  });

  test("a kind without a scale has none", async () => {
    const path = `${namespace}/daemonsets/x/scale`;
    await assert.rejects(ask("GET", path), {
      status: 404,
      message: "the server could not find the requested resource",
    });
  });
});

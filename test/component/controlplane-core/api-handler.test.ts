import assert from "node:assert/strict";
import { test } from "node:test";

import * as fc from "fast-check";

import { createInProcessClient } from "../../../src/controlplane/in-process-client.ts";
import type { Authorizer } from "../../../src/controlplane/types.ts";
import type { WatchEvent } from "../../../src/controlplane/http/watch-stream.ts";
import { ApiError } from "../../../src/api/errors.ts";
import { admin, at, pod, record, world, type World } from "./test-kinds.ts";

const PODS = "/api/v1/namespaces/default/pods";
const TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

async function watch(
  { request }: World,
  query: string,
  more: { readonly accept?: string; readonly path?: string } = {},
): Promise<{ readonly next: (count: number) => Promise<WatchEvent[]>; readonly end: () => void }> {
  const { path = "/api/v1/pods", accept = "application/json" } = more;
  const reply = await request("GET", `${path}?watch=true&${query}`, undefined, { accept });
  assert.ok(reply.kind === "watch", `${path} ${JSON.stringify(reply)}`);
  const iterator = reply.stream[Symbol.asyncIterator]();
  return {
    next: async (count) => {
      const events: WatchEvent[] = [];
      while (events.length < count) {
        const step = await iterator.next();
        if (step.done === true) break;
        events.push(reply.represent(step.value));
      }
      return events;
    },
    end: () => {
      reply.stream.end();
    },
  };
}

const summary = (events: readonly WatchEvent[]): string[] =>
  events.map(({ type, object }) => `${type} ${String(at(object, "metadata.name"))}`);

test("an object goes through create, get, list, put, patch and delete", async () => {
  const { ask } = world();
  const created = await ask("POST", `${PODS}?fieldManager=me`, pod("a"));
  assert.equal(created.status, 201);
  assert.equal((await ask("GET", `${PODS}/a`)).body["kind"], "Pod");
  const listed = await ask("GET", PODS);
  assert.equal(listed.body["kind"], "PodList");
  assert.equal(at(listed.body, "items.0.kind"), undefined);
  assert.equal(
    at(listed.body, "metadata.resourceVersion"),
    at(created.body, "metadata.resourceVersion"),
  );
  const put = {
    ...created.body,
    metadata: { ...record(created.body["metadata"]), labels: { a: "b" } },
  };
  assert.equal(at((await ask("PUT", `${PODS}/a`, put)).body, "metadata.labels.a"), "b");
  const stale = await ask("PUT", `${PODS}/a`, put);
  assert.equal(stale.status, 409);
  assert.match(
    String(stale.body["message"]),
    /the object has been modified; please apply your changes/,
  );
  const deleted = await ask("DELETE", `${PODS}/a`, { propagationPolicy: "Background" });
  assert.equal(deleted.status, 200);
  const gone = await ask("GET", `${PODS}/a`);
  assert.deepEqual(gone.body, {
    kind: "Status",
    apiVersion: "v1",
    metadata: {},
    status: "Failure",
    message: 'pods "a" not found',
    reason: "NotFound",
    details: { name: "a", kind: "pods" },
    code: 404,
  });
});

test("all three JSON patch types change a stored object", async () => {
  const { ask, request } = world();
  await ask("POST", PODS, pod("a"));
  const patch = (type: string, value: unknown) =>
    ask("PATCH", `${PODS}/a`, undefined, {
      body: { kind: "bytes", bytes: Buffer.from(JSON.stringify(value)), contentType: type },
    });
  const merge = await patch("application/merge-patch+json", { metadata: { labels: { x: "1" } } });
  assert.equal(at(merge.body, "metadata.labels.x"), "1");
  const json = await patch("application/json-patch+json", [
    { op: "replace", path: "/metadata/labels/x", value: "2" },
  ]);
  assert.equal(at(json.body, "metadata.labels.x"), "2");
  const strategic = await patch("application/strategic-merge-patch+json", {
    spec: { containers: [{ name: "d", image: "i" }] },
  });
  // What a patch adds comes before what it does not name.
  assert.equal(at(strategic.body, "spec.containers.0.name"), "d");
  assert.equal((await patch("application/apply-patch+cbor", {})).status, 415);
  const wrong = await patch("application/merge-patch+json", { spec: { hostNetwork: "x" } });
  assert.equal(wrong.status, 422);
  assert.match(String(wrong.body["message"]), /cannot unmarshal string into Go struct field/);
  assert.equal((await request("GET", `${PODS}/a`)).kind, "object");
});

const APPLY = "application/apply-patch+yaml";

function applyTo(
  { ask }: World,
  query: string,
  configuration: unknown,
  path = `${PODS}/a`,
): ReturnType<World["ask"]> {
  const text = typeof configuration === "string" ? configuration : JSON.stringify(configuration);
  return ask("PATCH", `${path}?${query}`, undefined, {
    body: { kind: "bytes", bytes: Buffer.from(text), contentType: APPLY },
  });
}

test("server-side apply creates, updates, meets conflicts and is forced", async () => {
  const server = world();
  const yaml =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: x}]}";
  const created = await applyTo(server, "fieldManager=me", yaml);
  assert.equal(created.status, 201);
  assert.equal(at(created.body, "metadata.managedFields.0.manager"), "me");
  assert.equal(at(created.body, "metadata.managedFields.0.operation"), "Apply");
  const again = await applyTo(
    server,
    "fieldManager=me",
    pod("a", { spec: at(created.body, "spec") }),
  );
  assert.equal(again.status, 200);
  assert.equal(
    at(again.body, "metadata.resourceVersion"),
    at(created.body, "metadata.resourceVersion"),
  );
  const other = pod("a");
  const refused = await applyTo(server, "fieldManager=you", other);
  assert.equal(refused.status, 409);
  assert.deepEqual(refused.body["details"], {
    causes: [
      {
        reason: "FieldManagerConflict",
        message: 'conflict with "me"',
        field: '.spec.containers[name="c"].image',
      },
    ],
  });
  const forced = await applyTo(server, "fieldManager=you&force=true", other);
  assert.equal(at(forced.body, "spec.containers.0.image"), "nginx");
  const dry = await applyTo(server, "fieldManager=me&force=true&dryRun=All", yaml);
  assert.equal(at(dry.body, "spec.containers.0.image"), "x");
  const stored = await server.ask("GET", `${PODS}/a`);
  assert.equal(at(stored.body, "spec.containers.0.image"), "nginx");
});

test("the status endpoint owns status, the main one the rest", async () => {
  const server = world();
  const both = { ...pod("a"), status: { phase: "Running" } };
  const main = await applyTo(server, "fieldManager=me", both);
  assert.deepEqual(Object.keys(record(at(main.body, "metadata.managedFields.0.fieldsV1"))), [
    "f:spec",
  ]);
  const status = await applyTo(server, "fieldManager=me", both, `${PODS}/a/status`);
  assert.equal(at(status.body, "status.phase"), "Running");
  assert.equal(at(status.body, "metadata.managedFields.1.subresource"), "status");
  assert.deepEqual(at(status.body, "metadata.managedFields.1.fieldsV1"), {
    "f:status": { "f:phase": {} },
  });
  const missing = await applyTo(server, "fieldManager=me", pod("b"), `${PODS}/b/status`);
  assert.equal(missing.status, 404);
});

test("server-side apply is refused in the API's words", async () => {
  const server = world();
  const message = async (query: string, configuration: unknown): Promise<string> => {
    const { status, body } = await applyTo(server, query, configuration);
    return `${status} ${String(body["message"])}`;
  };
  assert.equal(
    await message("", pod("a")),
    '422 PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
  );
  assert.equal(
    await message("fieldManager=me", { ...pod("a"), kind: "Node" }),
    "400 invalid object type: v1, Kind=Node",
  );
  assert.equal(
    await message("fieldManager=me", pod("b")),
    "400 the name of the object (b) does not match the name on the URL (a)",
  );
  assert.match(await message("fieldManager=me", "{"), /^400 yaml: /);
  const versioned = pod("a", { metadata: { name: "a", resourceVersion: "7" } });
  assert.match(await message("fieldManager=me", versioned), /^409 Operation cannot be fulfilled/);
  await applyTo(server, "fieldManager=me", pod("a"));
  const forced = await server.ask("PATCH", `${PODS}/a?force=true`, undefined, {
    body: {
      kind: "bytes",
      bytes: Buffer.from("{}"),
      contentType: "application/merge-patch+json",
    },
  });
  assert.match(
    String(forced.body["message"]),
    /force: Forbidden: may not be specified for non-apply/,
  );
});

test("an apply that would create asks for the right to create", async () => {
  const authorizer: Authorizer = {
    authorize: ({ verb }) => ({ allowed: verb !== "create", reason: "" }),
  };
  const { status, body } = await applyTo(world({ authorizer }), "fieldManager=me", pod("a"));
  assert.equal(status, 403);
  assert.match(String(body["message"]), /cannot create resource "pods"/);
});

test("bodies are refused in the API's words", async () => {
  const { ask } = world();
  const cases: readonly (readonly [unknown, number, RegExp])[] = [
    [
      { ...pod("x"), kind: "Service" },
      400,
      /^Service in version "v1" cannot be handled as a Pod: converting \(v1.Service\) to \(core.Pod\): unknown conversion$/,
    ],
    [
      { ...pod("x"), apiVersion: "v2" },
      400,
      /^Pod in version "v2" cannot be handled as a Pod: no kind "Pod" is registered for version "v2"/,
    ],
    [
      { ...pod("x"), metadata: { name: "x", namespace: "other" } },
      400,
      /^the namespace of the provided object does not match the namespace sent on the request$/,
    ],
    [
      { ...pod("x"), spec: { foo: 1, containers: [] } },
      400,
      /^Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.foo"$/,
    ],
    [
      '{"metadata":{"name":"x","name":"y"},"spec":{"containers":[]}}',
      400,
      /strict decoding error: duplicate field "metadata.name"$/,
    ],
    ["{", 400, /^the object provided is unrecognized/],
  ];
  for (const [body, status, message] of cases) {
    const reply = await ask("POST", `${PODS}?fieldValidation=Strict`, body);
    assert.equal(reply.status, status);
    assert.match(String(reply.body["message"]), message);
  }
  const text = await ask("POST", PODS, undefined, {
    body: { kind: "bytes", bytes: Buffer.from("x"), contentType: "text/plain" },
  });
  assert.equal(text.status, 415);
});

test("unknown fields warn by default and are dropped", async () => {
  const { ask } = world();
  const reply = await ask("POST", PODS, { ...pod("a"), spec: { foo: 1, containers: [] } });
  assert.equal(reply.status, 201);
  assert.deepEqual(reply.headers["warning"], ['299 - "unknown field \\"spec.foo\\""']);
  assert.equal(at(reply.body, "spec.foo"), undefined);
});

test("YAML bodies are read", async () => {
  const { ask } = world();
  const yaml = "kind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: c, image: i}\n";
  const reply = await ask("POST", PODS, undefined, {
    body: { kind: "bytes", bytes: Buffer.from(yaml), contentType: "application/yaml" },
  });
  assert.equal(at(reply.body, "spec.containers.0.image"), "i");
});

test("what is not served is a 404; a wrong method 405; no credentials 401", async () => {
  const { request, ask } = world();
  for (const path of ["/api/v1/unicorns", `${PODS}/a/frob`, "/api/v2/pods"]) {
    const reply = await ask("GET", path);
    assert.equal(reply.status, 404, path);
    assert.equal(reply.body["message"], "the server could not find the requested resource");
    assert.deepEqual(reply.body["details"], {});
  }
  for (const path of ["/apis/nope/v1/x", "/frob"]) {
    const reply = await request("GET", path);
    assert.ok(reply.kind === "text" && reply.status === 404, path);
    assert.equal(reply.text, "404 page not found\n");
  }
  const wrong = await ask("PUT", PODS, pod("a"));
  assert.equal(wrong.status, 405);
  assert.equal(
    wrong.body["message"],
    "the server does not allow this method on the requested resource",
  );
  assert.equal((await ask("POST", "/api/v1/pods", pod("a"))).status, 405);
  const anonymous = await ask("GET", PODS, undefined, { user: undefined });
  assert.equal(anonymous.status, 401);
  assert.equal(anonymous.body["message"], "Unauthorized");
  assert.equal((await request("GET", "/healthz", undefined, { user: undefined })).kind, "text");
});

test("who is not allowed is told so in the API's words, before anything else is looked at", async () => {
  const authorizer: Authorizer = { authorize: () => ({ allowed: false, reason: "" }) };
  const { ask } = world({ authorizer });
  const message = async (method: string, path: string) =>
    String((await ask(method, path)).body["message"]);
  assert.equal(
    await message("GET", "/api/v1/pods"),
    'pods is forbidden: User "admin" cannot list resource "pods" in API group "" at the cluster scope',
  );
  assert.equal(
    await message("GET", `${PODS}/a/status`),
    'pods "a" is forbidden: User "admin" cannot get resource "pods/status" in API group "" in the namespace "default"',
  );
  assert.equal(
    await message("GET", "/metrics"),
    'forbidden: User "admin" cannot get path "/metrics"',
  );
});

test("metrics tell how many watches of each resource are served now", async () => {
  const server = world();
  const count = async (): Promise<string | undefined> => {
    const reply = await server.request("GET", "/metrics");
    assert.ok(reply.kind === "text");
    const line = /^apiserver_longrunning_requests\{verb="WATCH",group="",resource="pods"\} (\d+)$/m;
    return line.exec(reply.text)?.[1];
  };
  assert.equal(await count(), undefined);
  const [one, two] = [await watch(server, ""), await watch(server, "")];
  assert.equal(await count(), "2");
  one.end();
  assert.equal(await count(), "1");
  two.end();
  assert.equal(await count(), "0");
  await server.request("GET", "/api/v1/pods?watch=true&labelSelector=%21%21");
  assert.equal(await count(), "0", "one that was refused does not count");
});

test("pages of a list are one snapshot although objects change in between", async () => {
  const { ask } = world();
  for (const name of ["a", "b", "c", "d"]) await ask("POST", PODS, pod(name));
  const first = await ask("GET", `${PODS}?limit=2`);
  assert.equal(at(first.body, "metadata.remainingItemCount"), 2);
  await ask("DELETE", `${PODS}/c`);
  await ask("POST", PODS, pod("bb"));
  const token = String(at(first.body, "metadata.continue"));
  const second = await ask("GET", `${PODS}?limit=2&continue=${token}`);
  const names = (body: unknown) => [
    at(body, "items.0.metadata.name"),
    at(body, "items.1.metadata.name"),
  ];
  assert.deepEqual([...names(first.body), ...names(second.body)], ["a", "b", "c", "d"]);
  assert.equal(at(second.body, "metadata.continue"), undefined);
  assert.equal((await ask("GET", `${PODS}?limit=2&continue=nonsense`)).status, 400);
});

test("selectors filter lists; an unknown field is refused", async () => {
  const { ask } = world();
  await ask("POST", PODS, { ...pod("a"), metadata: { name: "a", labels: { app: "x" } } });
  await ask("POST", PODS, { ...pod("b"), spec: { nodeName: "n1", containers: [] } });
  const names = async (query: string) => {
    const items = (await ask("GET", `${PODS}?${query}`)).body["items"];
    return Array.isArray(items) ? items.map((one) => at(one, "metadata.name")) : items;
  };
  assert.deepEqual(await names("labelSelector=app%3Dx"), ["a"]);
  assert.deepEqual(await names("labelSelector=app!%3Dx"), ["b"]);
  assert.deepEqual(await names("fieldSelector=spec.nodeName%3Dn1"), ["b"]);
  assert.deepEqual(await names("fieldSelector=metadata.name%3Da"), ["a"]);
  const unknown = await ask("GET", `${PODS}?fieldSelector=spec.foo%3D1`);
  assert.equal(unknown.status, 400);
  assert.equal(unknown.body["message"], "field label not supported: spec.foo");
});

test("a watch from a revision replays what came after it and follows", async () => {
  const one = world();
  await one.ask("POST", PODS, pod("a"));
  const revision = one.store.currentRevision;
  await one.ask("POST", PODS, pod("b"));
  const stream = await watch(one, `resourceVersion=${revision}`);
  await one.ask("DELETE", `${PODS}/a`);
  const events = await stream.next(3);
  assert.deepEqual(summary(events), ["ADDED b", "MODIFIED a", "DELETED a"]);
  // A pod that has no node goes at once, yet watchers see that it was told to.
  assert.equal(at(events[2]?.object, "metadata.deletionGracePeriodSeconds"), 0);
  stream.end();
});

test("entering and leaving the selection are ADDED and DELETED", async () => {
  const one = world();
  await one.ask("POST", PODS, pod("a"));
  const revision = one.store.currentRevision;
  const stream = await watch(one, `resourceVersion=${revision}&labelSelector=app`);
  const label = (labels: unknown) =>
    one.ask("PATCH", `${PODS}/a`, undefined, {
      body: {
        kind: "json",
        value: { metadata: { labels } },
        contentType: "application/merge-patch+json",
      },
    });
  await label({ app: "1" });
  await label({ app: "2" });
  await label({ app: null });
  const last = one.store.currentRevision;
  const events = await stream.next(3);
  assert.deepEqual(summary(events), ["ADDED a", "MODIFIED a", "DELETED a"]);
  assert.equal(at(events[2]?.object, "metadata.resourceVersion"), String(last));
  stream.end();
});

test("a streaming list ends its initial events with an annotated bookmark", async () => {
  const one = world();
  await one.ask("POST", PODS, pod("a"));
  const query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
  const stream = await watch(one, query);
  const [added, bookmark] = await stream.next(2);
  assert.equal(added?.type, "ADDED");
  assert.equal(bookmark?.type, "BOOKMARK");
  const metadata = at(bookmark.object, "metadata");
  assert.deepEqual(metadata, {
    resourceVersion: String(one.store.currentRevision),
    annotations: { "k8s.io/initial-events-end": "true" },
  });
  stream.end();
  const refused = await one.ask("GET", "/api/v1/pods?watch=true&sendInitialEvents=true");
  assert.equal(refused.status, 422);
});

test("a watch that is too old is told 410 and ends; one from the future is a timeout", async () => {
  const one = world({ historySize: 5 });
  const start = one.store.currentRevision;
  for (let index = 0; index < 30; index += 1) await one.ask("POST", PODS, pod(`p${index}`));
  const stream = await watch(one, `resourceVersion=${start}`);
  const events = await stream.next(2);
  assert.equal(events.length, 1);
  assert.equal(at(events[0]?.object, "code"), 410);
  assert.equal(at(events[0]?.object, "reason"), "Expired");
  assert.equal((await one.ask("GET", "/api/v1/pods?watch=true&resourceVersion=99999")).status, 504);
});

test("a reader that falls far behind loses its stream, not single events", async () => {
  const one = world();
  const stream = await watch(one, `resourceVersion=${one.store.currentRevision}`);
  for (let index = 0; index < 2500; index += 1)
    one.registry.create("pods", "default", pod(`p${index}`), {
      user: admin,
      dryRun: false,
      now: 0,
      warn: () => undefined,
    });
  const events = await stream.next(5000);
  assert.equal(events.length, 2000);
  assert.deepEqual(summary(events.slice(0, 2)), ["ADDED p0", "ADDED p1"]);
});

test("Tables: rows with partial metadata, and columns only in the first event of a watch", async () => {
  const one = world();
  await one.ask("POST", PODS, pod("a"));
  const table = await one.ask("GET", PODS, undefined, { accept: TABLE });
  assert.equal(table.body["kind"], "Table");
  assert.deepEqual(at(table.body, "rows.0.cells"), ["a"]);
  assert.equal(at(table.body, "rows.0.object.kind"), "PartialObjectMetadata");
  const full = await one.ask("GET", `${PODS}?includeObject=Object`, undefined, { accept: TABLE });
  assert.equal(at(full.body, "rows.0.object.kind"), "Pod");
  const stream = await watch(one, "", { accept: TABLE });
  await one.ask("POST", PODS, pod("b"));
  const [first, second] = await stream.next(2);
  assert.ok(Array.isArray(at(first?.object, "columnDefinitions")));
  assert.equal(at(second?.object, "columnDefinitions"), null);
  assert.deepEqual(at(second?.object, "rows.0.cells"), ["b"]);
  stream.end();
});

test("aggregated discovery has a validator, the plain documents are there too", async () => {
  const { request, ask } = world();
  const accept =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
  const reply = await ask("GET", "/api", undefined, { accept });
  assert.equal(reply.body["kind"], "APIGroupDiscoveryList");
  assert.equal(
    reply.headers["content-type"],
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
  );
  const again = await request("GET", "/api", undefined, {
    accept,
    ifNoneMatch: String(reply.headers["etag"]),
  });
  assert.ok(again.kind === "text" && again.status === 304);
  assert.equal((await ask("GET", "/api")).body["kind"], "APIVersions");
  const resources = (await ask("GET", "/api/v1")).body["resources"];
  assert.ok(Array.isArray(resources));
  assert.ok(resources.some((one) => at(one, "name") === "pods/status"));
});

test("the OpenAPI index leads to documents that may be kept for ever, and each reference resolves", async () => {
  const { request, ask } = world();
  const index = await ask("GET", "/openapi/v3");
  const paths = record(index.body["paths"]);
  const url = String(at(paths["api/v1"], "serverRelativeURL"));
  const reply = await request("GET", url);
  assert.ok(reply.kind === "text" && reply.status === 200);
  assert.equal(reply.headers["cache-control"], "public, immutable, max-age=31536000");
  const document: unknown = JSON.parse(reply.text);
  const schemas = record(at(document, "components.schemas"));
  for (const [, name] of reply.text.matchAll(/#\/components\/schemas\/([^"]+)"/g))
    assert.ok(Object.hasOwn(schemas, String(name)), name);
  const post = record(at(document, "paths"))["/api/v1/namespaces/{namespace}/pods"];
  assert.deepEqual(at(post, "post.x-kubernetes-group-version-kind"), {
    group: "",
    version: "v1",
    kind: "Pod",
  });
});

test("the in-process client has the same refusals, the same objects and the same watches", async () => {
  const { handler } = world();
  const client = createInProcessClient({ handler, user: admin });
  const { signal } = new AbortController();
  const created = await client.request({ method: "POST", path: PODS, body: pod("a"), signal });
  assert.equal(at(created, "metadata.managedFields.0.manager"), "admin");
  await assert.rejects(
    client.request({ method: "GET", path: `${PODS}/b`, signal }),
    (error) => error instanceof ApiError && error.status === 404 && error.reason === "NotFound",
  );
  for await (const event of client.watch({ path: PODS, query: {}, signal, stallMs: 1000 })) {
    assert.equal(at(event, "type"), "ADDED");
    break;
  }
});

type Step =
  | { readonly kind: "put"; readonly name: string; readonly app: string }
  | { readonly kind: "delete"; readonly name: string }
  | { readonly kind: "watch"; readonly selector: string; readonly initial: boolean };

const name = fc.constantFrom("a", "b", "c", "d");
const app = fc.constantFrom("x", "y", "z");
const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant("put" as const), name, app }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("delete" as const), name }) },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant("watch" as const),
        selector: fc.constantFrom("", "app=x", "app!=x", "app in (x,y)"),
        initial: fc.boolean(),
      }),
    },
  ),
  { maxLength: 40 },
);

test("whatever happens, every watcher's replayed state equals the final list", async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (script: readonly Step[]) => {
      const one = world();
      const watchers: {
        readonly selector: string;
        readonly state: Map<string, string>;
        readonly run: Promise<void>;
      }[] = [];
      const stops: (() => void)[] = [];
      for (const step of script) {
        if (step.kind === "delete") await one.ask("DELETE", `${PODS}/${step.name}`);
        else if (step.kind === "put") {
          const body = {
            ...pod(step.name),
            metadata: { name: step.name, labels: { app: step.app } },
          };
          const made = await one.ask("POST", PODS, body);
          if (made.status === 409) await one.ask("PUT", `${PODS}/${step.name}`, body);
        } else {
          const selector = `labelSelector=${encodeURIComponent(step.selector)}`;
          const state = new Map<string, string>();
          let from = "";
          if (!step.initial) {
            const listed = await one.ask("GET", `${PODS}?${selector}`);
            from = `&resourceVersion=${String(at(listed.body, "metadata.resourceVersion"))}`;
            const items = listed.body["items"];
            for (const item of Array.isArray(items) ? items : [])
              state.set(
                String(at(item, "metadata.name")),
                String(at(item, "metadata.resourceVersion")),
              );
          }
          const reply = await one.request("GET", `${PODS}?watch=true&${selector}${from}`);
          assert.ok(reply.kind === "watch");
          const run = (async () => {
            for await (const { type, object } of reply.stream) {
              const key = String(at(object, "metadata.name"));
              if (type === "ADDED") assert.ok(!state.has(key), `${key} added twice`);
              if (type === "MODIFIED" || type === "DELETED")
                assert.ok(state.has(key), `${key} unknown`);
              if (type === "DELETED") state.delete(key);
              else state.set(key, String(at(object, "metadata.resourceVersion")));
            }
          })();
          watchers.push({ selector, state, run });
          stops.push(() => {
            reply.stream.end();
          });
        }
      }
      for (const stop of stops) stop();
      for (const { selector, state, run } of watchers) {
        await run;
        const items = (await one.ask("GET", `${PODS}?${selector}`)).body["items"];
        const wanted = (Array.isArray(items) ? items : []).map(
          (item) =>
            [
              String(at(item, "metadata.name")),
              String(at(item, "metadata.resourceVersion")),
            ] as const,
        );
        assert.deepEqual(Object.fromEntries(state), Object.fromEntries(wanted));
      }
      one.store.close();
    }),
    { numRuns: 60 },
  );
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";

import * as fc from "fast-check";

import { applyJsonPatch } from "../../../src/controlplane/patch/json-patch.ts";
import { applyMergePatch } from "../../../src/controlplane/patch/merge-patch.ts";
import { PatchError } from "../../../src/controlplane/patch/patch-error.ts";
import { applyStrategicMergePatch } from "../../../src/controlplane/patch/strategic-merge-patch.ts";
import { isRecord, type JsonRecord } from "../../../src/lib/guard.ts";

const POD = "io.k8s.api.core.v1.Pod";
const SERVICE = "io.k8s.api.core.v1.Service";
const DEPLOYMENT = "io.k8s.api.apps.v1.Deployment";
const NODE = "io.k8s.api.core.v1.Node";

test("JSON patch follows the examples of RFC 6902", () => {
  const cases: readonly (readonly [unknown, unknown, unknown])[] = [
    [{ foo: "bar" }, [{ op: "add", path: "/baz", value: "qux" }], { foo: "bar", baz: "qux" }],
    [{ foo: ["a", "b"] }, [{ op: "add", path: "/foo/1", value: "x" }], { foo: ["a", "x", "b"] }],
    [{ foo: ["a"] }, [{ op: "add", path: "/foo/-", value: "x" }], { foo: ["a", "x"] }],
    [{ baz: 1, foo: 2 }, [{ op: "remove", path: "/baz" }], { foo: 2 }],
    [{ foo: ["a", "b", "c"] }, [{ op: "remove", path: "/foo/1" }], { foo: ["a", "c"] }],
    [{ baz: 1 }, [{ op: "replace", path: "/baz", value: 2 }], { baz: 2 }],
    [{ a: { b: 1 }, c: {} }, [{ op: "move", from: "/a/b", path: "/c/d" }], { a: {}, c: { d: 1 } }],
    [{ a: [1] }, [{ op: "copy", from: "/a", path: "/b" }], { a: [1], b: [1] }],
    [{ "a/b": 1, "m~n": 2 }, [{ op: "test", path: "/a~1b", value: 1 }], { "a/b": 1, "m~n": 2 }],
    [{ "m~n": 2 }, [{ op: "replace", path: "/m~0n", value: 3 }], { "m~n": 3 }],
    [{ a: 1 }, [{ op: "replace", path: "", value: [1] }], [1]],
    // Not by RFC 6902, but by the API server.
    [{ a: 1 }, [{ op: "replace", path: "/b", value: 2 }], { a: 1, b: 2 }],
  ];
  for (const [target, patch, result] of cases)
    assert.deepEqual(applyJsonPatch(target, patch), result, JSON.stringify(patch));
});

test("JSON patch refuses what does not fit, with 422, and what is malformed, with 400", () => {
  const refused: readonly (readonly [unknown, number])[] = [
    [[{ op: "remove", path: "/nope" }], 422],
    [[{ op: "replace", path: "/nope/deeper", value: 1 }], 422],
    [[{ op: "replace", path: "/a/9", value: 1 }], 422],
    [[{ op: "add", path: "/a/5", value: 1 }], 422],
    [[{ op: "add", path: "/a/01", value: 1 }], 422],
    [[{ op: "test", path: "/b", value: 2 }], 422],
    [[{ op: "move", from: "/c", path: "/c/d" }], 422],
    [[{ op: "add", path: "/__proto__/x", value: 1 }], 422],
    [[{ op: "frobnicate", path: "/a" }], 400],
    [[{ op: "add", path: "/a" }], 400],
    [{ op: "add" }, 400],
  ];
  for (const [patch, status] of refused) {
    assert.throws(
      () => applyJsonPatch({ a: [1], b: 1, c: { d: 1 } }, patch),
      (error) => error instanceof PatchError && error.status === status,
      JSON.stringify(patch),
    );
  }
});

test("a JSON patch never changes its input", () => {
  const target = { a: { b: [1, 2] } };
  applyJsonPatch(target, [{ op: "remove", path: "/a/b/0" }]);
  assert.deepEqual(target, { a: { b: [1, 2] } });
});

const json = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.integer(),
    fc.string(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie("value"), { maxLength: 3 }),
    tie("object"),
  ),
  object: fc.dictionary(fc.constantFrom("a", "b", "c"), tie("value"), { noNullPrototype: true }),
}));

function mergePatchOfRfc(target: unknown, patch: unknown): unknown {
  if (!isRecord(patch)) return patch;
  const out: JsonRecord = isRecord(target) ? structuredClone(target) : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete out[name];
    else out[name] = mergePatchOfRfc(out[name], value);
  }
  return out;
}

test("merge patch equals the algorithm of RFC 7386 and is idempotent", () => {
  fc.assert(
    fc.property(json.value, json.value, (target, patch) => {
      const result = applyMergePatch(target, patch);
      assert.deepEqual(result, mergePatchOfRfc(target, patch));
      assert.deepEqual(applyMergePatch(result, patch), result);
    }),
  );
});

function containers(...names: readonly string[]): JsonRecord[] {
  return names.map((name) => ({ name, image: `${name}:1` }));
}

test("strategic merge merges lists by their merge key", () => {
  const target = { spec: { containers: containers("a", "b") } };
  const patch = { spec: { containers: [{ name: "b", image: "b:2" }, { name: "c" }] } };
  assert.deepEqual(applyStrategicMergePatch(target, patch, POD), {
    spec: { containers: [...containers("a"), { name: "b", image: "b:2" }, { name: "c" }] },
  });
});

test("strategic merge deletes an item, replaces a list and a map by directive", () => {
  const target = { spec: { containers: containers("a", "b"), nodeSelector: { x: "1", y: "2" } } };
  const apply = (spec: JsonRecord): unknown =>
    applyStrategicMergePatch(target, { spec }, POD)["spec"];
  assert.deepEqual(apply({ containers: [{ $patch: "delete", name: "a" }] }), {
    ...target.spec,
    containers: containers("b"),
  });
  assert.deepEqual(apply({ containers: [{ $patch: "replace" }, { name: "z" }] }), {
    ...target.spec,
    containers: [{ name: "z" }],
  });
  assert.deepEqual(apply({ nodeSelector: { $patch: "replace", z: "3" } }), {
    ...target.spec,
    nodeSelector: { z: "3" },
  });
  assert.deepEqual(apply({ nodeSelector: { x: null } }), {
    ...target.spec,
    nodeSelector: { y: "2" },
  });
});

test("$setElementOrder orders what it names and keeps the server's own items in place", () => {
  const target = { spec: { containers: containers("a", "sidecar", "b") } };
  const patch = {
    spec: {
      "$setElementOrder/containers": [{ name: "b" }, { name: "new" }, { name: "a" }],
      containers: [{ name: "new", image: "n" }],
    },
  };
  const result = applyStrategicMergePatch(target, patch, POD);
  assert.deepEqual(result, {
    spec: {
      containers: [
        { name: "sidecar", image: "sidecar:1" },
        { name: "b", image: "b:1" },
        { name: "new", image: "n" },
        { name: "a", image: "a:1" },
      ],
    },
  });
});

test("a list that is replaced may hold a key more than once, as addresses of a Node do", () => {
  const ip = (address: string): JsonRecord => ({ type: "InternalIP", address });
  const host = { type: "Hostname", address: "n1" };
  const live = { status: { addresses: [ip("192.0.2.1"), host] } };
  const addresses = [ip("192.0.2.2"), ip("2001:db8::2"), host, { $patch: "replace" }];
  assert.deepEqual(applyStrategicMergePatch(live, { status: { addresses } }, NODE), {
    status: { addresses: [ip("192.0.2.2"), ip("2001:db8::2"), host] },
  });
});

test("Service ports merge by port, finalizers as a set, other lists are replaced", () => {
  const service = { spec: { ports: [{ port: 80, protocol: "TCP" }] } };
  assert.deepEqual(
    applyStrategicMergePatch(service, { spec: { ports: [{ port: 80, name: "http" }] } }, SERVICE),
    { spec: { ports: [{ port: 80, protocol: "TCP", name: "http" }] } },
  );
  const finalizers = { metadata: { finalizers: ["a", "b"] } };
  assert.deepEqual(
    applyStrategicMergePatch(
      finalizers,
      { metadata: { "$deleteFromPrimitiveList/finalizers": ["a"], finalizers: ["c"] } },
      POD,
    ),
    { metadata: { finalizers: ["c", "b"] } },
  );
  const taints = { spec: { taints: [{ key: "a", effect: "NoSchedule" }] } };
  assert.deepEqual(applyStrategicMergePatch(taints, { spec: { taints: [] } }, NODE), {
    spec: { taints: [] },
  });
});

test("$retainKeys drops the keys it does not name", () => {
  const target = { spec: { strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1 } } } };
  const patch = { spec: { strategy: { $retainKeys: ["type"], type: "Recreate" } } };
  assert.deepEqual(applyStrategicMergePatch(target, patch, DEPLOYMENT), {
    spec: { strategy: { type: "Recreate" } },
  });
});

test("an item without its merge key and an unknown directive are refused with 400", () => {
  for (const patch of [
    { spec: { containers: [{ image: "x" }] } },
    { spec: { $patch: "explode" } },
    { spec: { containers: "x" } },
  ]) {
    assert.throws(
      () => applyStrategicMergePatch({ spec: { containers: containers("a") } }, patch, POD),
      (error) => error instanceof PatchError && error.status === 400,
    );
  }
});

test("no instruction of a strategic patch is ever stored", () => {
  const result = applyStrategicMergePatch(
    {},
    {
      spec: {
        $retainKeys: ["containers"],
        "$setElementOrder/containers": [{ name: "a" }],
        containers: [{ name: "a", resources: { $patch: "replace", limits: { cpu: null } } }],
      },
    },
    POD,
  );
  assert.ok(!JSON.stringify(result).includes("$"), JSON.stringify(result));
});

const image = fc.constantFrom("x", "y", "z");
const item = fc.record(
  { name: fc.constantFrom("a", "b", "c", "d"), image },
  { noNullPrototype: true },
);
const named = fc.uniqueArray(item, { selector: (one) => one.name });

test("strategic merge of containers: every patched item wins, every other stays, and it is idempotent", () => {
  fc.assert(
    fc.property(named, named, (live, patch) => {
      const target = { spec: { containers: live } };
      const once = applyStrategicMergePatch(target, { spec: { containers: patch } }, POD);
      const merged = isRecord(once["spec"]) ? once["spec"]["containers"] : [];
      assert.ok(Array.isArray(merged));
      for (const item of patch) assert.ok(merged.some((one) => isDeepStrictEqual(one, item)));
      for (const item of live) {
        if (!patch.some((one) => one.name === item.name))
          assert.ok(merged.some((one) => isDeepStrictEqual(one, item)));
      }
      assert.deepEqual(applyStrategicMergePatch(once, { spec: { containers: patch } }, POD), once);
    }),
  );
});

import assert from "node:assert/strict";
import { test } from "node:test";

import * as fc from "fast-check";

import { DecodeError, decodeObject } from "../../../src/controlplane/schema/decode.ts";
import { duplicateFields } from "../../../src/controlplane/schema/duplicate-fields.ts";
import { canonicalQuantity, nanosOf } from "../../../src/controlplane/schema/quantity.ts";
import { allDefinitions, definitionOf } from "../../../src/controlplane/schema/schema-table.ts";

const POD = "io.k8s.api.core.v1.Pod";
const SECRET = "io.k8s.api.core.v1.Secret";
const LEASE = "io.k8s.api.coordination.v1.Lease";

function messageOf(schema: string, value: unknown): string {
  try {
    decodeObject(schema, value);
  } catch (error) {
    if (error instanceof DecodeError) return error.message;
    throw error;
  }
  return "accepted";
}

test("every reference of the schema table leads somewhere", () => {
  assert.ok(definitionOf(POD)?.fields?.["spec"] !== undefined);
  for (const [name, definition] of allDefinitions()) {
    for (const [field, schema] of Object.entries(definition.fields ?? {})) {
      const reference = schema.ref ?? schema.items?.ref ?? schema.map?.ref;
      if (reference !== undefined)
        assert.ok(definitionOf(reference) !== undefined, `${name}.${field}`);
    }
  }
});

test("unknown fields are reported with their path and left out", () => {
  const { object, unknown } = decodeObject(POD, {
    spec: { foo: 1, containers: [{ name: "c", bar: {} }] },
  });
  assert.deepEqual(unknown, ["spec.foo", "spec.containers[0].bar"]);
  assert.deepEqual(object, { spec: { containers: [{ name: "c" }] } });
});

test("wrong types are refused in the API's words", () => {
  const cases: readonly (readonly [unknown, string])[] = [
    [
      { spec: { restartPolicy: 5 } },
      "json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
    ],
    [
      { spec: { hostNetwork: "yes" } },
      "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
    ],
    [
      { spec: { containers: {} } },
      "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
    ],
    [
      { spec: { containers: [{ resources: { limits: { cpu: "lots" } } }] } },
      "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    ],
  ];
  for (const [value, message] of cases) assert.equal(messageOf(POD, value), message);
  assert.equal(messageOf(SECRET, { data: { a: "***" } }), "illegal base64 data at input byte 0");
});

test("nulls and zero values go where the API omits them, and stay where it keeps them", () => {
  const { object } = decodeObject(POD, {
    metadata: { name: "x", creationTimestamp: null, generateName: "", labels: {} },
    spec: { hostNetwork: false, automountServiceAccountToken: false, containers: [] },
  });
  assert.deepEqual(object, {
    metadata: { name: "x" },
    spec: { automountServiceAccountToken: false, containers: [] },
  });
});

test("times get whole seconds, micro times six digits", () => {
  const { object } = decodeObject(LEASE, {
    metadata: { creationTimestamp: "2026-01-02T03:04:05.678+01:00" },
    spec: { renewTime: "2026-01-02T03:04:05.1234567Z" },
  });
  assert.deepEqual(object, {
    metadata: { creationTimestamp: "2026-01-02T02:04:05Z" },
    spec: { renewTime: "2026-01-02T03:04:05.123456Z" },
  });
});

test("a map key named __proto__ stays data", () => {
  const value: unknown = JSON.parse('{"data":{"__proto__":"YQ=="}}');
  const { object } = decodeObject(SECRET, value);
  assert.equal(JSON.stringify(object), '{"data":{"__proto__":"YQ=="}}');
});

test("quantities get the API's canonical form", () => {
  const cases: readonly (readonly [string, string | undefined])[] = [
    ["0.5", "500m"],
    ["100m", "100m"],
    ["1000m", "1"],
    ["1.5", "1500m"],
    ["1024Mi", "1Gi"],
    ["1500Mi", "1500Mi"],
    ["0.5Gi", "512Mi"],
    ["1e3", "1e3"],
    ["1000", "1k"],
    ["1001", "1001"],
    ["0", "0"],
    ["-1", "-1"],
    ["1000000", "1M"],
    ["128974848", "128974848"],
    [".5", "500m"],
    ["", undefined],
    ["1Q", undefined],
    ["Mi", undefined],
    ["1 Mi", undefined],
  ];
  for (const [text, form] of cases) assert.equal(canonicalQuantity(text), form, text);
});

test("the canonical form keeps the value and is stable", () => {
  const suffix = fc.constantFrom("", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3");
  fc.assert(
    fc.property(fc.integer({ min: -100_000, max: 100_000 }), suffix, (number, unit) => {
      const text = `${number}${unit}`;
      const form = canonicalQuantity(text);
      assert.ok(form !== undefined);
      assert.equal(nanosOf(form), nanosOf(text));
      assert.equal(canonicalQuantity(form), form);
    }),
  );
});

test("fields that occur twice are found with their paths", () => {
  assert.deepEqual(duplicateFields('{"a":1,"b":{"c":[{"d":1,"d":2},"]}\\""],"c":1}, "a" : null}'), [
    "b.c[0].d",
    "b.c",
    "a",
  ]);
  assert.deepEqual(duplicateFields('{"a":{"x":1},"b":{"x":1},"e":[]}'), []);
});

test("JSON without double members has no duplicates", () => {
  fc.assert(
    fc.property(fc.json(), (text) => {
      assert.deepEqual(duplicateFields(text), []);
    }),
  );
});

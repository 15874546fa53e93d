import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  assert as check,
  array,
  constantFrom,
  dictionary,
  property,
  record,
  uniqueArray,
} from "fast-check";

import { applyConfiguration } from "../../../src/controlplane/registry/apply.ts";
import { fieldsAfterUpdate } from "../../../src/controlplane/registry/managed-fields.ts";
import { StatusError } from "../../../src/controlplane/status-error.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { isRecord } from "../../../src/lib/guard.ts";

const core = "io.k8s.api.core.v1";

interface Options {
  readonly kind?: string;
  readonly force?: boolean;
  readonly time?: string;
}

function dig(value: unknown, ...path: readonly (string | number)[]): unknown {
  let current = value;
  for (const step of path) {
    if (Array.isArray(current)) current = current[Number(step)];
    else current = isRecord(current) ? current[String(step)] : undefined;
  }
  return current;
}

function records(value: unknown): JsonObject[] {
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

function apply(
  live: JsonObject | undefined,
  manager: string,
  configuration: JsonObject,
  { kind = "ConfigMap", force = false, time = "2026-01-01T00:00:00Z" }: Options = {},
): JsonObject {
  const metadata = isRecord(configuration["metadata"]) ? configuration["metadata"] : {};
  return applyConfiguration({
    live,
    configuration: {
      apiVersion: "v1",
      kind,
      ...configuration,
      metadata: { name: "x", namespace: "default", ...metadata },
    },
    schema: `${core}.${kind}`,
    writer: { manager, operation: "Apply", apiVersion: "v1", subresource: undefined, time },
    force,
    writes: (field) => field !== "status",
  });
}

/** What a PUT by `manager` makes of it. */
function update(
  live: JsonObject,
  manager: string,
  after: JsonObject,
  kind = "ConfigMap",
): JsonObject {
  const managedFields = fieldsAfterUpdate(live, after, `${core}.${kind}`, {
    manager,
    operation: "Update",
    apiVersion: "v1",
    subresource: undefined,
    time: "2026-01-01T00:00:00Z",
  });
  return {
    ...after,
    metadata: { ...(isRecord(after["metadata"]) ? after["metadata"] : {}), managedFields },
  };
}

function owned(object: JsonObject, manager: string): unknown {
  const entries = records(dig(object, "metadata", "managedFields"));
  return entries.find((entry) => entry["manager"] === manager)?.["fieldsV1"];
}

function conflictOf(run: () => unknown): { message: string; fields: (string | undefined)[] } {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof StatusError, String(error));
    assert.equal(error.status, 409);
    assert.equal(error.reason, "Conflict");
    for (const cause of error.details?.causes ?? [])
      assert.equal(cause.reason, "FieldManagerConflict");
    return {
      message: error.message,
      fields: (error.details?.causes ?? []).map(({ field }) => field),
    };
  }
  return assert.fail("no conflict");
}

const pod = (...containers: readonly JsonObject[]): JsonObject => ({ spec: { containers } });
const asPod = { kind: "Pod" };
const asService = { kind: "Service" };

describe("server-side apply", () => {
  test("creates, and owns the leaves of what was applied", () => {
    const object = apply(
      undefined,
      "me",
      {
        metadata: { labels: { app: "web" } },
        ...pod({ name: "c", image: "nginx", env: [{ name: "A", value: "1" }], args: ["a", "b"] }),
      },
      asPod,
    );
    assert.deepEqual(owned(object, "me"), {
      "f:metadata": { "f:labels": { "f:app": {} } },
      "f:spec": {
        "f:containers": {
          'k:{"name":"c"}': {
            ".": {},
            "f:args": {},
            "f:env": { 'k:{"name":"A"}': { ".": {}, "f:name": {}, "f:value": {} } },
            "f:image": {},
            "f:name": {},
          },
        },
      },
    });
  });

  test("the same configuration again changes nothing, not even the time", () => {
    const once = apply(undefined, "me", { data: { a: "1" } });
    assert.deepEqual(
      apply(once, "me", { data: { a: "1" } }, { time: "2027-01-01T00:00:00Z" }),
      once,
    );
  });

  test("fields that are no longer applied go, those of others and of nobody stay", () => {
    const first = apply(undefined, "me", {
      data: { a: "1", b: "2" },
      metadata: { labels: { l: "1" } },
    });
    const others = apply(first, "other", { data: { b: "2", c: "3" } });
    const last = apply({ ...others, immutable: true }, "me", { data: {} });
    assert.deepEqual(last["data"], { b: "2", c: "3" });
    assert.equal(last["immutable"], true);
    assert.deepEqual(dig(last, "metadata", "labels"), undefined);
    assert.equal(dig(last, "metadata", "name"), "x");
  });

  test("a list item goes whole, unless somebody else has a field in it", () => {
    const both = apply(
      undefined,
      "me",
      pod({ name: "a", image: "x" }, { name: "b", image: "y" }, { name: "c", image: "z" }),
      asPod,
    );
    const shared = apply(both, "other", pod({ name: "b", tty: true }), asPod);
    const last = apply(shared, "me", pod({ name: "a", image: "x" }), asPod);
    assert.deepEqual(dig(last, "spec", "containers"), [
      { name: "a", image: "x" },
      { name: "b", tty: true },
    ]);
  });

  test("items keep the order of the configuration; strangers stay behind their neighbour", () => {
    const named = (...names: readonly string[]): JsonObject =>
      pod(...names.map((name) => ({ name })));
    const names = (object: JsonObject): unknown[] =>
      records(dig(object, "spec", "containers")).map((one) => one["name"]);
    const live = apply(undefined, "other", named("a", "b", "c"), asPod);
    assert.deepEqual(names(apply(live, "me", named("c", "a"), asPod)), ["b", "c", "a"]);
    assert.deepEqual(names(apply(live, "me", named("x", "a"), asPod)), ["x", "a", "b", "c"]);
    assert.deepEqual(names(apply(live, "me", named("a", "x", "b"), asPod)), ["a", "x", "b", "c"]);
    assert.deepEqual(names(apply(live, "me", named("x"), asPod)), ["a", "b", "c", "x"]);
  });

  test("keys with defaults name the same item with and without them", () => {
    const live = apply(
      undefined,
      "me",
      {
        spec: {
          ports: [
            { port: 53, protocol: "TCP" },
            { port: 53, protocol: "UDP" },
          ],
        },
      },
      asService,
    );
    const last = apply(
      live,
      "me",
      {
        spec: {
          ports: [
            { port: 53, name: "dns" },
            { port: 53, protocol: "UDP" },
          ],
        },
      },
      asService,
    );
    assert.deepEqual(
      dig(last, "spec", "ports"),
      [
        { port: 53, protocol: "TCP", name: "dns" },
        { port: 53, protocol: "UDP" },
      ].map((port) => (port.name === undefined ? port : { port: 53, name: "dns" })),
    );
  });

  test("another value for somebody's field is a conflict in the API's words", () => {
    const live = apply(undefined, "theirs", {
      data: { a: "1", b: "2" },
      metadata: { annotations: { note: "x" } },
    });
    assert.deepEqual(
      conflictOf(() => apply(live, "me", { data: { a: "9" } })),
      {
        message: 'Apply failed with 1 conflict: conflict with "theirs": .data.a',
        fields: [".data.a"],
      },
    );
    const edited = update(live, "kubectl-edit", { ...live, data: { a: "1", b: "3" } });
    assert.deepEqual(
      conflictOf(() => apply(edited, "me", { data: { a: "9", b: "9" } })),
      {
        message:
          'Apply failed with 2 conflicts: conflicts with "kubectl-edit" using v1:\n- .data.b\nconflicts with "theirs":\n- .data.a',
        fields: [".data.b", ".data.a"],
      },
    );
    const containers = apply(undefined, "theirs", pod({ name: "c", image: "x" }), asPod);
    assert.deepEqual(
      conflictOf(() => apply(containers, "me", pod({ name: "c", image: "y" }), asPod)).fields,
      ['.spec.containers[name="c"].image'],
    );
  });

  test("force takes the field over, and only the field", () => {
    const live = apply(undefined, "theirs", { data: { a: "1", b: "2" } });
    const forced = apply(live, "me", { data: { a: "9" } }, { force: true });
    assert.deepEqual(forced["data"], { a: "9", b: "2" });
    assert.deepEqual(owned(forced, "theirs"), { "f:data": { "f:b": {} } });
    assert.deepEqual(owned(forced, "me"), { "f:data": { "f:a": {} } });
  });

  test("the same value is shared without conflict, and stays until the last owner lets go", () => {
    const live = apply(undefined, "theirs", { data: { a: "1" } });
    const shared = apply(live, "me", { data: { a: "1" } });
    const left = apply(shared, "theirs", {});
    assert.deepEqual(left["data"], { a: "1" });
    assert.equal(owned(left, "theirs"), undefined);
    assert.equal(apply(left, "me", {})["data"], undefined);
  });

  test("another spelling of a quantity and a zero value take nothing from anybody", () => {
    const limits = (cpu: string): JsonObject => pod({ name: "c", resources: { limits: { cpu } } });
    const live = apply(undefined, "theirs", limits("1"), asPod);
    assert.equal(
      dig(
        apply(live, "me", limits("1000m"), asPod),
        "spec",
        "containers",
        0,
        "resources",
        "limits",
        "cpu",
      ),
      "1",
    );
    conflictOf(() => apply(live, "me", limits("1100m"), asPod));
    const off = apply(undefined, "theirs", { spec: { hostNetwork: false } }, asPod);
    apply(off, "me", { spec: { hostNetwork: false } }, asPod);
    const on = apply(undefined, "theirs", { spec: { hostNetwork: true } }, asPod);
    assert.deepEqual(
      conflictOf(() => apply(on, "me", { spec: { hostNetwork: false } }, asPod)).fields,
      [".spec.hostNetwork"],
    );
  });

  test("atomic lists and maps are one field", () => {
    const live = apply(undefined, "theirs", pod({ name: "c", args: ["a", "b"] }), asPod);
    assert.deepEqual(
      conflictOf(() => apply(live, "me", pod({ name: "c", args: ["a"] }), asPod)).fields,
      ['.spec.containers[name="c"].args'],
    );
    const selected = apply(undefined, "theirs", { spec: { selector: { a: "1" } } }, asService);
    assert.deepEqual(owned(selected, "theirs"), { "f:spec": { "f:selector": {} } });
    conflictOf(() => apply(selected, "me", { spec: { selector: { b: "1" } } }, asService));
  });

  test("sets are unions of what each manager applied", () => {
    const finalizers = (...list: readonly string[]): JsonObject => ({
      metadata: { finalizers: list },
    });
    const live = apply(undefined, "theirs", finalizers("a.io/1", "a.io/2"));
    const both = apply(live, "me", finalizers("a.io/2", "a.io/3"));
    assert.deepEqual(dig(both, "metadata", "finalizers"), ["a.io/1", "a.io/2", "a.io/3"]);
    const left = apply(both, "theirs", {});
    assert.deepEqual(dig(left, "metadata", "finalizers"), ["a.io/2", "a.io/3"]);
  });

  test("an object nobody was tracked of belongs to those before the first apply", () => {
    const untracked = {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "x" },
      data: { a: "1" },
    };
    assert.equal(
      conflictOf(() => apply(untracked, "me", { data: { a: "2" } })).message,
      'Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a',
    );
  });

  test("kubectl takes over what client-side apply set, but not what was changed since", () => {
    const last = {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "x" },
      data: { a: "1", b: "1" },
    };
    const annotations = {
      "kubectl.kubernetes.io/last-applied-configuration": JSON.stringify(last),
    };
    const empty = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "x" } };
    const seed = apply(undefined, "seed", {});
    const live = update(
      { ...seed, metadata: { ...empty.metadata, managedFields: [] } },
      "none",
      seed,
    );
    assert.deepEqual(dig(live, "metadata", "managedFields"), []);
    const clientSide = {
      ...last,
      metadata: {
        name: "x",
        annotations,
        managedFields: [
          {
            manager: "kubectl-client-side-apply",
            operation: "Update",
            apiVersion: "v1",
            fieldsType: "FieldsV1",
            fieldsV1: { "f:data": { ".": {}, "f:a": {}, "f:b": {} } },
          },
        ],
      },
    };
    const taken = apply(clientSide, "kubectl", { data: { a: "2", b: "1" } });
    assert.deepEqual(taken["data"], { a: "2", b: "1" });
    const text = dig(
      taken,
      "metadata",
      "annotations",
      "kubectl.kubernetes.io/last-applied-configuration",
    );
    assert.deepEqual(dig(JSON.parse(String(text)), "data"), { a: "2", b: "1" });
    const changed = update(clientSide, "editor", { ...clientSide, data: { a: "7", b: "1" } });
    assert.deepEqual(
      conflictOf(() => apply(changed, "kubectl", { data: { a: "2", b: "2" } })).fields,
      [".data.a"],
    );
    conflictOf(() => apply(clientSide, "someone", { data: { a: "2" } }));
  });

  const refused: readonly (readonly [string, JsonObject, RegExp])[] = [
    [
      "double keys",
      pod({ name: "c" }, { name: "c" }),
      /^failed to create typed patch object \(default\/x; v1, Kind=Pod\): \.spec\.containers: duplicate entries for key \[name="c"\]$/,
    ],
    ["unknown fields", { spec: { foo: 1 } }, /: \.spec\.foo: field not declared in schema$/],
    [
      "several faults",
      pod({ name: "c", bar: 1, foo: 1 }),
      /: errors:\n {2}\.spec\.containers\[name="c"\]\.bar: .*\n {2}\.spec\.containers\[name="c"\]\.foo: /,
    ],
    ["wrong types", { spec: { hostNetwork: "yes" } }, /cannot unmarshal string/],
    ["managedFields", { metadata: { managedFields: [] } }, /^metadata.managedFields must be nil$/],
  ];
  for (const [what, configuration, message] of refused) {
    test(`refuses ${what}`, () => {
      assert.throws(() => apply(undefined, "me", configuration, asPod), { status: 400, message });
    });
  }
});

describe("managed fields of updates", () => {
  test("a reset list stays empty until the next apply", () => {
    const live = apply(undefined, "me", { data: { a: "1" } });
    const metadata = { name: "x", managedFields: [{}] };
    const reset = update(live, "other", { ...live, metadata });
    assert.deepEqual(dig(reset, "metadata", "managedFields"), []);
  });

  test("an applier keeps the zero values it applied", () => {
    const live = apply(undefined, "me", { spec: { hostNetwork: false } }, asPod);
    const after = update(live, "other", { ...live, spec: { nodeName: "n1" } }, "Pod");
    assert.deepEqual(owned(after, "me"), { "f:spec": { "f:hostNetwork": {} } });
  });
});

/** What each key of a ConfigMap must hold and who must own it, kept in the simplest way there is. */
class Model {
  readonly keys = new Map<string, { value: string; owners: Set<string> }>();

  /** False: a conflict, nothing changed. */
  apply(manager: string, data: Readonly<Record<string, string>>, force: boolean): boolean {
    const taken = Object.entries(data).filter(([key, value]) => {
      const known = this.keys.get(key);
      return (
        known !== undefined &&
        known.value !== value &&
        [...known.owners].some((one) => one !== manager)
      );
    });
    if (taken.length > 0 && !force) return false;
    for (const [key, known] of this.keys) {
      if (key in data || !known.owners.delete(manager)) continue;
      if (known.owners.size === 0) this.keys.delete(key);
    }
    for (const [key, value] of Object.entries(data)) {
      const known = this.keys.get(key);
      if (known?.value === value) known.owners.add(manager);
      else this.keys.set(key, { value, owners: new Set([manager]) });
    }
    return true;
  }

  update(manager: string, data: Readonly<Record<string, string>>): void {
    for (const key of this.keys.keys()) if (!(key in data)) this.keys.delete(key);
    for (const [key, value] of Object.entries(data))
      if (this.keys.get(key)?.value !== value)
        this.keys.set(key, { value, owners: new Set([manager]) });
  }
}

const data = dictionary(constantFrom("a", "b", "c", "d"), constantFrom("1", "2"));
const step = record({
  how: constantFrom("apply", "force", "update"),
  manager: constantFrom("m1", "m2", "m3"),
  data,
});

function ownersOf(object: JsonObject): Record<string, string[]> {
  const out: Record<string, string[]> = {};
  for (const entry of records(dig(object, "metadata", "managedFields"))) {
    const fields = dig(entry, "fieldsV1", "f:data");
    for (const element of Object.keys(isRecord(fields) ? fields : {}))
      if (element !== ".") (out[element.slice(2)] ??= []).push(String(entry["manager"]));
  }
  return Object.fromEntries(Object.entries(out).map(([key, owners]) => [key, owners.toSorted()]));
}

test("values and owners follow the model, whoever applies, forces and updates in whatever order", () => {
  check(
    property(array(step, { maxLength: 12 }), (steps) => {
      const model = new Model();
      let live = apply(undefined, "first", { metadata: { labels: { keep: "1" } } });
      for (const { how, manager, data: wanted } of steps) {
        const writer = how === "update" ? `${manager}-update` : manager;
        const values = { ...wanted };
        if (how === "update") {
          live = update(live, writer, { ...live, data: values });
          model.update(writer, values);
        } else {
          const agreed = model.apply(writer, values, how === "force");
          if (agreed) live = apply(live, writer, { data: values }, { force: how === "force" });
          else conflictOf(() => apply(live, writer, { data: values }));
        }
        const expected = [...model.keys];
        assert.deepEqual(
          isRecord(live["data"]) ? live["data"] : {},
          Object.fromEntries(expected.map(([key, { value }]) => [key, value])),
        );
        assert.deepEqual(
          ownersOf(live),
          Object.fromEntries(expected.map(([key, { owners }]) => [key, [...owners].toSorted()])),
        );
      }
      assert.deepEqual(dig(live, "metadata", "labels"), { keep: "1" });
    }),
    { numRuns: 300 },
  );
});

const container = record(
  {
    name: constantFrom("a", "b", "c"),
    image: constantFrom("x", "y"),
    args: array(constantFrom("1", "2"), { minLength: 1, maxLength: 2 }),
    env: uniqueArray(record({ name: constantFrom("E", "F"), value: constantFrom("1", "2") }), {
      selector: ({ name }) => name,
    }),
  },
  { requiredKeys: ["name"] },
);
const podSpec = uniqueArray(container, { selector: ({ name }) => name, minLength: 1 });

/** Without empty containers: an apply that takes the last item out of a list leaves the list. */
function compact(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(compact);
  if (!isRecord(value)) return value;
  const members = Object.entries(value).map(([key, member]) => [key, compact(member)] as const);
  const full = members.filter(
    ([, member]) => typeof member !== "object" || member === null || Object.keys(member).length > 0,
  );
  return Object.fromEntries(full);
}

test("a lone applier's object is what it applied last, whatever it applied before", () => {
  check(
    property(array(podSpec, { minLength: 1, maxLength: 5 }), (specs) => {
      let live: JsonObject | undefined;
      for (const containers of specs) live = apply(live, "me", pod(...containers), asPod);
      const fresh = apply(undefined, "me", pod(...(specs.at(-1) ?? [])), asPod);
      assert.deepEqual(compact(live?.["spec"]), compact(fresh["spec"]));
      assert.deepEqual(owned(live ?? {}, "me"), owned(fresh, "me"));
    }),
    { numRuns: 300 },
  );
});

test("managers of different items never conflict and never lose each other's work", () => {
  const mine = podSpec.map((list) => list.map((one) => ({ ...one, name: `mine-${one.name}` })));
  const theirs = podSpec.map((list) => list.map((one) => ({ ...one, name: `theirs-${one.name}` })));
  const byName = (spec: unknown): unknown[] =>
    records(dig(spec, "containers")).toSorted((left, right) =>
      String(left["name"]) < String(right["name"]) ? -1 : 1,
    );
  check(
    property(mine, theirs, mine, (before, other, after) => {
      let live = apply(undefined, "me", pod(...before), asPod);
      live = apply(live, "them", pod(...other), asPod);
      live = apply(live, "me", pod(...after), asPod);
      const expected = byName({ containers: [...after, ...other] });
      assert.deepEqual(byName(live["spec"]).map(compact), expected.map(compact));
    }),
    { numRuns: 200 },
  );
});

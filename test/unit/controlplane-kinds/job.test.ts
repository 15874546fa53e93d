import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { checkIndexes, overlappingIndex } from "../../../src/controlplane/kinds/job-indexes.ts";
import { StatusError } from "../../../src/controlplane/status-error.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { context, createCluster, now } from "./harness.ts";

const cluster = createCluster();
const resource = "jobs.batch";
const uid = "u-1";

function job(spec: JsonObject = {}, name = "j"): JsonObject {
  const container = { name: "c", image: "i:1" };
  const template = { spec: { restartPolicy: "Never", containers: [container] } };
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name, uid },
    spec: { template, ...spec },
  };
}

function create(spec: JsonObject = {}, name = "j"): JsonObject {
  return cluster.create(resource, "default", job(spec, name));
}

/** `field: message` of each complaint. */
function refused(write: () => unknown): readonly string[] {
  try {
    write();
  } catch (error) {
    assert.ok(error instanceof StatusError, String(error));
    assert.equal(error.status, 422);
    return (error.details?.causes ?? []).map(({ field, message }) => `${field}: ${message}`);
  }
  assert.fail("was accepted");
}

function at(object: JsonObject, ...path: string[]): unknown {
  return path.reduce<unknown>((value, key) => (value as JsonObject)[key], object);
}

describe("creating a Job", () => {
  test("fills defaults: limits by index lift the other limit, a failure policy replaces only Failed pods", () => {
    const plain = create();
    assert.equal(at(plain, "spec", "backoffLimit"), 6);
    assert.equal(at(plain, "spec", "podReplacementPolicy"), "TerminatingOrFailed");
    const parallel = create({ parallelism: 3 });
    assert.equal(at(parallel, "spec", "completions"), undefined);
    const perIndex = create({
      completionMode: "Indexed",
      completions: 2,
      backoffLimitPerIndex: 1,
    });
    assert.equal(at(perIndex, "spec", "backoffLimit"), 2_147_483_647);
    const rules = [{ action: "Ignore", onPodConditions: [{ type: "DisruptionTarget" }] }];
    const policy = create({ podFailurePolicy: { rules } });
    assert.equal(at(policy, "spec", "podReplacementPolicy"), "Failed");
    assert.deepEqual(at(policy, "spec", "podFailurePolicy", "rules"), [
      { action: "Ignore", onPodConditions: [{ type: "DisruptionTarget", status: "True" }] },
    ]);
  });

  test("a manual selector is left as it is, a generated one refuses labels of another Job", () => {
    const template = {
      metadata: { labels: { app: "x" } },
      spec: { restartPolicy: "Never", containers: [{ name: "c", image: "i:1" }] },
    };
    const selector = { matchLabels: { app: "x" } };
    const manual = create({ manualSelector: true, selector, template });
    assert.deepEqual(at(manual, "spec", "selector"), selector);
    assert.deepEqual(at(manual, "metadata", "labels"), { app: "x" });
    const foreign = { ...template, metadata: { labels: { "controller-uid": "other" } } };
    assert.deepEqual(
      refused(() => create({ template: foreign })),
      [
        'spec.template.metadata.labels[controller-uid]: Invalid value: {"controller-uid":"other","job-name":"j","batch.kubernetes.io/job-name":"j","batch.kubernetes.io/controller-uid":"u-1"}: must be \'u-1\'',
      ],
    );
    assert.deepEqual(
      refused(() => create({ selector })),
      [
        'spec.selector: Invalid value: {"matchLabels":{"app":"x","batch.kubernetes.io/controller-uid":"u-1"}}: `selector` not auto-generated',
        'spec.template.metadata.labels: Invalid value: {"job-name":"j","batch.kubernetes.io/job-name":"j","controller-uid":"u-1","batch.kubernetes.io/controller-uid":"u-1"}: `selector` does not match template `labels`',
      ],
    );
  });

  const cases: readonly (readonly [string, JsonObject, readonly string[]])[] = [
    [
      "negative numbers",
      { parallelism: -1, ttlSecondsAfterFinished: -2 },
      [
        "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
        "spec.ttlSecondsAfterFinished: Invalid value: -2: must be greater than or equal to 0",
      ],
    ],
    [
      "limits per index without indexes",
      { backoffLimitPerIndex: 1 },
      ["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
    ],
    [
      "an index limit that lacks its companion",
      { completionMode: "Indexed", completions: 2, maxFailedIndexes: 3 },
      [
        "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
        "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
      ],
    ],
    [
      "indexes without completions",
      { completionMode: "Indexed", parallelism: 100_001 },
      [
        "spec.completions: Required value: when completion mode is Indexed",
        "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
      ],
    ],
    [
      "an unknown mode",
      { completionMode: "Both" },
      ['spec.completionMode: Unsupported value: "Both": supported values: "NonIndexed", "Indexed"'],
    ],
    [
      "a manager without a domain",
      { managedBy: "queue" },
      [
        'spec.managedBy: Invalid value: "queue": must be a domain-prefixed path (such as "acme.io/foo")',
      ],
    ],
    [
      "a success policy without indexes",
      { successPolicy: { rules: [{ succeededCount: 1 }] } },
      [
        'spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: requires indexed completion mode',
      ],
    ],
    [
      "a success policy that cannot be met",
      {
        completionMode: "Indexed",
        completions: 3,
        successPolicy: {
          rules: [{}, { succeededIndexes: "0,2", succeededCount: 3 }, { succeededIndexes: "1-5" }],
        },
      },
      [
        "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
        "spec.successPolicy.rules[1].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
        'spec.successPolicy.rules[2].succeededIndexes: Invalid value: "1-5": error parsing succeededIndexes: too large index: "5"',
      ],
    ],
    [
      "a failure policy with rules that say nothing or too much",
      {
        podFailurePolicy: {
          rules: [
            { action: "Ignore" },
            { action: "FailIndex", onExitCodes: { operator: "In", values: [0, 3, 3, 1] } },
            {
              action: "Stop",
              onExitCodes: { operator: "NotIn", values: [1], containerName: "x" },
              onPodConditions: [{ type: "Ready", status: "Maybe" }],
            },
          ],
        },
      },
      [
        "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        'spec.podFailurePolicy.rules[1].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set',
        "spec.podFailurePolicy.rules[1].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
        "spec.podFailurePolicy.rules[1].onExitCodes.values[2]: Duplicate value: 3",
        "spec.podFailurePolicy.rules[1].onExitCodes.values: Invalid value: [0,3,3,1]: must be ordered",
        'spec.podFailurePolicy.rules[2].action: Unsupported value: "Stop": supported values: "Count", "FailIndex", "FailJob", "Ignore"',
        'spec.podFailurePolicy.rules[2].onExitCodes.containerName: Invalid value: "x": must be one of the container or initContainer names in the pod template',
        'spec.podFailurePolicy.rules[2].onPodConditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"',
        "spec.podFailurePolicy.rules[2]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
      ],
    ],
  ];
  for (const [name, spec, expected] of cases) {
    test(`refuses ${name}`, () => {
      assert.deepEqual(
        refused(() => create(spec)),
        expected,
      );
    });
  }

  test("refuses an Indexed Job whose pods could not have their hostname", () => {
    const name = "a".repeat(62);
    const spec = { completionMode: "Indexed", completions: 11 };
    assert.deepEqual(
      refused(() => create(spec, name)),
      [
        `metadata.name: Invalid value: "${name}": will not able to create pod with invalid DNS label: ${name}-10`,
      ],
    );
  });

  test("warns of a name that is no DNS label", () => {
    const warnings: string[] = [];
    const asked = { ...context(), warn: (message: string) => warnings.push(message) };
    cluster.create(resource, "default", job({}, "a.b"), asked);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0] ?? "", /^metadata\.name: this is used in Pod names and hostnames/);
  });
});

describe("changing a Job", () => {
  function change(old: JsonObject, spec: JsonObject): JsonObject {
    const before = old["spec"] as JsonObject;
    return cluster.update(resource, old, { ...old, spec: { ...before, ...spec } });
  }

  function withTemplate(old: JsonObject, podSpec: JsonObject): JsonObject {
    const template = at(old, "spec", "template") as JsonObject;
    return { template: { ...template, spec: { ...(template["spec"] as JsonObject), ...podSpec } } };
  }

  test("parallelism, limits and suspend may change; the rest is fixed", () => {
    const old = create();
    const next = change(old, { parallelism: 4, backoffLimit: 1, suspend: true });
    assert.equal(at(next, "metadata", "generation"), 2);
    assert.deepEqual(
      refused(() => change(old, { completions: 5 })),
      ["spec.completions: Invalid value: 5: field is immutable"],
    );
    assert.deepEqual(
      refused(() => change(old, { managedBy: "example.com/x" })),
      ['spec.managedBy: Invalid value: "example.com/x": field is immutable'],
    );
    const moved = refused(() => change(old, withTemplate(old, { nodeSelector: { a: "b" } })));
    assert.equal(moved.length, 1);
    assert.match(moved[0] ?? "", /^spec\.template: .*field is immutable$/);
  });

  test("an Indexed Job is elastic: both numbers together", () => {
    const old = create({ completionMode: "Indexed", completions: 3, parallelism: 3 });
    assert.equal(at(change(old, { completions: 5, parallelism: 5 }), "spec", "completions"), 5);
    assert.deepEqual(
      refused(() => change(old, { completions: 5 })),
      ["spec.completions: Invalid value: 5: can only be modified in tandem with spec.parallelism"],
    );
  });

  test("while it is suspended, where its pods go and what they ask for may change", () => {
    const old = create({ suspend: true });
    const container = {
      ...(at(old, "spec", "template", "spec", "containers") as JsonObject[])[0],
      resources: { limits: { cpu: "1" } },
    };
    const wanted = { nodeSelector: { a: "b" }, containers: [container] };
    const next = change(old, withTemplate(old, wanted));
    assert.deepEqual(at(next, "spec", "template", "spec", "nodeSelector"), { a: "b" });
    const other = withTemplate(old, { containers: [{ ...container, image: "other:1" }] });
    assert.equal(refused(() => change(old, other)).length, 1);
    const started = { ...old, status: { startTime: "2026-01-01T00:00:00Z" } };
    assert.equal(refused(() => change(started, withTemplate(old, wanted))).length, 1);
  });
});

describe("the status of a Job", () => {
  const time = "2026-01-01T00:00:00Z";
  const isTrue = (type: string): JsonObject => ({ type, status: "True" });

  function writeStatus(before: JsonObject, after: JsonObject, spec: JsonObject = {}): JsonObject {
    const old = { ...create(spec), status: before };
    const next = { ...structuredClone(old), status: after };
    return cluster.update(resource, old, next, { subresource: "status" });
  }

  const cases: readonly (readonly [
    string,
    JsonObject,
    JsonObject,
    readonly string[],
    JsonObject?,
  ])[] = [
    [
      "complete without having met its criteria",
      { startTime: time },
      { startTime: time, completionTime: time, conditions: [isTrue("Complete")] },
      [
        "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
      ],
    ],
    [
      "failed without a target, with pods, without a start",
      {},
      { active: 1, terminating: 2, conditions: [isTrue("Failed")] },
      [
        "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
        "status.startTime: Required value: startTime is required for finished job",
        "status.active: Invalid value: 1: active>0 is invalid for finished job",
        "status.terminating: Invalid value: 2: terminating>0 is invalid for finished job",
      ],
    ],
    [
      "take its end back",
      { startTime: time, conditions: [isTrue("FailureTarget"), isTrue("Failed")] },
      { startTime: time, conditions: [isTrue("FailureTarget")] },
      ["status.conditions: Invalid value: cannot disable the terminal Failed=True condition"],
    ],
    [
      "count backwards, and the same pod twice",
      { succeeded: 2, failed: 2 },
      {
        succeeded: 1,
        failed: 1,
        uncountedTerminatedPods: { succeeded: ["a"], failed: ["a", ""] },
      },
      [
        'status.uncountedTerminatedPods.failed[0]: Duplicate value: "a"',
        'status.uncountedTerminatedPods.failed[1]: Invalid value: "": must not be empty',
        "status.failed: Invalid value: 1: cannot decrease the failed counter",
        "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
      ],
    ],
    [
      "have an index both done and failed",
      {},
      { completedIndexes: "0-2", failedIndexes: "2,3" },
      [
        'status.failedIndexes: Invalid value: "2,3": failedIndexes and completedIndexes overlap at index: 2',
      ],
      { completionMode: "Indexed", completions: 5, backoffLimitPerIndex: 1 },
    ],
    [
      "have indexes without being Indexed",
      {},
      { completedIndexes: "0" },
      [
        'status.completedIndexes: Invalid value: "0": cannot set non-empty completedIndexes when non-indexed completion mode',
      ],
    ],
    [
      "start again while it runs",
      { startTime: time },
      { startTime: "2026-01-02T00:00:00Z" },
      [
        'status.startTime: Invalid value: "2026-01-02T00:00:00Z": field is immutable for unsuspended job once set',
      ],
    ],
  ];
  for (const [name, before, after, expected, spec] of cases) {
    test(`cannot ${name}`, () => {
      assert.deepEqual(
        refused(() => writeStatus(before, after, spec ?? { completions: 2 })),
        expected,
      );
    });
  }

  test("goes the way of a normal end", () => {
    const met = { startTime: time, conditions: [isTrue("SuccessCriteriaMet")] };
    const complete = {
      startTime: time,
      completionTime: time,
      succeeded: 1,
      conditions: [isTrue("SuccessCriteriaMet"), isTrue("Complete")],
    };
    assert.deepEqual(writeStatus({ startTime: time }, met)["status"], met);
    assert.deepEqual(writeStatus(met, complete)["status"], complete);
  });
});

test("lists of indexes are read as the API reads them", () => {
  assert.deepEqual(checkIndexes("0,2-4", 5), { kind: "valid", total: 4 });
  const messages = ["3,1", "2-2", "1-2-3", "x", "9"].map((text) => {
    const checked = checkIndexes(text, 5);
    return checked.kind === "invalid" ? checked.message : "";
  });
  assert.deepEqual(messages, [
    "non-increasing order, previous: 3, current: 1",
    "non-increasing order, previous: 2, current: 2",
    "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
    'cannot convert string to integer for index: "x"',
    'too large index: "9"',
  ]);
  assert.equal(overlappingIndex("0-3,7", "5-9", 10), 7);
  assert.equal(overlappingIndex("0-3", "5-9", 10), undefined);
});

test("the table shows how far a Job is", () => {
  const { table } = cluster.kind(resource);
  const row = (spec: JsonObject, status: JsonObject): readonly unknown[] =>
    table.row({ ...create(spec), status }, now).slice(1, 4);
  const ago = (seconds: number): string => new Date(now - seconds * 1000).toISOString();
  assert.deepEqual(row({ completions: 3 }, { succeeded: 1, startTime: ago(90) }), [
    "Running",
    "1/3",
    "90s",
  ]);
  assert.deepEqual(row({ parallelism: 4 }, {}), ["Running", "0/1 of 4", ""]);
  const conditions = [{ type: "Complete", status: "True" }];
  assert.deepEqual(
    row({}, { succeeded: 1, conditions, startTime: ago(90), completionTime: ago(80) }),
    ["Complete", "1/1", "10s"],
  );
  assert.equal(row({}, { conditions: [{ type: "Suspended", status: "True" }] })[0], "Suspended");
});

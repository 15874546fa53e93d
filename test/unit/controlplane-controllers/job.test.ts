import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import type { Stored } from "../../../src/api/object.ts";
import type { Job, JobSpec, JobStatus } from "../../../src/api/types.gen.ts";
import type { Assessment, Observation } from "../../../src/controlplane/controllers/job/assess.ts";
import { assessJob, isComplete } from "../../../src/controlplane/controllers/job/assess.ts";
import {
  afterEnds,
  noFailures,
  remainingMs,
} from "../../../src/controlplane/controllers/job/backoff.ts";
import {
  countCommon,
  countIndexes,
  firstMissing,
  formatIntervals,
  hasIndex,
  parseIntervals,
  withIndexes,
} from "../../../src/controlplane/controllers/job/intervals.ts";
import { planScale } from "../../../src/controlplane/controllers/job/plan.ts";
import {
  indexAnnotations,
  trackingFinalizer,
} from "../../../src/controlplane/controllers/job/pods.ts";
import { judgeFailure } from "../../../src/controlplane/controllers/job/policies.ts";
import {
  concludeJob,
  countReleased,
  trackEnds,
} from "../../../src/controlplane/controllers/job/track.ts";
import { expiresAtMs } from "../../../src/controlplane/controllers/job/ttl-after-finished.ts";
import type { JobProgress, JobView } from "../../../src/controlplane/controllers/job/view.ts";
import { jobStatus, parseJob } from "../../../src/controlplane/controllers/job/view.ts";
import type { StoredPod } from "../../../src/controlplane/controllers/shared/pod-state.ts";
import type { PodParts } from "./builders.ts";
import { ago, now, pod } from "./builders.ts";

function job(spec: Partial<JobSpec> = {}, status: JobStatus = {}): Stored<Job> {
  return {
    metadata: { namespace: "default", name: "j", uid: "job", resourceVersion: "1" },
    spec: {
      parallelism: 1,
      completions: 1,
      backoffLimit: 6,
      template: { spec: { restartPolicy: "Never", containers: [{ name: "c", image: "i" }] } },
      ...spec,
    },
    status: { startTime: ago(100), ...status },
  };
}

interface JobPodParts extends PodParts {
  readonly index?: number;
  readonly failures?: number;
  readonly tracked?: boolean;
  readonly exitCode?: number;
  readonly endedAgo?: number;
}

function jobPod(parts: JobPodParts): StoredPod {
  const made = pod({ owner: "job", ...parts });
  const annotations: Record<string, string> = {};
  if (parts.index !== undefined)
    annotations[indexAnnotations.completionIndex] = String(parts.index);
  if (parts.failures !== undefined)
    annotations[indexAnnotations.failureCount] = String(parts.failures);
  const ended = parts.phase === "Succeeded" || parts.phase === "Failed";
  const exitCode = parts.exitCode ?? (parts.phase === "Failed" ? 1 : 0);
  const state = ended
    ? { terminated: { exitCode, finishedAt: ago(parts.endedAgo ?? 1) } }
    : { running: {} };
  return {
    ...made,
    metadata: {
      ...made.metadata,
      annotations,
      finalizers: parts.tracked === false ? undefined : [trackingFinalizer],
    },
    status: {
      ...made.status,
      containerStatuses: [
        {
          name: "c",
          image: "i",
          imageID: "",
          ready: false,
          restartCount: parts.restarts ?? 0,
          state,
        },
      ],
    },
  };
}

interface Case {
  readonly spec?: Partial<JobSpec>;
  readonly status?: JobStatus;
  readonly pods: readonly StoredPod[];
  readonly released?: readonly string[];
}

function observe({ spec, status, pods, released = [] }: Case): Observation {
  const view = parseJob(job(spec, status));
  return { job: view, pods, released: new Set(released), backoff: noFailures, now };
}

function assess(given: Case): Assessment {
  const observation = observe(given);
  return assessJob(observation, observation.job.progress);
}

const indexedSpec = { completionMode: "Indexed", completions: 4, parallelism: 4 } as const;

describe("lists of completion indexes", () => {
  const indexes = fc.uniqueArray(fc.nat(40));

  test("reading what was written gives the same indexes", () => {
    fc.assert(
      fc.property(indexes, (given) => {
        const intervals = withIndexes([], given);
        assert.deepEqual(parseIntervals(formatIntervals(intervals), 41), intervals);
        assert.equal(countIndexes(intervals), given.length);
        for (let index = 0; index <= 41; index += 1)
          assert.equal(hasIndex(intervals, index), given.includes(index));
      }),
    );
  });

  test("the missing ones and the common ones are those of plain sets", () => {
    fc.assert(
      fc.property(indexes, indexes, fc.nat(10), (left, right, count) => {
        const [a, b] = [withIndexes([], left), withIndexes([], right)];
        assert.equal(countCommon(a, b), new Set(left).intersection(new Set(right)).size);
        const missing = Array.from({ length: 30 }, (_, index) => index)
          .filter((index) => !left.includes(index))
          .slice(0, count);
        assert.deepEqual(firstMissing(a, count, 30), missing);
      }),
    );
  });

  test("two neighbours are written as two, three as a range; rubbish is left out", () => {
    assert.equal(formatIntervals(withIndexes([], [5, 1, 0, 3, 4, 9])), "0,1,3-5,9");
    assert.deepEqual(parseIntervals("x,2,5-3,7-99", 10), [
      { first: 2, last: 2 },
      { first: 7, last: 9 },
    ]);
  });
});

describe("where a Job stands", () => {
  test("a pod is counted once: as new, as uncounted, or in the counter", () => {
    const pods = [
      jobPod({ uid: "a", phase: "Succeeded" }),
      jobPod({ uid: "b", phase: "Succeeded" }),
      jobPod({ uid: "c", phase: "Succeeded", tracked: false }),
      jobPod({ uid: "d", phase: "Succeeded" }),
    ];
    const status = { succeeded: 1, uncountedTerminatedPods: { succeeded: ["b"] } };
    const { succeeded } = assess({ pods, status, released: ["d"], spec: { completions: 9 } });
    assert.equal(succeeded, 3);
  });

  test("a deleted pod has failed, unless only Failed ones are replaced", () => {
    const pods = [jobPod({ deleting: true })];
    assert.equal(assess({ pods }).failed, 1);
    assert.equal(assess({ pods, spec: { podReplacementPolicy: "Failed" } }).failed, 0);
  });

  const failed = (count: number): readonly StoredPod[] =>
    Array.from({ length: count }, () => jobPod({ phase: "Failed" }));

  const verdicts: readonly (readonly [string, Case, string | undefined])[] = [
    ["failures at the limit", { pods: failed(2), spec: { backoffLimit: 2 } }, undefined],
    [
      "failures above the limit",
      { pods: failed(3), spec: { backoffLimit: 2 } },
      "BackoffLimitExceeded",
    ],
    [
      "restarts at the limit with OnFailure",
      {
        pods: [jobPod({ phase: "Running", restarts: 2 })],
        spec: {
          backoffLimit: 2,
          template: { spec: { restartPolicy: "OnFailure", containers: [] } },
        },
      },
      "BackoffLimitExceeded",
    ],
    ["the deadline", { pods: [], spec: { activeDeadlineSeconds: 100 } }, "DeadlineExceeded"],
    ["before the deadline", { pods: [], spec: { activeDeadlineSeconds: 101 } }, undefined],
    [
      "a suspended Job has no deadline",
      { pods: [], spec: { activeDeadlineSeconds: 1, suspend: true } },
      undefined,
    ],
    [
      "too many failed indexes",
      {
        pods: [jobPod({ index: 0, phase: "Failed" }), jobPod({ index: 1, phase: "Failed" })],
        spec: { ...indexedSpec, backoffLimitPerIndex: 0, maxFailedIndexes: 1, backoffLimit: 99 },
      },
      "MaxFailedIndexesExceeded",
    ],
    [
      "all indexes ended, one of them failed",
      {
        pods: [
          ...[0, 1, 2].map((index) => jobPod({ index, phase: "Succeeded" })),
          jobPod({ index: 3, phase: "Failed" }),
        ],
        spec: { ...indexedSpec, backoffLimitPerIndex: 0, backoffLimit: 99 },
      },
      "FailedIndexes",
    ],
    [
      "enough of the wanted indexes",
      {
        pods: [jobPod({ index: 1, phase: "Succeeded" })],
        spec: {
          ...indexedSpec,
          successPolicy: { rules: [{ succeededIndexes: "1-2", succeededCount: 1 }] },
        },
      },
      "SuccessPolicy",
    ],
    [
      "an earlier verdict stands, whatever else is true by now",
      {
        pods: failed(9),
        spec: { backoffLimit: 0 },
        status: {
          conditions: [{ type: "SuccessCriteriaMet", status: "True", reason: "SuccessPolicy" }],
        },
      },
      "SuccessPolicy",
    ],
  ];
  for (const [name, given, reason] of verdicts) {
    test(`${name}: ${reason ?? "goes on"}`, () => {
      assert.equal(assess(given).verdict?.reason, reason);
    });
  }

  test("without completions the first success is enough, once nothing runs", () => {
    const view = parseJob(job({ completions: undefined, parallelism: 3 }));
    assert.equal(isComplete(view, 1, 1), false);
    assert.equal(isComplete(view, 1, 0), true);
    assert.equal(isComplete(view, 0, 0), false);
    assert.equal(isComplete(parseJob(job({ completions: 0 })), 0, 0), true);
  });
});

describe("how many pods a Job wants", () => {
  function plan(given: Case): ReturnType<typeof planScale> {
    const observation = observe(given);
    const assessment = assessJob(observation, observation.job.progress);
    return planScale(observation.job, assessment, observation.pods, now);
  }

  test("not more than are missing to the completions", () => {
    const spec = { parallelism: 5, completions: 3 };
    const action = plan({ pods: [jobPod({ phase: "Running" })], spec, status: { succeeded: 1 } });
    assert.deepEqual(action, { kind: "create", indexes: [undefined] });
  });

  test("a terminating pod is replaced at once, or only when it has ended", () => {
    const pods = [jobPod({ deleting: true, tracked: false })];
    assert.equal(plan({ pods }).kind, "create");
    assert.equal(plan({ pods, spec: { podReplacementPolicy: "Failed" } }).kind, "none");
  });

  test("suspended: none", () => {
    const action = plan({ pods: [jobPod({ phase: "Running" })], spec: { suspend: true } });
    assert.equal(action.kind, "delete");
  });

  test("doubled, invalid and missing indexes go before anything is created", () => {
    const pods = [
      jobPod({ name: "old", index: 0, phase: "Running", ready: true }),
      jobPod({ name: "young", index: 0, phase: "Pending" }),
      jobPod({ name: "beyond", index: 4, phase: "Running" }),
      jobPod({ name: "without", phase: "Running" }),
    ];
    const action = plan({ pods, spec: indexedSpec });
    assert.ok(action.kind === "delete");
    const names = action.pods.map(({ metadata }) => metadata.name).toSorted();
    assert.deepEqual(names, ["beyond", "without", "young"]);
  });

  test("the first indexes that are neither done, nor failed, nor running", () => {
    const pods = [jobPod({ index: 1, phase: "Running" })];
    const status = { completedIndexes: "0", failedIndexes: "2" };
    const spec = { ...indexedSpec, completions: 6, backoffLimitPerIndex: 0, backoffLimit: 99 };
    assert.deepEqual(plan({ pods, spec, status }), { kind: "create", indexes: [3, 4, 5] });
  });

  test("after a failure the next pod waits", () => {
    const pods = [jobPod({ phase: "Failed", endedAgo: 4 })];
    assert.deepEqual(plan({ pods }), { kind: "wait", ms: 6000 });
  });

  test("per index, only the index that failed waits", () => {
    const pods = [jobPod({ index: 0, phase: "Failed", failures: 1, endedAgo: 5 })];
    const spec = { ...indexedSpec, completions: 2, backoffLimitPerIndex: 5, backoffLimit: 99 };
    assert.deepEqual(plan({ pods, spec }), { kind: "create", indexes: [1] });
    const status = { completedIndexes: "1" };
    assert.deepEqual(plan({ pods, spec, status }), { kind: "wait", ms: 15_000 });
  });
});

test("the back-off doubles from 10 s to 10 min and a success ends it", () => {
  const waits = [1, 2, 3, 4, 5, 6, 7, 8, 50].map((failuresSinceSuccess) =>
    remainingMs({ failuresSinceSuccess, lastFailureMs: now }, now),
  );
  assert.deepEqual(
    waits,
    [10, 20, 40, 80, 160, 320, 600, 600, 600].map((seconds) => seconds * 1000),
  );
  const failed = [jobPod({ phase: "Failed", endedAgo: 9 })];
  const after = afterEnds({ failuresSinceSuccess: 4, lastFailureMs: 0 }, failed, failed);
  assert.deepEqual(after, noFailures);
  const later = [jobPod({ phase: "Failed", endedAgo: 2 }), ...failed];
  const succeeded = [jobPod({ phase: "Succeeded", endedAgo: 5 })];
  assert.deepEqual(afterEnds(noFailures, succeeded, later), {
    failuresSinceSuccess: 1,
    lastFailureMs: now - 2000,
  });
});

test("the first failure rule that matches decides", () => {
  const policy = {
    rules: [
      {
        action: "Ignore" as const,
        onPodConditions: [{ type: "DisruptionTarget", status: "True" }],
      },
      { action: "Count" as const, onExitCodes: { operator: "In" as const, values: [1] } },
      { action: "FailJob" as const, onExitCodes: { operator: "NotIn" as const, values: [2] } },
    ],
  };
  assert.deepEqual(judgeFailure(policy, jobPod({ phase: "Failed", exitCode: 1 })), {
    action: "Count",
    counts: true,
  });
  assert.deepEqual(judgeFailure(policy, jobPod({ phase: "Failed", exitCode: 2 })), {
    action: undefined,
    counts: true,
  });
  assert.equal(judgeFailure(policy, jobPod({ phase: "Failed", exitCode: 3 })).action, "FailJob");
  const evicted = jobPod({ phase: "Failed" });
  const conditions = [{ type: "DisruptionTarget", status: "True" }];
  const disrupted = { ...evicted, status: { ...evicted.status, conditions } };
  assert.equal(judgeFailure(policy, disrupted).counts, false);
});

test("a Job expires so many seconds after its end, not while it is being deleted", () => {
  const ended = { conditions: [{ type: "Failed", status: "True", lastTransitionTime: ago(10) }] };
  assert.equal(expiresAtMs(job({ ttlSecondsAfterFinished: 30 }, ended)), now + 20_000);
  assert.equal(expiresAtMs(job({}, ended)), undefined);
  assert.equal(expiresAtMs(job({ ttlSecondsAfterFinished: 30 })), undefined);
  const going = job({ ttlSecondsAfterFinished: 30 }, ended);
  going.metadata.deletionTimestamp = ago(0);
  assert.equal(expiresAtMs(going), undefined);
});

/** One sync with a crash after any of its three steps: write, release, write. */
interface World {
  status: JobStatus;
  readonly pods: Map<string, StoredPod>;
}

function syncOnce(world: World, spec: Partial<JobSpec>, stopAfter: number): void {
  const view: JobView = parseJob(job(spec, world.status));
  const pods = [...world.pods.values()];
  const observation: Observation = {
    job: view,
    pods,
    released: new Set(),
    backoff: noFailures,
    now,
  };
  const assessment = assessJob(observation, view.progress);
  const facts = { ...observation, assessment, verdict: undefined };
  const tracking = trackEnds(facts, view.progress);
  if (stopAfter === 0) return;
  world.status = jobStatus(tracking.progress);
  if (stopAfter === 1) return;
  const left = new Set(pods.filter(tracked).map(({ metadata }) => metadata.uid));
  for (const released of tracking.release) {
    const { uid } = released.metadata;
    left.delete(uid);
    // One that was told to end is then gone, the others stay without their finalizer.
    if (released.metadata.deletionTimestamp !== undefined) world.pods.delete(uid);
    else world.pods.set(uid, { ...released, metadata: { ...released.metadata, finalizers: [] } });
  }
  if (stopAfter === 2) return;
  world.status = jobStatus(countReleased(tracking.progress, left));
}

function tracked({ metadata }: StoredPod): boolean {
  return metadata.finalizers?.includes(trackingFinalizer) === true;
}

describe("counting ends", () => {
  const kinds = fc.constantFrom("Succeeded", "Failed", "Deleted", "Running");

  test("is exact, wherever and however often the controller dies", () => {
    fc.assert(
      fc.property(
        fc.array(kinds, { maxLength: 8 }),
        fc.array(fc.nat(3), { maxLength: 6 }),
        fc.boolean(),
        (given, crashes, indexed) => {
          const pods = given.map((kind, index) => {
            const deleting = kind === "Deleted";
            const phase = kind === "Deleted" ? "Running" : (kind as "Succeeded");
            return jobPod({ uid: `p${index}`, index, phase, deleting });
          });
          const world: World = {
            status: { startTime: ago(100) },
            pods: new Map(pods.map((each) => [each.metadata.uid, each])),
          };
          const spec: Partial<JobSpec> = {
            completions: 100,
            backoffLimit: 100,
            completionMode: indexed ? "Indexed" : "NonIndexed",
          };
          for (const stopAfter of [...crashes, 3, 3]) syncOnce(world, spec, stopAfter);
          const count = (...wanted: string[]): number =>
            given.filter((kind) => wanted.includes(kind)).length;
          assert.equal(world.status.succeeded ?? 0, count("Succeeded"));
          assert.equal(world.status.failed ?? 0, count("Failed", "Deleted"));
          assert.deepEqual(world.status.uncountedTerminatedPods, {
            succeeded: undefined,
            failed: undefined,
          });
          assert.equal([...world.pods.values()].filter(tracked).length, count("Running"));
        },
      ),
    );
  });

  test("the Job ends only when every pod is counted and none is still ending", () => {
    const final = { type: "Complete", reason: "CompletionsReached", message: "" } as const;
    const base: JobProgress = parseJob(job()).progress;
    assert.equal(concludeJob({ ...base, terminating: 1 }, final, now), undefined);
    const uncounted = { succeeded: ["a"], failed: [] };
    assert.equal(concludeJob({ ...base, uncounted }, final, now), undefined);
    assert.equal(concludeJob(base, undefined, now), undefined);
    const ended = concludeJob(base, final, now);
    assert.equal(ended?.conditions[0]?.type, "Complete");
    assert.equal(ended.completionTime, ago(0));
  });
});

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { isNotFound } from "../../../src/api/errors.ts";
import type { Stored } from "../../../src/api/object.ts";
import { createObject, deleteObject, listObjects, patchObject } from "../../../src/api/objects.ts";
import { EVENTS, JOBS, PODS } from "../../../src/api/resources.ts";
import type { Job, JobSpec, Pod, PodStatus } from "../../../src/api/types.gen.ts";
import { trackingFinalizer } from "../../../src/controlplane/controllers/job/pods.ts";
import { findObject } from "./find-object.ts";
import type { World } from "./world.ts";
import { eventually, postReady, registerNode, startWorld } from "./world.ts";

const namespace = "default";

describe("Jobs against the real API server", () => {
  let world: World;

  before(async () => {
    world = await startWorld();
    await registerNode(world, "n1");
  });

  after(async () => {
    await world.close();
  });

  /** Lets time pass; the node goes on to report. */
  async function leap(ms: number): Promise<void> {
    world.clock.leap(ms);
    await postReady(world, "n1");
  }

  async function create(name: string, spec: Partial<JobSpec>): Promise<Stored<Job>> {
    const template = {
      metadata: { labels: { job: name } },
      spec: { restartPolicy: "Never" as const, containers: [{ name: "c", image: "i" }] },
    };
    return eventually("the Job is created", async () => {
      try {
        const object: Job = { metadata: { namespace, name }, spec: { template, ...spec } };
        return await createObject(world.client, JOBS, object, { signal: world.signal });
      } catch (error) {
        if (isNotFound(error)) return undefined;
        throw error;
      }
    });
  }

  async function find(name: string): Promise<Stored<Job> | undefined> {
    return findObject(world, JOBS, { namespace, name });
  }

  async function podsOf(name: string): Promise<readonly Stored<Pod>[]> {
    const labelSelector = `batch.kubernetes.io/job-name=${name}`;
    const { signal } = world;
    const { items } = await listObjects(world.client, PODS, { namespace, labelSelector, signal });
    return items;
  }

  /** Pods that a kubelet would have to run or to end. */
  async function live(name: string, count: number): Promise<readonly Stored<Pod>[]> {
    return eventually(`${count} bound pods of ${name}`, async () => {
      const pods = (await podsOf(name)).filter(
        ({ status, metadata, spec }) =>
          status?.phase === "Pending" &&
          metadata.deletionTimestamp === undefined &&
          spec?.nodeName !== undefined,
      );
      return pods.length === count ? pods : undefined;
    });
  }

  function indexOf(pod: Stored<Pod>): string {
    return pod.metadata.annotations?.["batch.kubernetes.io/job-completion-index"] ?? "";
  }

  /** The kubelet's report that all containers have ended. */
  async function end(pod: Stored<Pod>, exitCode: number): Promise<void> {
    const finishedAt = new Date(world.clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
    const status: PodStatus = {
      phase: exitCode === 0 ? "Succeeded" : "Failed",
      containerStatuses: [
        {
          name: "c",
          image: "i",
          imageID: "",
          ready: false,
          restartCount: 0,
          state: { terminated: { exitCode, finishedAt } },
        },
      ],
    };
    const { name } = pod.metadata;
    await patchObject(
      world.client,
      PODS,
      { namespace, name, patch: { status } },
      { subresource: "status", signal: world.signal },
    );
  }

  async function condition(name: string, type: string): Promise<Stored<Job>> {
    return eventually(`${name} is ${type}`, async () => {
      const job = await find(name);
      return job?.status?.conditions?.some((each) => each.type === type && each.status === "True")
        ? job
        : undefined;
    });
  }

  function reasonOf(job: Stored<Job>, type: string): string | undefined {
    return job.status?.conditions?.find((each) => each.type === type)?.reason;
  }

  async function eventReasons(name: string): Promise<ReadonlySet<string>> {
    const { signal } = world;
    const fieldSelector = `involvedObject.kind=Job,involvedObject.name=${name}`;
    const { items } = await listObjects(world.client, EVENTS, { namespace, fieldSelector, signal });
    return new Set(items.flatMap(({ reason }) => reason ?? []));
  }

  test("counts each success once and completes; no pod keeps a finalizer", async () => {
    await create("sum", { completions: 3, parallelism: 2 });
    for (const pod of await live("sum", 2)) await end(pod, 0);
    for (const pod of await live("sum", 1)) await end(pod, 0);
    const job = await condition("sum", "Complete");
    assert.equal(job.status?.succeeded, 3);
    assert.equal(job.status?.active, undefined);
    assert.deepEqual(job.status?.uncountedTerminatedPods, {});
    assert.equal(reasonOf(job, "Complete"), "CompletionsReached");
    assert.equal(reasonOf(job, "SuccessCriteriaMet"), "CompletionsReached");
    assert.notEqual(job.status?.completionTime, undefined);
    const pods = await podsOf("sum");
    assert.equal(pods.length, 3);
    assert.deepEqual(
      pods.flatMap(({ metadata }) => metadata.finalizers ?? []),
      [],
    );
    await eventually("the events", async () => {
      const reasons = await eventReasons("sum");
      return reasons.has("SuccessfulCreate") && reasons.has("Completed") ? true : undefined;
    });
  });

  test("waits 10 s, then 20 s after failures, and gives up at backoffLimit", async () => {
    await create("retry", { backoffLimit: 1 });
    for (const pod of await live("retry", 1)) await end(pod, 1);
    await eventually("the failure is counted", async () =>
      (await find("retry"))?.status?.failed === 1 ? true : undefined,
    );
    assert.equal((await podsOf("retry")).length, 1);
    await leap(10_500);
    for (const pod of await live("retry", 1)) await end(pod, 1);
    const job = await condition("retry", "Failed");
    assert.equal(reasonOf(job, "Failed"), "BackoffLimitExceeded");
    assert.equal(reasonOf(job, "FailureTarget"), "BackoffLimitExceeded");
    assert.equal(job.status?.failed, 2);
  });

  test("an Indexed Job gives each pod its index and records which are done", async () => {
    await create("indexed", { completions: 4, parallelism: 4, completionMode: "Indexed" });
    const pods = await live("indexed", 4);
    assert.deepEqual(pods.map((pod) => indexOf(pod)).toSorted(), ["0", "1", "2", "3"]);
    const [first] = pods.filter((pod) => indexOf(pod) === "0");
    assert.ok(first !== undefined);
    assert.match(first.metadata.name, /^indexed-0-/);
    assert.equal(first.spec?.hostname, "indexed-0");
    assert.equal(first.metadata.labels?.["batch.kubernetes.io/job-completion-index"], "0");
    assert.deepEqual(first.spec?.containers[0]?.env?.at(-1)?.name, "JOB_COMPLETION_INDEX");
    for (const pod of pods) if (indexOf(pod) !== "1") await end(pod, 0);
    await eventually("three indexes", async () =>
      (await find("indexed"))?.status?.completedIndexes === "0,2,3" ? true : undefined,
    );
    for (const pod of pods) if (indexOf(pod) === "1") await end(pod, 0);
    const job = await condition("indexed", "Complete");
    assert.equal(job.status?.completedIndexes, "0-3");
  });

  test("limits failures per index: one bad index fails, the others complete", async () => {
    await create("per-index", {
      completions: 2,
      parallelism: 2,
      completionMode: "Indexed",
      backoffLimitPerIndex: 1,
    });
    for (const pod of await live("per-index", 2)) await end(pod, indexOf(pod) === "0" ? 1 : 0);
    await eventually("index 1 is done", async () =>
      (await find("per-index"))?.status?.completedIndexes === "1" ? true : undefined,
    );
    await leap(10_500);
    const [again] = await live("per-index", 1);
    assert.ok(again !== undefined);
    const count = again.metadata.annotations?.["batch.kubernetes.io/job-index-failure-count"];
    assert.equal(count, "1");
    await end(again, 1);
    const job = await condition("per-index", "Failed");
    assert.equal(reasonOf(job, "Failed"), "FailedIndexes");
    assert.equal(job.status?.failedIndexes, "0");
    assert.equal(job.status?.failed, 2);
  });

  test("suspends by deleting the pods, uncounted, and resumes with new ones", async () => {
    await create("pausing", { parallelism: 2, completions: 2 });
    const before = await live("pausing", 2);
    const patch = { spec: { suspend: true } };
    const at = { namespace, name: "pausing" };
    await patchObject(world.client, JOBS, { ...at, patch }, { signal: world.signal });
    await condition("pausing", "Suspended");
    for (const pod of before) {
      assert.equal(pod.metadata.finalizers?.includes(trackingFinalizer), true);
      const { name, uid } = pod.metadata;
      const now = { gracePeriodSeconds: 0, uid, signal: world.signal };
      await deleteObject(world.client, PODS, { namespace, name }, now);
    }
    const suspended = await eventually("no pod is left", async () => {
      const job = await find("pausing");
      return (await podsOf("pausing")).length === 0 && job?.status?.terminating === 0
        ? job
        : undefined;
    });
    assert.equal(suspended.status?.failed, undefined);
    assert.equal(suspended.status?.startTime, undefined);
    await patchObject(
      world.client,
      JOBS,
      { ...at, patch: { spec: { suspend: false } } },
      { signal: world.signal },
    );
    for (const pod of await live("pausing", 2)) await end(pod, 0);
    const job = await condition("pausing", "Complete");
    assert.equal(job.status?.succeeded, 2);
    await eventually("the events", async () => {
      const reasons = await eventReasons("pausing");
      return reasons.has("Suspended") && reasons.has("Resumed") ? true : undefined;
    });
  });

  test("ends at activeDeadlineSeconds; Failed comes only when the pods have ended", async () => {
    await create("late", { activeDeadlineSeconds: 60 });
    const [pod] = await live("late", 1);
    assert.ok(pod !== undefined);
    await leap(61_000);
    const target = await condition("late", "FailureTarget");
    assert.equal(reasonOf(target, "FailureTarget"), "DeadlineExceeded");
    assert.equal(reasonOf(target, "Failed"), undefined);
    await end(pod, 137);
    await deleteObject(world.client, PODS, pod.metadata, {
      gracePeriodSeconds: 0,
      signal: world.signal,
    });
    const job = await condition("late", "Failed");
    assert.equal(reasonOf(job, "Failed"), "DeadlineExceeded");
    assert.equal(job.status?.failed, 1);
  });

  test("a pod failure policy ignores one exit code and fails the Job for another", async () => {
    await create("policy", {
      backoffLimit: 0,
      podFailurePolicy: {
        rules: [
          { action: "Ignore", onExitCodes: { operator: "In", values: [3] } },
          { action: "FailJob", onExitCodes: { operator: "In", values: [42] } },
        ],
      },
    });
    for (const pod of await live("policy", 1)) await end(pod, 3);
    await eventually("the ignored pod is let go", async () => {
      const [pod] = await podsOf("policy");
      return pod?.metadata.finalizers === undefined ? true : undefined;
    });
    await leap(10_500);
    const [second] = await live("policy", 1);
    assert.ok(second !== undefined);
    await end(second, 42);
    const job = await condition("policy", "Failed");
    assert.equal(reasonOf(job, "Failed"), "PodFailurePolicy");
    assert.equal(job.status?.failed, 1);
    const { message } = job.status?.conditions?.find(({ type }) => type === "Failed") ?? {};
    assert.equal(
      message,
      `Container c for pod default/${second.metadata.name} failed with exit code 42 matching FailJob rule at index 1`,
    );
  });

  test("a success policy ends the Job early and removes the rest", async () => {
    await create("leader", {
      completions: 3,
      parallelism: 3,
      completionMode: "Indexed",
      successPolicy: { rules: [{ succeededIndexes: "0" }] },
    });
    const pods = await live("leader", 3);
    for (const pod of pods) if (indexOf(pod) === "0") await end(pod, 0);
    await condition("leader", "SuccessCriteriaMet");
    for (const pod of pods) {
      if (indexOf(pod) === "0") continue;
      const now = { gracePeriodSeconds: 0, signal: world.signal };
      await deleteObject(world.client, PODS, pod.metadata, now);
    }
    const job = await condition("leader", "Complete");
    assert.equal(reasonOf(job, "Complete"), "SuccessPolicy");
    assert.equal(job.status?.succeeded, 1);
    assert.equal(job.status?.failed, undefined);
  });

  test("is left alone when another controller manages it", async () => {
    await create("foreign", { managedBy: "example.com/queue" });
    await create("own", {});
    await live("own", 1);
    assert.deepEqual(await podsOf("foreign"), []);
    assert.deepEqual((await find("foreign"))?.status, {});
  });

  test("goes with its pods when ttlSecondsAfterFinished are over", async () => {
    await create("short", { ttlSecondsAfterFinished: 100 });
    for (const pod of await live("short", 1)) await end(pod, 0);
    await condition("short", "Complete");
    await leap(90_000);
    assert.notEqual(await find("short"), undefined);
    await leap(11_000);
    await eventually("the Job and its pods are gone", async () =>
      (await find("short")) === undefined && (await podsOf("short")).length === 0
        ? true
        : undefined,
    );
  });

  test("deleting in the foreground waits for the pods and leaves no finalizer behind", async () => {
    await create("removed", { parallelism: 2, completions: 2 });
    const pods = await live("removed", 2);
    const at = { namespace, name: "removed" };
    const { signal } = world;
    await deleteObject(world.client, JOBS, at, { propagationPolicy: "Foreground", signal });
    await eventually("the pods are told to end", async () => {
      const told = await podsOf("removed");
      return told.every(({ metadata }) => metadata.deletionTimestamp !== undefined)
        ? true
        : undefined;
    });
    assert.notEqual(await find("removed"), undefined);
    for (const pod of pods) {
      const now = { gracePeriodSeconds: 0, signal };
      await deleteObject(world.client, PODS, pod.metadata, now);
    }
    await eventually("all is gone", async () =>
      (await find("removed")) === undefined && (await podsOf("removed")).length === 0
        ? true
        : undefined,
    );
  });

  test("orphaned pods lose the finalizer with their Job", async () => {
    await create("orphan", {});
    const [pod] = await live("orphan", 1);
    assert.ok(pod !== undefined);
    const { signal } = world;
    const at = { namespace, name: "orphan" };
    await deleteObject(world.client, JOBS, at, { propagationPolicy: "Orphan", signal });
    await eventually("the finalizer is gone", async () => {
      const [left] = await podsOf("orphan");
      return left !== undefined &&
        left.metadata.finalizers === undefined &&
        left.metadata.ownerReferences === undefined
        ? true
        : undefined;
    });
  });
});

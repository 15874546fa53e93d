import assert from "node:assert/strict";
import { test } from "node:test";

import type { ApiRequest } from "../../../src/api/client.ts";
import type { PodStatus } from "../../../src/api/types.gen.ts";
import { type Clock, systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { StatusWriter } from "../../../src/kubelet/status/status-writer.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";

const being: PodStatus = {
  phase: "Pending",
  containerStatuses: [
    {
      name: "web",
      image: "app:1",
      imageID: "",
      ready: false,
      restartCount: 0,
      state: { waiting: { reason: "ContainerCreating" } },
    },
  ],
};

function waiting(reason: string, restartCount = 0): PodStatus {
  const [status] = being.containerStatuses ?? [];
  assert(status !== undefined);
  return {
    ...being,
    containerStatuses: [{ ...status, restartCount, state: { waiting: { reason } } }],
  };
}

const running: PodStatus = { phase: "Running", conditions: [{ type: "Ready", status: "True" }] };

/** A writer whose waits end when they are told to. */
function makeWriter(): {
  readonly writer: StatusWriter;
  readonly pod: AssignedPod;
  readonly phases: () => readonly unknown[];
  readonly waits: { readonly ms: number; readonly end: () => void }[];
  readonly settle: () => Promise<void>;
} {
  const sent: ApiRequest[] = [];
  const waits: { readonly ms: number; readonly end: () => void }[] = [];
  const clock: Clock = {
    ...systemClock,
    sleep: async (ms, signal) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      signal.addEventListener("abort", () => reject(signal.reason as Error));
      waits.push({ ms, end: resolve });
      await promise;
    },
  };
  const pod = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "web", namespace: "default", uid: "u1", resourceVersion: "1" },
    spec: { nodeName: "worker", containers: [] },
    status: { phase: "Pending" },
  } as AssignedPod;
  let stored: PodStatus = { phase: "Pending" };
  let version = 1;
  const writer = new StatusWriter({
    client: {
      request: async (request) => {
        sent.push(request);
        stored = { ...stored, ...(request.body as { status: PodStatus }).status };
        version += 1;
        const metadata = { ...pod.metadata, resourceVersion: String(version) };
        return { ...pod, metadata, status: stored };
      },
      async *watch() {},
    },
    clock,
    logger: silentLogger,
    random: () => 0.5,
    step: async () => undefined,
    signal: new AbortController().signal,
    onWritten: () => undefined,
    onGone: () => undefined,
  });
  return {
    writer,
    pod,
    waits,
    phases: () => sent.map(({ body }) => (body as { status: PodStatus }).status.phase ?? "Pending"),
    settle: async () => {
      await systemClock.sleep(0, new AbortController().signal);
      await writer.idle();
    },
  };
}

test("a pod that runs soon is written once: what came before says nothing that anybody waits for", async () => {
  const { phases, pod, settle, writer } = makeWriter();
  writer.publish(pod, being);
  writer.publish(pod, { ...being, podIP: "10.244.0.2" });
  await settle();
  assert.deepEqual(phases(), []);
  assert.equal(writer.isWritten("u1"), false);
  assert.equal(writer.current("u1")?.podIP, "10.244.0.2");
  writer.publish(pod, running);
  await settle();
  assert.deepEqual(phases(), ["Running"]);
  assert.equal(writer.isWritten("u1"), true);
});

test("a pod that takes its time is seen being made after a second, counted from the first word of it", async () => {
  const { phases, pod, settle, waits, writer } = makeWriter();
  writer.publish(pod, being);
  writer.publish(pod, { ...being, podIP: "10.244.0.2" });
  await settle();
  assert.deepEqual(
    waits.map(({ ms }) => ms),
    [1000],
  );
  waits[0]?.end();
  await settle();
  assert.deepEqual(phases(), ["Pending"]);
  assert.equal(writer.isWritten("u1"), true);
});

for (const [what, status] of [
  ["an image that cannot be pulled", waiting("ErrImagePull")],
  ["a crash", waiting("CrashLoopBackOff", 1)],
  ["a restart that is being made", waiting("ContainerCreating", 1)],
  ["a refusal", { phase: "Failed", reason: "OutOfcpu" }],
  ["the end of a Job's pod", { phase: "Succeeded" }],
] as const) {
  test(`${what} is written at once`, async () => {
    const { phases, pod, settle, waits, writer } = makeWriter();
    writer.publish(pod, status);
    await settle();
    assert.equal(phases().length, 1);
    assert.equal(waits.length, 0);
  });
}

test("a pod that stops running is written at once although it is being made again", async () => {
  const { phases, pod, settle, writer } = makeWriter();
  writer.publish(pod, running);
  await settle();
  writer.publish(pod, being);
  await settle();
  assert.deepEqual(phases(), ["Running", "Pending"]);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import type { ContainerStatus } from "../../../src/api/types.gen.ts";
import { recallEnds, rememberEnds } from "../../../src/kubelet/pods/remember-ends.ts";
import { crashBackoff } from "../../../src/kubelet/status/observed.ts";
import type { ContainerRecord } from "../../../src/runtime/types.ts";
import { container, created, exited, now, observed, pod, record, running } from "./builders.ts";

function remembered(...looks: readonly (readonly ContainerRecord[])[]): readonly string[] {
  const ends = new Map<string, ContainerRecord>();
  for (const look of looks) rememberEnds(ends, observed(look).record);
  return [...ends.values()].map(({ id }) => id);
}

test("the newest end is remembered, also when the runtime has lost it", () => {
  const first = record("web", exited(1));
  const second = record("web", exited(2), { attempt: 1 });
  assert.deepEqual(remembered([second, first]), ["web-1"]);
  assert.deepEqual(remembered([first], []), ["web-0"]);
});

test("an end that was followed by another run is forgotten", () => {
  const first = record("web", exited(0));
  assert.deepEqual(remembered([first], [record("web", running, { attempt: 1 }), first]), []);
  assert.deepEqual(remembered([first], [record("web", created, { attempt: 1 }), first]), []);
});

const terminated = {
  exitCode: 3,
  reason: "Error",
  startedAt: new Date(now - 6000).toISOString(),
  finishedAt: new Date(now - 5000).toISOString(),
  containerID: "docker://web-3",
};

function recalled(status: Partial<ContainerStatus>, conditions = false): ContainerRecord[] {
  const ends = new Map<string, ContainerRecord>();
  const full = {
    name: "web",
    image: "app:1",
    imageID: "",
    ready: false,
    restartCount: 3,
    ...status,
  };
  const type = "AllContainersRestarting";
  recallEnds(ends, pod(), {
    containerStatuses: [full],
    conditions: conditions ? [{ type, status: "True" }] : [],
  });
  return [...ends.values()];
}

test("what the API tells of an end is enough to go on with the crash loop", () => {
  const [end] = recalled({
    state: { waiting: { reason: "CrashLoopBackOff" } },
    lastState: { terminated },
  });
  assert.equal(end?.attempt, 3);
  const backoff = crashBackoff(end, container("web"));
  // The fourth run ended: 10, 20, now 40 seconds.
  assert.deepEqual(backoff, { dueAt: now - 5000 + 40_000, delayMs: 40_000, nextDelayMs: 80_000 });
  assert.equal(recalled({ state: { terminated } })[0]?.id, "web-3");
});

test("no end is made of what runs, vanished, or was removed to start anew", () => {
  const startedAt = terminated.startedAt;
  const nothing: readonly (readonly [Partial<ContainerStatus>, boolean])[] = [
    [{ state: { running: { startedAt } }, lastState: { terminated } }, false],
    [{ state: { waiting: {} }, lastState: {} }, false],
    [
      {
        state: { waiting: {} },
        lastState: { terminated: { exitCode: 137, reason: "ContainerStatusUnknown" } },
      },
      false,
    ],
    [
      {
        state: { waiting: {} },
        lastState: { terminated: { ...terminated, reason: "RestartingAllContainers" } },
      },
      false,
    ],
    [{ state: { terminated } }, true],
  ];
  for (const [status, restartingAll] of nothing) {
    assert.deepEqual(recalled(status, restartingAll), []);
  }
});

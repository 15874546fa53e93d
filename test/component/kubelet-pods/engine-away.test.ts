import assert from "node:assert/strict";
import { test } from "node:test";

import { PODS } from "../../../src/api/resources.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import { JumpingClock, makeWorld, podManifest } from "./fixture.ts";

test("an engine that does not answer is told once for each pod, as an event FailedSync and no error", async () => {
  const clock = new JumpingClock();
  const world = await makeWorld({ clock });
  const podRecord = world.runtime.podRecord.bind(world.runtime);
  try {
    world.start();
    world.api.put(PODS, podManifest("web"));
    const ready = (): boolean =>
      (world.pod("web")?.status?.conditions ?? []).some(
        ({ status, type }) => type === "Ready" && status === "True",
      );
    await world.until("ready", ready);
    // The look that found it ready ends a moment later; a jump before that would wake nobody.
    await new Promise((resolve) => setTimeout(resolve, 50));
    let asked = 0;
    world.runtime.podRecord = async () => {
      asked += 1;
      throw new RuntimeError("Unavailable", "no answer");
    };
    for (const times of [1, 2, 3, 4]) {
      clock.ahead(100_000);
      await world.until("asked", () => asked >= times);
    }
    const told = world.logs.filter(({ error }) => error === "no answer");
    assert(told.length >= 3);
    assert.deepEqual(
      told.slice(0, 3).map(({ level }) => level),
      ["warn", "debug", "debug"],
    );
    const event = await world.until("event", () =>
      world.events.find(({ reason }) => reason === "FailedSync"),
    );
    assert.equal(event.message, "error determining status: no answer");
    world.runtime.podRecord = podRecord;
    world.runtime.exit("web", 1);
    clock.ahead(10_000);
    await world.until("restarted", () => world.runtime.starts.get("web") === 2);
    await world.until("ready again", ready);
  } finally {
    world.runtime.podRecord = podRecord;
    await world.close();
  }
});

test("a container that the engine is too slow to tell about is neither ended nor killed", async () => {
  const clock = new JumpingClock();
  const world = await makeWorld({ clock });
  const podRecord = world.runtime.podRecord.bind(world.runtime);
  let asked = 0;
  try {
    world.start();
    world.api.put(PODS, podManifest("web", { restartPolicy: "Never" }));
    await world.until("runs", () => world.pod("web")?.status?.phase === "Running");
    world.runtime.podRecord = async (uid, signal) => {
      asked += 1;
      const record = await podRecord(uid, signal);
      const containers = record.containers.map((container) => ({
        ...container,
        state: { kind: "unknown" as const, createdAt: 0, unanswered: true as const },
      }));
      return { ...record, containers };
    };
    // Time goes on all the while: a jump before the pod sleeps would wake nobody.
    const again = (times: number): boolean => {
      clock.ahead(10_000);
      return asked >= times;
    };
    await world.until("asked again and again", () => again(3));
    const event = await world.until("event", () =>
      world.events.find(({ reason }) => reason === "FailedSync"),
    );
    assert.match(event.message, /the engine does not tell how container \w+ is$/);
    assert.equal(world.pod("web")?.status?.phase, "Running");
    assert.equal(
      world.runtime.calls.some((call) => call.startsWith("stopContainer")),
      false,
    );
    world.runtime.podRecord = podRecord;
    world.runtime.exit("web", 0);
    clock.ahead(10_000);
    await world.until("succeeded", () => world.pod("web")?.status?.phase === "Succeeded");
  } finally {
    world.runtime.podRecord = podRecord;
    await world.close();
  }
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { PODS } from "../../../src/api/resources.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import { JumpingClock, makeWorld, podManifest } from "./fixture.ts";

test("an image that never comes is told in the log twice, then every five minutes", async () => {
  const clock = new JumpingClock();
  const world = await makeWorld({ clock });
  const count = (reason: string): number =>
    world.events.filter((event) => event.reason === reason).length;
  const warnings = (): number =>
    world.logs.filter(
      ({ level, message }) => level === "warn" && message.startsWith("pod could not be brought"),
    ).length;
  try {
    world.start();
    const containers = [{ name: "web", image: "nowhere/app:1" }];
    world.api.put(PODS, podManifest("web", { containers }));
    // Pulls after 0, 10, 30, 70 and 150 seconds, and a look at the back-off every ten seconds between them.
    for (let looks = 1; count("Pulling") < 5; looks += 1) {
      await world.until(`look ${looks}`, () => count("Pulling") + count("BackOff") >= looks);
      await world.until("through", () => count("Failed") >= count("Pulling") + looks);
      clock.ahead(10_000);
    }
    assert(count("BackOff") > 5);
    assert.equal(warnings(), 2);
    clock.ahead(300_000);
    await world.until("said again", () => warnings() === 3);
  } finally {
    await world.close();
  }
});

test("a container that the engine cannot make is tried every ten seconds, not as often as it is removed again", async () => {
  const clock = new JumpingClock();
  const world = await makeWorld({ clock });
  const tries = (): number =>
    world.runtime.calls.filter((call) => call.startsWith("createContainer")).length;
  const failures = (): number => world.events.filter(({ reason }) => reason === "Failed").length;
  try {
    world.runtime.fail = (call) => {
      if (call.startsWith("createContainer")) {
        throw new RuntimeError("InvalidSpec", "Cannot mkdir: /bin/sh is not a directory");
      }
    };
    world.start();
    world.api.put(PODS, podManifest("web"));
    for (let times = 1; times <= 3; times += 1) {
      await world.until(`failure ${times}`, () => failures() >= times);
      // Time for the removal to be told and, if it counted, for the pod to be looked at many times.
      await delay(40);
      clock.ahead(1_000);
      await delay(10);
      assert.equal(tries(), times);
      clock.ahead(15_000);
    }
  } finally {
    await world.close();
  }
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { PODS } from "../../../src/api/resources.ts";
import type { AgentConfig } from "../../../src/config/types.ts";
import { JumpingClock, makeWorld, podManifest, type World } from "./fixture.ts";

async function withSettings(
  settings: Partial<AgentConfig>,
  work: (world: World, clock: JumpingClock) => Promise<void>,
): Promise<void> {
  const clock = new JumpingClock();
  const world = await makeWorld({ settings, clock });
  try {
    await work(world, clock);
  } finally {
    await world.close();
  }
}

function waitingMessage(world: World): string {
  return world.pod("web")?.status?.containerStatuses?.[0]?.state?.waiting?.message ?? "";
}

describe("settings of the node", () => {
  test("crashLoopBackOff.maxContainerRestartPeriod: no wait is longer, and the status says so", () =>
    withSettings({ maxContainerRestartPeriodMs: 1000 }, async (world, clock) => {
      world.runtime.program = () => ({ exitCode: 1 });
      world.start();
      world.api.put(PODS, podManifest("web"));
      const waits = (): boolean => waitingMessage(world).startsWith("back-off 1s restarting");
      for (const starts of [2, 3, 4]) {
        await world.until("waiting", () => world.runtime.starts.get("web") === starts && waits());
        clock.ahead(1000);
      }
    }));

  for (const seccompDefault of [false, true]) {
    const kind = seccompDefault ? "runtimeDefault" : "unconfined";
    test(`seccompDefault ${seccompDefault}: a container without a profile is ${kind}`, () =>
      withSettings({ seccompDefault }, async (world) => {
        world.start();
        world.api.put(PODS, podManifest("web"));
        await world.until("started", () => world.runtime.starts.get("web") === 1);
        const [started] = world.runtime.containers.values();
        assert.deepEqual(started?.config.security.seccomp, { kind });
      }));
  }
});

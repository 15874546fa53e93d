import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { Container } from "../../../src/api/types.gen.ts";
import { resourcesHash } from "../../../src/kubelet/spec/container-config.ts";
import {
  type CrashBackoff,
  crashBackoff,
  crashDelayMs,
  crashLoopCurve,
  killBackoff,
} from "../../../src/kubelet/status/observed.ts";
import type { ContainerState } from "../../../src/runtime/types.ts";
import { container, exited, now, record } from "./builders.ts";

const web = container("web");

/** After a run that ended a second ago, with what it had noted. */
function after(backoffMs: number, longestMs?: number, ranMs = 1000): CrashBackoff {
  const last = record("web", exited(1, 1000, ranMs), { attempt: 3, backoffMs });
  return crashBackoff(last, web, crashLoopCurve(longestMs));
}

describe("the crash loop", () => {
  test("doubles from ten seconds to five minutes", () => {
    const delays = [0, 1, 2, 3, 4, 5, 6, 7].map((restarts) => crashDelayMs(restarts));
    assert.deepEqual(delays, [0, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
  });

  test("ends at maxContainerRestartPeriod, and begins there when that is shorter than ten seconds", () => {
    const delays = (longestMs: number): readonly number[] =>
      [1, 2, 3, 4].map((restarts) => crashDelayMs(restarts, crashLoopCurve(longestMs)));
    assert.deepEqual(delays(30_000), [10_000, 20_000, 30_000, 30_000]);
    assert.deepEqual(delays(1000), [1000, 1000, 1000, 1000]);
  });

  test("notes the next wait, no longer than the longest", () => {
    assert.deepEqual(after(20_000, 30_000), {
      dueAt: now - 1000 + 20_000,
      delayMs: 20_000,
      nextDelayMs: 30_000,
    });
    assert.equal(after(0, 3000).nextDelayMs, 3000);
  });

  test("a wait that was noted under a longer curve is cut to the present one", () => {
    assert.deepEqual(after(300_000, 2000), { dueAt: now + 1000, delayMs: 2000, nextDelayMs: 2000 });
  });

  test("begins anew after a run of twice the longest wait", () => {
    assert.equal(after(10_000, 60_000, 120_000).delayMs, 10_000);
    assert.deepEqual(after(10_000, 60_000, 120_001), {
      dueAt: 0,
      delayMs: 0,
      nextDelayMs: 10_000,
    });
  });

  test("begins anew with other resources, which may mend what made it crash, and with no others", () => {
    const asking = (memory: string, cpu = "1"): Container =>
      container("web", { resources: { limits: { memory, cpu }, requests: { cpu } } });
    const noted = JSON.stringify({
      backoffMs: 40_000,
      resourcesHash: resourcesHash(asking("64Mi")),
    });
    const last = record("web", exited(137), { attempt: 3, record: noted });
    const delay = (subject: Container): number => crashBackoff(last, subject).delayMs;
    assert.deepEqual([asking("64Mi"), asking("65Mi"), web].map(delay), [40_000, 0, 0]);
    const reordered = { limits: { cpu: "1", memory: "64Mi" }, requests: { cpu: "1" } };
    assert.equal(delay(container("web", { resources: reordered })), 40_000);
    const older = record("web", exited(137), { attempt: 3, backoffMs: 40_000 });
    assert.equal(crashBackoff(older, asking("64Mi")).delayMs, 40_000, "nothing was noted");
  });

  test("counts for a container that is killed to be started again, too", () => {
    const state: ContainerState = {
      kind: "running",
      createdAt: now - 1500,
      startedAt: now - 1500,
      pid: 2,
    };
    const last = record("web", state, { attempt: 5, backoffMs: 160_000 });
    const curve = crashLoopCurve(2000);
    assert.deepEqual(killBackoff(last, web, now, curve), {
      dueAt: now + 500,
      delayMs: 2000,
      nextDelayMs: 2000,
    });
    assert.equal(killBackoff(last, web, now + 3000, curve).nextDelayMs, 2000);
    assert.equal(
      killBackoff(last, container("web", { image: "app:2" }), now, curve).dueAt,
      now - 1500,
    );
  });
});

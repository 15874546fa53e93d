import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { LoopWatch } from "../../../src/agent/service-manager/loop-watch.ts";
import type { Logger } from "../../../src/lib/log.ts";

function bench(): {
  readonly watch: LoopWatch;
  readonly at: (seconds: number) => void;
  readonly fed: number[];
  readonly said: string[];
} {
  let now = 0;
  const fed: number[] = [];
  const said: string[] = [];
  const logger: Logger = {
    log: (level, _msg, fields) => said.push(`${level} ${String(fields?.["loop"])}`),
    child: () => logger,
  };
  const clock = {
    now: () => now,
    monotonic: () => now,
    sleep: () => Promise.reject(new Error("nobody waits here")),
  };
  const feed = (): void => void fed.push(now / 1000);
  const watch = new LoopWatch({ watchdogMs: 120_000, feed, clock, logger });
  return { watch, at: (seconds) => (now = seconds * 1000), fed, said };
}

describe("the watchdog of the service manager", () => {
  test("is fed by a loop that turns, and no more often than it needs", () => {
    const { watch, at, fed } = bench();
    const turn = watch.loop("pods", 150_000);
    for (let second = 0; second <= 120; second += 1) {
      at(second);
      turn();
    }
    assert.deepEqual(fed, [0, 15, 30, 45, 60, 75, 90, 105, 120]);
  });

  test("starves when no loop turns, whoever asks", () => {
    const { watch, at, fed } = bench();
    const pods = watch.loop("pods", 150_000);
    const node = watch.loop("node status", 150_000);
    pods();
    node();
    assert.deepEqual(fed, [0]);
    for (let second = 30; second <= 600; second += 30) {
      at(second);
      watch.keepWaiting();
    }
    assert.deepEqual(fed, [0]);
  });

  test("starves when one loop hangs, however the others turn; and says which", () => {
    const { watch, at, fed, said } = bench();
    const pods = watch.loop("pods", 150_000);
    const node = watch.loop("node status", 150_000);
    pods();
    for (let second = 10; second <= 300; second += 10) {
      at(second);
      node();
    }
    assert.equal(fed.at(-1), 140);
    assert.deepEqual(said, ["error pods"]);
  });

  test("is fed again by a loop that comes round late", () => {
    const { watch, at, fed, said } = bench();
    const pods = watch.loop("pods", 150_000);
    const node = watch.loop("node status", 150_000);
    pods();
    at(200);
    node();
    at(210);
    pods();
    node();
    assert.deepEqual([fed, said], [[0, 210], ["error pods"]]);
  });

  test("is fed from elsewhere while a loop has not begun: it may wait for the API server for hours", () => {
    const { watch, at, fed } = bench();
    const pods = watch.loop("pods", 150_000);
    watch.loop("node status", 150_000);
    at(30);
    watch.keepWaiting();
    pods();
    at(60);
    watch.keepWaiting();
    at(600);
    // The other has begun, and hangs.
    watch.keepWaiting();
    assert.deepEqual(fed, [30, 60]);
  });
});

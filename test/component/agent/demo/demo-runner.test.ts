import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { createDemoRunner } from "../../../../src/agent/demo/demo-runner.ts";
import { succeeded } from "../../../../src/agent/demo/demo.ts";
import { systemClock } from "../../../../src/lib/clock.ts";
import { silentLogger } from "../../../../src/lib/log.ts";

function runner(exit: boolean, signal: AbortSignal) {
  return createDemoRunner({
    dockerSocket: "/nonexistent/docker.sock",
    kubeconfig: "/nonexistent/admin.conf",
    exit,
    clock: systemClock,
    logger: silentLogger,
    signal,
  });
}

describe("the demo beside its node", () => {
  test("an interrupt before the node is ready ends all, and is a failure of --exit", async () => {
    const user = new AbortController();
    const gone = new AbortController();
    const demo = runner(true, user.signal);
    const running = demo.run(gone.signal);
    assert.equal(demo.stop.aborted, false);
    user.abort();
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(demo.stop.aborted, true, "the node may end now");
    gone.abort();
    await running;
    assert.throws(() => demo.conclude(() => assert.fail("there are no figures")), {
      message: "the demo failed: it was stopped",
    });
  });

  test("a node that fails takes the demo with it", async () => {
    const gone = new AbortController();
    const demo = runner(false, new AbortController().signal);
    const running = demo.run(gone.signal);
    gone.abort();
    await running;
    demo.conclude(() => assert.fail("only --exit prints figures"));
  });
});

describe("succeeded", () => {
  const good = {
    requests: { a: 80 },
    failed: 0,
    first_answer_s: 1,
    heal_s: 1,
    rollout_failed: 0,
    left_over: 0,
  };
  test("when no request failed where none may, and nothing is left", () => {
    assert.equal(succeeded(good), true);
    for (const key of ["failed", "rollout_failed", "left_over"] as const) {
      assert.equal(succeeded({ ...good, [key]: 1 }), false, key);
    }
  });
});

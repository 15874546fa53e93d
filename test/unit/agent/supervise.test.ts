import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, test } from "node:test";

import { crashHook } from "../../../src/agent/crash-hook.ts";
import { superviseAll } from "../../../src/agent/supervise.ts";
import { silentLogger } from "../../../src/lib/log.ts";

async function untilAborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, "abort");
}

describe("superviseAll", () => {
  test("returns when it is asked to stop and every part has ended", async () => {
    const stop = new AbortController();
    let ended = 0;
    const part = (name: string) => ({
      name,
      run: async (signal: AbortSignal) => {
        await untilAborted(signal);
        ended += 1;
      },
    });
    const all = superviseAll([part("a"), part("b")], silentLogger, stop.signal);
    stop.abort();
    await all;
    assert.equal(ended, 2);
  });

  test("one part that fails stops the others and its error is the one that is thrown", async () => {
    let stopped = false;
    const failing = { name: "a", run: async () => Promise.reject(new Error("disk on fire")) };
    const other = {
      name: "b",
      run: async (signal: AbortSignal) => {
        await untilAborted(signal);
        stopped = true;
      },
    };
    await assert.rejects(
      superviseAll([other, failing], silentLogger, new AbortController().signal),
      {
        message: "disk on fire",
      },
    );
    assert.equal(stopped, true);
  });

  test("a part that ends without being asked is a failure, not a quiet half agent", async () => {
    const early = { name: "proxy", run: async () => undefined };
    await assert.rejects(superviseAll([early], silentLogger, new AbortController().signal), {
      message: /proxy ended although nobody asked it to/,
    });
  });
});

describe("crashHook", () => {
  test("kills at the n-th time the named step is reached, and at no other", async () => {
    let kills = 0;
    const hook = crashHook("startContainer:2", () => (kills += 1));
    hook("startContainer");
    hook("createContainer");
    assert.equal(kills, 0);
    hook("startContainer");
    hook("startContainer");
    assert.equal(kills, 1);
  });

  test("a malformed failpoint is refused instead of never firing", () => {
    assert.throws(() => crashHook("start container", () => undefined), {
      message: /expected STEP or STEP:N/,
    });
  });
});

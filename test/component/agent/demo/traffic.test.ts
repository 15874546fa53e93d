import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { LineSession } from "../../../../src/agent/demo/cluster-tool.ts";
import { LineQueue } from "../../../../src/agent/demo/line-queue.ts";
import { Traffic } from "../../../../src/agent/demo/traffic.ts";
import type { Clock } from "../../../../src/lib/clock.ts";

const { signal } = new AbortController();
/** Sleeps end at once, but not before others had their turn. */
const clock: Clock = {
  now: () => 0,
  monotonic: () => 0,
  sleep: async (_ms, inner) => {
    await new Promise((resolve) => setImmediate(resolve));
    inner.throwIfAborted();
  },
};

function session(answers: (at: number) => string): LineSession & { asked: () => number } {
  let asked = 0;
  return {
    asked: () => asked,
    exchange: async () => {
      asked += 1;
      await new Promise((resolve) => setImmediate(resolve));
      return answers(asked);
    },
    close: () => Promise.resolve(),
  };
}

describe("Traffic.during", () => {
  test("goes on until the work is over, and counts every answer once", async () => {
    const one = session((at) => (at % 2 === 0 ? "no answer: refused" : "hello from a v1"));
    const { tally, value } = await new Traffic(one, clock).during(
      async () => {
        while (one.asked() < 10) await clock.sleep(0, signal);
        return "done";
      },
      () => undefined,
      signal,
    );
    assert.equal(value, "done");
    assert.equal(tally.answered + tally.failed, one.asked());
    assert.ok(tally.failed >= 5);
    assert.deepEqual(tally.reasons, ["refused"]);
  });

  test("work that fails ends the requests, and its error is the one that is told", async () => {
    const one = session(() => "hello from a v1");
    await assert.rejects(
      new Traffic(one, clock).during(
        () => Promise.reject(new Error("no rollout")),
        () => undefined,
        signal,
      ),
      { message: "no rollout" },
    );
    const asked = one.asked();
    await clock.sleep(0, signal);
    await clock.sleep(0, signal);
    assert.equal(one.asked(), asked, "nobody asks any more");
  });

  test("a session that breaks ends the work, which would wait in vain", async () => {
    const one = session((at) => {
      if (at > 3) throw new Error("exec ended");
      return "hello from a v1";
    });
    await assert.rejects(
      new Traffic(one, clock).during(
        async (inner) => {
          for (;;) await clock.sleep(0, inner);
        },
        () => undefined,
        signal,
      ),
      { message: "exec ended" },
    );
  });
});

describe("LineQueue", () => {
  test("puts lines together from pieces, umlauts too, and hands them out in order", async () => {
    const queue = new LineQueue();
    const bytes = Buffer.from("zwölf\nb\nc");
    queue.push(bytes.subarray(0, 3));
    queue.push(bytes.subarray(3));
    assert.equal(await queue.next(signal), "zwölf");
    assert.equal(await queue.next(signal), "b");
    const third = queue.next(signal);
    queue.push(Buffer.from("\n"));
    assert.equal(await third, "c");
  });
  test("who waits learns the first reason of the end; what had come is still handed out", async () => {
    const queue = new LineQueue();
    queue.push(Buffer.from("last\n"));
    queue.end("exit code 1");
    queue.end("closed");
    assert.equal(await queue.next(signal), "last");
    await assert.rejects(queue.next(signal), { message: "exit code 1" });
  });
  test("a wait that is given up takes no line from the next one", async () => {
    const queue = new LineQueue();
    const stop = new AbortController();
    const given = queue.next(stop.signal);
    stop.abort();
    await assert.rejects(given, { name: "AbortError" });
    const next = queue.next(signal);
    queue.push(Buffer.from("mine\n"));
    assert.equal(await next, "mine");
    await assert.rejects(queue.next(stop.signal), { name: "AbortError" });
  });
});

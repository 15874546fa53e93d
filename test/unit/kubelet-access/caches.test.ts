import assert from "node:assert/strict";
import { inspect } from "node:util";
import { describe, test } from "node:test";

import type { ApiClient, ApiRequest } from "../../../src/api/client.ts";
import { ApiError, ApiUnavailableError } from "../../../src/api/errors.ts";
import { ExpiringCache } from "../../../src/kubelet/server/expiring-cache.ts";
import { Reviews } from "../../../src/kubelet/server/reviews.ts";
import type { Clock } from "../../../src/lib/clock.ts";

/** Time stands until it is moved; sleeps are written down and over at once. */
class StillClock implements Clock {
  ms = 0;
  readonly slept: number[] = [];
  now(): number {
    return this.ms;
  }
  monotonic(): number {
    return this.ms;
  }
  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.slept.push(ms);
  }
}

const { signal } = new AbortController();

describe("remembered answers", () => {
  test("each counts for its own time, and 0 for none", async () => {
    const clock = new StillClock();
    const cache = new ExpiringCache<number>(clock);
    let asked = 0;
    const ask = async (): Promise<number> => (asked += 1);
    const get = (key: string, ttlMs: number): Promise<number> =>
      cache.get(key, ask, () => ttlMs, signal);
    assert.deepEqual([await get("a", 10), await get("a", 10), await get("b", 0)], [1, 1, 2]);
    assert.equal(await get("b", 0), 3);
    clock.ms = 9;
    assert.equal(await get("a", 10), 1);
    clock.ms = 10;
    assert.equal(await get("a", 10), 4);
  });

  test("who asks meanwhile waits for the same answer; failures are told to all and not kept", async () => {
    const cache = new ExpiringCache<number>(new StillClock());
    const answers: PromiseWithResolvers<number>[] = [];
    const ask = (): Promise<number> => {
      const answer = Promise.withResolvers<number>();
      answers.push(answer);
      return answer.promise;
    };
    const get = (): Promise<number> => cache.get("k", ask, () => 10, signal);
    const first = [get(), get()];
    answers[0]?.reject(new Error("away"));
    for (const waiting of first) await assert.rejects(waiting, /away/);
    const second = [get(), get()];
    answers[1]?.resolve(7);
    assert.deepEqual(await Promise.all(second), [7, 7]);
    assert.equal(answers.length, 2);
  });

  test("one who leaves takes nobody along; the last one ends the question", async () => {
    const cache = new ExpiringCache<string>(new StillClock());
    const ends: AbortSignal[] = [];
    const ask = (inner: AbortSignal): Promise<string> => {
      ends.push(inner);
      return new Promise((_resolve, reject) => {
        inner.addEventListener("abort", () => reject(new Error("aborted")), { once: true });
      });
    };
    const [one, two] = [new AbortController(), new AbortController()];
    const first = cache.get("k", ask, () => 10, one.signal);
    const second = cache.get("k", ask, () => 10, two.signal);
    one.abort(new Error("left"));
    await assert.rejects(first, /left/);
    assert.equal(ends[0]?.aborted, false);
    two.abort(new Error("left too"));
    await assert.rejects(second, /left too/);
    assert.equal(ends[0]?.aborted, true);
    const third = new AbortController();
    const again = cache.get("k", ask, () => 10, third.signal);
    assert.equal(ends.length, 2);
    third.abort(new Error("left"));
    await assert.rejects(again);
    const late = AbortSignal.abort(new Error("gone before"));
    await assert.rejects(
      cache.get("k", ask, () => 10, late),
      /gone before/,
    );
  });

  test("they are bounded, the least used ones go first, and no key is kept in clear", async () => {
    const cache = new ExpiringCache<number>(new StillClock());
    let asked = 0;
    const get = (key: string): Promise<number> =>
      cache.get(
        key,
        async () => (asked += 1),
        () => 10,
        signal,
      );
    await get("in use");
    for (let at = 0; at < 10_000; at += 1) {
      await get(`flood ${at}`);
      await get("in use");
    }
    assert.equal(asked, 10_001);
    assert.equal(cache.size, 4096);
    assert.doesNotMatch(inspect(cache, { depth: 9, showHidden: true }), /flood|in use/);
  });
});

class ScriptedClient implements ApiClient {
  readonly script: unknown[];
  readonly requests: ApiRequest[] = [];
  constructor(...script: unknown[]) {
    this.script = script;
  }
  async request(request: ApiRequest): Promise<unknown> {
    this.requests.push(request);
    const next = this.script.shift();
    if (next instanceof Error) throw next;
    return next;
  }
  watch(): AsyncIterable<unknown> {
    throw new Error("no watch is expected");
  }
}

describe("reviews", () => {
  const reset = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
  const good = { status: { authenticated: true } };

  test("are asked again while the API server is too busy, up to five times", async () => {
    const busy = new ApiError(429, "TooManyRequests", "slow down");
    const clock = new StillClock();
    const client = new ScriptedClient(busy, new ApiError(500, "InternalError", "oops"), good);
    assert.deepEqual(
      await new Reviews({ client, clock }).token({ token: "t" }, signal),
      good.status,
    );
    assert.deepEqual(clock.slept, [500, 750]);
    const never = new ScriptedClient(busy, busy, busy, busy, busy, good);
    await assert.rejects(new Reviews({ client: never, clock }).token({ token: "t" }, signal), busy);
    assert.equal(never.requests.length, 5);
    const torn = new ScriptedClient(new ApiUnavailableError("torn", { cause: reset }), good);
    await new Reviews({ client: torn, clock }).token({ token: "t" }, signal);
    assert.equal(torn.requests.length, 2);
  });

  for (const failure of [
    new ApiUnavailableError("connect ECONNREFUSED"),
    new ApiError(403, "Forbidden", "may not create tokenreviews"),
    new ApiError(503, "ServiceUnavailable", "starting"),
  ]) {
    test(`"${failure.message}" is final`, async () => {
      const client = new ScriptedClient(failure);
      const reviews = new Reviews({ client, clock: new StillClock() });
      await assert.rejects(reviews.access({}, signal), failure);
    });
  }

  test("an answer without a status is no permission", async () => {
    for (const answer of [undefined, [], {}, { status: "yes" }]) {
      const client = new ScriptedClient(answer);
      const reviews = new Reviews({ client, clock: new StillClock() });
      assert.deepEqual(await reviews.access({}, signal), {});
    }
  });

  test("few run at a time, and who leaves the queue leaves room", async () => {
    let running = 0;
    let most = 0;
    const waiting: (() => void)[] = [];
    const client: ApiClient = {
      request: async () => {
        running += 1;
        most = Math.max(most, running);
        await new Promise<void>((resolve) => waiting.push(resolve));
        running -= 1;
        return good;
      },
      watch: () => {
        throw new Error("no watch is expected");
      },
    };
    const reviews = new Reviews({ client, clock: new StillClock() });
    const leaving = new AbortController();
    const asked = Array.from({ length: 40 }, (_all, at) =>
      reviews.token({ token: String(at) }, at === 20 ? leaving.signal : signal),
    );
    const left = assert.rejects(asked.splice(20, 1)[0] ?? Promise.resolve(), /left/);
    leaving.abort(new Error("left"));
    await left;
    const all = Promise.all(asked);
    for (let ended = 0; ended < 39; ended += 1) {
      while (waiting.length === 0) await new Promise((resolve) => setImmediate(resolve));
      waiting.shift()?.();
    }
    await all;
    assert.equal(most, 16);
  });
});

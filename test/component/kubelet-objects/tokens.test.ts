import assert from "node:assert/strict";
import { test } from "node:test";

import type { ApiClient, ApiRequest } from "../../../src/api/client.ts";
import { ApiError } from "../../../src/api/errors.ts";
import {
  ServiceAccountTokens,
  type ServiceAccountTokensOptions,
} from "../../../src/kubelet/volumes/service-account-token.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import { asRecord } from "../../../src/lib/guard.ts";
import { podWith } from "./pods.ts";

const minuteMs = 60_000;
const signal = new AbortController().signal;
const pod = podWith("web", []);

/** A server that hands out numbered tokens, and a clock that stands still. */
class Stage {
  nowMs = Date.parse("2026-01-01T00:00:00Z");
  readonly asked: ApiRequest[] = [];
  failure: Error | undefined;
  /** Whether the answer repeats what was asked for, as a real server's does. */
  repeatsSpec = true;
  /** How far the server's clock is ahead of ours. */
  aheadMs = 0;
  hold: Promise<void> = Promise.resolve();
  readonly warnings: string[] = [];
  readonly tokens: ServiceAccountTokens;

  constructor(random = 0) {
    const clock: Clock = {
      now: () => this.nowMs,
      monotonic: () => this.nowMs,
      sleep: async () => undefined,
    };
    const client: ApiClient = {
      request: async (request) => this.#answer(request),
      watch: () => assert.fail("no watch is needed"),
    };
    const options: ServiceAccountTokensOptions = {
      client,
      clock,
      random: () => random,
      logger: {
        log: (_level, message) => this.warnings.push(message),
        child: () => assert.fail("not needed"),
      },
    };
    this.tokens = new ServiceAccountTokens(options);
  }

  async #answer(request: ApiRequest): Promise<unknown> {
    this.asked.push(request);
    const number = this.asked.length;
    await this.hold;
    request.signal.throwIfAborted();
    if (this.failure !== undefined) throw this.failure;
    const { spec } = request.body as { spec: { expirationSeconds: number } };
    const expires = this.nowMs + this.aheadMs + spec.expirationSeconds * 1000;
    return {
      ...(this.repeatsSpec ? { spec } : {}),
      status: {
        token: `token-${number}`,
        expirationTimestamp: new Date(expires).toISOString(),
      },
    };
  }

  get(wish = {}): Promise<string> {
    return this.tokens.get(pod, wish, signal);
  }
}

test("a token is asked for once, bound to the pod, for an hour unless it says otherwise", async () => {
  const stage = new Stage();
  assert.equal(await stage.get(), "token-1");
  assert.equal(await stage.get(), "token-1");
  const [request] = stage.asked;
  assert.equal(request?.path, "/api/v1/namespaces/default/serviceaccounts/default/token");
  assert.deepEqual(request?.body, {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    spec: {
      audiences: [],
      expirationSeconds: 3600,
      boundObjectRef: { apiVersion: "v1", kind: "Pod", name: "web", uid: "uid-of-web" },
    },
  });
  assert.equal(await stage.get({ audience: "vault", expirationSeconds: 600 }), "token-2");
  assert.deepEqual(asRecord(stage.asked[1]?.body, "$")["spec"], {
    audiences: ["vault"],
    expirationSeconds: 600,
    boundObjectRef: { apiVersion: "v1", kind: "Pod", name: "web", uid: "uid-of-web" },
  });
});

test("a token is refreshed at 80 % of its life, a long one after a day, with up to 10 s of jitter", async () => {
  for (const [seconds, refreshMs] of [
    [600, 480_000],
    [3600, 2_880_000],
    [86_400 * 7, 86_400_000],
  ] as const) {
    for (const random of [0, 1]) {
      const stage = new Stage(random);
      const wish = { expirationSeconds: seconds };
      await stage.get(wish);
      const due = stage.nowMs + refreshMs - random * 10_000;
      assert.equal(stage.tokens.refreshAt("uid-of-web"), due);
      stage.nowMs = due - 1;
      assert.equal(await stage.get(wish), "token-1");
      stage.nowMs = due;
      assert.equal(await stage.get(wish), "token-2");
    }
  }
});

test("the life of a token is not mistaken when the server's clock is another", async () => {
  for (const aheadMs of [-120 * minuteMs, 120 * minuteMs]) {
    const stage = new Stage();
    stage.aheadMs = aheadMs;
    await stage.get();
    assert.equal(stage.tokens.refreshAt("uid-of-web"), stage.nowMs + 48 * minuteMs);
  }
  const stage = new Stage();
  stage.repeatsSpec = false;
  stage.aheadMs = -120 * minuteMs;
  await stage.get();
  assert((stage.tokens.refreshAt("uid-of-web") ?? 0) > stage.nowMs, "no request with each look");
});

test("volumes of one pod that want the same token share one request", async () => {
  const stage = new Stage();
  const all = await Promise.all([stage.get(), stage.get(), stage.get({ audience: "x" })]);
  assert.deepEqual(all, ["token-1", "token-1", "token-2"]);
});

test("who gives up a shared request does not take the token from the others", async () => {
  const stage = new Stage();
  const gate = Promise.withResolvers<void>();
  stage.hold = gate.promise;
  const impatient = new AbortController();
  const first = stage.tokens.get(pod, {}, impatient.signal);
  const second = stage.get();
  impatient.abort();
  gate.resolve();
  await assert.rejects(first, { name: "AbortError" });
  assert.equal(await second, "token-2");
});

const refusal = new ApiError(403, "Forbidden", "serviceaccounts is forbidden");

test("without any token a refusal is the pod's", async () => {
  const stage = new Stage();
  stage.failure = refusal;
  await assert.rejects(stage.get(), {
    message: /^failed to fetch token: .*serviceaccounts is forbidden/,
  });
});

test("a token that cannot be refreshed is shown until it has expired, and no longer", async () => {
  const stage = new Stage();
  await stage.get();
  stage.failure = refusal;
  stage.nowMs += 48 * minuteMs;
  assert.equal(await stage.get(), "token-1");
  assert.equal(stage.warnings.length, 1);
  assert.equal(await stage.get(), "token-1");
  assert.equal(stage.asked.length, 2, "asked again after a minute, not with each look");
  stage.nowMs += minuteMs;
  assert.equal(await stage.get(), "token-1");
  assert.equal(stage.asked.length, 3);
  stage.nowMs += 11 * minuteMs;
  await assert.rejects(stage.get(), {
    message: new RegExp(
      `^token "default"/"default"/\\[\\]string\\(nil\\)/3600/v1\\.BoundObjectReference\\{Kind:"Pod", APIVersion:"v1", Name:"web", UID:"uid-of-web"\\}/"" expired and refresh failed: .*forbidden`,
    ),
  });
  stage.failure = undefined;
  assert.equal(await stage.get(), "token-5");
});

test("a token comes with its end, for those who pass it on", async () => {
  const stage = new Stage();
  const found = await stage.tokens.bound(pod, { audience: "csi" }, signal);
  assert.equal(found.token, "token-1");
  assert.equal(found.expirationTimestamp, "2026-01-01T01:00:00.000Z");
});

test("a forgotten pod's token is asked for anew", async () => {
  const stage = new Stage();
  await stage.get();
  stage.tokens.forget("uid-of-web");
  assert.equal(stage.tokens.refreshAt("uid-of-web"), undefined);
  assert.equal(await stage.get(), "token-2");
});

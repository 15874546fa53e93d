import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";

import type { IPFamily } from "../../../src/lib/cidr.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import { SetupError } from "../../../src/lib/errors.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { ApplyResult, RuleBackend, RulesContext } from "../../../src/proxy/backend.ts";
import { FamilyRules } from "../../../src/proxy/family-rules.ts";
import { rulesHealthy } from "../../../src/proxy/health.ts";
import { ProxyMetrics } from "../../../src/proxy/metrics.ts";
import { RulesHealth } from "../../../src/proxy/rules-health.ts";
import { retryDelayMs, RulesLoop, type RulesFacts } from "../../../src/proxy/rules-loop.ts";
import { SliceIndex } from "../../../src/proxy/slice-index.ts";

/** Time that stands still until it is moved. */
class TestClock implements Clock {
  #now = 1_000_000;
  #sleepers: { readonly until: number; readonly wake: () => void }[] = [];

  now(): number {
    return this.#now;
  }
  monotonic(): number {
    return this.#now;
  }
  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#sleepers.push({ until: this.#now + ms, wake: resolve });
    signal.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")), {
      once: true,
    });
    await promise;
  }
  async advance(ms: number): Promise<void> {
    this.#now += ms;
    const due = this.#sleepers.filter(({ until }) => until <= this.#now);
    this.#sleepers = this.#sleepers.filter(({ until }) => until > this.#now);
    for (const { wake } of due) wake();
    await settle();
  }
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await nextTurn();
}

const done: ApplyResult = {
  changes: 1,
  transactions: 1,
  bytes: 1,
  drift: undefined,
  cleanupFailed: false,
};

/** A kernel that does what it is told to. */
class TestBackend implements RuleBackend {
  readonly mode = "nftables";
  readonly hasGarbage = false;
  syncs = 0;
  distrusted = 0;
  contexts: RulesContext[] = [];
  healthPorts: readonly number[] = [];
  /** What the next synchronisations do. */
  outcomes: (() => Promise<ApplyResult>)[] = [];
  check?: () => Promise<boolean>;

  setContext(context: RulesContext): void {
    this.contexts.push(context);
  }
  set(): void {}
  setHealthPorts(ports: readonly number[]): void {
    this.healthPorts = ports;
  }
  conflicts(): [] {
    return [];
  }
  isClusterIP(): boolean {
    return false;
  }
  async sync(): Promise<ApplyResult> {
    this.syncs += 1;
    return (await this.outcomes.shift()?.()) ?? done;
  }
  distrust(): void {
    this.distrusted += 1;
  }
  concerns(): boolean {
    return true;
  }
  render(): string {
    return "";
  }
  snapshot(): Map<string, string> {
    return new Map();
  }
}

interface Bench {
  readonly clock: TestClock;
  readonly backend: TestBackend;
  readonly loop: RulesLoop;
  readonly health: RulesHealth;
  readonly running: Promise<void>;
  facts: RulesFacts;
  readonly stop: () => Promise<void>;
}

const testContext: RulesContext = {
  family: "IPv4",
  local: { kind: "none" },
  nodePortIPs: undefined,
  localhostNodePorts: false,
  serviceCIDRs: [],
  mark: 0x4000,
  masqueradeAll: false,
};

async function start(
  options: {
    minSyncPeriodMs?: number;
    prepare?: (backend: TestBackend) => void;
    onImpossible?: (error: SetupError) => void;
  } = {},
): Promise<Bench> {
  const clock = new TestClock();
  const backend = new TestBackend();
  options.prepare?.(backend);
  const families: readonly IPFamily[] = ["IPv4"];
  const health = new RulesHealth({
    families,
    syncPeriodMs: 30_000,
    node: () => undefined,
    clock,
  });
  const rules = new FamilyRules({ context: testContext, backend, logger: silentLogger });
  const stop = new AbortController();
  const bench: { facts: RulesFacts } = {
    facts: {
      node: { name: "here", zone: "", ips: [] },
      context: { local: { kind: "none" }, nodePortIPs: undefined, localhostNodePorts: false },
      serviceCIDRs: [],
      healthPorts: [],
    },
  };
  const loop = new RulesLoop({
    rules,
    backend,
    feed: { service: () => undefined, keys: () => [], index: new SliceIndex("here") },
    facts: () => bench.facts,
    health,
    metrics: new ProxyMetrics(),
    syncPeriodMs: 30_000,
    minSyncPeriodMs: options.minSyncPeriodMs ?? 0,
    clock,
    logger: silentLogger,
    random: () => 1,
    onPlanned: () => undefined,
    onApplied: () => undefined,
    ...(options.onImpossible === undefined ? {} : { onImpossible: options.onImpossible }),
  });
  const running = loop.run(stop.signal);
  running.catch(() => undefined);
  await settle();
  return Object.assign(bench, {
    clock,
    backend,
    loop,
    health,
    running,
    stop: async () => {
      stop.abort();
      await running.catch(() => undefined);
    },
  });
}

function fails(): Promise<ApplyResult> {
  return Promise.reject(new Error("made to fail"));
}

describe("the loop of a family's rules", () => {
  it("applies the first change at once, and later ones together behind the running synchronisation", async () => {
    const { backend, clock, loop, stop } = await start();
    assert.equal(backend.syncs, 1);
    await clock.advance(10);
    const { promise, resolve } = Promise.withResolvers<ApplyResult>();
    backend.outcomes.push(() => promise);
    loop.changed("ns/a");
    await settle();
    assert.equal(backend.syncs, 2);
    loop.changed("ns/b");
    loop.changed("ns/c");
    await settle();
    assert.equal(backend.syncs, 2);
    resolve(done);
    await settle();
    await clock.advance(10);
    assert.equal(backend.syncs, 3);
    await stop();
  });

  it("leaves minSyncPeriod between the end of one synchronisation and the start of the next", async () => {
    const { backend, clock, loop, stop } = await start({ minSyncPeriodMs: 1000 });
    loop.changed("ns/a");
    await clock.advance(999);
    assert.equal(backend.syncs, 1);
    await clock.advance(1);
    assert.equal(backend.syncs, 2);
    await stop();
  });

  it("tries again after 100 ms, 500 ms, 2 s and so on up to 30 s", () => {
    const delays = [1, 2, 3, 4, 5, 6, 7, 8].map((failures) => retryDelayMs(failures, () => 1));
    assert.deepEqual(delays, [100, 500, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    assert.equal(
      retryDelayMs(1, () => 0),
      90,
    );
  });

  it("is healthy while it fails for a short time, and for twice syncPeriod at most", async () => {
    const { backend, clock, health, loop, stop } = await start();
    await clock.advance(10);
    backend.outcomes.push(...Array.from({ length: 20 }, () => fails));
    loop.changed("ns/a");
    await settle();
    assert.equal(backend.syncs, 2);
    await clock.advance(100);
    assert.equal(backend.syncs, 3);
    assert.equal(rulesHealthy(health, clock.now()), true);
    await clock.advance(59_899);
    assert.equal(rulesHealthy(health, clock.now()), true);
    await clock.advance(1);
    assert.equal(rulesHealthy(health, clock.now()), false);
    backend.outcomes = [];
    await clock.advance(30_000);
    await clock.advance(30_000);
    assert.equal(rulesHealthy(health, clock.now()), true);
    await stop();
  });

  it("tries a change that comes while it waits after failures a second after the last one", async () => {
    const { backend, clock, loop, stop } = await start();
    await clock.advance(10);
    backend.outcomes.push(fails, fails, fails, fails);
    loop.changed("ns/a");
    await settle();
    for (const ms of [100, 500, 1000, 1000]) await clock.advance(ms);
    assert.equal(backend.syncs, 5);
    await clock.advance(1000);
    assert.equal(backend.syncs, 5, "the next attempt is due in three seconds");
    loop.changed("ns/b");
    await settle();
    assert.equal(backend.syncs, 6);
    await stop();
  });

  it("says since when the oldest change waits, also one that came during a synchronisation", async () => {
    const { backend, clock, health, loop, stop } = await start();
    await clock.advance(10);
    const { promise, resolve } = Promise.withResolvers<ApplyResult>();
    backend.outcomes.push(() => promise);
    loop.changed("ns/a");
    await settle();
    await clock.advance(5);
    const second = clock.now();
    loop.changed("ns/b");
    await clock.advance(5);
    resolve(done);
    await settle();
    assert.equal(health.pendingSince.get("IPv4"), second);
    await stop();
  });

  it("ends when this machine cannot do it at the start; later that is an accident", async () => {
    const broken = (): Promise<ApplyResult> => Promise.reject(new SetupError("no nf_tables"));
    const first = await start({
      prepare: (made) => {
        made.outcomes.push(broken);
        made.check = () => Promise.resolve(true);
      },
    });
    await assert.rejects(first.running, /no nf_tables/);
    const { backend, clock, loop, stop } = await start();
    await clock.advance(10);
    backend.outcomes.push(broken);
    loop.changed("ns/a");
    await settle();
    await clock.advance(100);
    assert.equal(backend.syncs, 3);
    await stop();
  });

  it("ends without an error when the family may be missing, and is not waited for", async () => {
    const told: string[] = [];
    const { backend, clock, health, loop, running } = await start({
      prepare: (made) => {
        made.outcomes.push(() => Promise.reject(new SetupError("no ip6 tables")));
      },
      onImpossible: ({ message }) => told.push(message),
    });
    await running;
    await loop.whenApplied(new AbortController().signal);
    assert.deepEqual(told, ["no ip6 tables"]);
    loop.changed("ns/a");
    await settle();
    await clock.advance(120_000);
    assert.equal(backend.syncs, 1);
    assert.equal(loop.hasUnplanned, false);
    assert.deepEqual(health.families, []);
    assert.equal(rulesHealthy(health, clock.now()), true);
  });

  it("looks every syncPeriod whether the rules are there, and repairs them", async () => {
    let intact = true;
    const { backend, clock, stop } = await start({
      prepare: (made) => {
        made.check = () => Promise.resolve(intact);
      },
    });
    await clock.advance(10);
    await clock.advance(30_000);
    assert.deepEqual([backend.syncs, backend.distrusted], [1, 0]);
    intact = false;
    await clock.advance(30_000);
    assert.deepEqual([backend.syncs, backend.distrusted], [2, 1]);
    await stop();
  });

  it("brings other addresses and networks into the rules at once", async () => {
    const bench = await start();
    const { backend, clock, loop, stop } = bench;
    await clock.advance(10);
    bench.facts = {
      ...bench.facts,
      context: { ...bench.facts.context, nodePortIPs: ["192.0.2.9"] },
      serviceCIDRs: ["172.30.0.0/16", "fd00::/64"],
      healthPorts: [31_000],
    };
    loop.wake();
    await settle();
    const context = backend.contexts.at(-1);
    assert.deepEqual(context?.nodePortIPs, ["192.0.2.9"]);
    assert.deepEqual(context?.serviceCIDRs, ["172.30.0.0/16"]);
    assert.deepEqual(backend.healthPorts, [31_000]);
    assert.equal(backend.syncs, 2);
    await stop();
  });
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { EngineWatch } from "../../../src/agent/engine-watch.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { createDockerRuntime } from "../../../src/runtime/docker/runtime.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import type { ContainerRuntime, RuntimeEvent, RuntimeInfo } from "../../../src/runtime/types.ts";
import { fakeRuntime } from "../../fakes/fake-runtime.ts";
import { FakeEngine } from "../runtime/fake-engine.ts";
import { ManualClock, until } from "../api/manual-clock.ts";

interface Bench extends AsyncDisposable {
  readonly watch: EngineWatch;
  readonly clock: ManualClock;
  /** What was told to subscribers: whether the engine was up at that time. */
  readonly told: boolean[];
  /** The engine's version, or `away`. */
  engine: string;
  connects: number;
  /** Lets time pass in steps of one second, in each of which the watch gets to work. */
  pass(seconds: number): Promise<void>;
}

async function makeBench(events: AsyncIterable<RuntimeEvent>[] = []): Promise<Bench> {
  const clock = new ManualClock();
  const memory = fakeRuntime(() => clock.now());
  const first = await memory.connect(new AbortController().signal);
  const away = (): void => {
    if (bench.engine === "away") throw new RuntimeError("Unavailable", "Docker does not answer");
  };
  const runtime = {
    connect: async (): Promise<RuntimeInfo> => {
      away();
      bench.connects += 1;
      return { ...first, version: bench.engine };
    },
    ping: async (): Promise<void> => away(),
    events: () => events[0] ?? [],
  } as unknown as ContainerRuntime;
  const watch = new EngineWatch({ runtime, info: first, clock, logger: silentLogger });
  const told: boolean[] = [];
  watch.subscribe(() => told.push(watch.info() !== undefined));
  const stop = new AbortController();
  const ended = watch.run(stop.signal);
  const bench: Bench = {
    watch,
    clock,
    told,
    engine: first.version,
    connects: 0,
    pass: async (seconds) => {
      for (let second = 0; second < seconds; second += 1) {
        await until(() => clock.sleeping, "the watch sleeps");
        clock.advance(1000);
        await new Promise((resolve) => setImmediate(resolve));
      }
      await until(() => clock.sleeping, "the watch sleeps");
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await ended;
    },
  };
  return bench;
}

describe("the watch over the container engine", () => {
  test("a short absence changes nothing but what is known of the engine", async () => {
    await using bench = await makeBench();
    await bench.pass(60);
    assert.equal(bench.connects, 0, "while it answers it is not asked anew");
    bench.engine = "away";
    await bench.pass(20);
    assert.notEqual(bench.watch.info(), undefined, "the node stays Ready");
    bench.engine = "29.0.0";
    await bench.pass(2);
    assert.equal(bench.watch.info()?.version, "29.0.0");
    assert.deepEqual(bench.told, [true]);
    assert.equal(bench.connects, 1);
  });

  test("an engine that is away for 30 s is down, told once, and up when it is back", async () => {
    await using bench = await makeBench();
    bench.engine = "away";
    await bench.pass(29);
    assert.notEqual(bench.watch.info(), undefined);
    await bench.pass(2);
    assert.equal(bench.watch.info(), undefined);
    assert.deepEqual(bench.told, [false]);
    assert.equal(bench.watch.last().version, "20.10.24", "what was known of it stays known");
    await bench.pass(60);
    assert.deepEqual(bench.told, [false]);
    bench.engine = "29.0.0";
    await bench.pass(2);
    assert.equal(bench.watch.info()?.version, "29.0.0");
    assert.deepEqual(bench.told, [false, true]);
    await bench.pass(20);
    assert.deepEqual(bench.told, [false, true]);
  });

  test("a restart between two checks shows in the events, and is enough to ask the engine anew", async () => {
    const restarted = Promise.withResolvers<void>();
    const events = async function* (): AsyncGenerator<RuntimeEvent> {
      yield { kind: "resync" };
      await restarted.promise;
      yield { kind: "resync" };
    };
    await using bench = await makeBench([events()]);
    const seen: string[] = [];
    const observed = bench.watch.observed({ events } as unknown as ContainerRuntime);
    const reader = (async () => {
      for await (const { kind } of observed.events(new AbortController().signal)) seen.push(kind);
    })();
    await bench.pass(1);
    assert.equal(bench.connects, 0, "the first one is the subscription itself");
    bench.engine = "29.0.0";
    restarted.resolve();
    await reader;
    assert.deepEqual(seen, ["resync", "resync"]);
    await until(() => bench.told.length > 0, "the return is told");
    assert.equal(bench.watch.info()?.version, "29.0.0");
  });

  test("an engine upgraded under the agent is spoken to in its new API version", async () => {
    await using engine = await FakeEngine.start();
    engine.answer = ({ path }) => ({ status: 200, json: path === "/containers/json" ? [] : {} });
    let endStream = (): void => undefined;
    engine.stream = ({ path }, response) => {
      if (path !== "/events") return false;
      response.writeHead(200);
      response.flushHeaders();
      endStream = () => response.end();
      return true;
    };
    const docker = createDockerRuntime({
      socketPath: engine.socketPath,
      nodeName: "n1",
      podLogsDir: `${engine.directory}/pods`,
      containerLogsDir: `${engine.directory}/containers`,
      clock: systemClock,
      logger: silentLogger,
      random: () => 0,
    });
    const stop = new AbortController();
    const info = await docker.connect(stop.signal);
    assert.equal(info.apiVersion, "1.41");
    const clock = new ManualClock();
    const watch = new EngineWatch({ runtime: docker, info, clock, logger: silentLogger });
    const running = watch.run(stop.signal);
    let resyncs = 0;
    const reading = (async () => {
      for await (const _event of watch.observed(docker).events(stop.signal)) resyncs += 1;
    })();
    await until(() => resyncs === 1, "subscribed");
    engine.version = { Version: "29.0", ApiVersion: "1.52", MinAPIVersion: "1.44", Arch: "amd64" };
    endStream();
    await until(() => watch.info()?.version === "29.0", "the new version is known");
    assert.equal(watch.info()?.apiVersion, "1.52");
    await docker.ping(stop.signal);
    assert.equal(engine.seen.at(-1), "GET /_ping");
    stop.abort();
    await Promise.all([running, reading]);
  });
});

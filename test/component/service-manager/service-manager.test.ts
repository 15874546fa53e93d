import assert from "node:assert/strict";
import { describe, test } from "node:test";

import type { Node } from "../../../src/api/types.gen.ts";
import { HeldSockets } from "../../../src/agent/service-manager/held-sockets.ts";
import { ServiceManager } from "../../../src/agent/service-manager/service-manager.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { ManualClock, until } from "../api/manual-clock.ts";

type Condition = { readonly status: "True" | "False" | "Unknown"; readonly message: string };

interface Bench {
  readonly service: ServiceManager;
  readonly clock: ManualClock;
  /** What systemd was told, without words that are only for people. */
  readonly told: string[];
  readonly status: () => string | undefined;
  readonly node: (ready: Condition) => void;
  /** Lets the runner do what is due. */
  readonly pass: (seconds: number) => Promise<void>;
  readonly end: () => Promise<void>;
}

function bench(managed = true): Bench {
  const clock = new ManualClock();
  const told: string[] = [];
  const statuses: string[] = [];
  const service = new ServiceManager({
    environment: {
      notifySocket: managed ? "/run/systemd/notify" : undefined,
      notifyFd: undefined,
      watchdogMs: 120_000,
      sockets: [],
    },
    notify: (lines) => {
      for (const line of lines) {
        if (line.startsWith("STATUS=")) statuses.push(line.slice("STATUS=".length));
        else told.push(line);
      }
    },
    sockets: new HeldSockets([]),
    clock,
    logger: silentLogger,
  });
  let node: Node | undefined;
  const listeners = new Set<() => void>();
  const stop = new AbortController();
  let ended = Promise.resolve();
  return {
    service,
    clock,
    told,
    status: () => statuses.at(-1),
    node: ({ message, status }) => {
      const ready = { type: "Ready", status, message, reason: "" };
      node = { metadata: { name: "n1" }, status: { conditions: [ready] } };
      for (const listener of listeners) listener();
    },
    pass: async (seconds) => {
      if (clock.sleeps.length === 0) {
        service.begin({
          node: () => node,
          subscribe: (listener) => {
            listeners.add(listener);
            return () => listeners.delete(listener);
          },
        });
        ended = service.runner.run(stop.signal);
      }
      for (let second = 0; second < seconds; second += 1) {
        await until(() => clock.sleeping, "the runner sleeps");
        clock.advance(1000);
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
    end: async () => {
      stop.abort();
      await ended;
    },
  };
}

describe("what the agent tells the service manager", () => {
  test("it is ready when its node is and the kernel has the rules, not before", async () => {
    const { end, node, pass, service, status, told } = bench();
    await pass(1);
    assert.equal(status(), "waiting for the node to be Ready and the rules of Services");
    service.reached("rules");
    assert.equal(status(), "waiting for the node to be Ready");
    assert.equal(told.includes("READY=1"), false);
    node({ status: "True", message: "" });
    service.reached("node");
    assert.equal(told.at(-1), "READY=1");
    assert.equal(status(), "node n1 is Ready");
    await end();
  });

  test("later it says how the node is, and is not ready a second time", async () => {
    const { end, node, pass, service, status, told } = bench();
    await pass(1);
    node({ status: "True", message: "" });
    service.reached("rules");
    service.reached("node");
    node({ status: "False", message: "container runtime is down" });
    assert.equal(status(), "node n1 is not Ready: container runtime is down");
    service.reached("node");
    assert.equal(told.filter((line) => line === "READY=1").length, 1);
    await end();
  });

  test("a cluster that is away does not hold up a boot for more than a minute", async () => {
    const { end, pass, status, told } = bench();
    await pass(59);
    assert.equal(told.includes("READY=1"), false);
    await pass(11);
    assert.equal(told.includes("READY=1"), true);
    assert.equal(
      status(),
      "the API server has not answered yet; pods run on; waiting for the rules of Services",
    );
    await end();
  });

  test("a wait for the engine prolongs the start, as long as it takes", async () => {
    const { clock, service, status, told } = bench();
    const away = service.engineAway(new AbortController().signal);
    for (let second = 0; second < 600; second += 1) {
      const waited = away?.(new Error("nobody listens on /run/docker.sock"));
      clock.advance(1000);
      await waited;
    }
    assert.equal(status(), "waiting for the container engine: nobody listens on /run/docker.sock");
    // Seventy seconds each ten seconds.
    assert.deepEqual([...new Set(told)], ["EXTEND_TIMEOUT_USEC=70000000"]);
    assert.equal(told.length, 60);
  });

  test("a wait for credentials does so too, until it ends", async () => {
    const { clock, service, status, told } = bench();
    const { promise, resolve } = Promise.withResolvers<string>();
    const joined = service.during("credentials", new AbortController().signal, () => promise);
    await until(() => clock.sleeping, "it sleeps");
    assert.equal(status(), "waiting for credentials");
    clock.advance(10_000);
    await until(() => told.length === 2, "it is prolonged");
    resolve("kubeconfig");
    assert.equal(await joined, "kubeconfig");
    assert.equal(clock.sleeping, false);
  });

  test("the end is told", () => {
    const { service, status, told } = bench();
    service.stopping();
    assert.deepEqual([told, status()], [["STOPPING=1"], "stopping; pods keep running"]);
  });

  test("the watchdog is fed before loops begin, and by them alone afterwards", async () => {
    const { end, pass, service, told } = bench();
    const fed = (): number => told.filter((line) => line === "WATCHDOG=1").length;
    const turn = service.loop("pods", 150_000);
    await pass(60);
    assert.ok(fed() >= 3, `fed ${fed()} times`);
    turn();
    const before = fed();
    await pass(100);
    assert.equal(fed(), before);
    turn();
    assert.equal(fed(), before + 1);
    await end();
  });

  test("nothing, when nobody asks", async () => {
    const { service, status, told } = bench(false);
    service.waiting("something");
    service.loop("pods", 1000)();
    assert.equal(service.engineAway(new AbortController().signal), undefined);
    assert.equal(await service.during("it", new AbortController().signal, async () => 7), 7);
    assert.equal(service.isManaged, false);
    assert.deepEqual([told, status()], [[], undefined]);
  });
});

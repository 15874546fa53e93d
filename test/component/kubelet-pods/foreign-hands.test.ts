import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { PODS } from "../../../src/api/resources.ts";
import type { Pod, PodStatus } from "../../../src/api/types.gen.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { makeWorld, podManifest, type World } from "./fixture.ts";

/** A hundred times as fast, so that graces and back-offs are over soon. */
const fast = {
  now: () => systemClock.now(),
  monotonic: () => systemClock.monotonic() * 100,
  sleep: (ms: number, signal: AbortSignal) => systemClock.sleep(ms / 100, signal),
};

function statusOf(world: World): PodStatus {
  return world.pod("web")?.status ?? {};
}

function isReady(world: World): boolean {
  return (statusOf(world).conditions ?? []).some(
    ({ status, type }) => type === "Ready" && status === "True",
  );
}

function count(world: World, reason: string): number {
  return world.events.filter((event) => event.reason === reason).length;
}

function runningIDs(world: World): readonly string[] {
  return [...world.runtime.containers.values()]
    .filter(({ config, state }) => config.name === "web" && state.kind === "running")
    .map(({ id }) => id);
}

async function withPod(
  spec: Partial<NonNullable<Pod["spec"]>>,
  work: (world: World) => Promise<void>,
): Promise<void> {
  const world = await makeWorld();
  try {
    world.start();
    world.api.put(PODS, podManifest("web", spec));
    await world.until("ready", () => isReady(world));
    await work(world);
  } finally {
    await world.close();
  }
}

interface Hand {
  readonly name: string;
  readonly spec?: Partial<NonNullable<Pod["spec"]>>;
  readonly does: (world: World) => void;
  readonly restarts: number;
  readonly lastReason?: string;
  readonly newSandbox?: boolean;
  readonly also?: (world: World) => boolean;
}

const limited = { name: "web", image: "app:1", resources: { limits: { cpu: "500m" } } };

const hands: readonly Hand[] = [
  {
    name: "a container stopped",
    does: ({ runtime }) => runtime.exit("web", 0),
    restarts: 1,
    lastReason: "Completed",
  },
  {
    name: "a container killed",
    does: ({ runtime }) => runtime.exit("web", 137),
    restarts: 1,
    lastReason: "Error",
  },
  {
    name: "a container removed while it runs",
    does: ({ runtime }) => runtime.removeByHand("web"),
    restarts: 1,
    lastReason: "ContainerStatusUnknown",
  },
  {
    name: "other limits for a container",
    spec: { containers: [limited] },
    does: ({ runtime }) => runtime.limitByHand("web", { cpuQuotaMicros: 1000 }),
    restarts: 0,
    also: ({ runtime }) =>
      [...runtime.containers.values()].some(({ limits }) => limits.cpuQuotaMicros === 50_000),
  },
  {
    name: "a sandbox killed",
    does: ({ runtime }) => runtime.killSandbox(),
    restarts: 1,
    newSandbox: true,
  },
  {
    name: "a sandbox removed",
    does: ({ runtime }) => runtime.removeSandboxesByHand(),
    restarts: 1,
    newSandbox: true,
  },
  {
    name: "a sandbox restarted",
    does: ({ runtime }) => runtime.restartSandboxesByHand(),
    restarts: 1,
    newSandbox: true,
  },
];

describe("what others do to the runtime's things", () => {
  for (const hand of hands) {
    test(hand.name, async () => {
      const initContainers = [{ name: "init", image: "app:1" }];
      const world = await makeWorld();
      try {
        world.runtime.program = ({ name }) => (name === "init" ? { exitCode: 0 } : undefined);
        world.start();
        world.api.put(PODS, podManifest("web", { initContainers, ...hand.spec }));
        await world.until("ready", () => isReady(world));
        hand.does(world);
        await world.until("whole again", () => {
          const [status] = statusOf(world).containerStatuses ?? [];
          const [only, ...others] = runningIDs(world);
          return (
            isReady(world) &&
            status?.restartCount === hand.restarts &&
            status.containerID === `docker://${only ?? ""}` &&
            others.length === 0 &&
            world.runtime.starts.get("web") === hand.restarts + 1 &&
            (hand.also?.(world) ?? true)
          );
        });
        const [status] = statusOf(world).containerStatuses ?? [];
        if (hand.lastReason !== undefined) {
          assert.equal(status?.lastState?.terminated?.reason, hand.lastReason);
        }
        const again = hand.newSandbox === true;
        assert.equal(count(world, "SandboxChanged"), Number(again));
        assert.equal(world.runtime.starts.get("init"), again ? 2 : 1);
        await world.until("one lease", () => world.network.leases.size === 1);
        const ready = [...world.runtime.sandboxes.values()].filter((each) => each.ready);
        assert.equal(ready.length, 1);
        assert(world.network.leases.has(ready[0]?.id ?? ""));
      } finally {
        await world.close();
      }
    });
  }

  test("a container that ended, started again beside its successor, is killed", async () => {
    await withPod({}, async (world) => {
      const [first = ""] = runningIDs(world);
      world.runtime.exit("web", 1);
      await world.until("restarted", () => world.runtime.starts.get("web") === 2 && isReady(world));
      const [second] = runningIDs(world);
      world.runtime.startByHand(first);
      await world.until("killed", () => runningIDs(world).join() === second);
      assert.equal(world.runtime.starts.get("web"), 2);
      assert(world.events.some(({ message }) => message === "Stopping container web"));
    });
  });

  test("an interface taken away comes back when the network is next looked through", async () => {
    const world = await makeWorld();
    try {
      world.start({ clock: fast });
      world.api.put(PODS, podManifest("web"));
      await world.until("ready", () => isReady(world));
      const [id = ""] = world.network.leases.keys();
      world.network.cut.add(id);
      await world.until("mended", () => world.network.isIntact?.(id) === true);
      assert.equal(count(world, "SandboxChanged"), 0);
      assert.equal(world.runtime.starts.get("web"), 1);
    } finally {
      await world.close();
    }
  });

  test("a frozen container fails its exec probe and is restarted", async () => {
    const livenessProbe = { exec: { command: ["true"] }, failureThreshold: 1, periodSeconds: 1 };
    const containers = [{ name: "web", image: "app:1", livenessProbe }];
    const world = await makeWorld();
    try {
      const frozen = new Set<string>();
      world.runtime.onExec = (id) => (frozen.has(id) ? { timedOut: true, exitCode: 137 } : {});
      world.start({ clock: fast });
      world.api.put(PODS, podManifest("web", { containers }));
      await world.until("ready", () => isReady(world));
      for (const id of runningIDs(world)) frozen.add(id);
      await world.until("restarted", () => world.runtime.starts.get("web") === 2 && isReady(world));
      const text = 'Liveness probe failed: command timed out: "true" timed out after 1s';
      assert(world.events.some(({ message }) => message === text));
    } finally {
      await world.close();
    }
  });

  test("the crash loop goes on after a prune, also in an agent that has just begun", async () => {
    const world = await makeWorld();
    try {
      world.runtime.program = () => ({ exitCode: 3 });
      const first = world.start();
      world.api.put(PODS, podManifest("web"));
      const waits = (seconds: number) => (): boolean => {
        const [status] = statusOf(world).containerStatuses ?? [];
        const message = status?.state?.waiting?.message ?? "";
        return message.startsWith(`back-off ${seconds}s restarting`) && status?.restartCount === 1;
      };
      await world.until("waiting", waits(10));
      world.runtime.removeByHand("web");
      await systemClock.sleep(30, AbortSignal.timeout(1000));
      assert(waits(10)());
      await first.stop();
      const second = world.start();
      await systemClock.sleep(50, AbortSignal.timeout(1000));
      assert(waits(10)());
      assert.equal(world.runtime.starts.get("web"), 2);
      await second.stop();
      // When the wait is over the count goes on, and so does the curve.
      const later = { ...systemClock, now: () => systemClock.now() + 11_000 };
      world.start({ clock: later });
      await world.until("started", () => world.runtime.starts.get("web") === 3);
      await world.until("waiting longer", () => {
        const [status] = statusOf(world).containerStatuses ?? [];
        const message = status?.state?.waiting?.message ?? "";
        return message.startsWith("back-off 20s") && status?.restartCount === 2;
      });
    } finally {
      await world.close();
    }
  });

  test("a container that is done is not run again after a prune", async () => {
    const world = await makeWorld();
    try {
      world.runtime.program = ({ name }) => (name === "once" ? { exitCode: 0 } : undefined);
      const first = world.start();
      const containers = ["once", "web"].map((name) => ({ name, image: "app:1" }));
      world.api.put(PODS, podManifest("web", { restartPolicy: "OnFailure", containers }));
      const once = (): boolean =>
        statusOf(world).containerStatuses?.[0]?.state?.terminated?.reason === "Completed" &&
        statusOf(world).containerStatuses?.[1]?.state?.running !== undefined;
      await world.until("done", once);
      world.runtime.removeByHand("once");
      await first.stop();
      world.start();
      world.runtime.exit("web", 1);
      await world.until("looked", () => world.runtime.starts.get("web") === 2 && once());
      assert.equal(world.runtime.starts.get("once"), 1);
    } finally {
      await world.close();
    }
  });
});

describe("a preStop hook", () => {
  test("goes on when the grace is shortened, and is cut off by the shorter one", async () => {
    const preStop = { sleep: { seconds: 3600 } };
    const containers = [{ name: "web", image: "app:1", lifecycle: { preStop } }];
    await withPod({ containers, terminationGracePeriodSeconds: 3600 }, async (world) => {
      world.deletePod("web", 3600);
      await world.until("stopping", () => count(world, "Killing") === 1);
      world.deletePod("web", 1);
      await world.until("gone", () => world.pod("web") === undefined);
      assert.equal(count(world, "Killing"), 1);
      assert.equal(count(world, "FailedPreStopHook"), 0);
      const stops = world.runtime.calls.filter((call) => call.startsWith("stopContainer"));
      assert.deepEqual(stops, ["stopContainer web 2"]);
    });
  });
});

test("a pod that drains is unready as soon as its probe says so, not when it has ended", async () => {
  const readinessProbe = { exec: { command: ["ready"] }, periodSeconds: 1, failureThreshold: 2 };
  const preStop = { sleep: { seconds: 3600 } };
  const containers = [{ name: "web", image: "app:1", readinessProbe, lifecycle: { preStop } }];
  await withPod({ containers, terminationGracePeriodSeconds: 3600 }, async (world) => {
    const isReady = (): boolean | undefined =>
      world.pod("web")?.status?.containerStatuses?.[0]?.ready;
    await world.until("ready", () => isReady() === true);
    world.deletePod("web", 3600);
    await world.until("stopping", () => count(world, "Killing") === 1);
    world.runtime.onExec = () => ({ exitCode: 1 });
    await world.until("unready", () => isReady() === false);
    assert.equal(
      world.runtime.calls.some((call) => call.startsWith("stopContainer")),
      false,
    );
    world.runtime.onExec = () => ({ exitCode: 0 });
    await world.until("ready again", () => isReady() === true);
    world.deletePod("web", 1);
    await world.until("gone", () => world.pod("web") === undefined);
  });
});

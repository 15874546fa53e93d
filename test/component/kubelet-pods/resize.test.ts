import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { PODS } from "../../../src/api/resources.ts";
import type { Pod, ResourceRequirements } from "../../../src/api/types.gen.ts";
import { CgroupError } from "../../../src/kubelet/cgroups/cgroup-tree.ts";
import { RuntimeError } from "../../../src/runtime/errors.ts";
import { makeWorld, podManifest, type World } from "./fixture.ts";

function resources(cpu: string, memory: string): ResourceRequirements {
  return { requests: { cpu, memory }, limits: { cpu, memory } };
}

function manifest(wanted: ResourceRequirements, restart = false): Pod {
  return podManifest("web", {
    containers: [
      {
        name: "web",
        image: "app:1",
        imagePullPolicy: "IfNotPresent",
        resources: wanted,
        ...(restart
          ? { resizePolicy: [{ resourceName: "memory", restartPolicy: "RestartContainer" }] }
          : {}),
      },
    ],
  });
}

/** What a client does by way of the resize subresource. */
function resize(world: World, wanted: ResourceRequirements): void {
  const pod = world.pod("web");
  assert(pod?.spec !== undefined);
  const containers = pod.spec.containers.map((container) => ({ ...container, resources: wanted }));
  world.api.put<Pod>(PODS, {
    ...pod,
    metadata: { ...pod.metadata, generation: (pod.metadata.generation ?? 0) + 1 },
    spec: { ...pod.spec, containers },
  });
}

function statusOf(world: World): { readonly restarts: number; readonly cpu: unknown } {
  const [status] = world.pod("web")?.status?.containerStatuses ?? [];
  return { restarts: status?.restartCount ?? -1, cpu: status?.resources?.limits?.["cpu"] };
}

function condition(
  world: World,
  type: string,
): { readonly reason: string; readonly message: string } | undefined {
  const found = world.pod("web")?.status?.conditions?.find((one) => one.type === type);
  if (found === undefined) return undefined;
  return { reason: found.reason ?? "", message: found.message ?? "" };
}

function isReady(world: World): boolean {
  return world.pod("web")?.status?.containerStatuses?.[0]?.ready === true;
}

function running(world: World): { readonly cpuQuotaMicros: number; readonly memory: number } {
  const found = [...world.runtime.containers.values()].find(
    ({ state }) => state.kind === "running",
  );
  assert(found !== undefined);
  return { cpuQuotaMicros: found.limits.cpuQuotaMicros, memory: found.limits.memoryLimitBytes };
}

async function inWorld(work: (world: World) => Promise<void>): Promise<void> {
  const world = await makeWorld();
  try {
    await work(world);
  } finally {
    await world.close();
  }
}

test("a resize reaches the running container without a restart", () =>
  inWorld(async (world) => {
    world.start();
    world.api.put(PODS, manifest(resources("100m", "64Mi")));
    await world.until("ready", () => isReady(world));
    resize(world, resources("200m", "128Mi"));
    await world.until("resized", () => statusOf(world).cpu === "200m");
    assert.deepEqual(running(world), { cpuQuotaMicros: 20_000, memory: 128 * 1024 * 1024 });
    assert.equal(statusOf(world).restarts, 0);
    assert.equal(world.runtime.starts.get("web"), 1);
    await world.until("told", () =>
      world.events.some(({ reason }) => reason === "ResizeCompleted"),
    );
    assert.equal(condition(world, "PodResizeInProgress"), undefined);
    assert.equal(world.runtime.calls.filter((call) => call === "updateContainer web").length, 1);
  }));

test("a resize restarts the container where its policy for that resource says so", () =>
  inWorld(async (world) => {
    world.start();
    world.api.put(PODS, manifest(resources("100m", "64Mi"), true));
    await world.until("ready", () => isReady(world));
    resize(world, resources("100m", "128Mi"));
    await world.until("restarted", () => statusOf(world).restarts === 1 && isReady(world));
    assert.equal(running(world).memory, 128 * 1024 * 1024);
    assert(!world.runtime.calls.includes("updateContainer web"));
  }));

test("a resize reaches an init container that runs, and the next ones as they start", () =>
  inWorld(async (world) => {
    const sized = (cpu: string) => {
      const own = { image: "app:1", imagePullPolicy: "IfNotPresent" as const };
      const { requests, limits } = resources(cpu, "64Mi");
      return ["one", "two"].map((name) => ({ name, ...own, resources: { requests, limits } }));
    };
    world.start();
    const base = manifest(resources("100m", "64Mi"));
    assert(base.spec !== undefined);
    world.api.put(PODS, { ...base, spec: { ...base.spec, initContainers: sized("100m") } });
    const init = (at: number) => world.pod("web")?.status?.initContainerStatuses?.[at];
    await world.until("runs", () => init(0)?.state?.running !== undefined);
    const pod = world.pod("web");
    assert(pod?.spec !== undefined);
    world.api.put<Pod>(PODS, {
      ...pod,
      metadata: { ...pod.metadata, generation: 2 },
      spec: { ...pod.spec, initContainers: sized("200m") },
    });
    await world.until("resized", () => init(0)?.resources?.limits?.["cpu"] === "200m");
    assert.equal(running(world).cpuQuotaMicros, 20_000);
    assert.equal(world.runtime.starts.get("one"), 1);
    world.runtime.exit("one", 0);
    await world.until("next", () => world.runtime.starts.get("two") === 1);
    assert.equal(running(world).cpuQuotaMicros, 20_000);
    const updates = world.runtime.calls.filter((call) => call.startsWith("updateContainer"));
    assert.deepEqual(updates, ["updateContainer one"]);
  }));

test("a resize that the node cannot hold is Infeasible and changes nothing", () =>
  inWorld(async (world) => {
    world.start();
    world.api.put(PODS, manifest(resources("100m", "64Mi")));
    await world.until("ready", () => isReady(world));
    resize(world, resources("5", "64Mi"));
    const pending = await world.until("pending", () => condition(world, "PodResizePending"));
    assert.deepEqual(pending, {
      reason: "Infeasible",
      message: "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000",
    });
    assert.equal(running(world).cpuQuotaMicros, 10_000);
    assert.equal(statusOf(world).cpu, "100m");
    resize(world, resources("150m", "64Mi"));
    await world.until("resized", () => statusOf(world).cpu === "150m");
    await world.until("no more", () => condition(world, "PodResizePending") === undefined);
  }));

test("a resize that fits the node but not beside the other pods is Deferred", () =>
  inWorld(async (world) => {
    world.start();
    const other = manifest(resources("3", "64Mi"));
    world.api.put(PODS, { ...other, metadata: { ...other.metadata, name: "other" } });
    world.api.put(PODS, manifest(resources("100m", "64Mi")));
    await world.until("ready", () => isReady(world));
    resize(world, resources("2", "64Mi"));
    const pending = await world.until("pending", () => condition(world, "PodResizePending"));
    assert.equal(pending.reason, "Deferred");
  }));

test("a resize that the runtime refuses shows its error and the old resources", () =>
  inWorld(async (world) => {
    world.start();
    world.api.put(PODS, manifest(resources("100m", "64Mi")));
    await world.until("ready", () => isReady(world));
    world.runtime.fail = (call) => {
      if (call.startsWith("updateContainer")) throw new RuntimeError("WrongState", "too small");
    };
    resize(world, resources("200m", "32Mi"));
    await world.until("error", () => condition(world, "PodResizeInProgress")?.reason === "Error");
    assert.equal(condition(world, "PodResizeInProgress")?.message, "too small");
    assert.equal(statusOf(world).cpu, "100m");
    assert.equal(statusOf(world).restarts, 0);
  }));

describe("a resize of the pod as a whole", () => {
  const whole = (world: World, memory: string): void => {
    const pod = world.pod("web");
    assert(pod?.spec !== undefined);
    world.api.put<Pod>(PODS, {
      ...pod,
      metadata: { ...pod.metadata, generation: (pod.metadata.generation ?? 0) + 1 },
      spec: { ...pod.spec, resources: { requests: { memory: "32Mi" }, limits: { memory } } },
    });
  };
  const started = async (world: World): Promise<string> => {
    const own = { requests: { memory: "32Mi" }, limits: { memory: "64Mi" } };
    world.start();
    const base = manifest(own);
    assert(base.spec !== undefined);
    world.api.put(PODS, {
      ...base,
      spec: { ...base.spec, resources: { ...own, limits: { memory: "128Mi" } } },
    });
    await world.until("ready", () => isReady(world));
    return world.pod("web")?.metadata.uid ?? "";
  };
  const limit = (world: World, uid: string): number | undefined =>
    [...world.cgroups].find(([path]) => path.endsWith(`pod${uid}`))?.[1].memoryLimitBytes;
  const count = (world: World, reason: string): number =>
    world.events.filter((event) => event.reason === reason).length;

  test("reaches its cgroup, and is told when it has", () =>
    inWorld(async (world) => {
      const uid = await started(world);
      assert.equal(limit(world, uid), 128 * 1024 * 1024);
      assert.equal(count(world, "ResizeCompleted"), 0);
      whole(world, "256Mi");
      await world.until("told", () => count(world, "ResizeCompleted") === 1);
      assert.equal(limit(world, uid), 256 * 1024 * 1024);
      await world.until(
        "shown",
        () => world.pod("web")?.status?.resources?.limits?.["memory"] === "256Mi",
      );
      await world.until("over", () => condition(world, "PodResizeInProgress") === undefined);
      assert.equal(world.runtime.starts.get("web"), 1);
    }));

  test("that is below what is in use is refused until there is room", () =>
    inWorld(async (world) => {
      const mib = 1024 * 1024;
      const uid = await started(world);
      world.memoryUsage = (path) => (/pod[^/]*$/.test(path) ? 100 * mib : undefined);
      whole(world, "80Mi");
      await world.until("error", () => condition(world, "PodResizeInProgress")?.reason === "Error");
      const { message } = condition(world, "PodResizeInProgress") ?? {};
      assert.equal(
        message,
        `attempting to set pod memory limit (${80 * mib}) below current usage (${100 * mib})`,
      );
      assert.equal(limit(world, uid), 128 * mib);
      whole(world, "112Mi");
      await world.until("resized", () => limit(world, uid) === 112 * mib);
      await world.until("over", () => condition(world, "PodResizeInProgress") === undefined);
    }));

  test("that the kernel refuses shows why until it is taken back", () =>
    inWorld(async (world) => {
      await started(world);
      world.onCgroup = () => {
        throw new CgroupError("a limit below what is in use");
      };
      whole(world, "16Mi");
      await world.until("error", () => condition(world, "PodResizeInProgress")?.reason === "Error");
      const { message } = condition(world, "PodResizeInProgress") ?? {};
      assert.equal(message, "a limit below what is in use");
      assert.equal(count(world, "ResizeError"), 1);
      assert.equal(count(world, "ResizeCompleted"), 0);
      world.onCgroup = () => undefined;
      whole(world, "128Mi");
      await world.until("well", () => condition(world, "PodResizeInProgress") === undefined);
    }));
});

test("a resize of a container in its crash loop starts it at once: that may have mended it", () =>
  inWorld(async (world) => {
    world.runtime.program = ({ resources: { memoryLimitBytes } }) =>
      memoryLimitBytes < 100 * 1024 * 1024 ? { exitCode: 137 } : undefined;
    world.start();
    world.api.put(PODS, manifest(resources("100m", "64Mi")));
    const waiting = (): boolean =>
      world.pod("web")?.status?.containerStatuses?.[0]?.state?.waiting?.reason ===
      "CrashLoopBackOff";
    await world.until("crash loop", () => world.runtime.starts.get("web") === 2 && waiting());
    resize(world, resources("100m", "128Mi"));
    await world.until("ready", () => isReady(world));
    assert.equal(world.runtime.starts.get("web"), 3);
    assert.equal(statusOf(world).restarts, 2);
  }));

test("a memory limit below what is in use is refused until there is room", () =>
  inWorld(async (world) => {
    const mib = 1024 * 1024;
    world.start();
    world.api.put(PODS, manifest(resources("100m", "64Mi")));
    await world.until("ready", () => isReady(world));
    world.memoryUsage = (path) => (/pod[^/]*$/.test(path) ? undefined : 40 * mib);
    resize(world, resources("100m", "32Mi"));
    await world.until("error", () => condition(world, "PodResizeInProgress")?.reason === "Error");
    assert.equal(
      condition(world, "PodResizeInProgress")?.message,
      `attempting to set container "web" memory limit (${32 * mib}) below current usage (${40 * mib})`,
    );
    assert(!world.runtime.calls.includes("updateContainer web"));
    resize(world, resources("100m", "48Mi"));
    await world.until("resized", () => running(world).memory === 48 * mib);
    resize(world, resources("100m", "96Mi"));
    await world.until("wider", () => running(world).memory === 96 * mib);
    assert.equal(world.runtime.starts.get("web"), 1);
  }));

test("a crash while a resize is applied is mended by the next start", () =>
  inWorld(async (world) => {
    const crash = new Error("crashed");
    const first = world.start({
      step: (name) => {
        if (name === "updateContainer") throw crash;
      },
    });
    world.api.put(PODS, manifest(resources("100m", "64Mi")));
    await world.until("ready", () => isReady(world));
    resize(world, resources("200m", "64Mi"));
    await world.until("started", () =>
      world.events.some(({ reason }) => reason === "ResizeStarted"),
    );
    await first.stop();
    world.start();
    await world.until("resized", () => statusOf(world).cpu === "200m");
    assert.equal(running(world).cpuQuotaMicros, 20_000);
    assert.equal(world.runtime.starts.get("web"), 1);
  }));

import assert from "node:assert/strict";
import { test } from "node:test";

import { CONFIG_MAPS, PODS, RUNTIME_CLASSES } from "../../../src/api/resources.ts";
import type { Pod } from "../../../src/api/types.gen.ts";
import { RuntimeClasses } from "../../../src/kubelet/objects/runtime-classes.ts";
import { makeWorld, podManifest, type World } from "./fixture.ts";

async function withWorld(work: (world: World) => Promise<void>): Promise<void> {
  const world = await makeWorld();
  try {
    await work(world);
  } finally {
    await world.close();
  }
}

function condition(world: World, name: string, type: string): string | undefined {
  return world.pod(name)?.status?.conditions?.find((candidate) => candidate.type === type)?.status;
}

test("a pod becomes Running and Ready with its address, and its deletion leaves nothing", async () => {
  await withWorld(async (world) => {
    world.start();
    world.api.put(PODS, podManifest("web"));
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    const status = world.pod("web")?.status;
    assert.equal(status?.phase, "Running");
    assert.equal(status?.podIP, "10.244.0.2");
    assert.equal(status?.hostIP, "192.0.2.10");
    assert.equal(status?.qosClass, "BestEffort");
    const [container] = status?.containerStatuses ?? [];
    assert.equal(container?.restartCount, 0);
    assert.match(container?.containerID ?? "", /^docker:\/\/container-/);
    assert.match(container?.imageID ?? "", /^docker-pullable:\/\/app@sha256:/);
    const reasons = world.events.map(({ reason }) => reason);
    assert.deepEqual(reasons, ["Pulled", "Created", "Started"]);

    world.deletePod("web");
    await world.until("gone", () => world.pod("web") === undefined);
    assert.equal(world.runtime.containers.size, 0);
    assert.equal(world.runtime.sandboxes.size, 0);
    assert.equal(world.network.leases.size, 0);
    assert.equal(world.mounter.mounted.size, 0);
    assert.deepEqual(await world.podDirectories(), []);
    assert.equal(world.removedCgroups.length, 1);
  });
});

test("a status write clears the reason of a condition that has become True", async () => {
  await withWorld(async (world) => {
    world.start();
    world.api.put(PODS, podManifest("web"));
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    for (const { type, reason, message } of world.pod("web")?.status?.conditions ?? []) {
      assert.equal(reason ?? undefined, undefined, type);
      assert.equal(message ?? undefined, undefined, type);
    }
  });
});

test("a container that crashes restarts at once, then waits in CrashLoopBackOff", async () => {
  await withWorld(async (world) => {
    world.start();
    world.api.put(PODS, podManifest("web"));
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    world.runtime.exit("web", 1);
    await world.until("restarted", () => world.runtime.starts.get("web") === 2);
    await world.until(
      "counted",
      () => world.pod("web")?.status?.containerStatuses?.[0]?.restartCount === 1,
    );
    world.runtime.exit("web", 2);
    const status = await world.until("waiting", () => {
      const found = world.pod("web")?.status?.containerStatuses?.[0];
      return found?.state?.waiting === undefined ? undefined : found;
    });
    assert.equal(status.state?.waiting?.reason, "CrashLoopBackOff");
    const uid = world.pod("web")?.metadata.uid ?? "";
    assert.equal(
      status.state?.waiting?.message,
      `back-off 10s restarting failed container=web pod=web_default(${uid})`,
    );
    assert.equal(status.lastState?.terminated?.exitCode, 2);
    assert.equal(world.pod("web")?.status?.phase, "Running");
    assert(world.events.some(({ reason }) => reason === "BackOff"));
  });
});

test("a pod that runs to its end is Succeeded, keeps its container, and gives its network back", async () => {
  await withWorld(async (world) => {
    world.runtime.program = () => ({ exitCode: 0 });
    world.start();
    world.api.put(PODS, podManifest("job", { restartPolicy: "Never" }));
    await world.until("succeeded", () => world.pod("job")?.status?.phase === "Succeeded");
    await world.until("network down", () => world.network.leases.size === 0);
    assert.equal(world.runtime.containers.size, 1);
    const terminated = world.pod("job")?.status?.containerStatuses?.[0]?.state?.terminated;
    assert.equal(terminated?.reason, "Completed");
    assert.equal(condition(world, "job", "Ready"), "False");
    assert.equal(world.runtime.starts.get("web"), 1);
  });
});

test("the terminal status with exit codes is visible before the object goes", async () => {
  await withWorld(async (world) => {
    world.start();
    world.api.put(PODS, podManifest("web"));
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    world.deletePod("web");
    await world.until("gone", () => world.pod("web") === undefined);
    const writes = world.api.requests.filter(({ path }) => path.includes("/pods/web"));
    const last = writes.findLastIndex(({ method }) => method === "PATCH");
    const removal = writes.findIndex(({ method }) => method === "DELETE");
    assert(last >= 0 && last < removal);
    const bodies = writes.slice(0, removal).map(({ body }) => JSON.stringify(body));
    assert(bodies.some((body) => /"phase":"Failed"/.test(body) && /"exitCode":143/.test(body)));
    assert.match(JSON.stringify(writes[removal]?.body), /"gracePeriodSeconds":0/);
    assert.match(JSON.stringify(writes[removal]?.body), /"preconditions":\{"uid":/);
  });
});

test("a missing image shows ErrImagePull, then ImagePullBackOff, and its events", async () => {
  await withWorld(async (world) => {
    world.start();
    const containers = [{ name: "web", image: "nowhere/app:1" }];
    world.api.put(PODS, podManifest("web", { containers }));
    const waiting = await world.until(
      "waiting",
      () =>
        world.pod("web")?.status?.containerStatuses?.[0]?.state?.waiting?.reason !==
          "ContainerCreating" && world.pod("web")?.status?.containerStatuses?.[0]?.state?.waiting,
    );
    assert.equal(waiting.reason, "ErrImagePull");
    assert.match(waiting.message ?? "", /manifest for nowhere\/app:1 not found/);
    const seen = world.events.map(({ reason, message }) => `${reason}: ${message}`);
    assert(seen.includes('Pulling: Pulling image "nowhere/app:1"'));
    assert(seen.includes("Failed: Error: ErrImagePull"));
    world.deletePod("web");
    await world.until("gone", () => world.pod("web") === undefined);
  });
});

test("an image name that is none is refused with InvalidImageName", async () => {
  await withWorld(async (world) => {
    world.start();
    world.api.put(
      PODS,
      podManifest("web", { containers: [{ name: "web", image: "NOT an image" }] }),
    );
    await world.until(
      "refused",
      () =>
        world.pod("web")?.status?.containerStatuses?.[0]?.state?.waiting?.reason ===
        "InvalidImageName",
    );
  });
});

test("a pod that the node cannot honour fails with the reason and starts nothing", async () => {
  await withWorld(async (world) => {
    world.start();
    world.api.put(PODS, podManifest("web", { hostUsers: false }));
    await world.until("failed", () => world.pod("web")?.status?.phase === "Failed");
    const status = world.pod("web")?.status;
    assert.equal(status?.reason, "PodFeatureUnsupported");
    assert.match(status?.message ?? "", /^Pod was rejected: spec\.hostUsers: false/);
    assert.deepEqual(world.runtime.calls, []);
  });
});

test("a volume of a type that the node lacks keeps the pod Pending with a FailedMount event", async () => {
  await withWorld(async (world) => {
    world.start();
    const volumes = [{ name: "data", flexVolume: { driver: "example.com/x" } }];
    const volumeMounts = [{ name: "data", mountPath: "/data" }];
    const containers = [{ name: "web", image: "app:1", volumeMounts }];
    world.api.put(PODS, podManifest("web", { containers, volumes }));
    const event = await world.until("event", () =>
      world.events.find(({ reason }) => reason === "FailedMount"),
    );
    assert.equal(
      event.message,
      'MountVolume.SetUp failed for volume "data" : no volume plugin matched: flexVolume drivers are not run by this node, use a CSI driver',
    );
    assert.equal(world.pod("web")?.status?.phase, "Pending");
  });
});

test("what the runtime holds of a pod that the API does not know is removed", async () => {
  await withWorld(async (world) => {
    const first = world.start();
    world.api.put(PODS, podManifest("web"));
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    await first.stop();
    world.api.remove(PODS, "default/web");
    world.start();
    await world.until("removed", () => world.runtime.sandboxes.size === 0);
    assert.equal(world.runtime.containers.size, 0);
    await world.until("lease freed", () => world.network.leases.size === 0);
  });
});

test("a lost sandbox is made anew with everything in it, and counts as a restart", async () => {
  await withWorld(async (world) => {
    world.start();
    world.api.put(PODS, podManifest("web"));
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    world.runtime.killSandbox();
    await world.until("started again", () => world.runtime.starts.get("web") === 2);
    await world.until(
      "ready again",
      () =>
        condition(world, "web", "Ready") === "True" &&
        world.pod("web")?.status?.containerStatuses?.[0]?.restartCount === 1,
    );
    assert(world.events.some(({ reason }) => reason === "SandboxChanged"));
  });
});

test("an exit that asks for it restarts all containers in place: same sandbox, counts go on", async () => {
  await withWorld(async (world) => {
    world.start();
    const rule = {
      action: "RestartAllContainers",
      exitCodes: { operator: "In", values: [42] },
    };
    world.api.put(
      PODS,
      podManifest("web", {
        restartPolicy: "Never",
        initContainers: [{ name: "side", image: "app:1", restartPolicy: "Always" }],
        containers: [
          { name: "web", image: "app:1", restartPolicy: "Never", restartPolicyRules: [rule] },
          { name: "other", image: "app:1" },
        ],
      }),
    );
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    assert.equal(condition(world, "web", "AllContainersRestarting"), "False");
    world.runtime.exit("web", 42);
    await world.until("all started again", () =>
      ["web", "other", "side"].every((name) => world.runtime.starts.get(name) === 2),
    );
    const status = await world.until("ready again", () =>
      condition(world, "web", "Ready") === "True" &&
      condition(world, "web", "AllContainersRestarting") === "False"
        ? world.pod("web")?.status
        : undefined,
    );
    const all = [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])];
    assert.deepEqual(
      all.map(({ name, restartCount, lastState }) => [
        name,
        restartCount,
        lastState?.terminated?.reason,
      ]),
      ["side", "other", "web"].map((name) => [name, 1, "RestartingAllContainers"]),
    );
    assert.equal(status.phase, "Running");
    assert.equal(condition(world, "web", "Initialized"), "True");
    assert.equal(world.runtime.calls.filter((call) => call.startsWith("runPodSandbox")).length, 1);
  });
});

test("a successor of the same name waits until its predecessor is gone", async () => {
  await withWorld(async (world) => {
    world.start();
    world.api.put(PODS, podManifest("web"));
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    const old = world.pod("web")?.metadata.uid;
    world.api.remove(PODS, "default/web");
    world.api.put(PODS, podManifest("web"));
    await world.until(
      "ready",
      () => world.pod("web")?.metadata.uid !== old && condition(world, "web", "Ready") === "True",
    );
    await world.until("old removed", () => world.runtime.sandboxes.size === 1);
    const stop = world.runtime.calls.findIndex((call) => call.startsWith("stopContainer web"));
    const start = world.runtime.calls.lastIndexOf("startContainer web 0");
    assert(stop >= 0 && stop < start);
  });
});

test("a readiness probe decides about Ready, a liveness probe restarts", async () => {
  await withWorld(async (world) => {
    let healthy = true;
    let ready = false;
    world.runtime.onExec = (_, command) => ({
      exitCode: (command[0] === "ready" ? ready : healthy) ? 0 : 1,
    });
    world.start();
    const probe = (word: string): Record<string, unknown> => ({
      exec: { command: [word] },
      periodSeconds: 1,
      failureThreshold: 1,
    });
    world.api.put(
      PODS,
      podManifest("web", {
        containers: [
          {
            name: "web",
            image: "app:1",
            readinessProbe: probe("ready"),
            livenessProbe: probe("alive"),
          },
        ],
      }),
    );
    await world.until("unready", () => world.events.some(({ reason }) => reason === "Unhealthy"));
    await world.until("running", () => world.pod("web")?.status?.phase === "Running");
    assert.equal(condition(world, "web", "Ready"), "False");
    ready = true;
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    healthy = false;
    await world.until("killed", () =>
      world.events.some(
        ({ message }) => message === "Container web failed liveness probe, will be restarted",
      ),
    );
    healthy = true;
    await world.until("restarted", () => world.runtime.starts.get("web") === 2);
  });
});

test("a new image restarts a container that runs once, and the pod never looks as if it had ended", async () => {
  await withWorld(async (world) => {
    world.start();
    world.runtime.addImage("app:2");
    world.api.put(PODS, podManifest("web", { restartPolicy: "Never" }));
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    const pod = world.pod("web");
    assert(pod !== undefined);
    world.api.put(PODS, {
      ...pod,
      metadata: { ...pod.metadata, generation: 2 },
      spec: { ...pod.spec, containers: [{ name: "web", image: "app:2" }] },
    });
    const status = await world.until("restarted", () => {
      const found = world.pod("web")?.status;
      const [container] = found?.containerStatuses ?? [];
      return container?.restartCount === 1 && condition(world, "web", "Ready") === "True"
        ? found
        : undefined;
    });
    assert.equal(status.containerStatuses?.[0]?.lastState?.terminated?.exitCode, 143);
    assert.equal(status.observedGeneration, 2);
    const texts = world.events.map(({ message }) => message);
    assert(texts.includes("Container web definition changed, will be restarted"));
    const writes = world.api.requests.filter(({ method }) => method === "PATCH");
    for (const { body } of writes) {
      assert.doesNotMatch(JSON.stringify(body), /"phase":"(Failed|Succeeded)"/);
    }
  });
});

test("a container that obeys after a failed liveness probe is restarted under OnFailure, too", async () => {
  await withWorld(async (world) => {
    const failing = new Set<string>();
    world.runtime.onExec = (id) => ({ exitCode: failing.has(id) ? 1 : 0 });
    world.runtime.stopExitCode = 0;
    world.start();
    const livenessProbe = { exec: { command: ["alive"] }, periodSeconds: 1, failureThreshold: 1 };
    const containers = [{ name: "web", image: "app:1", livenessProbe }];
    world.api.put(PODS, podManifest("web", { restartPolicy: "OnFailure", containers }));
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    for (const id of world.runtime.containers.keys()) failing.add(id);
    await world.until("restarted", () => world.runtime.starts.get("web") === 2);
    const status = await world.until("ready again", () => {
      const [found] = world.pod("web")?.status?.containerStatuses ?? [];
      return found?.restartCount === 1 && found.ready ? found : undefined;
    });
    assert.equal(status.lastState?.terminated?.exitCode, 0);
    assert.equal(world.pod("web")?.status?.phase, "Running");
  });
});

test("sidecars stop after the regular containers, in reverse order", async () => {
  await withWorld(async (world) => {
    world.start();
    const sidecar = (name: string): NonNullable<Pod["spec"]>["containers"][number] => ({
      name,
      image: "app:1",
      restartPolicy: "Always",
    });
    world.api.put(PODS, podManifest("web", { initContainers: [sidecar("one"), sidecar("two")] }));
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    world.deletePod("web");
    await world.until("gone", () => world.pod("web") === undefined);
    const stops = world.runtime.calls.filter((call) => call.startsWith("stopContainer"));
    assert.deepEqual(
      stops.map((call) => call.split(" ")[1]),
      ["web", "two", "one"],
    );
  });
});

test("a container whose environment names a missing ConfigMap waits, and starts once it is there", async () => {
  await withWorld(async (world) => {
    world.start();
    const env = [{ name: "A", valueFrom: { configMapKeyRef: { name: "settings", key: "a" } } }];
    world.api.put(PODS, podManifest("web", { containers: [{ name: "web", image: "app:1", env }] }));
    const waiting = await world.until("waiting", () => {
      const state = world.pod("web")?.status?.containerStatuses?.[0]?.state?.waiting;
      return state?.reason === "CreateContainerConfigError" ? state : undefined;
    });
    assert.equal(waiting.message, 'configmap "settings" not found');
    world.api.put(CONFIG_MAPS, {
      metadata: { name: "settings", namespace: "default" },
      data: { a: "1" },
    });
    await world.until("ready", () => condition(world, "web", "Ready") === "True");
    const [container] = world.runtime.containers.values();
    assert.deepEqual(
      container?.config.env.find(({ name }) => name === "A"),
      { name: "A", value: "1" },
    );
  });
});

test("a pod's RuntimeClass gives its sandbox the handler", async () => {
  await withWorld(async (world) => {
    world.api.put(RUNTIME_CLASSES, { metadata: { name: "sandboxed" }, handler: "runsc" });
    world.start();
    world.api.put(PODS, podManifest("safe", { runtimeClassName: "sandboxed" }));
    world.api.put(PODS, podManifest("plain"));
    await world.until(
      "both ready",
      () =>
        condition(world, "safe", "Ready") === "True" &&
        condition(world, "plain", "Ready") === "True",
    );
    const handlers = [...world.runtime.sandboxes.values()].map(({ config }) => [
      config.metadata.name,
      config.runtimeHandler,
    ]);
    assert.deepEqual(Object.fromEntries(handlers), { safe: "runsc", plain: "" });
  });
});

test("a pod with an unknown RuntimeClass waits and says so, without a sandbox", async () => {
  await withWorld(async (world) => {
    world.start();
    world.api.put(PODS, podManifest("lost", { runtimeClassName: "nowhere" }));
    const event = await world.until("event", () =>
      world.events.find(({ reason }) => reason === "FailedCreatePodSandBox"),
    );
    assert.equal(
      event.message,
      'Failed to create pod sandbox: runtimeclass.node.k8s.io "nowhere" not found',
    );
    assert.equal(event.type, "Warning");
    assert.equal(world.runtime.sandboxes.size, 0);
    assert.equal(world.pod("lost")?.status?.phase, "Pending");
  });
});

test("a RuntimeClass read before serves while the API server refuses to tell it again", async () => {
  await withWorld(async (world) => {
    const classes = new RuntimeClasses(world.api.client);
    const { signal } = new AbortController();
    const refuse = (): void => {
      world.api.inject(({ path }) => path.includes("/runtimeclasses/"), { status: 500 });
    };
    world.api.put(RUNTIME_CLASSES, { metadata: { name: "sandboxed" }, handler: "runsc" });
    refuse();
    await assert.rejects(
      classes.handler("sandboxed", signal),
      /failed to lookup RuntimeClass sandboxed: /,
    );
    assert.equal(await classes.handler("sandboxed", signal), "runsc");
    refuse();
    assert.equal(await classes.handler("sandboxed", signal), "runsc");
    world.api.remove(RUNTIME_CLASSES, "sandboxed");
    await assert.rejects(classes.handler("sandboxed", signal), /not found/);
    assert.equal(await classes.handler("", signal), "");
    assert.equal(await classes.handler(undefined, signal), "");
  });
});

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { PODS } from "../../../src/api/resources.ts";
import type { Container, ContainerStatus, Pod } from "../../../src/api/types.gen.ts";
import { makeWorld, podManifest, type World } from "./fixture.ts";

async function withWorld(work: (world: World) => Promise<void>): Promise<void> {
  const world = await makeWorld();
  try {
    await work(world);
  } finally {
    await world.close();
  }
}

const web: Container = { name: "web", image: "app:1", imagePullPolicy: "IfNotPresent" };
const volumes = [{ name: "v", emptyDir: {} }];

function container(world: World, name: string): ContainerStatus | undefined {
  const status = world.pod("web")?.status;
  return [...(status?.containerStatuses ?? []), ...(status?.ephemeralContainerStatuses ?? [])].find(
    (found) => found.name === name,
  );
}

async function waitingMessage(world: World, name: string): Promise<string | undefined> {
  const { message } = await world.until(`${name} waits`, () => {
    const waiting = container(world, name)?.state?.waiting;
    return waiting?.reason === "CreateContainerConfigError" ? waiting : undefined;
  });
  return message;
}

async function running(world: World, name: string): Promise<ContainerStatus> {
  return world.until(`${name} runs`, () => {
    const found = container(world, name);
    return found?.state?.running === undefined ? undefined : found;
  });
}

const mounts = (recursiveReadOnly: string): Container["volumeMounts"] => [
  { name: "v", mountPath: "/v", readOnly: true, recursiveReadOnly },
];

test("IfPossible is what the runtime can do, in the container and in its status", async () => {
  for (const supported of [true, false]) {
    await withWorld(async (world) => {
      const { runtime } = world;
      const info = await runtime.connect(AbortSignal.timeout(1000));
      runtime.connect = async () => ({
        ...info,
        recursiveReadOnlyHandlers: new Set(supported ? ["", "other"] : ["other"]),
      });
      world.start();
      const containers = [{ ...web, volumeMounts: mounts("IfPossible") }];
      world.api.put(PODS, podManifest("web", { volumes, containers }));
      const { volumeMounts } = await running(world, "web");
      assert.deepEqual(volumeMounts, [
        {
          name: "v",
          mountPath: "/v",
          readOnly: true,
          recursiveReadOnly: supported ? "Enabled" : "Disabled",
        },
      ]);
      const [made] = [...runtime.containers.values()];
      const mount = made?.config.mounts.find(({ containerPath }) => containerPath === "/v");
      assert.equal(mount?.recursiveReadOnly, supported ? true : undefined);
    });
  }
});

test("Enabled keeps the container waiting where the runtime cannot, and no other", async () => {
  await withWorld(async (world) => {
    world.start();
    const containers = [
      { ...web, volumeMounts: mounts("Enabled") },
      { ...web, name: "other" },
    ];
    world.api.put(PODS, podManifest("web", { volumes, containers }));
    const message =
      'failed to resolve recursive read-only mode: volume "v" requested recursive read-only mode, but it is not supported by the runtime';
    assert.equal(await waitingMessage(world, "web"), message);
    await running(world, "other");
    assert.ok(world.events.some((event) => event.message === `Error: ${message}`));
    assert.equal(world.runtime.starts.get("web"), undefined);
  });
});

test("a variable's file that comes late is found without a restart of anything", async () => {
  await withWorld(async (world) => {
    world.start();
    const env = [
      { name: "A", valueFrom: { fileKeyRef: { volumeName: "v", path: "e", key: "A" } } },
    ];
    const manifest = podManifest("web", { volumes, containers: [{ ...web, env }] });
    const { metadata } = world.api.put<Pod>(PODS, manifest);
    assert.equal(await waitingMessage(world, "web"), "couldn't parse env file");
    const volume = join(world.rootDir, "pods", metadata.uid, "volumes/kubernetes.io~empty-dir/v");
    await writeFile(join(volume, "e"), "A='late'\n");
    // Any word about the pod is a reason to look again.
    const pod = world.pod("web");
    assert.ok(pod !== undefined);
    world.api.put<Pod>(PODS, { ...pod, metadata: { ...pod.metadata, annotations: { a: "b" } } });
    await running(world, "web");
    const [made] = [...world.runtime.containers.values()];
    assert.deepEqual(
      made?.config.env.filter(({ name }) => name === "A"),
      [{ name: "A", value: "late" }],
    );
  });
});

test("an ephemeral container whose target never ran waits and says so", async () => {
  await withWorld(async (world) => {
    world.start();
    world.api.put(PODS, podManifest("web", { containers: [web] }));
    await running(world, "web");
    const pod = world.pod("web");
    assert.ok(pod?.spec !== undefined);
    const ephemeral = (name: string, targetContainerName: string): object => ({
      ...web,
      name,
      targetContainerName,
    });
    const ephemeralContainers = [
      ephemeral("lost", "ghost"),
      ephemeral("near", "web"),
    ] as NonNullable<Pod["spec"]>["ephemeralContainers"];
    world.api.put<Pod>(PODS, { ...pod, spec: { ...pod.spec, ephemeralContainers } });
    assert.equal(await waitingMessage(world, "lost"), "unable to find target container ghost");
    await running(world, "near");
    const made = [...world.runtime.containers.values()].find(
      ({ config }) => config.name === "near",
    );
    const target = container(world, "web")?.containerID?.replace("docker://", "");
    assert.equal(made?.config.targetContainerID, target);
  });
});

test("DNS settings beyond the limits are cut, and the pod has an event that says so", async () => {
  await withWorld(async (world) => {
    world.start();
    const nameservers = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    const spec = { dnsPolicy: "None", dnsConfig: { nameservers }, containers: [web] } as const;
    world.api.put(PODS, podManifest("web", { ...spec, containers: [web] }));
    await running(world, "web");
    const event = world.events.find(({ reason }) => reason === "DNSConfigForming");
    assert.equal(event?.type, "Warning");
    assert.match(
      event.message,
      /applied nameserver line is: 192\.0\.2\.1 192\.0\.2\.2 192\.0\.2\.3$/,
    );
  });
});

test("one bind for each path: a volume's before the pod's own files, the last words before a volume's", async () => {
  await withWorld(async (world) => {
    world.start();
    const volumeMounts = ["/etc//hosts/", "words/"].map((mountPath) => ({ name: "v", mountPath }));
    const containers = [{ ...web, volumeMounts, terminationMessagePath: "/words" }];
    world.api.put(PODS, podManifest("web", { volumes, containers }));
    await running(world, "web");
    const [made] = [...world.runtime.containers.values()];
    const binds = (made?.config.mounts ?? []).map(
      ({ containerPath, hostPath }) =>
        [containerPath, /empty-dir|containers\/web|etc-hosts/.exec(hostPath)?.[0] ?? ""] as const,
    );
    assert.deepEqual(
      binds.filter(([, from]) => from !== ""),
      [
        ["/etc/hosts", "empty-dir"],
        ["/words", "containers/web"],
      ],
    );
  });
});

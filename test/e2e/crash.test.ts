import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { STEP_NAMES, type StepName } from "../../src/kubelet/steps.ts";
import { eventually, Machine, type MachineProcess } from "./lib/machine.ts";
import { cannotRun, ownContainers, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();

const manifest = JSON.stringify({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "crash" },
  spec: {
    terminationGracePeriodSeconds: 2,
    containers: ["a", "b"].map((name) => ({
      name,
      image: "docker.io/library/busybox:1.36",
      command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"],
      volumeMounts: [
        { name: "scratch", mountPath: "/scratch" },
        { name: "scratch", mountPath: "/part", subPath: `part/${name}` },
      ],
    })),
    volumes: [{ name: "scratch", emptyDir: {} }],
  },
});

const deletionSteps: readonly StepName[] = [
  "stopContainer",
  "tearDownNetwork",
  "stopPodSandbox",
  "removeContainer",
  "removePodSandbox",
  "tearDownVolume",
  "unmountVolume",
  "removeVolume",
  "removePodDirectories",
  "deletePodObject",
];
/**
 * Image pulls need an image that is absent, updates a resize, ownership a claim and a group; component tests with the
 * fake runtime crash there.
 */
const elsewhere: readonly StepName[] = ["pullImage", "updateContainer", "applyOwnership"];
const startSteps = STEP_NAMES.filter(
  (name) => !deletionSteps.includes(name) && !elsewhere.includes(name),
);

async function podIsRight(machine: Machine): Promise<true | undefined> {
  const { stdout } = await machine.kubectl(["get", "pod", "crash", "-o", "json"]);
  const pod = JSON.parse(stdout) as {
    status: { phase: string; containerStatuses?: { ready: boolean; containerID?: string }[] };
  };
  const statuses = pod.status.containerStatuses ?? [];
  if (
    pod.status.phase !== "Running" ||
    statuses.length !== 2 ||
    statuses.some((status) => !status.ready)
  ) {
    return undefined;
  }
  const running = [...(await ownContainers(machine))].filter(([name]) => name.endsWith(" running"));
  // One sandbox, one of each container, and the ids in the status are the ones that run.
  if (running.length !== 3) return undefined;
  const ids = new Set(running.map(([, id]) => `docker://${id}`));
  return statuses.every((status) => ids.has(status.containerID ?? "")) ? true : undefined;
}

async function describePod(machine: Machine, remora: MachineProcess): Promise<string> {
  const described = await machine.kubectl(["describe", "pod", "crash"], { allowFailure: true });
  return `${described.stdout}\n${[...(await ownContainers(machine)).keys()].join("\n")}\n${remora.output()}`;
}

describe("kill -9 at every step", { skip: skip ?? false }, () => {
  test("of starting and of deleting a pod: afterwards there is exactly one right pod, or none", async () => {
    await using machine = await Machine.start("crash");
    await machine.loadBusybox();
    let remora = await remoraUp(machine);

    const restartWith = async (crashAt: StepName | undefined): Promise<void> => {
      await remora.signal("TERM");
      await remora.exited;
      remora = await remoraUp(machine, crashAt === undefined ? {} : { REMORA_CRASH_AT: crashAt });
    };
    const crashesThenRecovers = async (step: StepName): Promise<void> => {
      const code = await Promise.race([
        remora.exited,
        new Promise<undefined>((resolve) => setTimeout(resolve, 40_000, undefined).unref()),
      ]);
      assert.notEqual(
        code,
        undefined,
        `never reached ${step}\n${await describePod(machine, remora)}`,
      );
      remora = await remoraUp(machine);
    };

    for (const step of startSteps) {
      await restartWith(step);
      await machine.kubectl(["create", "-f", "-"], { stdin: manifest });
      await crashesThenRecovers(step);
      await eventually(() => podIsRight(machine), {
        timeoutMs: 60_000,
        describe: async () => `after a crash at ${step}: ${await describePod(machine, remora)}`,
      });
      await machine.kubectl(["delete", "pod", "crash"]);
    }
    for (const step of deletionSteps) {
      await machine.kubectl(["create", "-f", "-"], { stdin: manifest });
      await eventually(() => podIsRight(machine), {
        timeoutMs: 60_000,
        describe: async () => `before the crash at ${step}: ${await describePod(machine, remora)}`,
      });
      await restartWith(step);
      await machine.kubectl(["delete", "pod", "crash", "--wait=false"]);
      await crashesThenRecovers(step);
      await eventually(
        async () => {
          const { stdout } = await machine.kubectl(["get", "pods", "-o", "name"]);
          return stdout === "" && (await ownContainers(machine)).size === 0 ? true : undefined;
        },
        {
          timeoutMs: 60_000,
          describe: async () => `after a crash at ${step}: ${await describePod(machine, remora)}`,
        },
      );
    }
    await remora.signal("TERM");
    await remora.exited;
    assert.match(await remoraDown(machine), /nothing is left/);
  });
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { eventually, Machine, type MachineProcess, root } from "./lib/machine.ts";
import { cannotRun, ownContainers, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const get = String.raw`printf 'GET / HTTP/1.0\r\n\r\n' | busybox nc -w 3`;

interface PodItem {
  readonly metadata: { readonly name: string };
  readonly status: {
    readonly phase: string;
    readonly containerStatuses?: readonly {
      readonly ready: boolean;
      readonly restartCount: number;
    }[];
  };
}

async function pods(machine: Machine): Promise<readonly PodItem[]> {
  const { stdout } = await machine.kubectl(["get", "pods", "-o", "json"]);
  return (JSON.parse(stdout) as { items: readonly PodItem[] }).items;
}

/** Asks the address until `copies` different pods have answered. */
async function answers(
  ask: () => Promise<string>,
  copies: number,
  where: string,
): Promise<ReadonlySet<string>> {
  const seen = new Set<string>();
  return eventually(
    async () => {
      const match = /hello from (\S+)/.exec(await ask());
      if (match?.[1] !== undefined) seen.add(match[1]);
      return seen.size >= copies ? seen : undefined;
    },
    {
      timeoutMs: 60_000,
      describe: () => `${copies} pods answering ${where}; saw ${[...seen].join(", ")}`,
    },
  );
}

describe("the main job, with stock kubectl", { skip: skip ?? false }, () => {
  test("examples/hello.yaml runs, answers on its virtual IP, survives a restart and leaves nothing", async () => {
    await using machine = await Machine.start("hello");
    await machine.loadBusybox();
    let remora: MachineProcess = await remoraUp(machine);

    await machine.kubectl(["create", "-f", `${root}/examples/hello.yaml`]);
    await eventually(
      async () => {
        const items = await pods(machine);
        const ready = items.filter(
          (pod) => pod.status.containerStatuses?.every((status) => status.ready) === true,
        );
        return items.length === 3 && ready.length === 3 ? true : undefined;
      },
      {
        timeoutMs: 90_000,
        describe: async () =>
          (await machine.kubectl(["describe", "pods"], { allowFailure: true })).stdout +
          remora.output(),
      },
    );
    const vip = (
      await machine.kubectl(["get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}"])
    ).stdout;
    const fromNode = async () =>
      (await machine.exec(["sh", "-c", `${get} ${vip} 80`], { allowFailure: true })).stdout;
    const fromPod = async () =>
      (
        await machine.kubectl(
          ["exec", "pair", "-c", "writer", "--", "sh", "-c", `${get} ${vip} 80`],
          {
            allowFailure: true,
          },
        )
      ).stdout;
    await answers(fromNode, 2, "on the virtual IP from the node");
    await answers(fromPod, 2, "on the virtual IP from a pod");

    // Two containers of one pod share localhost and the emptyDir.
    const shared = await machine.kubectl([
      "exec",
      "pair",
      "-c",
      "writer",
      "--",
      "sh",
      "-c",
      `${get} 127.0.0.1 8081`,
    ]);
    assert.match(shared.stdout, /\d\d:\d\d:\d\d/);
    const one = (await pods(machine)).find((pod) => pod.metadata.name.startsWith("hello-"));
    assert.ok(one !== undefined);
    await machine.kubectl(["logs", one.metadata.name]);

    // Ctrl-C leaves the pods running, the next `up` adopts them.
    const before = await ownContainers(machine);
    await remora.signal("INT");
    assert.equal(await remora.exited, 0, remora.output());
    assert.deepEqual(
      await ownContainers(machine),
      before,
      "stopping the agent touches no container",
    );
    await answers(fromNode, 2, "while no agent runs");
    remora = await remoraUp(machine);
    await answers(fromNode, 2, "after the restart");
    assert.deepEqual(await ownContainers(machine), before, "a restart adopts every container");
    for (const pod of await pods(machine)) {
      for (const status of pod.status.containerStatuses ?? []) assert.equal(status.restartCount, 0);
    }

    // Replacement and scaling.
    await machine.kubectl(["delete", "pod", one.metadata.name]);
    await machine.kubectl(["scale", "rc", "hello", "--replicas=3"]);
    await answers(fromNode, 3, "after one pod was deleted and the controller scaled to three");
    await machine.kubectl(["delete", "-f", `${root}/examples/hello.yaml`]);
    await eventually(async () => ((await ownContainers(machine)).size === 0 ? true : undefined), {
      timeoutMs: 60_000,
      describe: async () => [...(await ownContainers(machine)).keys()].join("\n"),
    });

    await remora.signal("TERM");
    assert.equal(await remora.exited, 0, remora.output());
    const report = await remoraDown(machine);
    assert.match(report, /nothing is left/);
    const left = await machine.exec(
      ["sh", "-c", "nft list tables; ip -br link; find /var/lib/remora /var/log/pods -mindepth 1"],
      {
        allowFailure: true,
      },
    );
    assert.doesNotMatch(left.stdout, /remora/);
  });
});

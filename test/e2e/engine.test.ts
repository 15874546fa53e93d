import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { eventually, Machine, type MachineProcess } from "./lib/machine.ts";
import { cannotRun, ownContainers, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();

interface PodItem {
  readonly metadata: { readonly name: string };
  readonly status: {
    readonly phase: string;
    readonly podIP?: string;
    readonly containerStatuses?: readonly {
      readonly ready: boolean;
      readonly restartCount: number;
      readonly containerID?: string;
    }[];
  };
}

function manifest(name: string, runtimeClassName?: string): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec: {
      runtimeClassName,
      terminationGracePeriodSeconds: 2,
      containers: [
        {
          name: "main",
          image: "docker.io/library/busybox:1.36",
          command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"],
        },
      ],
    },
  });
}

class Cluster {
  readonly machine: Machine;
  readonly remora: MachineProcess;

  constructor(machine: Machine, remora: MachineProcess) {
    this.machine = machine;
    this.remora = remora;
  }

  async create(name: string, runtimeClassName?: string): Promise<void> {
    const stdin = manifest(name, runtimeClassName);
    await this.machine.kubectl(["create", "-f", "-"], { stdin });
  }

  async pod(name: string): Promise<PodItem> {
    const { stdout } = await this.machine.kubectl(["get", "pod", name, "-o", "json"]);
    return JSON.parse(stdout) as PodItem;
  }

  /** Waits until the pod's container is ready and has been restarted so often. */
  async ready(name: string, restartCount: number, timeoutMs?: number): Promise<void> {
    const what = `pod ${name} is ready with ${restartCount} restarts`;
    const check = async (): Promise<boolean> => {
      const { status } = await this.pod(name);
      const [container] = status.containerStatuses ?? [];
      return container?.ready === true && container.restartCount === restartCount;
    };
    await this.eventually(what, check, timeoutMs);
  }

  async nodeReady(): Promise<{ readonly status: string; readonly message: string }> {
    const { stdout } = await this.machine.kubectl(["get", "nodes", "-o", "json"]);
    const { items } = JSON.parse(stdout) as {
      items: { status: { conditions: { type: string; status: string; message: string }[] } }[];
    };
    const ready = items[0]?.status.conditions.find(({ type }) => type === "Ready");
    return ready ?? { status: "missing", message: "" };
  }

  async eventually(what: string, check: () => Promise<boolean>, timeoutMs = 60_000): Promise<void> {
    await eventually(async () => ((await check()) ? true : undefined), {
      timeoutMs,
      describe: async () => {
        const state = await this.machine.kubectl(["describe", "nodes,pods"], {
          allowFailure: true,
        });
        return `${what}\n${state.stdout}\n${this.remora.output()}`;
      },
    });
  }

  async firstForwardRule(): Promise<string> {
    const { stdout } = await this.machine.exec(["iptables", "-S", "FORWARD"]);
    return stdout.split("\n").find((line) => line.startsWith("-A")) ?? "";
  }
}

describe("dockerd dies and comes back", { skip: skip ?? false }, () => {
  test("pods live through it, the node tells of a long absence, and work goes on afterwards", async () => {
    await using machine = await Machine.start("engine");
    await machine.loadBusybox();
    const cluster = new Cluster(machine, await remoraUp(machine));
    const { remora } = cluster;
    await cluster.create("steady");
    await cluster.ready("steady", 0);
    const before = await ownContainers(machine);
    const { podIP } = (await cluster.pod("steady")).status;

    // A restart of seconds: nobody is told, nothing is lost.
    await machine.crashDockerd();
    // What somebody (Docker, at its start) puts before our jump would decide about our packets.
    await machine.exec(["iptables", "-I", "FORWARD", "-j", "DROP"]);
    await machine.startDockerd();
    await cluster.eventually("forwarding is repaired", async () =>
      (await cluster.firstForwardRule()).endsWith("-j REMORA-FORWARD"),
    );
    assert.deepEqual(await ownContainers(machine), before, "the same containers still run");
    await cluster.create("after");
    await cluster.ready("after", 0);
    await cluster.ready("steady", 0);
    assert.equal((await cluster.nodeReady()).status, "True");

    // Events come again: a container that ends is restarted at once, not at the next relist (every 30 s).
    await machine.exec(["sh", "-c", `kill -KILL ${await pidOf(machine, "k8s_main_after_")}`]);
    await cluster.ready("after", 1, 20_000);

    // A long absence.
    const survivors = await ownContainers(machine);
    await machine.crashDockerd();
    await cluster.create("late");
    await machine.kubectl(["delete", "pod", "after", "--wait=false"]);
    await cluster.eventually("the node is not Ready", async () => {
      const ready = await cluster.nodeReady();
      return ready.status === "False" && /container runtime is down/.test(ready.message);
    });
    await machine.startDockerd();
    await cluster.eventually(
      "the node is Ready",
      async () => (await cluster.nodeReady()).status === "True",
      15_000,
    );
    await cluster.ready("late", 0);
    await cluster.ready("steady", 0);
    assert.equal((await cluster.pod("steady")).status.podIP, podIP);
    await cluster.eventually("the deleted pod is gone", async () => {
      const { stdout } = await machine.kubectl(["get", "pods", "-o", "name"]);
      return !stdout.includes("after");
    });
    const now = await ownContainers(machine);
    for (const [name, id] of survivors) {
      if (name.includes("_steady_")) assert.equal(now.get(name), id, `${name} was kept`);
    }

    // Without live-restore the engine ends all containers when it starts; the pods are made anew.
    await machine.crashDockerd();
    await machine.startDockerd(["--bridge=none"]);
    await cluster.ready("steady", 1);
    await cluster.ready("late", 1);

    await machine.kubectl(["delete", "pod", "--all"]);
    await remora.signal("TERM");
    assert.equal(await remora.exited, 0, remora.output());
    assert.match(await remoraDown(machine), /nothing is left/);
  });
});

describe("RuntimeClass", { skip: skip ?? false }, () => {
  test("a pod runs with its class's handler; one whose handler the engine lacks waits and says why", async () => {
    await using machine = await Machine.start("class");
    await machine.loadBusybox();
    const cluster = new Cluster(machine, await remoraUp(machine));
    const { DefaultRuntime } = (await machine.docker("GET", "/info")) as { DefaultRuntime: string };
    const classes = [
      { name: "usual", handler: DefaultRuntime },
      { name: "hollow", handler: "nowhere" },
    ].map(({ name, handler }) => ({
      apiVersion: "node.k8s.io/v1",
      kind: "RuntimeClass",
      metadata: { name },
      handler,
    }));
    for (const one of classes) {
      await machine.kubectl(["create", "-f", "-"], { stdin: JSON.stringify(one) });
    }
    await cluster.create("classed", "usual");
    await cluster.create("plain");
    await assert.rejects(cluster.create("lost", "nobody"), {
      message: /pods "lost" is forbidden: pod rejected: RuntimeClass "nobody" not found/,
    });
    await cluster.create("empty", "hollow");
    await cluster.ready("classed", 0);
    await cluster.ready("plain", 0);
    const handlers: Record<string, string | undefined> = {};
    for (const [name, id] of await ownContainers(machine)) {
      if (!name.startsWith("/k8s_POD_")) continue;
      const { Config } = (await machine.docker("GET", `/containers/${id}/json`)) as {
        Config: { Labels: Record<string, string> };
      };
      const label = Config.Labels["remora.io/runtime-handler"];
      handlers[Config.Labels["io.kubernetes.pod.name"] ?? ""] = label;
    }
    assert.deepEqual(handlers, { classed: DefaultRuntime, plain: undefined });
    const messages = async (): Promise<string> => {
      const fields = "--field-selector=reason=FailedCreatePodSandBox";
      return (await machine.kubectl(["get", "events", fields, "-o", "json"])).stdout;
    };
    const wanted = 'Failed to create pod sandbox: no runtime for \\"nowhere\\" is configured';
    await cluster.eventually("the failure is told", async () =>
      (await messages()).includes(wanted),
    );
    await machine.kubectl(["delete", "pod", "--all"]);
    await cluster.remora.signal("TERM");
    await cluster.remora.exited;
    assert.match(await remoraDown(machine), /nothing is left/);
  });
});

/** Host pid, on the machine, of the main process of the running container whose name begins so. */
async function pidOf(machine: Machine, prefix: string): Promise<number> {
  const found = [...(await ownContainers(machine))].find(
    ([name]) => name.startsWith(`/${prefix}`) && name.endsWith(" running"),
  );
  assert.ok(found !== undefined, `no container ${prefix} runs`);
  const inspected = await machine.docker("GET", `/containers/${found[1]}/json`);
  return (inspected as { State: { Pid: number } }).State.Pid;
}

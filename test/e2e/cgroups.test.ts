import assert from "node:assert/strict";
import { test } from "node:test";

import { eventually, Machine } from "./lib/machine.ts";
import { cannotRun, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();

const manifest = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "sized" },
  spec: {
    // The pod as a whole has a limit, one of its containers has none of its own (KEP-2837).
    resources: { requests: { cpu: "500m" }, limits: { memory: "64Mi" } },
    containers: ["one", "two"].map((name) => ({
      name,
      image: "docker.io/library/busybox:1.36",
      command: ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"],
      ...(name === "one" ? { resources: { limits: { memory: "32Mi" } } } : {}),
    })),
  },
};

/** Reads a setting by its name on cgroup v1 or v2, whichever the machine has. */
async function setting(
  machine: Machine,
  path: string,
  names: { readonly v1: string; readonly v2: string },
): Promise<string> {
  const script = `cat /sys/fs/cgroup/${path}/${names.v2} 2>/dev/null || cat /sys/fs/cgroup/${names.v1.split(".")[0]}/${path}/${names.v1}`;
  const { stdout } = await machine.exec(["sh", "-c", script]);
  return stdout.trim();
}

const memory = { v1: "memory.limit_in_bytes", v2: "memory.max" };
const cpu = { v1: "cpu.shares", v2: "cpu.weight" };

test(
  "the kernel holds a pod, its containers and its tier to what the spec says",
  { skip: skip ?? false },
  async () => {
    await using machine = await Machine.start("cgroup");
    await machine.loadBusybox();
    const remora = await remoraUp(machine);
    await machine.kubectl(["create", "-f", "-"], { stdin: JSON.stringify(manifest) });
    await machine.kubectl(["wait", "--for=condition=Ready", "pod/sized", "--timeout=60s"]);
    const uid = (await machine.kubectl(["get", "pod", "sized", "-o", "jsonpath={.metadata.uid}"]))
      .stdout;
    const ids = await machine.kubectl([
      "get",
      "pod",
      "sized",
      "-o",
      "jsonpath={.status.containerStatuses[*].containerID}",
    ]);
    const [one = "", two = ""] = ids.stdout.replaceAll("docker://", "").split(" ");
    const pod = `kubepods/burstable/pod${uid}`;
    const mib = 2 ** 20;
    assert.equal(await setting(machine, pod, memory), String(64 * mib));
    assert.ok(["512", "20"].includes(await setting(machine, pod, cpu)));
    assert.equal(await setting(machine, `${pod}/${one}`, memory), String(32 * mib));
    assert.equal(await setting(machine, `${pod}/${two}`, memory), String(64 * mib));
    assert.ok(["2", "1"].includes(await setting(machine, "kubepods/besteffort", cpu)));
    const { stdout } = await machine.kubectl([
      "get",
      "pod",
      "sized",
      "-o",
      "jsonpath={.status.qosClass} {.status.resources.limits.memory}",
    ]);
    assert.equal(stdout, "Burstable 64Mi");

    await machine.kubectl(["delete", "pod", "sized", "--grace-period=1"]);
    await eventually(
      async () =>
        ["2", "1"].includes(await setting(machine, "kubepods/burstable", cpu)) ? true : undefined,
      { timeoutMs: 20_000, describe: () => remora.output() },
    );
    await remora.signal("TERM");
    assert.equal(await remora.exited, 0, remora.output());
    assert.match(await remoraDown(machine), /nothing is left/);
  },
);

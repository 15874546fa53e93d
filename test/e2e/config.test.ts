import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { eventually, type Machine, Machines, root } from "./lib/machine.ts";
import { cannotRun, remoraDown } from "./lib/remora.ts";

const program = `${root}/bin/remora`;

const config = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 37
port: 10260
healthzPort: 10268
kubeReserved: { memory: 64Mi }
registerWithTaints: [{ key: example.com/slow, value: very, effect: PreferNoSchedule }]
providerID: example://rack-1
logging: { format: json, verbosity: 4 }
podLogsDir: /run/elsewhere/pods
cgroupRoot: /cellar
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
metricsBindAddress: 127.0.0.1:10299
---
apiVersion: config.remora.io/v1alpha1
kind: RemoraConfiguration
hostnameOverride: cellar
containerLogsDir: /run/elsewhere/containers
nodeLabels: { example.com/room: cellar }
`;

const pod = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "p" },
  spec: {
    terminationGracePeriodSeconds: 1,
    containers: [{ name: "c", image: "busybox:1.36", command: ["sleep", "1000"] }],
  },
};

async function write(machine: Machine, path: string, text: string): Promise<void> {
  await machine.exec(["sh", "-c", `mkdir -p "$(dirname "$0")" && cat > "$0"`, path], {
    stdin: text,
  });
}

async function up(
  machine: Machine,
  ...flags: readonly string[]
): Promise<ReturnType<Machine["spawn"]>> {
  const args = [
    "--config",
    "/run/remora/config.yaml",
    "--config-dir",
    "/run/remora/config.d",
    ...flags,
  ];
  const process = machine.spawn([program, "up", ...args]);
  await eventually(async () => (/^Next: kubectl/m.test(process.output()) ? true : undefined), {
    timeoutMs: 60_000,
    describe: () => process.output(),
  });
  return process;
}

async function json(machine: Machine, ...argv: readonly string[]): Promise<unknown> {
  return JSON.parse((await machine.kubectl(argv)).stdout);
}

describe("a machine that is configured by files", { skip: cannotRun() ?? false }, () => {
  test("is the node that they describe, before and after a restart with a drop-in and a flag", async () => {
    await using machines = await Machines.start("cf", 1);
    const [machine] = machines.all;
    assert.ok(machine !== undefined);
    await machine.loadBusybox();
    await write(machine, "/run/remora/config.yaml", config);
    await write(machine, "/run/remora/config.d/README", "not a drop-in");
    const first = await up(machine);
    assert.match(first.output(), /"level":"debug"/);
    const node = (await json(machine, "get", "node", "cellar", "-o", "json")) as {
      metadata: { labels: Record<string, string> };
      spec: { taints: unknown; providerID: string };
      status: { capacity: { pods: string }; daemonEndpoints: unknown };
    };
    assert.equal(node.metadata.labels["example.com/room"], "cellar");
    assert.equal(node.spec.providerID, "example://rack-1");
    assert.deepEqual(node.spec.taints, [
      { key: "example.com/slow", value: "very", effect: "PreferNoSchedule" },
    ]);
    assert.equal(node.status.capacity.pods, "37");
    assert.deepEqual(node.status.daemonEndpoints, { kubeletEndpoint: { Port: 10_260 } });
    for (const url of ["http://127.0.0.1:10268/healthz", "http://127.0.0.1:10299/healthz"])
      assert.equal((await machine.exec(["busybox", "wget", "-qO-", url])).stdout, "ok");
    // The API server reaches the port that the Node names.
    const before = (await json(machine, "get", "--raw", "/api/v1/nodes/cellar/proxy/configz")) as {
      kubeletconfig: Record<string, unknown>;
    };
    assert.equal(before.kubeletconfig["maxPods"], 37);
    assert.equal(before.kubeletconfig["syncFrequency"], "1m0s");
    assert.deepEqual(before.kubeletconfig["kubeReserved"], { memory: "64Mi" });
    await machine.kubectl(["create", "-f", "-"], { stdin: JSON.stringify(pod) });
    await machine.kubectl(["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    assert.match((await machine.exec(["ls", "/run/elsewhere/pods"])).stdout, /^default_p_/);
    await first.signal("TERM");
    await first.exited;
    await write(
      machine,
      "/run/remora/config.d/10-more.conf",
      "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nkubeReserved: { cpu: 50m }\nmaxPods: 38\n",
    );
    await up(machine, "--max-pods=39");
    const after = (await json(machine, "get", "--raw", "/api/v1/nodes/cellar/proxy/configz")) as {
      kubeletconfig: Record<string, unknown>;
    };
    assert.equal(after.kubeletconfig["maxPods"], 39);
    assert.deepEqual(after.kubeletconfig["kubeReserved"], { cpu: "50m", memory: "64Mi" });
    const capacity = ["get", "node", "cellar", "-o", "jsonpath={.status.capacity.pods}"];
    await eventually(
      async () => ((await machine.kubectl(capacity)).stdout === "39" ? true : undefined),
      { timeoutMs: 30_000, describe: () => "maxPods did not reach the Node" },
    );
    // It is told nothing, and finds everything: the agent wrote down where it leaves things.
    assert.match(await remoraDown(machine), /nothing is left of remora on this machine/);
    const left = await machine.exec([
      "sh",
      "-c",
      "ls -A /run/elsewhere/*; ls -d /sys/fs/cgroup/*/cellar/kubepods /sys/fs/cgroup/cellar/kubepods 2>/dev/null || true",
    ]);
    assert.equal(left.stdout.replaceAll(/^(\/run\/elsewhere\/.*:)?\n/gm, ""), "");
  });
});

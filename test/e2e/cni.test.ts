import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { after, before, describe, test } from "node:test";

import { bridgeList } from "../fakes/cni-list.ts";
import { Cluster, isReady, type PodItem } from "./lib/cluster.ts";
import { eventually, type Machine, Machines, type MachineProcess, root } from "./lib/machine.ts";
import { cannotRun, joinArguments, remoraDown, remoraJoin, startAgent } from "./lib/remora.ts";
import { parseWho, whoContainer, whoQuestion } from "./lib/who.ts";

const plugins = "/usr/lib/cni";
const skip =
  cannotRun() ?? (existsSync(`${plugins}/bridge`) ? undefined : `needs CNI plug-ins in ${plugins}`);

/** Addresses are those of the Node's podCIDR; the plug-ins keep them where each machine has its own directory. */
const dataDir = "/run/cni-networks";
const list = bridgeList({
  capabilities: { ipRanges: true },
  ipam: { type: "host-local", dataDir, routes: [{ dst: "0.0.0.0/0" }] },
});

function pod(name: string, node: string, more: object = {}, port: object = {}): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, labels: { app: "who" } },
    spec: {
      nodeName: node,
      terminationGracePeriodSeconds: 1,
      tolerations: [{ operator: "Exists" }],
      containers: [{ ...whoContainer(), ports: [{ containerPort: 8080, ...port }] }],
      ...more,
    },
  };
}

const service = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "who" },
  spec: { selector: { app: "who" }, ports: [{ port: 80, targetPort: 8080 }] },
};

describe("two machines with CNI plug-ins", { skip: skip ?? false, concurrency: false }, () => {
  let machines: Machines;
  let one: Machine;
  let two: Machine;
  let cluster: Cluster;
  let agent: MachineProcess;
  let joinArgs: readonly string[] = [];

  const configure = (machine: Machine): Promise<unknown> =>
    machine.exec(["sh", "-c", "mkdir -p /etc/cni/net.d && cat >/etc/cni/net.d/10-pods.conflist"], {
      stdin: JSON.stringify(list),
    });
  const ask = async (from: PodItem | Machine, address: string, port: number): Promise<string> => {
    const argv = whoQuestion(address, port);
    const { stdout } =
      "exec" in from
        ? await from.exec(argv, { allowFailure: true })
        : await one.kubectl(["exec", from.metadata.name, "--", ...argv], { allowFailure: true });
    const answer = parseWho(stdout);
    return answer === undefined ? "" : `${answer.from} asked ${answer.by}`;
  };
  const readyMessage = async (name: string): Promise<string> => {
    const node = await cluster.get<{
      status?: { conditions?: readonly { type: string; status: string; message: string }[] };
    }>("node", name);
    const found = node.status?.conditions?.find(({ type }) => type === "Ready");
    return `${found?.status}: ${found?.message}`;
  };
  const pods = async (): Promise<readonly PodItem[]> =>
    (await cluster.pods()).toSorted((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));

  before(async () => {
    if (skip !== undefined) return;
    machines = await Machines.start("cni", 2);
    [one, two] = machines.all as [Machine, Machine];
    await Promise.all(machines.all.map((machine) => machine.loadBusybox()));
    // As on a machine that nobody prepared for Kubernetes: rules do not see what bridges pass.
    await one.exec(["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0"], {
      allowFailure: true,
    });
    cluster = new Cluster(one);
  });

  after(async () => {
    if (skip !== undefined) return;
    await machines[Symbol.asyncDispose]();
  });

  test("a node without a configuration says so, and runs what needs no network of its own", async () => {
    cluster.processes.push(one.spawn([`${root}/bin/remora`, "up", "--pod-network", "cni"]));
    await eventually(
      async () =>
        (await one.kubectl(["get", "node", one.name], { allowFailure: true })).stdout.includes(
          one.name,
        )
          ? true
          : undefined,
      { timeoutMs: 60_000, describe: () => cluster.processes[0]?.output() ?? "" },
    );
    let said = "";
    await cluster.until("the node says why it is not Ready", async () => {
      said = await readyMessage(one.name);
      return said.includes("cni config uninitialized");
    });
    assert.match(
      said,
      /^False: .*container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:docker: network plugin is not ready: cni config uninitialized: no network config found in \/etc\/cni\/net\.d/,
    );
    await cluster.create(pod("host", one.name, { hostNetwork: true }), pod("a", one.name), service);
    await cluster.until("the pod on the node's network runs", async () => {
      const [, host] = await pods();
      return host !== undefined && isReady(host);
    });
    await cluster.until("the other one is told what it waits for", async () => {
      const { stdout } = await one.kubectl([
        "get",
        "events",
        "--field-selector",
        "involvedObject.name=a,reason=NetworkNotReady",
      ]);
      return stdout.includes("network is not ready: container runtime network not ready");
    });
    await one.kubectl(["delete", "pod", "host", "--wait=true"]);
  });

  test("it is Ready as soon as a configuration is there", async () => {
    await configure(one);
    const readyMs = await cluster.until(
      "the node is Ready",
      async () => (await cluster.ready(one.name)) === "True",
      15_000,
    );
    assert.ok(readyMs < 15_000);
    await cluster.until("the pod runs", async () => (await pods()).every(isReady));
  });

  test("one that joins with a configuration uses it unasked", async () => {
    await configure(two);
    joinArgs = await joinArguments(one);
    agent = await remoraJoin(two, joinArgs);
    cluster.processes.push(agent);
    await cluster.create(pod("b", two.name, {}, { hostPort: 9090 }));
    await cluster.until("its pod runs", async () => (await pods()).every(isReady));
    assert.match(agent.output(), /"msg":"provider of pod networks".*"provider":"cni"/);
    // Ways between machines are the plug-ins' own affair; these have none.
    for (const [here, there] of [
      [one, two],
      [two, one],
    ] as const) {
      const { spec } = await cluster.node(there.name);
      await here.exec(["ip", "route", "add", spec.podCIDR ?? "", "via", there.address]);
    }
  });

  test("pods reach each other under their own addresses, directly and through the Service", async () => {
    const [a, b] = await pods();
    assert.ok(a !== undefined && b !== undefined);
    const { spec } = await cluster.get<{ spec: { clusterIP: string } }>("service", "who");
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const want = `${from.status.podIP} asked ${to.metadata.name}`;
      let got = "";
      await cluster.until(`${want} directly`, async () => {
        got = await ask(from, to.status.podIP ?? "", 8080);
        return got === want;
      });
      await cluster.until(`${want} through the Service`, async () => {
        got = await ask(from, spec.clusterIP, 80);
        return got === want;
      });
    }
    for (const machine of [one, two]) {
      await cluster.until(
        "the node reaches the Service",
        async () => (await ask(machine, spec.clusterIP, 80)) !== "",
      );
    }
  });

  test("two pods on the plug-ins' bridge of one node reach each other through the Service", async () => {
    await cluster.create(pod("c", one.name));
    await cluster.until("it runs", async () => (await pods()).every(isReady));
    const [a] = await pods();
    assert.ok(a !== undefined);
    const { spec } = await cluster.get<{ spec: { clusterIP: string } }>("service", "who");
    await cluster.until("the one answers the other", async () =>
      (await ask(a, spec.clusterIP, 80)).endsWith(`${a.status.podIP} asked c`),
    );
    await one.kubectl(["delete", "pod", "c", "--wait=true"]);
  });

  test("names are answered on the node itself, and host ports by the plug-in for it", async () => {
    for (const { metadata } of await pods()) {
      const argv = ["exec", metadata.name, "--", "nslookup", "who.default.svc.cluster.local"];
      await cluster.until(`${metadata.name} knows the Service`, async () =>
        (await one.kubectl(argv, { allowFailure: true })).stdout.includes("Address"),
      );
    }
    const { stdout } = await machines.client(whoQuestion(two.address, 9090), {
      allowFailure: true,
    });
    assert.equal(parseWho(stdout)?.by, "b");
  });

  test("nothing of the bridge of ours is there", async () => {
    for (const machine of [one, two]) {
      const links = (await machine.exec(["ip", "-o", "link"])).stdout;
      assert.doesNotMatch(links, /remora0/);
      assert.match(links, /cni0/);
      assert.equal((await machine.exec(["ip", "route", "show", "proto", "82"])).stdout, "");
      const tables = (await machine.exec(["nft", "list", "tables"])).stdout;
      assert.doesNotMatch(tables, /remora-network/);
    }
  });

  test("pods keep their addresses when the agent is killed, and give them back when they go", async () => {
    const before = (await pods()).map(({ status }) => status.podIP);
    await agent.signal("KILL");
    await agent.exited;
    agent = startAgent(two, joinArgs);
    cluster.processes.push(agent);
    await cluster.until("the agent is back", async () => /"msg":"node ready"/.test(agent.output()));
    assert.deepEqual(
      (await pods()).map(({ status }) => status.podIP),
      before,
    );
    await one.kubectl(["delete", "pod", "b", "--wait=true"]);
    assert.deepEqual(await leases(two), []);
    assert.equal((await leases(one)).length, 1);
  });

  test("remora down gives back what pods still had", async () => {
    await agent.signal("TERM");
    await agent.exited;
    const [up] = cluster.processes;
    await up?.signal("TERM");
    await up?.exited;
    assert.match(await remoraDown(one), /nothing is left of remora/);
    assert.match(
      await remoraDown(two, ["--root-dir", "/var/lib/kubelet"]),
      /nothing is left of remora/,
    );
    for (const machine of [one, two]) {
      assert.deepEqual(await leases(machine), []);
      assert.doesNotMatch((await machine.exec(["iptables-save"])).stdout, /REMORA|CNI-DN-/);
    }
  });

  async function leases(machine: Machine): Promise<readonly string[]> {
    const names = await readdir(machine.path(`${dataDir}/pods`)).catch((): string[] => []);
    return names.filter((name) => /^[\d.]+$/.test(name));
  }
});

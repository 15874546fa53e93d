import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Cluster, isReady } from "./lib/cluster.ts";
import { type Machine, type MachineProcess, Machines, root } from "./lib/machine.ts";
import { cannotRun, joinArguments, remoraDown, remoraJoin, remoraUp } from "./lib/remora.ts";
import { parseWho, whoContainer, whoQuestion } from "./lib/who.ts";

const skip = cannotRun();

const workload = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "who", labels: { app: "who" } },
  spec: {
    terminationGracePeriodSeconds: 1,
    containers: [whoContainer()],
  },
};

function balancer(name: string, port: number, spec: object = {}): object {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name },
    spec: {
      type: "LoadBalancer",
      selector: { app: "who" },
      ports: [{ port, targetPort: 8080 }],
      ...spec,
    },
  };
}

interface ServiceItem {
  readonly metadata: { readonly finalizers?: readonly string[] };
  readonly spec: {
    readonly ports: readonly { readonly nodePort?: number }[];
    readonly healthCheckNodePort?: number;
  };
  readonly status: {
    readonly loadBalancer: { readonly ingress?: readonly { readonly ip: string }[] };
  };
}

interface EventItem {
  readonly involvedObject: { readonly name: string };
  readonly reason: string;
  readonly message: string;
}

describe("load balancers", { skip: skip ?? false, concurrency: false }, () => {
  let machines: Machines;
  let one: Machine;
  let two: Machine;
  let cluster: Cluster;
  let up: MachineProcess;
  let agent: MachineProcess | undefined;
  let clientAddress: string;

  const fromClient = async (port: number, address = one.address): Promise<string | undefined> =>
    parseWho((await machines.client(whoQuestion(address, port), { allowFailure: true })).stdout)
      ?.from;

  const addressesOf = async (name: string): Promise<string> => {
    const { status } = await cluster.get<ServiceItem>("service", name);
    return (status.loadBalancer.ingress ?? []).map(({ ip }) => ip).join();
  };

  const has = (name: string, addresses: string): Promise<number> =>
    cluster.until(
      `${name} has the addresses ${addresses || "none"}`,
      async () => (await addressesOf(name)) === addresses,
      30_000,
    );

  const said = (name: string, pattern: RegExp): Promise<number> =>
    cluster.until(`an event on ${name}: ${String(pattern)}`, async () => {
      const { items } = await cluster.get<{ items: readonly EventItem[] }>("events");
      return items.some(
        ({ involvedObject, reason, message }) =>
          involvedObject.name === name && pattern.test(`${reason}: ${message}`),
      );
    });

  const answersClientAs = (port: number, source: string): Promise<number> =>
    cluster.until(
      `the pod sees ${source} on port ${port}`,
      async () => (await fromClient(port)) === source,
      30_000,
    );

  before(async () => {
    if (skip !== undefined) return;
    machines = await Machines.start("lb", 2);
    [one, two] = machines.all as [Machine, Machine];
    await Promise.all(machines.all.map((machine) => machine.loadBusybox()));
    for (const machine of machines.all) {
      // As many distributions set it: packets from an address that does not lead back the same way are dropped.
      const strict = ["all", "eth0"].map((name) => `net.ipv4.conf.${name}.rp_filter=1`);
      await machine.exec(["sysctl", "-qw", ...strict]);
    }
    const shown = await machines.client(["ip", "-4", "-o", "addr", "show", "dev", "eth0"]);
    clientAddress = /inet ([0-9.]+)\//.exec(shown.stdout)?.[1] ?? "";
    cluster = new Cluster(one);
    up = await remoraUp(one);
    cluster.processes.push(up);
    await cluster.create(workload, balancer("web", 80));
    await cluster.until("the pod is ready", async () => (await cluster.pods()).every(isReady));
  });

  after(async () => {
    if (skip !== undefined) return;
    await machines[Symbol.asyncDispose]();
  });

  test("the machine's address is the Service's, and pods see who asks", async (context) => {
    await has("web", one.address);
    const { stdout } = await one.kubectl(["get", "service", "web"]);
    context.diagnostic(stdout.trim().replaceAll(/\s+/g, " "));
    assert.match(stdout, new RegExp(`web +LoadBalancer +[0-9.]+ +${one.address} +80:`));
    await answersClientAs(80, clientAddress);
    const { stdout: answer } = await two.exec(whoQuestion(one.address, 80));
    assert.equal(parseWho(answer)?.from, two.address);
    const { spec } = await cluster.get<ServiceItem>("service", "web");
    await answersClientAs(spec.ports[0]?.nodePort ?? 0, clientAddress);
    const seen = await one.exec([`${root}/bin/remora`, "service", "web"]);
    assert.match(seen.stdout, /LoadBalancer .*from outside: 1 endpoint on this node, source kept/);
    assert.match(seen.stdout, /as they should be/);
    await said("web", /^EnsuredLoadBalancer: Ensured load balancer$/);
  });

  test("another Service that wants the port is told whose it is, and gets it afterwards", async () => {
    await cluster.create(balancer("second", 80));
    await said(
      "second",
      /^SyncLoadBalancerFailed: .*port 80\/TCP of \S+ is taken by Service default\/web$/,
    );
    assert.equal(await addressesOf("second"), "");
    const { stdout } = await one.kubectl(["get", "service", "second"]);
    assert.match(stdout, /<pending>/);
    await one.kubectl(["delete", "service", "web"]);
    await has("second", one.address);
    await answersClientAs(80, clientAddress);
  });

  test("a program that listens keeps its port; when it ends the Service gets it", async () => {
    const program = one.spawn(["busybox", "httpd", "-f", "-p", "2222", "-h", "/tmp"]);
    await cluster.until("it listens", async () =>
      (await one.exec(["cat", "/proc/net/tcp6", "/proc/net/tcp"])).stdout.includes(":08AE "),
    );
    await cluster.create(balancer("hungry", 2222));
    await said(
      "hungry",
      /^SyncLoadBalancerFailed: .*port 2222\/TCP .* a program .* that listens on/,
    );
    assert.equal(await addressesOf("hungry"), "");
    await program.signal("KILL");
    await program.exited;
    await has("hungry", one.address);
    await answersClientAs(2222, clientAddress);
  });

  test("ports of the cluster's own are refused", async () => {
    await cluster.create(balancer("greedy", 6443));
    await said(
      "greedy",
      /^SyncLoadBalancerFailed: .*port 6443\/TCP .* is taken by the API server$/,
    );
    await one.kubectl(["delete", "service", "greedy"]);
  });

  test("without node ports it works, too, and with externalTrafficPolicy Local there is a health check", async () => {
    await cluster.create(
      balancer("bare", 8081, {
        allocateLoadBalancerNodePorts: false,
        externalTrafficPolicy: "Local",
      }),
    );
    await has("bare", one.address);
    await answersClientAs(8081, clientAddress);
    const { spec } = await cluster.get<ServiceItem>("service", "bare");
    assert.equal(spec.ports[0]?.nodePort, undefined);
    const health = spec.healthCheckNodePort ?? 0;
    assert.ok(health > 0);
    const ask = String.raw`printf 'GET /healthz HTTP/1.0\r\n\r\n' | timeout 2 busybox nc ${one.address} ${health}`;
    assert.match((await machines.client(["sh", "-c", ask])).stdout, / 200 /);
  });

  test("source ranges are what lets clients in", async () => {
    await cluster.create(
      balancer("strict", 8082, { loadBalancerSourceRanges: [`${two.address}/32`] }),
    );
    await has("strict", one.address);
    await cluster.until("who may asks", async () => {
      const { stdout } = await two.exec(whoQuestion(one.address, 8082), { allowFailure: true });
      return parseWho(stdout)?.from === two.address;
    });
    assert.equal(await fromClient(8082), undefined);
  });

  test("with a second node both have it, and clients get a new source address", async () => {
    const joined = await remoraJoin(two, await joinArguments(one));
    agent = joined;
    cluster.processes.push(joined);
    await has("second", `${one.address},${two.address}`);
    await cluster.until("the source is the node's", async () => {
      const source = await fromClient(80);
      return source !== undefined && source !== clientAddress;
    });
    await cluster.until(
      "the other node answers",
      async () => (await fromClient(80, two.address)) !== undefined,
    );
    // Only where the endpoint is.
    assert.equal(await addressesOf("bare"), one.address);
    // What listens there only the node knows, and says.
    const program = two.spawn(["busybox", "httpd", "-f", "-p", "2223", "-h", "/tmp"]);
    await cluster.until("it listens", async () =>
      (await two.exec(["cat", "/proc/net/tcp6", "/proc/net/tcp"])).stdout.includes(":08AF "),
    );
    await cluster.create(balancer("hiding", 2223));
    await has("hiding", `${one.address},${two.address}`);
    await said(
      "hiding",
      new RegExp(
        `^ServiceHidesListener: node ${two.name}: port 2223/TCP of ${two.address} leads to`,
      ),
    );
    await program.signal("KILL");
    await program.exited;
    const label = "node.kubernetes.io/exclude-from-external-load-balancers=true";
    await one.kubectl(["label", "node", two.name, label]);
    await has("second", one.address);
  });

  test("a deleted Service leaves nothing on the address", async () => {
    await one.kubectl(["delete", "service", "second", "hungry", "bare", "strict", "hiding"]);
    for (const port of [80, 2222, 8081, 8082]) {
      await cluster.until(
        `nothing answers on ${port}`,
        async () => (await fromClient(port)) === undefined,
      );
    }
    await said("second", /^DeletedLoadBalancer: Deleted load balancer$/);
    const rules = await one.exec(
      ["sh", "-c", "nft list ruleset 2>/dev/null; iptables-save 2>/dev/null"],
      { allowFailure: true },
    );
    assert.doesNotMatch(
      rules.stdout,
      new RegExp(`${one.address.replaceAll(".", "\\.")} . tcp . 80 `),
    );
    await agent?.signal("TERM");
    await agent?.exited;
    await up.signal("TERM");
    assert.equal(await up.exited, 0);
    await Promise.all([remoraDown(one), remoraDown(two, ["--root-dir", "/var/lib/kubelet"])]);
  });
});

import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";

import { Cluster, isReady, podContainers, type PodItem } from "./lib/cluster.ts";
import { eventually, type Machine, Machines, type MachineProcess } from "./lib/machine.ts";
import { cannotRun, joinArguments, remoraJoin, startAgent, startRemora } from "./lib/remora.ts";
import { parseWho, whoContainer, whoQuestion } from "./lib/who.ts";

const skip = cannotRun();

function webPod(name: string, nodeName: string, more: object = {}, port = 8080): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, labels: { app: "web" } },
    spec: {
      nodeName,
      terminationGracePeriodSeconds: 1,
      containers: [whoContainer(port)],
      ...more,
    },
  };
}

const nodePort = 30_080;
const service = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "web" },
  spec: {
    type: "LoadBalancer",
    selector: { app: "web" },
    ports: [{ port: 80, targetPort: 8080, nodePort }],
  },
};

interface NodeStatusItem {
  readonly status: {
    readonly addresses: readonly { readonly type: string; readonly address: string }[];
  };
}

interface ServiceItem {
  readonly status: {
    readonly loadBalancer: { readonly ingress?: readonly { readonly ip: string }[] };
  };
}

interface SliceItem {
  readonly endpoints?: readonly { readonly addresses: readonly string[] }[];
}

interface HostPod extends PodItem {
  readonly status: PodItem["status"] & { readonly hostIP?: string };
}

/** What the kernel says of a machine's first interface while it moves. */
const network = {
  /** Another DHCP server, another network: the old address goes first. */
  move: async (machine: Machine, from: string, to: string): Promise<void> => {
    await machine.exec(["ip", "address", "del", `${from}/24`, "dev", "eth0"]);
    await machine.exec(["ip", "address", "replace", `${to}/24`, "dev", "eth0"]);
    const gateway = to.replace(/\d+$/, "254");
    await machine.exec(["ip", "route", "replace", "default", "via", gateway]);
  },
  /** Nothing is left but loopback and bridges. */
  leave: async (machine: Machine): Promise<void> => {
    await machine.exec(["ip", "address", "flush", "dev", "eth0"]);
    await machine.exec(["ip", "link", "set", "eth0", "down"]);
  },
  enter: async (machine: Machine, address: string): Promise<void> => {
    await machine.exec(["ip", "link", "set", "eth0", "up"]);
    await machine.exec(["ip", "address", "add", `${address}/24`, "dev", "eth0"]);
    const gateway = address.replace(/\d+$/, "254");
    await machine.exec(["ip", "route", "replace", "default", "via", gateway]);
  },
};

describe(
  "machines that change their addresses",
  { skip: skip ?? false, concurrency: false },
  () => {
    let machines: Machines;
    let one: Machine;
    let two: Machine;
    let cluster: Cluster;
    let up: MachineProcess;
    let agent: MachineProcess | undefined;
    let joinArgs: readonly string[] = [];
    let running: readonly string[] = [];
    const other = "172.31.0.7";
    const third = "172.29.0.9";

    const idsOf = async (machine: Machine): Promise<readonly string[]> =>
      (await podContainers(machine))
        .filter((container) => container.running)
        .map(({ id }) => id)
        .toSorted();

    const internalIPs = async (name: string): Promise<readonly string[]> => {
      const { status } = await cluster.get<NodeStatusItem>("node", name);
      return status.addresses
        .filter(({ type }) => type === "InternalIP")
        .map(({ address }) => address);
    };

    const nodeHas = (name: string, ...wanted: readonly string[]): Promise<number> =>
      cluster.until(`node ${name} has ${wanted.join()}`, async () => {
        return (await internalIPs(name)).join() === wanted.join();
      });

    const podsHave = (names: readonly string[], address: string): Promise<number> =>
      cluster.until(`pods ${names.join()} are on ${address}`, async () => {
        const pods = await cluster.get<{ items: readonly HostPod[] }>("pods");
        const mine = pods.items.filter(({ metadata }) => names.includes(metadata.name));
        return (
          mine.length === names.length &&
          mine.every(
            ({ metadata, status }) =>
              status.hostIP === address &&
              (!metadata.name.startsWith("host") || status.podIP === address),
          )
        );
      });

    const endpointIs = (address: string): Promise<number> =>
      cluster.until(`kubernetes.default leads to ${address}`, async () => {
        const slice = await cluster.get<SliceItem>("endpointslice", "kubernetes");
        return slice.endpoints?.[0]?.addresses[0] === address;
      });

    const ask = async (address: string, port: number): Promise<string | undefined> => {
      const argv = whoQuestion(address, port);
      return parseWho((await machines.client(argv, { allowFailure: true })).stdout)?.by;
    };

    /** The load balancer's address is the node's, and leads to the pod. */
    const balancedAt = async (address: string): Promise<void> => {
      await cluster.until(`the load balancer is ${address}`, async () => {
        const { status } = await cluster.get<ServiceItem>("service", "web");
        return status.loadBalancer.ingress?.map(({ ip }) => ip).join() === address;
      });
      await cluster.until(`it answers at ${address}`, async () => {
        return (await ask(address, 80)) === "web";
      });
    };

    /** Under which address a pod's packets arrive at a machine that is none of the cluster's. */
    const seenFrom = async (pod: string, client: string): Promise<string> => {
      const files = one.path("/run/www");
      await mkdir(`${files}/cgi-bin`, { recursive: true });
      const script = String.raw`#!/bin/sh
printf '
'
echo "$REMOTE_ADDR asked me"
`;
      await writeFile(`${files}/cgi-bin/who`, script, { mode: 0o755 });
      const server = `echo $$ >${files}/pid; exec busybox httpd -f -p 7070 -h ${files}`;
      const serving = machines.client(["sh", "-c", server], { allowFailure: true });
      try {
        const question = String.raw`printf 'GET /cgi-bin/who HTTP/1.0

' | timeout 3 nc ${client} 7070`;
        return await eventually(
          async () => {
            const argv = ["exec", pod, "--", "sh", "-c", question];
            const { stdout } = await one.kubectl(argv, { allowFailure: true });
            return /(\S+) asked me/.exec(stdout)?.[1]?.replaceAll(/[[\]]|::ffff:/g, "");
          },
          { timeoutMs: 30_000, describe: () => `${pod} reaches ${client}` },
        );
      } finally {
        await machines.client(["sh", "-c", `kill $(cat ${files}/pid)`], { allowFailure: true });
        await serving;
      }
    };

    /** The API server, asked from another machine, which believes nobody that does not prove who it is. */
    const kubectlFrom = (address: string, ...argv: readonly string[]): Promise<string> =>
      eventually(
        async () => {
          const credentials = [
            "--kubeconfig",
            one.path("/var/lib/remora/control-plane/admin.conf"),
            "--server",
            `https://${address}:6443`,
          ];
          const { exitCode, stdout } = await machines.client(
            ["kubectl", ...credentials, "--request-timeout", "5s", ...argv],
            { allowFailure: true, timeoutMs: 20_000 },
          );
          return exitCode === 0 ? stdout : undefined;
        },
        { timeoutMs: 30_000, describe: () => `kubectl ${argv.join(" ")} at ${address}` },
      );

    /** A pod asks the API server by the name that all pods know it by. */
    const podReachesApi = (pod: string): Promise<number> =>
      cluster.until(`${pod} reaches the API server`, async () => {
        const { exitCode } = await one.kubectl(
          [
            "exec",
            pod,
            "--",
            "sh",
            "-c",
            String.raw`printf "GET / HTTP/1.0\r\n\r\n" | timeout 3 nc 10.96.0.1 443`,
          ],
          { allowFailure: true, timeoutMs: 10_000 },
        );
        return exitCode === 0;
      });

    /** Logs and exec lead from the API server to the agent. */
    const reached = async (pod: string): Promise<void> => {
      await cluster.until(`exec in ${pod}`, async () => {
        const { stdout } = await one.kubectl(["exec", pod, "--", "echo", "here"], {
          allowFailure: true,
          timeoutMs: 15_000,
        });
        return stdout === "here\n";
      });
      assert.match((await one.kubectl(["logs", pod])).stdout, new RegExp(`started ${pod}`));
    };

    const nothingRestarted = async (): Promise<void> => {
      assert.deepEqual(await idsOf(one), running, "the containers of before, and no others");
      const pods = await cluster.pods();
      for (const { metadata, status } of pods)
        assert.equal(status.containerStatuses?.[0]?.restartCount, 0, metadata.name);
      assert.equal(up.child.exitCode, null);
    };

    before(async () => {
      if (skip !== undefined) return;
      machines = await Machines.start("adr", 2);
      [one, two] = machines.all as [Machine, Machine];
      await Promise.all(machines.all.map((machine) => machine.loadBusybox()));
      // The client is a neighbour in every network, and knows no way to addresses of other machines.
      for (const network of ["172.31.0", "172.29.0"])
        await machines.client(["ip", "address", "add", `${network}.200/24`, "dev", "eth0"]);
      for (const machine of machines.all) {
        await machine.exec(["ip", "-6", "address", "flush", "dev", "eth0", "scope", "global"]);
      }
      cluster = new Cluster(one);
      await network.leave(one);
      up = startRemora(one);
      cluster.processes.push(up);
    });

    after(async () => {
      if (skip !== undefined) return;
      await machines[Symbol.asyncDispose]();
    });

    test("a machine that boots without network starts its cluster, and has its node with the first address", async () => {
      await cluster.until("the Node", async () => (await cluster.ready(one.name)) === "False");
      assert.deepEqual(await internalIPs(one.name), []);
      await network.enter(one, one.address);
      await nodeHas(one.name, one.address);
      await cluster.until("Ready", async () => (await cluster.ready(one.name)) === "True");
      await cluster.create(
        service,
        webPod("web", one.name),
        webPod("host", one.name, { hostNetwork: true }, 8081),
      );
      await cluster.until("the pods are ready", async () => {
        const pods = await cluster.pods();
        return pods.length === 2 && pods.every(isReady);
      });
      running = await idsOf(one);
      await podsHave(["web", "host"], one.address);
      await endpointIs(one.address);
      await cluster.until("the node port", async () => {
        return (await ask(one.address, nodePort)) === "web";
      });
      await balancedAt(one.address);
      assert.equal(await seenFrom("web", "172.30.0.200"), one.address);
      await kubectlFrom(one.address, "get", "nodes");
      await podReachesApi("web");
    });

    test("in another network everything is under the new address, and nothing was restarted", async (context) => {
      const follow = one.spawn([
        "kubectl",
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "while date; do sleep 1; done",
      ]);
      const lines = (): number => follow.output().split("\n").length;
      await eventually(async () => lines() > 2 || undefined, {
        timeoutMs: 20_000,
        describe: () => follow.output(),
      });
      await network.move(one, one.address, other);
      context.diagnostic(`moved -> status: ${await nodeHas(one.name, other)} ms`);
      await podsHave(["web", "host"], other);
      await endpointIs(other);
      const seen = await kubectlFrom(other, "get", "node", one.name, "-o", "wide");
      assert.match(seen, /172\.31\.0\.7/);
      await reached("web");
      await podReachesApi("web");
      await cluster.until("the node port at the new address", async () => {
        return (await ask(other, nodePort)) === "web";
      });
      assert.equal(await ask(one.address, nodePort), undefined);
      assert.equal(await ask(other, 8081), "host");
      await balancedAt(other);
      assert.equal(await seenFrom("web", "172.31.0.200"), other);
      const config = await one.kubectl([
        "get",
        "cm",
        "-n",
        "kube-public",
        "cluster-info",
        "-o",
        "yaml",
      ]);
      assert.match(config.stdout, /server: https:\/\/172\.31\.0\.7:6443/);
      assert.match((await joinArguments(one)).join(" "), /172\.31\.0\.7:6443/);
      // The stream goes over loopback, and was never cut.
      const before = lines();
      await eventually(async () => lines() > before + 1 || undefined, {
        timeoutMs: 20_000,
        describe: () => follow.output(),
      });
      assert.equal(follow.child.exitCode, null);
      await follow.signal("TERM");
      await nothingRestarted();
    });

    test("with a VPN that takes the default route, node ports answer there; the API server on both", async () => {
      await one.exec(["ip", "link", "add", "vpn0", "type", "bridge"]);
      await one.exec(["ip", "address", "add", "10.66.0.2/24", "dev", "vpn0"]);
      await one.exec(["ip", "link", "set", "vpn0", "up"]);
      await machines.client(["ip", "route", "add", "10.66.0.0/24", "via", other]);
      for (const half of ["0.0.0.0/1", "128.0.0.0/1"])
        await one.exec(["ip", "route", "add", half, "via", "10.66.0.1", "dev", "vpn0", "onlink"]);
      await nodeHas(one.name, "10.66.0.2");
      await cluster.until("the node port at the new address", async () => {
        return (await ask("10.66.0.2", nodePort)) === "web";
      });
      await cluster.until("and not at the old one", async () => {
        return (await ask(other, nodePort)) === undefined;
      });
      await kubectlFrom("10.66.0.2", "get", "nodes");
      await kubectlFrom(other, "get", "nodes");
      await reached("web");
      await one.exec(["ip", "link", "del", "vpn0"]);
      await nodeHas(one.name, other);
      await cluster.until(
        "the node port is back",
        async () => (await ask(other, nodePort)) === "web",
      );
      await nothingRestarted();
    });

    test("in no network at all its node stays Ready and its pods reach the API server; back, all is as before", async () => {
      await network.leave(one);
      await endpointIs("10.244.0.1");
      await podReachesApi("web");
      await reached("host");
      // Probes go on, four at least: what answers them is as well as before.
      await one.kubectl(["exec", "web", "--", "sleep", "4"]);
      const sick = (await cluster.pods()).filter((pod) => !isReady(pod));
      assert.deepEqual(
        sick.map(({ metadata, status }) => [metadata.name, status]),
        [],
      );
      assert.equal(await cluster.ready(one.name), "True");
      assert.deepEqual(await internalIPs(one.name), [other]);
      await network.enter(one, third);
      await nodeHas(one.name, third);
      await endpointIs(third);
      await podsHave(["web", "host"], third);
      await kubectlFrom(third, "get", "nodes");
      await reached("web");
      await cluster.until("the node port", async () => (await ask(third, nodePort)) === "web");
      await balancedAt(third);
      await nothingRestarted();
    });

    test("a machine with another family has an address of that; its own one comes back", async () => {
      await one.exec(["ip", "-6", "address", "add", `${one.address6}/64`, "dev", "eth0", "nodad"]);
      await one.exec(["ip", "-6", "route", "replace", "default", "via", "fd00:30::fe"]);
      // Pods of one family: the node has the address of that.
      await one.kubectl(["get", "nodes"]);
      assert.deepEqual(await internalIPs(one.name), [third]);
      await one.exec(["ip", "address", "del", `${third}/24`, "dev", "eth0"]);
      await nodeHas(one.name, one.address6);
      await kubectlFrom(`[${one.address6}]`, "get", "nodes");
      await reached("web");
      await podReachesApi("web");
      await network.enter(one, one.address);
      await nodeHas(one.name, one.address);
      await podsHave(["web", "host"], one.address);
      await cluster.until(
        "the node port",
        async () => (await ask(one.address, nodePort)) === "web",
      );
      await nothingRestarted();
    });

    test("a joined machine that moves is found again: lease, routes, exec, certificate", async (context) => {
      // By a name, as one should who is not sure of the address.
      await writeFile(two.path("/etc/hosts"), `127.0.0.1 localhost\n${one.address} ${one.name}\n`);
      const printed = await joinArguments(one);
      joinArgs = printed.map((arg) => arg.replace(one.address, one.name));
      agent = await remoraJoin(two, joinArgs);
      cluster.processes.push(agent);
      await cluster.until("Ready", async () => (await cluster.ready(two.name)) === "True");
      await cluster.create(
        webPod("far", two.name),
        webPod("host-far", two.name, { hostNetwork: true }, 8081),
      );
      await cluster.until("the pods", async () => (await cluster.pods()).every(isReady));
      const held = await idsOf(two);
      const { status } =
        (await cluster.pods()).find(({ metadata }) => metadata.name === "far") ?? {};
      const farIP = status?.podIP ?? "";
      const moved = "172.30.0.77";
      const route = async (): Promise<string> =>
        (await one.exec(["ip", "route", "show", "proto", "82"])).stdout;
      assert.match(await route(), new RegExp(`via ${two.address.replaceAll(".", "\\.")} `));
      // No word of goodbye: connections from the old address are dead.
      await network.move(two, two.address, moved);
      context.diagnostic(`moved -> status: ${await nodeHas(two.name, moved)} ms`);
      await podsHave(["far", "host-far"], moved);
      await cluster.until("the route of the neighbour", async () =>
        (await route()).includes(`via ${moved} `),
      );
      await reached("far");
      await cluster.until("pods reach each other", async () => {
        const words = String.raw`printf 'GET /cgi-bin/who HTTP/1.0\r\n\r\n' | timeout 3 nc ${farIP} 8080`;
        const { stdout } = await one.kubectl(["exec", "web", "--", "sh", "-c", words], {
          allowFailure: true,
        });
        return stdout.includes("asked far");
      });
      // Asked for by the node, signed by the cluster, for the address it has now.
      await cluster.until("the certificate of port 10250", async () => {
        const { stdout } = await one.exec(
          [
            "sh",
            "-c",
            `openssl s_client -connect ${moved}:10250 </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName -issuer`,
          ],
          { allowFailure: true },
        );
        return stdout.includes(`IP Address:${moved}`) && stdout.includes("remora-ca");
      });
      assert.equal(await cluster.ready(two.name), "True");
      assert.deepEqual(await idsOf(two), held);
      assert.equal(agent.child.exitCode, null);
      await nothingRestarted();
    });

    test("machines that joined under a name find a control plane that moved", async (context) => {
      const held = await idsOf(two);
      await writeFile(two.path("/etc/hosts"), `127.0.0.1 localhost\n${other} ${one.name}\n`);
      await two.exec(["ip", "address", "add", "172.31.0.78/24", "dev", "eth0"]);
      await network.move(one, one.address, other);
      await nodeHas(one.name, other);
      const renewed = async (): Promise<string> => {
        const lease = await cluster.get<{ spec: { renewTime: string } }>(
          "lease",
          two.name,
          "-n",
          "kube-node-lease",
        );
        return lease.spec.renewTime;
      };
      const before = await renewed();
      const ms = await cluster.until(
        "its lease is renewed",
        async () => (await renewed()) > before,
      );
      context.diagnostic(`control plane moved -> lease of the other machine: ${ms} ms`);
      // All of the network has other numbers now.
      await network.move(two, "172.30.0.77", "172.31.0.78");
      await nodeHas(two.name, "172.31.0.78");
      await cluster.until("Ready", async () => (await cluster.ready(two.name)) === "True");
      await reached("far");
      assert.deepEqual(await idsOf(two), held);
      assert.equal(agent?.child.exitCode, null);
      await nothingRestarted();
    });

    test("an agent that starts without network has its pods, and is back with the network", async () => {
      const held = await idsOf(two);
      await agent?.signal("KILL");
      await agent?.exited;
      await network.leave(two);
      agent = startAgent(two, joinArgs);
      cluster.processes.push(agent);
      const output = agent.output.bind(agent);
      await eventually(async () => output().includes("node is not registered yet") || undefined, {
        timeoutMs: 30_000,
        describe: output,
      });
      await network.enter(two, "172.31.0.79");
      await nodeHas(two.name, "172.31.0.79");
      await podsHave(["far", "host-far"], "172.31.0.79");
      await cluster.until("Ready", async () => (await cluster.ready(two.name)) === "True");
      await reached("far");
      assert.deepEqual(await idsOf(two), held);
      assert.equal(agent.child.exitCode, null);
    });
  },
);

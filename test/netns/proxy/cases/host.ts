import assert from "node:assert/strict";

import { SERVICE_CIDRS } from "../../../../src/api/resources.ts";
import type { ProxyMode } from "../../../../src/proxy/backend.ts";
import { sh } from "../../namespace.ts";
import type { Subject } from "../packet-case.ts";
import { eventually } from "../world.ts";
import { assertNames, assertNodeCalled, assertSilence, briefly, callers } from "./expect.ts";
import { openAll, sayAll } from "./flows.ts";

interface HealthAnswer {
  readonly status: number;
  readonly weight: string | null;
  readonly body: {
    readonly service?: { readonly namespace: string; readonly name: string };
    readonly localEndpoints?: number;
    readonly serviceProxyHealthy?: boolean;
  };
}

async function askHealth(url: string): Promise<HealthAnswer | undefined> {
  const answer = await fetch(url, { headers: { connection: "close" } }).catch(() => undefined);
  if (answer === undefined) return undefined;
  const body = (await answer.json()) as HealthAnswer["body"];
  const weight = answer.headers.get("x-load-balancing-endpoint-weight");
  return { status: answer.status, weight, body };
}

/** The machine around the rules: its policies, its bridge, its health ports, its other mode. */
export function hostCases({ world, mode, at, packet }: Subject): void {
  const four = at.suffix === "v4";
  const iptables = four ? "iptables" : "ip6tables";
  const host = four ? at.node : `[${at.node}]`;

  const unallocated =
    mode === "nftables"
      ? "an address of the ServiceCIDR that no Service has does not leave the node, within 1 s of the ServiceCIDR"
      : "an address that no Service has leaves by the default route, whatever the ServiceCIDR";
  packet(50, unallocated, async (stage) => {
    const { a, node } = stage.peers;
    const [first, second] = [at.clusterIP(60_000), at.clusterIP(60_001)];
    const to = (ip: string): string => `${four ? ip : `[${ip}]`}:80`;
    assertSilence(await a.ask("tcp", to(first), briefly));
    await stage.assertLeft(first, 80);
    const name = `cidr-${at.suffix}`;
    world.api.put(SERVICE_CIDRS, {
      apiVersion: "networking.k8s.io/v1",
      kind: "ServiceCIDR",
      metadata: { name },
      spec: { cidrs: [at.serviceCIDR] },
    });
    stage.atEnd(async () => {
      world.api.remove(SERVICE_CIDRS, name);
    });
    if (mode === "iptables") {
      await stage.settled();
      assertSilence(await a.ask("tcp", to(second), briefly));
      await stage.assertLeft(second, 80);
      return;
    }
    let asked = 60_002;
    const stays = async (): Promise<boolean> => {
      const ip = at.clusterIP((asked += 1));
      await a.ask("tcp", to(ip), { timeoutMs: 100 });
      return (await stage.leftFor(ip, 80)).length === 0;
    };
    await eventually(stays, "what is sent there stays on the node", { seconds: 1 });
    assertSilence(await a.ask("tcp", to(second), briefly));
    assertSilence(await node.ask("tcp", to(second), briefly));
    assert.deepEqual(await stage.leftFor(second, 80), []);
    const service = await stage.served({ targets: ["a"] });
    assertNames(await stage.peers.c.ask("tcp", service.at(), { count: 3 }), "a");
  });

  packet(56, "a host that drops by default: what passes in each mode", async (stage) => {
    const healthPort = 32_000 + (world.takeNumber() % 700);
    const service = await stage.served({
      type: "LoadBalancer",
      ports: ["t"],
      targets: ["a", "remote"],
      spec: { externalTrafficPolicy: "Local", healthCheckNodePort: healthPort },
    });
    const cluster = await stage.served({
      type: "NodePort",
      ports: ["t"],
      targets: ["a", "remote"],
    });
    const { client, node } = stage.peers;
    const rule = (verb: string, ...spec: readonly string[]): Promise<string> =>
      sh(iptables, verb, "INPUT", ...spec);
    const lets = [
      ["-i", "lo", "-j", "ACCEPT"],
      ["-p", four ? "icmp" : "ipv6-icmp", "-j", "ACCEPT"],
      ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"],
    ];
    for (const spec of lets) {
      await rule("-A", ...spec);
      stage.atEnd(() => rule("-D", ...spec));
    }
    await sh(iptables, "-P", "INPUT", "DROP");
    stage.atEnd(() => sh(iptables, "-P", "INPUT", "ACCEPT"));
    // Services are forwarded, so INPUT does not matter, and our network's chain accepts them in FORWARD.
    assertNames(await client.ask("tcp", cluster.atNode(), { count: 20 }), "a", "remote");
    assertNames(await client.ask("tcp", service.atNode(), { count: 5 }), "a");
    assertNames(await node.ask("tcp", cluster.at(), { count: 20 }), "a", "remote");
    // Only iptables rules can accept past the host's own: health ports, and what is marked or known in FORWARD.
    const [health = ""] = await client.ask("tcp", `${host}:${healthPort}`, { timeoutMs: 400 });
    await sh(iptables, "-D", "FORWARD", "-j", "REMORA-FORWARD");
    stage.atEnd(() => world.topology.restoreNetwork());
    if (mode === "iptables") {
      // Open, and waiting for a request.
      const url = `http://${host}:${healthPort}/`;
      const program = `fetch(${JSON.stringify(url)}).then((answer) => console.log(answer.status))`;
      assert.equal((await client.sh(process.execPath, "-e", program)).trim(), "200");
      assertNames(await client.ask("tcp", cluster.atNode(), { count: 20 }), "a", "remote");
    } else {
      assert.equal(health, "timeout");
      assertSilence(await client.ask("tcp", cluster.atNode(), briefly));
    }
  });

  packet(
    66,
    "pods of one bridge reach one another by a ClusterIP, with and without bridge-nf-call",
    async (stage) => {
      const service = await stage.served({ targets: ["a", "b"] });
      const key = `net.bridge.bridge-nf-call-${iptables}`;
      const { a, c } = stage.peers;
      stage.atEnd(() => sh("sysctl", "-qw", `${key}=1`));
      for (const value of ["0", "1"]) {
        await sh("sysctl", "-qw", `${key}=${value}`);
        for (const [protocol, kind] of [
          ["tcp", "t"],
          ["udp", "u"],
        ] as const) {
          const answers = await c.ask(protocol, service.at(kind), { count: 40, parallel: 4 });
          assertNames(answers, "a", "b");
          assert.deepEqual(callers(answers), [at.pods.c]);
          const own = await a.ask(protocol, service.at(kind), { count: 40, parallel: 4 });
          assertNames(own, "a", "b");
        }
      }
    },
  );

  packet(
    67,
    "the health port: count, weight, 503 without local endpoints, closed with the policy",
    async (stage) => {
      const port = 31_500 + (world.takeNumber() % 700);
      const url = `http://${host}:${port}/healthz`;
      const spec = { externalTrafficPolicy: "Local", healthCheckNodePort: port } as const;
      const service = await stage.served({
        type: "LoadBalancer",
        targets: ["a", "b", "remote"],
        spec,
      });
      let last: HealthAnswer | undefined;
      const becomes = (wanted: number | undefined): Promise<void> =>
        eventually(
          async () => {
            last = await askHealth(url);
            return last?.status === wanted;
          },
          `${wanted ?? "closed"}`,
        );
      await becomes(200);
      assert.deepEqual(last, {
        status: 200,
        weight: "2",
        body: {
          service: { namespace: "default", name: service.name },
          localEndpoints: 2,
          serviceProxyHealthy: true,
        },
      });
      service.setTargets("remote");
      await becomes(503);
      assert.equal(last?.weight, "0");
      assert.equal(last.body.localEndpoints, 0);
      service.setTargets("a");
      await becomes(200);
      service.change({ spec: { ...spec, externalTrafficPolicy: "Cluster" } });
      await becomes(undefined);
      const healthz = await fetch("http://127.0.0.1:10256/healthz");
      const body = (await healthz.json()) as { healthy: boolean; status: object };
      assert.equal(healthz.status, 200);
      assert.equal(body.healthy, true);
      assert.deepEqual(Object.keys(body.status).toSorted(), ["IPv4", "IPv6"]);
      const proxyMode = await fetch("http://127.0.0.1:10249/proxyMode");
      assert.equal(await proxyMode.text(), mode);
    },
  );

  packet(67, "while rules are late the health port says 503", async (stage) => {
    const port = 31_500 + (world.takeNumber() % 700);
    const spec = { externalTrafficPolicy: "Local", healthCheckNodePort: port } as const;
    const service = await stage.served({ type: "LoadBalancer", targets: ["a"], spec });
    const becomes = (wanted: number): Promise<void> =>
      eventually(
        async () => (await askHealth(`http://${host}:${port}/`))?.status === wanted,
        String(wanted),
        { seconds: 20 },
      );
    stage.atEnd(() => world.topology.breakPrograms(0));
    await world.withSettings({ syncPeriodMs: 300 }, async () => {
      await becomes(200);
      await world.topology.breakPrograms(1000);
      try {
        service.setTargets("a", "b");
        await becomes(503);
        const healthz = await fetch("http://127.0.0.1:10256/healthz");
        await healthz.arrayBuffer();
        assert.equal(healthz.status, 503);
      } finally {
        await world.topology.breakPrograms(0);
      }
      await becomes(200);
    });
  });

  packet(
    64,
    "the other mode takes over and hands back: connections live, nothing is left",
    async (stage) => {
      const other: ProxyMode = mode === "nftables" ? "iptables" : "nftables";
      const service = await stage.served({
        type: "NodePort",
        ports: ["t", "e"],
        targets: ["a", "b"],
      });
      service.change({ targets: ["a"] });
      await stage.settled();
      const talks = await openAll(stage, service);
      const rulesOf = async (which: ProxyMode): Promise<string> => {
        const listing =
          which === "nftables"
            ? await sh("nft", "list", "tables")
            : `${await sh("iptables-save")}${await sh("ip6tables-save")}`;
        const ours =
          which === "nftables" ? /remora-proxy/ : /KUBE-(SVC|SEP|SERVICES|NODEPORTS|PROXY)/;
        return listing
          .split("\n")
          .filter((line) => ours.test(line))
          .join("\n");
      };
      const stop = await stage.peers.c.pace(service.at(), 100);
      await world.restart({ mode: other });
      await eventually(async () => (await rulesOf(mode)) === "", "nothing of the old mode", {
        seconds: 5,
      });
      assert.notEqual(await rulesOf(other), "");
      assertNodeCalled(await stage.peers.client.ask("tcp", service.atNode(), { count: 3 }), at);
      await sayAll(talks, "taken over");
      await world.restart();
      await eventually(async () => (await rulesOf(other)) === "", "nothing of the other mode", {
        seconds: 5,
      });
      await sayAll(talks, "handed back");
      const { counts, longestMs } = await stop();
      assert.ok(longestMs < 1000, `out for ${Math.round(longestMs)} ms: ${JSON.stringify(counts)}`);
      assert.deepEqual(Object.keys(counts), ["a"]);
    },
  );
}

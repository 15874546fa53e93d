import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { ENDPOINT_SLICES, NODES, SERVICE_CIDRS, SERVICES } from "../../src/api/resources.ts";
import type { EndpointSlice, Service, ServiceSpec } from "../../src/api/types.gen.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { createBridgeNetwork } from "../../src/network/bridge.ts";
import type { PodNetwork } from "../../src/network/types.ts";
import { cleanUpProxy } from "../../src/proxy/cleanup.ts";
import { createProxy, type ServiceProxy } from "../../src/proxy/proxy.ts";
import { type FakeApiServer, startFakeApiServer } from "../fakes/api-server.ts";
import {
  askFromNode,
  connectOutside,
  insideOwnNamespace,
  inventory,
  Machine,
  sh,
} from "./namespace.ts";

const { signal } = new AbortController();

function service(name: string, spec: ServiceSpec): Service {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace: "default" },
    spec: {
      ports: [
        { name: "t", port: 80, protocol: "TCP" },
        { name: "u", port: 80, protocol: "UDP" },
      ],
      ...spec,
    },
  };
}

interface Target {
  readonly ip: string;
  readonly elsewhere?: boolean;
  readonly terminating?: boolean;
}

function slice(
  name: string,
  targets: readonly Target[],
  family: "IPv4" | "IPv6" = "IPv4",
): EndpointSlice {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `${name}-${family.toLowerCase()}`,
      namespace: "default",
      labels: { "kubernetes.io/service-name": name },
    },
    addressType: family,
    ports: [
      { name: "t", port: 8080, protocol: "TCP" },
      { name: "u", port: 8080, protocol: "UDP" },
    ],
    endpoints: targets.map(({ ip, elsewhere, terminating }) => ({
      addresses: [ip],
      nodeName: elsewhere === true ? "other" : "here",
      conditions: { ready: terminating !== true, serving: true, terminating: terminating === true },
    })),
  };
}

function names(answers: readonly string[]): string[] {
  return [...new Set(answers.map((answer) => answer.split(" ")[0] ?? ""))].toSorted();
}

/** Waits until `probe` holds; rules follow the API within milliseconds, so a few tries are enough. */
async function eventually(probe: () => Promise<boolean>, what: string): Promise<void> {
  for (let turn = 0; turn < 40; turn += 1) {
    if (await probe()) return;
    await delay(50);
  }
  assert.fail(`not within 2 s: ${what}`);
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("Services with real packets", { concurrency: false }, () => {
    let stateDir = "";
    let api: FakeApiServer;
    let client: Machine;
    let [a, b, c]: Machine[] = [];
    let untouched = "";
    let network: PodNetwork;
    let proxy: ServiceProxy;
    let stop = new AbortController();
    let running: Promise<void> = Promise.resolve();
    const pods = (): readonly [Machine, Machine, Machine] => {
      assert.ok(a !== undefined && b !== undefined && c !== undefined);
      return [a, b, c];
    };

    function start(): void {
      stop = new AbortController();
      proxy = createProxy({
        config: {
          clusterCIDRs: ["10.244.0.0/16", "fd00:244::/48"],
          bindAddress: "127.0.0.1",
          proxyHealthzPort: 10_256,
          proxyMetricsPort: 10_249,
        },
        client: api.client,
        nodeName: "here",
        nodeIPs: ["192.0.2.1", "2001:db8:5::1"],
        clock: systemClock,
        logger: silentLogger,
        random: Math.random,
        events: { event: () => undefined },
      });
      running = proxy.run(stop.signal);
      running.catch(() => undefined);
    }

    async function rulesHave(text: string, wanted = true): Promise<void> {
      await eventually(
        async () => (await sh("nft", "list", "ruleset")).includes(text) === wanted,
        `${wanted ? "" : "no "}${text}`,
      );
    }

    before(async () => {
      stateDir = await mkdtemp(join(tmpdir(), "remora-proxy-"));
      client = await connectOutside();
      await sh("iptables", "-P", "FORWARD", "DROP");
      await sh("ip6tables", "-P", "FORWARD", "DROP");
      untouched = await inventory();
      network = createBridgeNetwork({
        stateDir,
        clusterCIDRs: ["10.244.0.0/16", "fd00:244::/48"],
        clock: systemClock,
        logger: silentLogger,
      });
      await network.ensureNode(["10.244.0.0/24", "fd00:244::/64"], signal);
      [a, b, c] = [await Machine.start(), await Machine.start(), await Machine.start()];
      for (const [index, machine] of pods().entries()) {
        await network.setUp(
          {
            sandboxID: `sandbox-${machine.pid}`,
            podUID: `uid-${machine.pid}`,
            podKey: "default/pod",
            pid: machine.pid,
            hostPorts: [],
          },
          signal,
        );
        await machine.serve(["a", "b", "c"][index] ?? "", 8080);
      }
      api = await startFakeApiServer();
      api.put(NODES, { metadata: { name: "here" } });
      api.put(SERVICES, service("web", { clusterIP: "172.30.0.1", clusterIPs: ["172.30.0.1"] }));
      api.put(ENDPOINT_SLICES, slice("web", [{ ip: "10.244.0.2" }, { ip: "10.244.0.3" }]));
      start();
      await rulesHave("172.30.0.1 . tcp . 80 : goto c2");
    });

    after(async () => {
      stop.abort();
      await running.catch(() => undefined);
      await Machine.stopAll();
      await api.close();
      await rm(stateDir, { recursive: true, force: true });
    });

    for (const callIptables of ["0", "1"]) {
      it(`a pod reaches both backends under its own address, TCP and UDP, bridge-nf-call-iptables=${callIptables}`, async () => {
        await sh("sysctl", "-qw", `net.bridge.bridge-nf-call-iptables=${callIptables}`);
        const [, , c] = pods();
        const tcp = await c.ask("tcp", "172.30.0.1:80", { count: 40 });
        const udp = await c.ask("udp", "172.30.0.1:80", { count: 40 });
        assert.deepEqual([...new Set(tcp)].toSorted(), ["a 10.244.0.4", "b 10.244.0.4"]);
        assert.deepEqual([...new Set(udp)].toSorted(), ["a 10.244.0.4", "b 10.244.0.4"]);
      });

      it(`a pod reaches itself through its Service, bridge-nf-call-iptables=${callIptables}`, async () => {
        await sh("sysctl", "-qw", `net.bridge.bridge-nf-call-iptables=${callIptables}`);
        const [a] = pods();
        assert.deepEqual(names(await a.ask("tcp", "172.30.0.1:80", { count: 20 })), ["a", "b"]);
        assert.deepEqual(names(await a.ask("udp", "172.30.0.1:80", { count: 20 })), ["a", "b"]);
      });
    }

    it("the node reaches the ClusterIP, TCP and UDP", async () => {
      const tcp = await askFromNode("tcp", "172.30.0.1:80", { count: 20 });
      assert.deepEqual([...new Set(tcp)].toSorted(), ["a 10.244.0.1", "b 10.244.0.1"]);
      assert.deepEqual(names(await askFromNode("udp", "172.30.0.1:80", { count: 20 })), ["a", "b"]);
    });

    it("a client outside the cluster is served under the node's address", async () => {
      const answers = await client.ask("tcp", "172.30.0.1:80", { count: 10 });
      assert.ok(
        answers.every((answer) => answer.endsWith(" 10.244.0.1")),
        answers.join(),
      );
    });

    it("a port the Service does not have is refused", async () => {
      const [, , c] = pods();
      assert.deepEqual(await c.ask("tcp", "172.30.0.1:81"), ["ECONNREFUSED"]);
    });

    it("without endpoints every attempt is refused at once, from a pod and from the node", async () => {
      api.put(SERVICES, service("empty", { clusterIP: "172.30.0.9", clusterIPs: ["172.30.0.9"] }));
      await rulesHave("172.30.0.9 . tcp . 80 : goto rej");
      const [a] = pods();
      const answers = await a.ask("tcp", "172.30.0.9:80", { count: 20, timeoutMs: 500 });
      assert.deepEqual([...new Set(answers)], ["ECONNREFUSED"]);
      assert.deepEqual(await a.ask("udp", "172.30.0.9:80"), ["ECONNREFUSED"]);
      assert.deepEqual(await askFromNode("tcp", "172.30.0.9:80"), ["ECONNREFUSED"]);
    });

    it("a change of endpoints moves new connections, and a UDP flow that goes on", async () => {
      const [, , c] = pods();
      const before = await c.ask("udp", "172.30.0.1:80", { localPort: 5555 });
      const stays = before[0]?.startsWith("a") === true ? "10.244.0.3" : "10.244.0.2";
      api.put(ENDPOINT_SLICES, slice("web", [{ ip: stays }]));
      await rulesHave("172.30.0.1 . tcp . 80 : goto c1");
      await eventually(
        async () =>
          (await c.ask("udp", "172.30.0.1:80", { localPort: 5555, timeoutMs: 200 }))[0]?.[0] !==
          before[0]?.[0],
        "the flow follows",
      );
      assert.equal(names(await c.ask("tcp", "172.30.0.1:80", { count: 10 })).length, 1);
      api.put(ENDPOINT_SLICES, slice("web", [{ ip: "10.244.0.2" }, { ip: "10.244.0.3" }]));
      await rulesHave("172.30.0.1 . tcp . 80 : goto c2");
    });

    it("a UDP flow that was refused is served once there is an endpoint", async () => {
      const [a] = pods();
      assert.deepEqual(await a.ask("udp", "172.30.0.9:80", { localPort: 5556 }), ["ECONNREFUSED"]);
      api.put(ENDPOINT_SLICES, slice("empty", [{ ip: "10.244.0.3" }]));
      await rulesHave("172.30.0.9 . udp . 80 : goto c1");
      await eventually(
        async () =>
          (await a.ask("udp", "172.30.0.9:80", { localPort: 5556, timeoutMs: 200 }))[0] ===
          "b 10.244.0.2",
        "answered",
      );
    });

    it("endpoints that only terminate are used when there is nothing else", async () => {
      const [a] = pods();
      api.put(
        ENDPOINT_SLICES,
        slice("empty", [{ ip: "10.244.0.3", terminating: true }, { ip: "10.244.0.4" }]),
      );
      await rulesHave("172.30.0.9 . tcp . 80 . 0 : 10.244.0.4 . 8080");
      assert.deepEqual(names(await a.ask("tcp", "172.30.0.9:80", { count: 5 })), ["c"]);
      api.put(ENDPOINT_SLICES, slice("empty", [{ ip: "10.244.0.3", terminating: true }]));
      await rulesHave("172.30.0.9 . tcp . 80 . 0 : 10.244.0.3 . 8080");
      assert.deepEqual(names(await a.ask("tcp", "172.30.0.9:80", { count: 5 })), ["b"]);
    });

    it("node ports answer outside clients; externalTrafficPolicy Local keeps their address", async () => {
      const spec: ServiceSpec = {
        type: "NodePort",
        clusterIP: "172.30.0.20",
        clusterIPs: ["172.30.0.20"],
        ports: [{ name: "t", port: 80, protocol: "TCP", nodePort: 30_080 }],
      };
      api.put(SERVICES, service("ports", spec));
      api.put(ENDPOINT_SLICES, slice("ports", [{ ip: "10.244.0.2" }]));
      await rulesHave("tcp . 30080 : goto x-nc1");
      assert.deepEqual(await client.ask("tcp", "192.0.2.1:30080"), ["a 10.244.0.1"]);
      const [, b] = pods();
      assert.match((await b.ask("tcp", "192.0.2.1:30080"))[0] ?? "", /^a /);
      assert.match((await askFromNode("tcp", "192.0.2.1:30080"))[0] ?? "", /^a /);
      api.put(SERVICES, service("ports", { ...spec, externalTrafficPolicy: "Local" }));
      await rulesHave("tcp . 30080 : goto xl-nc1-nl1");
      assert.deepEqual(await client.ask("tcp", "192.0.2.1:30080"), ["a 192.0.2.2"]);
      api.put(ENDPOINT_SLICES, slice("ports", [{ ip: "10.244.0.2", elsewhere: true }]));
      await rulesHave("tcp . 30080 : goto xl-nc1-none");
      assert.deepEqual(await client.ask("tcp", "192.0.2.1:30080", { timeoutMs: 300 }), ["timeout"]);
      assert.match((await b.ask("tcp", "192.0.2.1:30080"))[0] ?? "", /^a /);
    });

    it("internalTrafficPolicy Local without a local endpoint is silent", async () => {
      const spec = {
        clusterIP: "172.30.0.30",
        clusterIPs: ["172.30.0.30"],
        internalTrafficPolicy: "Local",
      } satisfies ServiceSpec;
      api.put(SERVICES, service("inside", spec));
      api.put(ENDPOINT_SLICES, slice("inside", [{ ip: "10.244.0.2", elsewhere: true }]));
      await rulesHave("172.30.0.30 . tcp . 80 : drop");
      const [, b] = pods();
      assert.deepEqual(await b.ask("tcp", "172.30.0.30:80", { timeoutMs: 300 }), ["timeout"]);
    });

    it("session affinity keeps a client at one endpoint; without it clients spread", async () => {
      const spec = { clusterIP: "172.30.0.40", clusterIPs: ["172.30.0.40"] };
      api.put(ENDPOINT_SLICES, slice("sticky", [{ ip: "10.244.0.2" }, { ip: "10.244.0.3" }]));
      api.put(SERVICES, service("sticky", { ...spec, sessionAffinity: "ClientIP" }));
      await rulesHave("172.30.0.40 . tcp . 80 : goto ac-");
      const [, , c] = pods();
      const answers = await c.ask("tcp", "172.30.0.40:80", { count: 20 });
      assert.equal(names(answers).length, 1);
      const other = answers[0]?.startsWith("a") === true ? "10.244.0.3" : "10.244.0.2";
      api.put(ENDPOINT_SLICES, slice("sticky", [{ ip: other }]));
      await eventually(
        async () => names(await c.ask("tcp", "172.30.0.40:80"))[0] !== names(answers)[0],
        "moved",
      );
      api.put(ENDPOINT_SLICES, slice("sticky", [{ ip: "10.244.0.2" }, { ip: "10.244.0.3" }]));
      api.put(SERVICES, service("sticky", { ...spec, sessionAffinity: "None" }));
      await rulesHave("172.30.0.40 . tcp . 80 : goto c2");
      assert.deepEqual(names(await c.ask("tcp", "172.30.0.40:80", { count: 20 })), ["a", "b"]);
    });

    it("load balancer addresses honour source ranges", async () => {
      const [a, b] = pods();
      api.put(SERVICES, {
        ...service("lb", {
          type: "LoadBalancer",
          clusterIP: "172.30.0.50",
          clusterIPs: ["172.30.0.50"],
          loadBalancerSourceRanges: ["10.244.0.2/32"],
        }),
        status: { loadBalancer: { ingress: [{ ip: "198.51.100.7" }] } },
      });
      api.put(ENDPOINT_SLICES, slice("lb", [{ ip: "10.244.0.4" }]));
      await rulesHave("198.51.100.7 . tcp . 80 : goto x-c1");
      assert.match((await a.ask("tcp", "198.51.100.7:80"))[0] ?? "", /^c /);
      assert.deepEqual(await b.ask("tcp", "198.51.100.7:80", { timeoutMs: 300 }), ["timeout"]);
    });

    it("IPv6 works the same", async () => {
      const spec = {
        clusterIP: "fd00:30::1",
        clusterIPs: ["fd00:30::1"],
        ipFamilies: ["IPv6" as const],
      };
      api.put(SERVICES, service("six", spec));
      api.put(
        ENDPOINT_SLICES,
        slice("six", [{ ip: "fd00:244::2" }, { ip: "fd00:244::3" }], "IPv6"),
      );
      await rulesHave("fd00:30::1 . tcp . 80 : goto c2");
      const [a, , c] = pods();
      assert.deepEqual(
        [...new Set(await c.ask("tcp", "fd00:30::1:80", { count: 20 }))].toSorted(),
        ["a fd00:244::4", "b fd00:244::4"],
      );
      assert.deepEqual(names(await a.ask("udp", "fd00:30::1:80", { count: 20 })), ["a", "b"]);
      assert.deepEqual(names(await askFromNode("tcp", "fd00:30::1:80", { count: 20 })), ["a", "b"]);
    });

    it("endpoints that come and go are nobody's damage", async () => {
      const repairs = async (): Promise<string> => {
        const metrics = await (await fetch("http://127.0.0.1:10249/metrics")).text();
        return (
          /remora_proxy_drift_repairs_total\{ip_family="IPv4"\} (\d+)/.exec(metrics)?.[1] ?? "0"
        );
      };
      const before = await repairs();
      api.put(SERVICES, service("busy", { clusterIP: "172.30.0.77" }));
      // Numbers that no other Service here has, so that what is not used any more is to be deleted.
      const ips = ["2", "3", "4", "5", "6"].map((last) => `10.244.0.${last}`);
      for (const count of [5, 4, 5, 4, 1, 5, 0, 4, 5, 4, 5]) {
        api.put(
          ENDPOINT_SLICES,
          slice(
            "busy",
            ips.slice(0, count).map((ip) => ({ ip })),
          ),
        );
        // Longer than own deletions are remembered, in the middle.
        await delay(count === 1 ? 2200 : 150);
      }
      await rulesHave("172.30.0.77 . tcp . 80 : goto c5");
      await delay(1500);
      assert.equal(await repairs(), before);
      api.remove(SERVICES, "default/busy");
    });

    it("rules that somebody flushed are back at once", async () => {
      await sh("nft", "delete", "table", "ip", "remora-proxy");
      await rulesHave("172.30.0.1 . tcp . 80 : goto c2");
      assert.deepEqual(names(await askFromNode("tcp", "172.30.0.1:80", { count: 20 })), ["a", "b"]);
    });

    it("a rule, a chain or a map's chain that somebody deleted alone is back at once", async () => {
      const rulesOf = async (): Promise<string> =>
        (await sh("nft", "-s", "list", "table", "ip", "remora-proxy")).replaceAll(
          /elements = \{[^}]*\}|expires \S+/g,
          "",
        );
      await delay(2500); // what the proxy itself rewrote counts as its own for two seconds
      const whole = await rulesOf();
      const handle = /vmap @svc.*# handle (\d+)/.exec(
        await sh("nft", "-a", "list", "chain", "ip", "remora-proxy", "services"),
      )?.[1];
      assert.ok(handle !== undefined);
      const damages: readonly (readonly [string, ...string[]])[] = [
        ["nft", "delete", "rule", "ip", "remora-proxy", "services", "handle", handle],
        ["nft", "flush", "chain", "ip", "remora-proxy", "postrouting"],
        ["nft", "flush", "chain", "ip", "remora-proxy", "c2"],
        ["nft", "flush", "chain", "ip", "remora-proxy", "reject-in"],
      ];
      for (const damage of damages) {
        await sh(...damage);
        // The damage may be mended before anybody can look; the repairs are counted below.
        await eventually(async () => (await rulesOf()) === whole, damage.join(" "));
        await delay(2100);
      }
      assert.deepEqual(names(await askFromNode("tcp", "172.30.0.1:80", { count: 20 })), ["a", "b"]);
      const metrics = await (await fetch("http://127.0.0.1:10249/metrics")).text();
      assert.match(metrics, /remora_proxy_drift_repairs_total\{ip_family="IPv4"\} [4-9]/);
      assert.match(metrics, /remora_proxy_table_lost_total\{ip_family="IPv4"\} 1/);
      assert.equal(await (await fetch("http://127.0.0.1:10249/proxyMode")).text(), "nftables");
    });

    it("a packet to a ClusterIP that no Service has does not leave the node, once the network is known", async () => {
      const [a] = pods();
      // The client at the end of the default route drops it in silence.
      assert.deepEqual(await a.ask("tcp", "172.30.99.1:80", { timeoutMs: 300 }), ["timeout"]);
      api.put(SERVICE_CIDRS, {
        apiVersion: "networking.k8s.io/v1",
        kind: "ServiceCIDR",
        metadata: { name: "kubernetes" },
        spec: { cidrs: ["172.30.0.0/16", "fd00:30::/112"] },
      });
      await rulesHave("ip daddr 172.30.0.0/16 fib daddr type != local goto rej");
      assert.deepEqual(await a.ask("tcp", "172.30.99.1:80"), ["ECONNREFUSED"]);
      assert.deepEqual(await askFromNode("tcp", "172.30.99.1:80"), ["ECONNREFUSED"]);
      assert.deepEqual(await a.ask("tcp", "fd00:30::99:80"), ["ECONNREFUSED"]);
      assert.deepEqual(names(await a.ask("tcp", "172.30.0.1:80", { count: 20 })), ["a", "b"]);
    });

    it("the health check port of a Service answers load balancers", async () => {
      const spec: ServiceSpec = {
        type: "LoadBalancer",
        clusterIP: "172.30.0.60",
        clusterIPs: ["172.30.0.60"],
        externalTrafficPolicy: "Local",
        healthCheckNodePort: 31_000,
        ports: [{ name: "t", port: 80, protocol: "TCP", nodePort: 30_060 }],
      };
      const status = async (): Promise<number> => {
        const url = "http://192.0.2.1:31000/";
        const answer = await fetch(url, { headers: { connection: "close" } }).catch(
          () => undefined,
        );
        return answer?.status ?? 0;
      };
      api.put(SERVICES, service("checked", spec));
      api.put(ENDPOINT_SLICES, slice("checked", [{ ip: "10.244.0.2" }]));
      await eventually(async () => (await status()) === 200, "200 with a local endpoint");
      api.put(ENDPOINT_SLICES, slice("checked", [{ ip: "10.244.0.2", elsewhere: true }]));
      await eventually(async () => (await status()) === 503, "503 without one");
      api.put(SERVICES, service("checked", { ...spec, externalTrafficPolicy: "Cluster" }));
      await eventually(async () => (await status()) === 0, "closed");
    });

    it("healthz answers 200 with the families", async () => {
      const response = await fetch("http://127.0.0.1:10256/healthz");
      const body = (await response.json()) as { healthy: boolean; status: Record<string, unknown> };
      assert.equal(response.status, 200);
      assert.equal(body.healthy, true);
      assert.deepEqual(Object.keys(body.status).toSorted(), ["IPv4", "IPv6"]);
    });

    it("a restart adopts the table as it is and leaves connections alone", async () => {
      const handles = async (): Promise<string> =>
        (await sh("nft", "-a", "list", "table", "ip", "remora-proxy")).replaceAll(
          /expires \S+/g,
          "",
        );
      // Unused chains go a second after the last change; wait for that, so that the listings compare.
      let listing = await handles();
      await delay(1500);
      listing = await handles();
      stop.abort();
      await running;
      assert.equal(await handles(), listing, "rules stay when the proxy ends");
      start();
      await eventually(async () => {
        const response = await fetch("http://127.0.0.1:10256/healthz").catch(() => undefined);
        return (
          response?.status === 200 &&
          Object.keys(((await response.json()) as { status: object }).status).length === 2
        );
      }, "synchronised");
      assert.equal(await handles(), listing);
    });

    it("a UDP flow whose endpoint went while the agent was down follows after the start", async () => {
      const [, , c] = pods();
      const flow = { localPort: 5557, timeoutMs: 300 };
      const before = await c.ask("udp", "172.30.0.1:80", flow);
      const [stays, gone] =
        before[0]?.startsWith("a") === true
          ? ["10.244.0.3", "10.244.0.2"]
          : ["10.244.0.2", "10.244.0.3"];
      stop.abort();
      await running;
      api.put(ENDPOINT_SLICES, slice("web", [{ ip: stays }]));
      const left = (): Promise<string> =>
        sh("conntrack", "-L", "-p", "udp", "--orig-dst", "172.30.0.1", "--reply-src", gone);
      assert.match(await left(), /sport=5557/);
      start();
      await eventually(async () => !(await left()).includes("sport=5557"), "forgotten");
      const after = await c.ask("udp", "172.30.0.1:80", flow);
      assert.notEqual(after[0]?.[0], before[0]?.[0]);
      assert.notEqual(after[0], "timeout");
      api.put(ENDPOINT_SLICES, slice("web", [{ ip: "10.244.0.2" }, { ip: "10.244.0.3" }]));
      await rulesHave("172.30.0.1 . tcp . 80 : goto c2");
    });

    it("a removed Service leaves nothing behind", async () => {
      for (const { metadata } of api.list(SERVICES)) {
        api.remove(SERVICES, `default/${metadata.name}`);
      }
      api.remove(SERVICE_CIDRS, "kubernetes");
      await rulesHave("172.30.0.", false);
      // What is not used any more goes a second later.
      await delay(1200);
      const left = /chain (n?c\d|n?l\d|x|a[cl]-|e-|fw-)|map ep-|10\.244\.0\.[234]/;
      await eventually(
        async () => !left.test(await sh("nft", "list", "table", "ip", "remora-proxy")),
        "no chain, map or endpoint left",
      );
    });

    it("clean-up leaves the host as it was", async () => {
      stop.abort();
      await running;
      await cleanUpProxy(signal);
      await cleanUpProxy(signal);
      await network.cleanUp(signal);
      assert.equal(await inventory(), untouched);
    });
  });
}

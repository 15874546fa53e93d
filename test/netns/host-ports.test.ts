// Host ports with real packets, written by nftables and by iptables. The first case is the one of the conformance test
// "HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol".
import assert from "node:assert/strict";
import { createServer, type Server } from "node:net";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";

import { ipFamily } from "../../src/lib/cidr.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { type Logger, silentLogger } from "../../src/lib/log.ts";
import { createBridgeNetwork } from "../../src/network/bridge.ts";
import type { HostPort, LocalAddresses, PodNetwork } from "../../src/network/types.ts";
import { cleanUpProxy } from "../../src/proxy/cleanup.ts";
import { cleanUpIptables } from "../../src/proxy/iptables/cleanup.ts";
import { readHost, readKernelRules } from "../../src/proxy/trace/read-kernel.ts";
import { reportLines, reportWays } from "../../src/proxy/trace/report.ts";
import { walk } from "../../src/proxy/trace/walk.ts";
import { addressesOf, here, makeBackend, rulesFor, settingsOf } from "../unit/proxy/model/build.ts";
import { modelService, type ModelCluster } from "../unit/proxy/model/cluster.ts";
import { askTCP, askUDP } from "./asking.ts";
import { askSCTP, serveSCTP } from "./proxy/sctp.ts";
import { connectOutside, insideOwnNamespace, inventory, Machine, sh } from "./namespace.ts";

const { signal } = new AbortController();
const podCIDRs = ["10.244.0.0/24", "fd00:244::/64"];
const [nodeV4, nodeV6] = ["192.0.2.1", "2001:db8:5::1"];

function portOf(hostPort: number, more: Partial<HostPort> = {}): HostPort {
  return { protocol: "TCP", hostIP: "", hostPort, containerPort: 8080, ...more };
}

/** Asks from the node itself; the first word of an answer is the pod's name. */
async function fromNode(
  protocol: "tcp" | "udp",
  host: string,
  port: number,
  localAddress?: string,
): Promise<string> {
  const question = { host, port, timeoutMs: 700, localPort: 0, localAddress };
  const answer = await (protocol === "tcp" ? askTCP(question) : askUDP(question));
  return answer.split(" ")[0] ?? "";
}

async function serving(
  machine: Machine,
  suffix: "v4" | "v6",
  tag: number,
): Promise<AsyncDisposable> {
  const socket = await serveSCTP(machine, { suffix }, tag);
  return { [Symbol.asyncDispose]: () => socket.close() };
}

/** A Service with everything on one port number, whose only endpoint is a pod. */
function serviceOn(
  port: number,
  endpoints: Readonly<Record<"IPv4" | "IPv6", string>>,
): ModelCluster {
  const service = modelService({
    name: "web",
    type: "LoadBalancer",
    clusterIPs: { IPv4: addressesOf.IPv4.clusterIP(9), IPv6: addressesOf.IPv6.clusterIP(9) },
    externalIPs: [addressesOf.IPv4.external(1), addressesOf.IPv6.external(1)],
    ingress: [{ ip: addressesOf.IPv4.balancer(1) }, { ip: addressesOf.IPv6.balancer(1) }],
    ports: [{ name: "p", protocol: "tcp", port, nodePort: port }],
  });
  const slices = (["IPv4", "IPv6"] as const).map(
    (family) =>
      [
        `web-${family}`,
        {
          name: `web-${family.toLowerCase()}`,
          service: "web",
          family,
          ports: [{ name: "p", protocol: "tcp", port: 8080 }],
          endpoints: [
            { ip: endpoints[family], node: "here", ready: true, serving: true, terminating: false },
          ],
        },
      ] as const,
  );
  return { services: new Map([["web", service]]), slices: new Map(slices) };
}

if (insideOwnNamespace(import.meta.filename)) {
  for (const rulesProgram of ["nftables", "iptables"] as const) {
    describe(`host ports written by ${rulesProgram}`, { concurrency: false }, () => {
      let stateDir = "";
      let client: Machine;
      let network: PodNetwork & LocalAddresses;
      const pods = new Map<string, Machine>();

      const create = (): PodNetwork & LocalAddresses =>
        createBridgeNetwork({
          stateDir,
          clusterCIDRs: ["10.244.0.0/16", "fd00:244::/48"],
          clock: systemClock,
          logger: silentLogger,
          rulesProgram,
        });

      const idOf = (name: string): string => `${rulesProgram}-${name}`;

      /** A pod that says its name on port 8080. */
      async function pod(name: string, hostPorts: readonly HostPort[]): Promise<readonly string[]> {
        const machine = pods.get(name) ?? (await Machine.start());
        const known = pods.has(name);
        pods.set(name, machine);
        const { ips } = await network.setUp(
          {
            sandboxID: idOf(name),
            podUID: name,
            podKey: `default/${name}`,
            pid: machine.pid,
            hostPorts,
          },
          signal,
        );
        if (!known) await machine.serve(name, 8080);
        return ips;
      }

      async function gone(name: string): Promise<void> {
        await network.tearDown(idOf(name), signal);
        await pods.get(name)?.stop();
        pods.delete(name);
      }

      before(async () => {
        stateDir = await mkdtemp(join(tmpdir(), "remora-host-ports-"));
        client = await connectOutside();
        await sh("iptables", "-P", "FORWARD", "DROP");
        await sh("ip6tables", "-P", "FORWARD", "DROP");
        // What the plug-in portmap of CNI leaves on machines that had it.
        await sh("iptables", "-t", "nat", "-N", "CNI-HOSTPORT-DNAT");
        const jump = "PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT";
        await sh("iptables", "-t", "nat", "-A", ...jump.split(" "));
        network = create();
        await network.ensureNode(podCIDRs, signal);
      });

      afterEach(async () => {
        for (const name of pods.keys()) await gone(name);
      });

      after(async () => {
        await Machine.stopAll();
        await rm(stateDir, { recursive: true, force: true });
        await sh("ip", "link", "del", "up0").catch(() => undefined);
        await sh("nft", "flush", "ruleset");
      });

      it("of one number with different hostIP and protocol lead to different pods", async () => {
        for (const [localhost, node, tag] of [
          ["127.0.0.1", nodeV4, "v4"],
          ["::1", nodeV6, "v6"],
        ] as const) {
          await pod(`${tag}-1`, [portOf(54323, { hostIP: localhost })]);
          await pod(`${tag}-2`, [portOf(54323, { hostIP: node })]);
          await pod(`${tag}-3`, [portOf(54323, { hostIP: node, protocol: "UDP" })]);
          assert.equal(await fromNode("tcp", localhost, 54323, node), `${tag}-1`);
          assert.equal(await fromNode("tcp", node, 54323), `${tag}-2`);
          assert.equal(await fromNode("udp", node, 54323), `${tag}-3`);
          // From outside, only what is bound to an address that can be reached there.
          assert.match(
            (await client.ask("tcp", `${node}:54323`))[0] ?? "",
            new RegExp(`^${tag}-2 `),
          );
        }
      });

      it("on a loopback address answer the node, whatever address it asks from", async () => {
        await pod("loop", [portOf(5000), portOf(5001, { hostIP: "127.0.0.5" })]);
        assert.equal(await fromNode("tcp", "127.0.0.1", 5000), "loop");
        // The other loopback addresses are for programs of the node, as name servers, unless a pod names them.
        assert.equal(await fromNode("tcp", "127.0.0.53", 5000), "ECONNREFUSED");
        assert.equal(await fromNode("tcp", "127.0.0.5", 5001), "loop");
        // From ::1 no answer of a pod can come back: so nobody waits for one.
        assert.equal(await fromNode("tcp", "::1", 5000, nodeV6), "loop");
        assert.equal(await fromNode("tcp", "::1", 5000), "ECONNREFUSED");
      });

      it("of one address come before those of all", async () => {
        await pod("all", [portOf(5000), portOf(5000, { protocol: "UDP" })]);
        await pod("one", [portOf(5000, { hostIP: nodeV4 }), portOf(5000, { hostIP: nodeV6 })]);
        for (const node of [nodeV4, nodeV6]) {
          assert.equal(await fromNode("tcp", node, 5000), "one");
          assert.equal(await fromNode("udp", node, 5000), "all");
        }
        assert.equal(await fromNode("tcp", "127.0.0.1", 5000), "all");
        await gone("one");
        assert.equal(await fromNode("tcp", nodeV4, 5000), "all");
      });

      it("0.0.0.0 is all of IPv4 only, and :: of IPv6", async () => {
        await pod("four", [portOf(5000, { hostIP: "0.0.0.0" })]);
        await pod("six", [portOf(5001, { hostIP: "::" })]);
        assert.equal(await fromNode("tcp", nodeV4, 5000), "four");
        assert.equal(await fromNode("tcp", nodeV6, 5000), "ECONNREFUSED");
        assert.equal(await fromNode("tcp", nodeV6, 5001), "six");
        assert.equal(await fromNode("tcp", nodeV4, 5001), "ECONNREFUSED");
      });

      it("keep the client's source, from outside, from other pods, and answer the pod itself", async () => {
        const own = await pod("self", [portOf(5000)]);
        const ips = await pod("other", []);
        assert.deepEqual(await client.ask("tcp", `${nodeV4}:5000`), ["self 192.0.2.2"]);
        assert.deepEqual(await client.ask("tcp", `${nodeV6}:5000`), ["self 2001:db8:5::2"]);
        const other = pods.get("other");
        const self = pods.get("self");
        assert.ok(other !== undefined && self !== undefined);
        assert.deepEqual(await other.ask("tcp", `${nodeV4}:5000`), [`self ${ips[0] ?? ""}`]);
        assert.deepEqual(await other.ask("tcp", `${nodeV6}:5000`), [`self ${ips[1] ?? ""}`]);
        // Through the node to itself: it must not see itself as the client, or the answer would not come back the same way.
        for (const node of [nodeV4, nodeV6]) {
          const [answer = ""] = await self.ask("tcp", `${node}:5000`);
          assert.match(answer, /^self /);
          assert.ok(!own.includes(answer.split(" ")[1] ?? ""), answer);
        }
        // Its own loopback is a pod's own.
        assert.deepEqual(await other.ask("tcp", "127.0.0.1:5000"), ["ECONNREFUSED"]);
      });

      it("of SCTP lead to their pod, beside TCP and UDP of the same number", async () => {
        await pod("tcp", [portOf(5000), portOf(5000, { protocol: "UDP" })]);
        await pod("sctp", [portOf(5000, { protocol: "SCTP" })]);
        const server = pods.get("sctp");
        assert.ok(server !== undefined);
        for (const [suffix, node, tag] of [
          ["v4", nodeV4, 0x41],
          ["v6", nodeV6, 0x61],
        ] as const) {
          await using _serving = await serving(server, suffix, tag);
          const to = { ip: node, port: 5000, fromPort: 6000 + tag };
          assert.equal(await askSCTP(client, { suffix }, to), tag);
          assert.equal(await fromNode("tcp", node, 5000), "tcp");
          assert.equal(await fromNode("udp", node, 5000), "tcp");
        }
      });

      it("on an address that is not the node's take nothing, until it is the node's", async () => {
        await client.serve("outside", 9000);
        await pod("thief", [
          portOf(9000, { hostIP: "192.0.2.2" }),
          portOf(9000, { hostIP: "192.0.2.77" }),
        ]);
        await pod("victim", []);
        assert.deepEqual(await pods.get("victim")?.ask("tcp", "192.0.2.2:9000"), [
          `outside ${nodeV4}`,
        ]);
        assert.equal(await fromNode("tcp", "192.0.2.2", 9000), "outside");
        await sh("ip", "addr", "add", "192.0.2.77/32", "dev", "up0");
        assert.deepEqual(await client.ask("tcp", "192.0.2.77:9000"), ["thief 192.0.2.2"]);
        await sh("ip", "addr", "del", "192.0.2.77/32", "dev", "up0");
      });

      it("bound to 127.0.0.1 are not there for who is next to the node", async () => {
        await pod("private", [portOf(5000, { hostIP: "127.0.0.1" }), portOf(5001)]);
        // A neighbour can put any destination into a packet.
        await client.sh("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1");
        await client.sh(
          "ip",
          "route",
          "add",
          "127.0.0.1/32",
          "via",
          nodeV4,
          "dev",
          "eth0",
          "src",
          "192.0.2.2",
          "table",
          "100",
        );
        await client.sh("ip", "rule", "add", "pref", "1", "lookup", "local");
        await client.sh("ip", "rule", "add", "pref", "0", "to", "127.0.0.1/32", "lookup", "100");
        await client.sh("ip", "rule", "del", "pref", "0", "lookup", "local");
        for (const port of [5000, 5001]) {
          const answers = await client.ask("tcp", `127.0.0.1:${port}`, { timeoutMs: 300 });
          assert.deepEqual(answers, ["timeout"]);
        }
        await client.sh("ip", "rule", "del", "pref", "0", "to", "127.0.0.1/32", "lookup", "100");
        assert.deepEqual(await client.ask("tcp", `${nodeV4}:5001`), ["private 192.0.2.2"]);
      });

      it("take datagrams of clients that were sending before, and give them to who has the port later", async () => {
        for (const node of [nodeV4, nodeV6]) {
          const ask = (): Promise<string[]> =>
            client.ask("udp", `${node}:5300`, { localPort: 4444, timeoutMs: 400 });
          // So that the datagrams are not refused, and their flow stays.
          const filter = ["INPUT", "-p", "udp", "--dport", "5300", "-j", "DROP"];
          const program = node === nodeV4 ? "iptables" : "ip6tables";
          await sh(program, "-I", ...filter);
          assert.deepEqual(await ask(), ["timeout"]);
          await pod("first", [portOf(5300, { protocol: "UDP" })]);
          assert.match((await ask())[0] ?? "", /^first /);
          await gone("first");
          await pod("second", [portOf(5300, { protocol: "UDP" })]);
          assert.match((await ask())[0] ?? "", /^second /);
          await gone("second");
          await sh(program, "-D", ...filter);
        }
      });

      it("that two sandboxes claim are the younger one's, at every moment and over a restart", async () => {
        await pod("old", [portOf(5000)]);
        await pod("young", [portOf(5000)]);
        assert.equal(await fromNode("tcp", nodeV4, 5000), "young");
        network = create();
        await network.ensureNode(podCIDRs, signal);
        assert.equal(await fromNode("tcp", nodeV4, 5000), "young");
        await gone("old");
        assert.equal(await fromNode("tcp", nodeV4, 5000), "young");
        assert.equal(await fromNode("tcp", nodeV6, 5000), "young");
      });

      it("answer at once on an address that another pod had a moment ago", async () => {
        const addresses: string[] = [];
        // With its last port a bridge forgets whom it knew.
        await pod("bystander", []);
        for (const name of ["before", "after"]) {
          // A new process hands out addresses from the youngest pod's on, and that is the bystander again.
          network = create();
          await network.ensureNode(podCIDRs, signal);
          addresses.push((await pod(name, [portOf(5000)])).join());
          assert.equal(await fromNode("tcp", nodeV4, 5000), name);
          assert.equal(await fromNode("tcp", nodeV6, 5000), name);
          await gone(name);
        }
        assert.equal(addresses[0], addresses[1]);
      });

      it("come back when others emptied the kernel's rules, and when a pod comes meanwhile", async () => {
        await pod("first", [portOf(5000)]);
        await sh("nft", "flush", "ruleset");
        await network.ensureNode(podCIDRs, signal);
        assert.equal(await fromNode("tcp", nodeV4, 5000), "first");
        await sh("nft", "flush", "ruleset");
        await pod("second", [portOf(5001)]);
        await network.ensureNode(podCIDRs, signal);
        assert.equal(await fromNode("tcp", nodeV4, 5000), "first");
        assert.equal(await fromNode("tcp", nodeV6, 5001), "second");
        await sh("iptables", "-t", "nat", "-N", "CNI-HOSTPORT-DNAT");
        const jump = "PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT";
        await sh("iptables", "-t", "nat", "-I", ...jump.split(" "));
        await sh("iptables", "-P", "FORWARD", "DROP");
        await sh("ip6tables", "-P", "FORWARD", "DROP");
      });

      it("are closed by a process that does not know the node's networks yet", async () => {
        await pod("late", [portOf(5000)]);
        network = create();
        await gone("late");
        const rules =
          rulesProgram === "nftables"
            ? await sh("nft", "list", "map", "ip", "remora-network", "hostports-any")
            : await sh("iptables", "-t", "nat", "-S", "REMORA-HOSTPORTS");
        assert.doesNotMatch(rules, /5000/);
        await network.ensureNode(podCIDRs, signal);
      });

      for (const mode of ["nftables", "iptables"] as const) {
        it(`come after Services of proxy mode ${mode}: VIPs, node ports, external and load balancer addresses`, async () => {
          const ips = await pod("backend", []);
          await pod("holder", [portOf(30_080), portOf(30_080, { hostIP: nodeV4 })]);
          assert.equal(await fromNode("tcp", nodeV4, 30_080), "holder");
          const cluster = serviceOn(30_080, { IPv4: ips[0] ?? "", IPv6: ips[1] ?? "" });
          const external = [addressesOf.IPv4.external(1), addressesOf.IPv4.balancer(1)];
          try {
            for (const family of ["IPv4", "IPv6"] as const) {
              const settings = settingsOf(mode, family);
              await rulesFor(cluster, settings, here, makeBackend(settings)).sync();
            }
            // An external address may be one of the node's own.
            for (const ip of external) await sh("ip", "addr", "add", `${ip}/32`, "dev", "lo");
            await network.ensureNode(podCIDRs, signal);
            for (const ip of [nodeV4, addressesOf.IPv4.clusterIP(9), ...external]) {
              assert.equal(await fromNode("tcp", ip, 30_080), "backend", ip);
            }
            assert.match((await client.ask("tcp", `${nodeV4}:30080`))[0] ?? "", /^backend /);
            assert.match((await client.ask("tcp", `${nodeV6}:30080`))[0] ?? "", /^backend /);
            const holder = pods.get("holder");
            assert.match((await holder?.ask("tcp", `${nodeV4}:30080`))?.[0] ?? "", /^backend /);
          } finally {
            for (const ip of external) await sh("ip", "addr", "del", `${ip}/32`, "dev", "lo");
            await cleanUpProxy(signal);
            await cleanUpIptables(signal);
          }
          await network.ensureNode(podCIDRs, signal);
          assert.equal(await fromNode("tcp", nodeV4, 30_080), "holder");
        });
      }

      it("leave the addresses to the node that it answers on for the cluster", async () => {
        const addresses = ["172.30.0.10", "fd00:30::a"];
        await network.setLocalAddresses(addresses, signal);
        const servers: Server[] = [];
        try {
          for (const address of addresses) {
            const server = createServer((socket) => socket.end("node"));
            servers.push(server);
            await new Promise<void>((resolve) => {
              server.listen(5053, address, resolve);
            });
          }
          await pod("resolver", [portOf(5053)]);
          await pod("asking", []);
          const asking = pods.get("asking");
          for (const address of addresses) {
            assert.equal(await fromNode("tcp", address, 5053), "node");
            assert.deepEqual(await asking?.ask("tcp", `${address}:5053`), ["node"]);
          }
          assert.equal(await fromNode("tcp", nodeV4, 5053), "resolver");
          await network.setLocalAddresses([], signal);
        } finally {
          for (const server of servers) server.close();
        }
      });

      it("are explained by `remora trace`, with the rules that lead to the pod", async () => {
        const ips = await pod("told", [portOf(5000), portOf(5001, { hostIP: nodeV4 })]);
        const told = async (source: string, destination: string, port: number): Promise<string> => {
          const family = ipFamily(destination) ?? "IPv4";
          const host = await readHost(family, signal);
          const kernel = await readKernelRules(family, ["remora-network"], signal);
          assert.deepEqual(kernel.notOwn, []);
          const packet = {
            family,
            protocol: "tcp",
            source,
            sourcePort: 40_000,
            destination,
            destinationPort: port,
            inInterface: host.isLocal(source) ? "" : (host.deviceTo(source) ?? ""),
          } as const;
          const ways = walk(kernel.rules, packet, host);
          const report = reportWays(ways, packet, { ...kernel, from: source });
          return reportLines(report).at(-1) ?? "";
        };
        const pods4 = `delivered: host port of the pod at ${ips[0] ?? ""}:8080, source`;
        assert.equal(await told("192.0.2.2", nodeV4, 5000), `${pods4} 192.0.2.2 kept`);
        assert.equal(await told(nodeV4, nodeV4, 5001), `${pods4} ${nodeV4} kept`);
        const rewritten = `${pods4} rewritten to the node's address`;
        assert.equal(await told("127.0.0.1", "127.0.0.1", 5000), rewritten);
        assert.match(await told("127.0.0.1", "127.0.0.53", 5000), /the node itself/);
        assert.equal(
          await told("2001:db8:5::2", nodeV6, 5000),
          `delivered: host port of the pod at [${ips[1] ?? ""}]:8080, source 2001:db8:5::2 kept`,
        );
        assert.match(await told("::1", "::1", 5000), /the node itself/);
      });

      it("leave nothing behind", async () => {
        await network.cleanUp(signal);
        const left = await inventory();
        assert.doesNotMatch(left, /remora/i);
        assert.match(left, /-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT/);
        // What others have is untouched, also what they have not.
        await sh("nft", "flush", "ruleset");
        const untouched = await inventory();
        await network.ensureNode(podCIDRs, signal);
        await pod("last", [portOf(5000)]);
        await gone("last");
        await network.cleanUp(signal);
        assert.equal(await inventory(), untouched);
      });
    });
  }

  describe("who writes the rules", { concurrency: false }, () => {
    let stateDir = "";
    const lines: Record<string, unknown>[] = [];
    const logger: Logger = {
      log: (level, msg, fields) => lines.push({ level, msg, ...fields }),
      child: () => logger,
    };
    const create = (): PodNetwork =>
      createBridgeNetwork({ stateDir, clusterCIDRs: [], clock: systemClock, logger });

    before(async () => {
      stateDir = await mkdtemp(join(tmpdir(), "remora-host-ports-"));
      await sh("ip", "link", "set", "lo", "up");
    });
    after(async () => {
      await rm(stateDir, { recursive: true, force: true });
    });

    it("is nft, or iptables where nft cannot; what the other wrote goes", async () => {
      const nft = (await sh("sh", "-c", "command -v nft")).trim();
      await create().ensureNode(podCIDRs, signal);
      assert.match(await sh("nft", "list", "tables"), /remora-network/);
      // Here, in a mount namespace of this test's own, nft does nothing any more.
      await sh("mount", "--bind", "/bin/false", nft);
      let other = create();
      try {
        await other.ensureNode(podCIDRs, signal);
        assert.match(await sh("iptables-save", "-t", "nat"), /-j REMORA-HOSTPORTS/);
        assert.match(await sh("ip6tables-save", "-t", "nat"), /-j REMORA-HOSTPORTS/);
        const [said] = lines.filter(({ msg }) => /written by iptables/.test(String(msg)));
        assert.match(String(said?.["reason"]), /cannot do Service rules/);
      } finally {
        await sh("umount", nft);
      }
      other = create();
      await other.ensureNode(podCIDRs, signal);
      assert.doesNotMatch(await sh("iptables-save"), /REMORA-(HOSTPORTS|GUARD|REDIRECTS)/);
      assert.doesNotMatch(await sh("ip6tables-save"), /REMORA-(HOSTPORTS|GUARD|REDIRECTS)/);
      assert.match(await sh("nft", "list", "tables"), /remora-network/);
      await other.cleanUp(signal);
      assert.doesNotMatch(await inventory(), /remora/i);
    });
  });
}

import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { createBridgeNetwork } from "../../src/network/bridge.ts";
import type { HostPort, PodNetwork } from "../../src/network/types.ts";
import {
  askFromNode,
  connectOutside,
  insideOwnNamespace,
  inventory,
  Machine,
  sh,
} from "./namespace.ts";

const { signal } = new AbortController();
const podCIDRs = ["10.244.0.0/24", "fd00:244::/64"];

function sandboxOf(machine: Machine, hostPorts: readonly HostPort[] = []) {
  return {
    sandboxID: `sandbox-${machine.pid}`,
    podUID: `uid-${machine.pid}`,
    podKey: `default/pod-${machine.pid}`,
    pid: machine.pid,
    hostPorts,
  };
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("the pod bridge", { concurrency: false }, () => {
    let stateDir = "";
    let client: Machine;
    let a: Machine;
    let b: Machine;
    let untouched = "";
    let network: PodNetwork;

    const create = (): PodNetwork =>
      createBridgeNetwork({
        stateDir,
        clusterCIDRs: ["10.244.0.0/16", "fd00:244::/48"],
        clock: systemClock,
        logger: silentLogger,
      });

    before(async () => {
      stateDir = await mkdtemp(join(tmpdir(), "remora-network-"));
      client = await connectOutside();
      await sh("iptables", "-P", "FORWARD", "DROP");
      await sh("iptables", "-N", "DOCKER-USER");
      await sh("iptables", "-I", "FORWARD", "-j", "DOCKER-USER");
      await sh("ip6tables", "-P", "FORWARD", "DROP");
      untouched = await inventory();
      [a, b] = [await Machine.start(), await Machine.start()];
      network = create();
    });

    after(async () => {
      await Machine.stopAll();
      await rm(stateDir, { recursive: true, force: true });
    });

    it("is not ready without a pod CIDR and says so", async () => {
      await network.ensureNode([], signal);
      assert.equal(network.ready, false);
      await assert.rejects(network.setUp(sandboxOf(a), signal), /no pod CIDR/);
    });

    it("gives each pod one address per family", async () => {
      await network.ensureNode(podCIDRs, signal);
      assert.equal(network.ready, true);
      const first = await network.setUp(sandboxOf(a), signal);
      const second = await network.setUp(sandboxOf(b), signal);
      assert.deepEqual(first.ips, ["10.244.0.2", "fd00:244::2"]);
      assert.deepEqual(second.ips, ["10.244.0.3", "fd00:244::3"]);
      assert.deepEqual(network.addresses(sandboxOf(a).sandboxID), first.ips);
      await a.serve("a", 8080);
      await b.serve("b", 8080);
    });

    it("pods listen to no router but the node: not to advertisements or redirects of other pods", async () => {
      for (const setting of ["accept_ra", "accept_redirects"]) {
        const value = await a.sh("sysctl", "-n", `net.ipv6.conf.eth0.${setting}`);
        assert.equal(value.trim(), "0", setting);
      }
    });

    for (const callIptables of ["0", "1"]) {
      it(`pods reach each other under their own addresses, bridge-nf-call-iptables=${callIptables}, FORWARD policy DROP`, async () => {
        await sh("sh", "-c", `echo ${callIptables} > /proc/sys/net/bridge/bridge-nf-call-iptables`);
        await sh(
          "sh",
          "-c",
          `echo ${callIptables} > /proc/sys/net/bridge/bridge-nf-call-ip6tables`,
        );
        assert.deepEqual(await a.ask("tcp", "10.244.0.3:8080"), ["b 10.244.0.2"]);
        assert.deepEqual(await a.ask("udp", "10.244.0.3:8080"), ["b 10.244.0.2"]);
        assert.deepEqual(await a.ask("tcp", "fd00:244::3:8080"), ["b fd00:244::2"]);
      });
    }

    it("the node reaches pods and pods reach the node", async () => {
      assert.deepEqual(await askFromNode("tcp", "10.244.0.2:8080"), ["a 10.244.0.1"]);
      assert.deepEqual(await askFromNode("tcp", "fd00:244::2:8080"), ["a fd00:244::1"]);
      await a.sh("ping", "-c1", "-W1", "192.0.2.1").catch(async () => {
        await a.sh("busybox", "ping", "-c1", "-W1", "192.0.2.1");
      });
    });

    it("what leaves the cluster leaves under the node's address", async () => {
      await client.serve("outside", 9000);
      assert.deepEqual(await a.ask("tcp", "192.0.2.2:9000"), ["outside 192.0.2.1"]);
      assert.deepEqual(await a.ask("tcp", "2001:db8:5::2:9000"), ["outside 2001:db8:5::1"]);
    });

    it("setting up twice changes nothing, also for a new process", async () => {
      const before = await a.sh("ip", "-o", "addr");
      await network.setUp(sandboxOf(a), signal);
      const restarted = create();
      await restarted.ensureNode(podCIDRs, signal);
      const again = await restarted.setUp(sandboxOf(a), signal);
      assert.deepEqual(again.ips, ["10.244.0.2", "fd00:244::2"]);
      assert.equal(await a.sh("ip", "-o", "addr"), before);
      assert.deepEqual(await b.ask("tcp", "10.244.0.2:8080"), ["a 10.244.0.3"]);
      network = restarted;
    });

    it("a set-up that was killed after any of its commands is completed by the next", async () => {
      const machine = await Machine.start();
      try {
        const sandbox = sandboxOf(machine);
        const { ips } = await network.setUp(sandbox, signal);
        const { vethName } = await import("../../src/network/links.ts");
        const veth = vethName(sandbox.sandboxID);
        const damages: readonly (readonly string[])[] = [
          ["ip", "link", "del", veth],
          ["ip", "link", "set", veth, "nomaster"],
          ["ip", "link", "set", veth, "down"],
          ["nsenter", "-t", String(machine.pid), "-n", "ip", "addr", "flush", "dev", "eth0"],
          ["nsenter", "-t", String(machine.pid), "-n", "ip", "link", "set", "eth0", "down"],
        ];
        for (const [file = "", ...args] of damages) {
          await sh(file, ...args);
          network = create();
          await network.ensureNode(podCIDRs, signal);
          assert.deepEqual((await network.setUp(sandbox, signal)).ips, ips);
          assert.deepEqual(await machine.ask("tcp", "10.244.0.2:8080"), [`a ${ips[0] ?? ""}`]);
        }
        await network.tearDown(sandbox.sandboxID, signal);
        assert.equal(network.addresses(sandbox.sandboxID), undefined);
      } finally {
        await machine.stop();
      }
    });

    it("host ports answer from outside, from the node, on loopback, from pods and from the pod itself", async () => {
      const machine = await Machine.start();
      try {
        const ports: HostPort[] = [
          { protocol: "TCP", hostIP: "", hostPort: 5000, containerPort: 8080 },
          { protocol: "UDP", hostIP: "", hostPort: 5000, containerPort: 8080 },
          { protocol: "TCP", hostIP: "192.0.2.1", hostPort: 5001, containerPort: 8080 },
        ];
        const sandbox = sandboxOf(machine, ports);
        const { ips } = await network.setUp(sandbox, signal);
        await machine.serve("c", 8080);
        assert.deepEqual(await client.ask("tcp", "192.0.2.1:5000"), ["c 192.0.2.2"]);
        assert.deepEqual(await client.ask("udp", "192.0.2.1:5000"), ["c 192.0.2.2"]);
        assert.deepEqual(await client.ask("tcp", "192.0.2.1:5001"), ["c 192.0.2.2"]);
        assert.deepEqual(await client.ask("tcp", "2001:db8:5::1:5000"), ["c 2001:db8:5::2"]);
        assert.deepEqual(await askFromNode("tcp", "127.0.0.1:5000"), ["c 10.244.0.1"]);
        assert.match((await askFromNode("tcp", "192.0.2.1:5000"))[0] ?? "", /^c /);
        assert.deepEqual(await askFromNode("tcp", "127.0.0.1:5001"), ["ECONNREFUSED"]);
        assert.deepEqual(await a.ask("tcp", "192.0.2.1:5000"), ["c 10.244.0.2"]);
        assert.match((await machine.ask("tcp", "192.0.2.1:5000"))[0] ?? "", /^c /);
        // A new process finds the same ports, from the leases alone.
        await sh("nft", "delete", "table", "ip", "remora-network");
        network = create();
        await network.ensureNode(podCIDRs, signal);
        assert.deepEqual(await client.ask("tcp", "192.0.2.1:5000"), ["c 192.0.2.2"]);
        await network.tearDown(sandbox.sandboxID, signal);
        assert.deepEqual(await client.ask("tcp", "192.0.2.1:5000"), ["ECONNREFUSED"]);
        assert.equal(ips.length, 2);
      } finally {
        await machine.stop();
      }
    });

    it("a pod cannot reach the node's loopback", async () => {
      await sh("sysctl", "-qw", "net.ipv4.conf.remora0.route_localnet=1");
      const commands = [
        "ip route add 127.0.0.9/32 via 10.244.0.1 dev eth0 table 100",
        "ip rule add pref 1 lookup local",
        "ip rule add pref 0 to 127.0.0.9/32 lookup 100",
        "ip rule del pref 0 lookup local",
      ];
      await a.sh("sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1");
      for (const command of commands) await a.sh(...command.split(" "));
      assert.deepEqual(await a.ask("tcp", "127.0.0.9:22", { timeoutMs: 300 }), ["timeout"]);
    });

    it("puts the jump back on top when Docker put its own there", async () => {
      await sh("iptables", "-N", "DOCKER-NEW");
      await sh("iptables", "-I", "FORWARD", "-j", "DOCKER-NEW");
      await network.ensureNode(podCIDRs, signal);
      const rules = (await sh("iptables", "-S", "FORWARD"))
        .split("\n")
        .filter((line) => line.startsWith("-A"));
      assert.equal(rules[0], "-A FORWARD -j REMORA-FORWARD");
      assert.equal(rules.filter((rule) => rule.includes("REMORA")).length, 1);
      await sh("iptables", "-D", "FORWARD", "-j", "DOCKER-NEW");
      await sh("iptables", "-X", "DOCKER-NEW");
    });

    it("puts its own table back when a program emptied or deleted it, and leaves one that is whole alone", async () => {
      const listing = (family: string): Promise<string> =>
        sh("nft", "-a", "list", "table", family, "remora-network");
      // Handles are counted up for each rule that is made, so equal ones tell that nothing was written.
      const rulesOf = (text: string): string => text.replaceAll(/ # handle \d+/g, "");
      const before = [await listing("ip"), await listing("ip6")];
      await network.ensureNode(podCIDRs, signal);
      assert.deepEqual([await listing("ip"), await listing("ip6")], before);
      await sh("nft", "flush", "table", "ip", "remora-network");
      await sh("nft", "delete", "table", "ip6", "remora-network");
      await network.ensureNode(podCIDRs, signal);
      const after = [await listing("ip"), await listing("ip6")];
      assert.deepEqual(after.map(rulesOf), before.map(rulesOf));
      assert.notDeepEqual(after, before);
    });

    it("frees what belongs to sandboxes that are gone", async () => {
      const gone = await Machine.start();
      const sandbox = sandboxOf(gone);
      await network.setUp(sandbox, signal);
      await gone.stop();
      network = create();
      await network.ensureNode(podCIDRs, signal);
      await network.collectGarbage(
        new Set([sandboxOf(a).sandboxID, sandboxOf(b).sandboxID]),
        signal,
      );
      assert.equal(network.addresses(sandbox.sandboxID), undefined);
      assert.deepEqual(await a.ask("tcp", "10.244.0.3:8080"), ["b 10.244.0.2"]);
      assert.equal((await readdir(join(stateDir, "ipam"))).length, 4);
    });

    it("a torn-down pod leaves nothing, and its address is not handed out next", async () => {
      const freed = network.addresses(sandboxOf(b).sandboxID);
      await network.tearDown(sandboxOf(b).sandboxID, signal);
      await network.tearDown(sandboxOf(b).sandboxID, signal);
      const next = await Machine.start();
      const { ips } = await network.setUp(sandboxOf(next), signal);
      assert.notDeepEqual(ips, freed);
      await network.tearDown(sandboxOf(next).sandboxID, signal);
      await next.stop();
    });

    it("clean-up leaves the host as it was", async () => {
      await network.cleanUp(signal);
      await network.cleanUp(signal);
      assert.equal(await inventory(), untouched);
      assert.deepEqual(await readdir(stateDir), []);
    });
  });
}

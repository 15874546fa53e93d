import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { followRoutes } from "../../src/agent/machine-addresses.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { AddressWatch } from "../../src/netfilter/address-watch.ts";
import {
  ensureNodeRoutes,
  listNodeRoutes,
  removeNodeRoutes,
} from "../../src/network/node-routes.ts";
import type { RemoteNode } from "../../src/network/route-plan.ts";
import { connectOutside, insideOwnNamespace, type Machine, sh } from "./namespace.ts";

const { signal } = new AbortController();
const own = ["10.244.0.0/24", "fd00:244::/64"];

function node(name: string, third: number, last: number): RemoteNode {
  return {
    name,
    podCIDRs: [`10.244.${third}.0/24`, `fd00:244:0:${third}::/64`],
    addresses: [`192.0.2.${last}`, `2001:db8:5::${last}`],
  };
}

async function routes(): Promise<string> {
  const [v4, v6] = [
    await sh("ip", "-4", "route", "show", "proto", "82"),
    await sh("ip", "-6", "route", "show", "proto", "82"),
  ];
  return (v4 + v6).replaceAll(/ pref medium| +$/gm, "").trim();
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("routes to other nodes", { concurrency: false }, () => {
    let other: Machine;

    before(async () => {
      other = await connectOutside();
    });

    after(async () => {
      await other.stop();
    });

    it("come, stay, are put back, move to another node and go", async () => {
      const first = await ensureNodeRoutes([node("two", 1, 2)], own, signal);
      assert.equal(first.replaced.length, 2);
      const set = [
        "10.244.1.0/24 via 192.0.2.2 dev up0 metric 2048",
        "fd00:244:0:1::/64 via 2001:db8:5::2 dev up0 metric 2048",
      ].join("\n");
      assert.equal(await routes(), set);
      const second = await ensureNodeRoutes([node("two", 1, 2)], own, signal);
      assert.deepEqual(second, { replaced: [], removed: [], problems: [], overruled: [] });

      await sh("ip", "route", "del", "10.244.1.0/24");
      await ensureNodeRoutes([node("two", 1, 2)], own, signal);
      assert.equal(await routes(), set);

      await ensureNodeRoutes([node("three", 1, 3)], own, signal);
      assert.equal(await routes(), set.replace("0.2.2", "0.2.3").replace("5::2", "5::3"));
      await ensureNodeRoutes([], own, signal);
      assert.equal(await routes(), "");
    });

    it("lead packets to the other machine's pods under their own addresses", async () => {
      await other.sh("ip", "addr", "add", "10.244.1.7/32", "dev", "lo");
      await sh("ip", "addr", "add", "10.244.0.1/24", "dev", "lo");
      await other.sh("ip", "route", "add", "10.244.0.0/24", "via", "192.0.2.1");
      await ensureNodeRoutes([node("two", 1, 2)], own, signal);
      await sh("busybox", "ping", "-c1", "-W2", "-I", "10.244.0.1", "10.244.1.7");
    });

    it("routes of others to the same network are not touched and win", async () => {
      await ensureNodeRoutes([], own, signal);
      await sh("ip", "route", "add", "10.244.1.0/24", "via", "192.0.2.9");
      await ensureNodeRoutes([node("two", 1, 2)], own, signal);
      assert.match(await sh("ip", "route", "get", "10.244.1.7"), /via 192\.0\.2\.9/);
      const { overruled } = await ensureNodeRoutes([node("two", 1, 2)], own, signal);
      assert.equal(overruled.length, 1);
      assert.match(overruled[0] ?? "", /^10\.244\.1\.0\/24 via 192\.0\.2\.2 .* via 192\.0\.2\.9/);
      await removeNodeRoutes(signal);
      assert.match(await sh("ip", "route", "show", "10.244.1.0/24"), /^10\.244\.1\.0\/24 via/);
      assert.equal(await sh("ip", "-6", "route", "show", "fd00:244:0:1::/64"), "");
      await sh("ip", "route", "del", "10.244.1.0/24");
      assert.deepEqual(await listNodeRoutes(signal), []);
    });

    it("a rule that sends pods' packets elsewhere (`ip rule`) is seen, also where they go nowhere", async () => {
      await ensureNodeRoutes([node("two", 1, 2)], own, signal);
      await sh("ip", "rule", "add", "to", "10.244.0.0/16", "lookup", "100");
      await sh("ip", "route", "add", "blackhole", "10.244.0.0/16", "table", "100");
      const { overruled } = await ensureNodeRoutes([node("two", 1, 2)], own, signal);
      await sh("ip", "rule", "del", "to", "10.244.0.0/16", "lookup", "100");
      assert.equal(overruled.length, 1, overruled.join());
      assert.match(overruled[0] ?? "", /sends 10\.244\.1\.2 nowhere/);
      const after = await ensureNodeRoutes([node("two", 1, 2)], own, signal);
      assert.deepEqual(after, { replaced: [], removed: [], problems: [], overruled: [] });
      await removeNodeRoutes(signal);
    });

    it("several segments, and a tunnel that others made: each node by the interface that reaches it", async () => {
      const pair = "link add seg1 type veth peer name seg1 netns";
      await sh("ip", ...pair.split(" "), String(other.pid));
      await sh("ip", "addr", "add", "198.51.100.1/24", "dev", "seg1");
      await sh("ip", "link", "set", "seg1", "up");
      await other.sh("ip", "addr", "add", "198.51.100.3/24", "dev", "seg1");
      await other.sh("ip", "link", "set", "seg1", "up");
      await sh("ip", "tuntap", "add", "tun9", "mode", "tun");
      await sh("ip", "addr", "add", "10.99.0.1/24", "dev", "tun9");
      await sh("ip", "link", "set", "tun9", "up");
      const nodes = [
        { name: "two", podCIDRs: ["10.244.1.0/24"], addresses: ["203.0.113.9", "192.0.2.2"] },
        { name: "three", podCIDRs: ["10.244.3.0/24"], addresses: ["198.51.100.3"] },
        { name: "four", podCIDRs: ["10.244.4.0/24"], addresses: ["10.99.0.4"] },
      ];
      const { problems } = await ensureNodeRoutes(nodes, own, signal);
      assert.deepEqual(problems, []);
      assert.deepEqual(
        (await routes()).split("\n").map((line) => line.replace(/ linkdown/, "")),
        [
          "10.244.1.0/24 via 192.0.2.2 dev up0 metric 2048",
          "10.244.3.0/24 via 198.51.100.3 dev seg1 metric 2048",
          "10.244.4.0/24 via 10.99.0.4 dev tun9 metric 2048",
        ],
      );
      // The node moves to the first segment.
      const moved = [
        { ...nodes[1], name: "three", podCIDRs: ["10.244.3.0/24"], addresses: ["192.0.2.3"] },
      ];
      await ensureNodeRoutes(moved, own, signal);
      assert.equal(await routes(), "10.244.3.0/24 via 192.0.2.3 dev up0 metric 2048");
      await removeNodeRoutes(signal);
      await sh("ip", "link", "del", "seg1");
      await sh("ip", "link", "del", "tun9");
    });

    it("a node with an address of this machine is a problem of its own", async () => {
      const twin = { name: "twin", podCIDRs: ["10.244.5.0/24"], addresses: ["192.0.2.1"] };
      const { problems } = await ensureNodeRoutes([twin], own, signal);
      assert.match(problems[0]?.message ?? "", /192\.0\.2\.1 is one of this machine too/);
      assert.equal(await routes(), "");
    });

    it("a node that is not on-link is a problem, and the others get their routes", async () => {
      const far = { ...node("far", 2, 2), addresses: ["198.51.100.7", "2001:db8:9::7"] };
      const report = await ensureNodeRoutes([far, node("two", 1, 2)], own, signal);
      assert.deepEqual(
        report.problems.map(({ node, podCIDR }) => `${node} ${podCIDR}`),
        ["far 10.244.2.0/24", "far fd00:244:0:2::/64"],
      );
      assert.equal((await listNodeRoutes(signal)).length, 2);
      await removeNodeRoutes(signal);
    });

    it("works without a default route", async () => {
      await sh("ip", "route", "del", "default");
      const far = { ...node("far", 2, 2), addresses: ["198.51.100.7"] };
      await ensureNodeRoutes([far, node("two", 1, 2)], own, signal);
      assert.equal((await listNodeRoutes(signal)).length, 2);
    });

    it("the monitor tells of a link that went and took its routes along, and of a deletion", async () => {
      const stop = new AbortController();
      let disturbed = Promise.withResolvers<void>();
      const watch = new AddressWatch({ clock: systemClock, logger: silentLogger, random: () => 0 });
      const onDisturbed = (): void => disturbed.resolve();
      const watching = Promise.all([
        watch.run(stop.signal),
        followRoutes(watch)({ bridge: "remora0", onDisturbed }, stop.signal),
      ]);
      const disturb = async (...argv: [string, ...string[]]): Promise<void> => {
        // The monitor may still be starting: what happens before it listens is not told.
        for (;;) {
          disturbed = Promise.withResolvers<void>();
          await ensureNodeRoutes([node("two", 1, 2)], own, signal);
          await sh(...argv);
          const told = await Promise.race([
            disturbed.promise.then(() => true),
            systemClock.sleep(500, signal),
          ]);
          if (told === true) return;
        }
      };
      await disturb("ip", "route", "del", "10.244.1.0/24");
      await disturb("ip", "link", "set", "up0", "down");
      assert.equal(await routes(), "", "the kernel took them");
      await sh("ip", "link", "set", "up0", "up");
      // The link's IPv6 addresses went with it.
      await ensureNodeRoutes([node("two", 1, 2)], own, signal);
      assert.equal(await routes(), "10.244.1.0/24 via 192.0.2.2 dev up0 metric 2048");
      stop.abort();
      await watching;
    });
  });
}

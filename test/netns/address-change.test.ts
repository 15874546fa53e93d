import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { followRoutes } from "../../src/agent/machine-addresses.ts";
import { chooseNodeIPs } from "../../src/kubelet/node/choose-node-ips.ts";
import { systemHost } from "../../src/kubelet/node/host.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { AddressWatch } from "../../src/netfilter/address-watch.ts";
import { ensureNodeRoutes } from "../../src/network/node-routes.ts";
import type { ProxyMode } from "../../src/proxy/backend.ts";
import { insideOwnNamespace, sh } from "./namespace.ts";
import { families } from "./proxy/addresses.ts";
import { assertNames, assertRefused } from "./proxy/cases/expect.ts";
import { Stage } from "./proxy/stage.ts";
import { eventually, World } from "./proxy/world.ts";

/** What the node half of the agent would say. */
class NodeDouble {
  readonly #listeners = new Set<() => void>();
  #ips: readonly string[] = [];

  hostIPs(): readonly string[] {
    return this.#ips;
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  become(...ips: readonly string[]): void {
    this.#ips = ips;
    for (const listener of this.#listeners) listener();
  }
}

function proxyTests(mode: ProxyMode): void {
  const world = new World(mode);
  const node = new NodeDouble();
  world.node = node;
  const { IPv4: v4, IPv6: v6 } = families;

  describe(`node ports of a node that moves, ${mode}`, { concurrency: false }, () => {
    before(() => world.setUp());
    after(() => world.tearDown());

    for (const [at, others] of [
      [v4, v6],
      [v6, v4],
    ] as const) {
      it(`answer at its new address and no longer at the old one, ${at.family}`, async () => {
        const stage = new Stage(world, at, `moves-${at.suffix}`);
        try {
          if (mode === "iptables") await world.restart({ nodePortAddresses: ["primary"] });
          node.become(at.node, others.node);
          const service = await stage.served({ type: "NodePort", targets: ["a"] });
          const { client } = stage.peers;
          assertNames(await client.ask("tcp", service.atNode(), { count: 2 }), "a");
          const localPort = stage.flowPort();
          assertNames(await client.ask("udp", service.atNode("u"), { localPort }), "a");
          // The second address is there all the time: a VPN beside the network.
          assertRefused(await client.ask("tcp", service.atNode("t", at.nodeSecond), { count: 2 }));
          node.become(at.nodeSecond, others.node);
          await eventually(
            async () => {
              const to = service.atNode("t", at.nodeSecond);
              const [answer = ""] = await client.ask("tcp", to, { timeoutMs: 200 });
              return answer.startsWith("a ");
            },
            "the new address answers",
            { seconds: 5 },
          );
          assertRefused(await client.ask("tcp", service.atNode(), { count: 2 }));
          await eventually(
            async () => {
              const to = service.atNode("u");
              const [answer = ""] = await client.ask("udp", to, { localPort, timeoutMs: 200 });
              return !answer.startsWith("a ");
            },
            "the UDP flow to the old address ends",
            { seconds: 5 },
          );
          node.become(at.node, others.node);
          await eventually(
            async () => {
              const [answer = ""] = await client.ask("udp", service.atNode("u"), {
                localPort,
                timeoutMs: 200,
              });
              return answer.startsWith("a ");
            },
            "the same flow is served at the address that is back",
            { seconds: 5 },
          );
        } finally {
          await stage.close();
        }
      });
    }

    it("stay where they are while the node's addresses are not known", async () => {
      const stage = new Stage(world, v4, "unknown-v4");
      try {
        const service = await stage.served({ type: "NodePort", targets: ["a"] });
        node.become();
        await stage.settled();
        assertNames(await stage.peers.client.ask("tcp", service.atNode(), { count: 2 }), "a");
        assertRefused(
          await stage.peers.client.ask("tcp", service.atNode("t", v4.nodeSecond), { count: 2 }),
        );
      } finally {
        await stage.close();
      }
    });
  });
}

function watchTests(): void {
  describe("a machine's addresses as the kernel tells them", { concurrency: false }, () => {
    const stop = new AbortController();
    const watch = new AddressWatch({
      clock: systemClock,
      logger: silentLogger,
      random: () => 0.5,
    });
    const host = systemHost(() => watch.interfaces);
    let told = 0;
    let running: Promise<void> = Promise.resolve();

    /** What the node would be called now. */
    const chosen = async (): Promise<string> => {
      const choice = chooseNodeIPs({
        configured: [],
        nodeName: "here",
        host: host.addresses(),
        routeSources: await host.routeSources(),
        podFamilies: ["IPv4", "IPv6"],
      });
      return choice.kind === "chosen" ? choice.ips.join() : "";
    };

    /** Waits for the node to have these addresses, and looks only when it was told to. */
    const becomes = async (
      wanted: string,
      ...change: readonly [string, ...string[]][]
    ): Promise<void> => {
      for (const argv of change) await sh(...argv);
      let seen = -1;
      await eventually(
        async () => {
          if (seen === told) return false;
          seen = told;
          return (await chosen()) === wanted;
        },
        `the node is ${wanted}`,
        { seconds: 5 },
      );
    };

    before(async () => {
      await sh(
        "sysctl",
        "-qw",
        "net.ipv6.conf.all.accept_dad=0",
        "net.ipv6.conf.default.accept_dad=0",
      );
      await sh("ip", "link", "set", "lo", "up");
      await sh("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0");
      await sh("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "far1");
      for (const name of ["eth0", "far0", "eth1", "far1"])
        await sh("ip", "link", "set", name, "up");
      watch.onDisturbed(() => {
        told += 1;
      });
      running = watch.run(stop.signal);
      await watch.whenKnown(stop.signal);
    });

    after(async () => {
      stop.abort();
      await running;
      for (const name of ["eth0", "eth1"]) await sh("ip", "link", "del", name).catch(() => "");
    });

    it("the first address and route, another network, another interface by its metric", async () => {
      await becomes(
        "192.0.2.5",
        ["ip", "address", "add", "192.0.2.5/24", "dev", "eth0"],
        ["ip", "route", "add", "default", "via", "192.0.2.254", "metric", "100"],
      );
      await becomes(
        "198.51.100.7",
        ["ip", "address", "del", "192.0.2.5/24", "dev", "eth0"],
        ["ip", "address", "add", "198.51.100.7/24", "dev", "eth0"],
        ["ip", "route", "add", "default", "via", "198.51.100.254", "metric", "100"],
      );
      await becomes(
        "203.0.113.9",
        ["ip", "address", "add", "203.0.113.9/24", "dev", "eth1"],
        ["ip", "route", "add", "default", "via", "203.0.113.254", "metric", "50"],
      );
      await becomes("198.51.100.7", ["ip", "route", "del", "default", "metric", "50"]);
    });

    it("halves of the default route, and a rule with a table of its own", async () => {
      await becomes(
        "203.0.113.9",
        ["ip", "route", "add", "0.0.0.0/1", "via", "203.0.113.254"],
        ["ip", "route", "add", "128.0.0.0/1", "via", "203.0.113.254"],
      );
      await becomes(
        "198.51.100.7",
        ["ip", "route", "del", "0.0.0.0/1"],
        ["ip", "route", "del", "128.0.0.0/1"],
      );
      await becomes(
        "203.0.113.9",
        ["ip", "route", "add", "default", "via", "203.0.113.254", "table", "51820"],
        ["ip", "rule", "add", "priority", "100", "lookup", "51820"],
      );
      await becomes("198.51.100.7", ["ip", "rule", "del", "priority", "100"]);
    });

    it("a second family comes and goes, and a temporary address is nobody's", async () => {
      await becomes(
        "198.51.100.7,2001:db8::5",
        ["ip", "-6", "address", "add", "2001:db8::5/64", "dev", "eth0", "nodad"],
        ["ip", "-6", "route", "add", "default", "via", "2001:db8::fe"],
      );
      await becomes(
        "2001:db8::5",
        ["ip", "address", "del", "198.51.100.7/24", "dev", "eth0"],
        ["ip", "address", "del", "203.0.113.9/24", "dev", "eth1"],
      );
      await becomes(
        "192.0.2.5",
        ["ip", "-6", "address", "del", "2001:db8::5/64", "dev", "eth0"],
        ["ip", "address", "add", "192.0.2.5/24", "dev", "eth0"],
      );
    });

    it("nothing is told for pods and their routes", async () => {
      const before = told;
      await sh("ip", "link", "add", "rmv1", "type", "veth", "peer", "name", "rmv2");
      await sh("ip", "link", "set", "rmv1", "up");
      await sh("ip", "link", "set", "rmv2", "up");
      await sh("ip", "link", "del", "rmv1");
      await sh("ip", "route", "add", "10.244.9.0/24", "dev", "eth0", "proto", "82");
      await sh("ip", "route", "del", "10.244.9.0/24", "proto", "82");
      // What comes behind it has its own line, which is the first that counts.
      await becomes("192.0.2.5", ["ip", "address", "add", "192.0.2.6/24", "dev", "eth0"]);
      assert.ok(told - before <= 2, `${told - before} times`);
    });

    it("routes to other nodes come back with the network, and follow it", async () => {
      const own = ["10.244.0.0/24"];
      const remotes = [{ name: "two", podCIDRs: ["10.244.1.0/24"], addresses: ["192.0.2.77"] }];
      let wanted = 0;
      const following = followRoutes(watch)(
        {
          bridge: "remora0",
          onDisturbed: () => {
            wanted += 1;
          },
        },
        stop.signal,
      );
      const route = (): Promise<string> => sh("ip", "route", "show", "proto", "82");
      const repaired = (device: string): Promise<void> =>
        eventually(
          async () => {
            if (wanted === 0) return false;
            await ensureNodeRoutes(remotes, own, stop.signal);
            return (await route()).startsWith(`10.244.1.0/24 via 192.0.2.77 dev ${device} `);
          },
          `a route over ${device}`,
          { seconds: 5 },
        );
      await ensureNodeRoutes(remotes, own, stop.signal);
      assert.match(await route(), /via 192\.0\.2\.77 dev eth0/);
      await sh("ip", "link", "set", "eth0", "down");
      assert.equal(await route(), "");
      await sh("ip", "link", "set", "eth0", "up");
      await repaired("eth0");
      wanted = 0;
      // The same network by another cable.
      await sh("ip", "address", "flush", "dev", "eth0");
      await sh("ip", "address", "add", "192.0.2.5/24", "dev", "eth1");
      await repaired("eth1");
      stop.abort();
      await following;
    });
  });
}

if (insideOwnNamespace(import.meta.filename)) {
  watchTests();
  for (const mode of ["nftables", "iptables"] as const) proxyTests(mode);
}

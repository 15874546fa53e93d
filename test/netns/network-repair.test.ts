import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";

import type { Logger } from "../../src/lib/log.ts";
import { Stage } from "./firewalls/stage.ts";
import { insideOwnNamespace, Machine, sh } from "./namespace.ts";

const { signal } = new AbortController();

if (insideOwnNamespace(import.meta.filename)) {
  describe(
    "what others do to the bridge and to the kernel's settings",
    { concurrency: false },
    () => {
      let stage: Stage;
      const told: string[] = [];
      const logger: Logger = {
        log: (level, msg, fields) => {
          if (level !== "debug") told.push(`${level} ${msg} ${JSON.stringify(fields ?? {})}`);
        },
        child: () => logger,
      };

      before(async () => {
        stage = await Stage.start(logger);
      });

      after(() => stage.stop());

      const port = async (index: number): Promise<string> => {
        const names = (await sh("ip", "-o", "link", "show", "master", "remora0")).matchAll(
          /(rmv\w+)@/g,
        );
        return [...names][index]?.[1] ?? "";
      };

      const damages: readonly (readonly [name: string, damage: () => Promise<unknown>])[] = [
        ["the bridge down", () => sh("ip", "link", "set", "remora0", "down")],
        ["the bridge deleted", () => sh("ip", "link", "del", "remora0")],
        [
          "the bridge renamed",
          async () => {
            await sh("ip", "link", "set", "remora0", "down");
            await sh("ip", "link", "set", "remora0", "name", "mine0");
            await sh("ip", "link", "set", "mine0", "up");
          },
        ],
        [
          "its IPv4 address removed",
          () => sh("ip", "addr", "del", "10.244.0.1/24", "dev", "remora0"),
        ],
        ["its addresses flushed", () => sh("ip", "addr", "flush", "dev", "remora0")],
        [
          "its addresses flushed, and its neighbours forgotten",
          async () => {
            await sh("ip", "addr", "flush", "dev", "remora0");
            await sh("ip", "neigh", "flush", "dev", "remora0");
          },
        ],
        [
          "another MAC address",
          () => sh("ip", "link", "set", "remora0", "address", "02:00:00:00:00:01"),
        ],
        [
          "IPv6 switched off on it",
          () => sh("sysctl", "-qw", "net.ipv6.conf.remora0.disable_ipv6=1"),
        ],
        [
          "a pod's interface off the bridge",
          async () => sh("ip", "link", "set", await port(0), "nomaster"),
        ],
        ["a pod's interface down", async () => sh("ip", "link", "set", await port(1), "down")],
        [
          "hairpin off",
          async () => sh("bridge", "link", "set", "dev", await port(0), "hairpin", "off"),
        ],
        ["forwarding off", () => sh("sysctl", "-qw", "net.ipv4.ip_forward=0")],
        ["forwarding of IPv6 off", () => sh("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")],
        [
          "forwarding off on the bridge",
          () => sh("sysctl", "-qw", "net.ipv4.conf.remora0.forwarding=0"),
        ],
        [
          "forwarding off on the uplink",
          () => sh("sysctl", "-qw", "net.ipv4.conf.up0.forwarding=0"),
        ],
        [
          "our tables and chains gone",
          async () => {
            await sh("nft", "flush", "ruleset");
          },
        ],
      ];
      for (const [name, damage] of damages) {
        it(`${name}: mended by the next look`, async () => {
          await damage();
          await stage.repair();
          assert.deepEqual(await stage.blocked(), []);
          // Nothing is left to do.
          const before = told.length;
          await stage.ensure();
          assert.deepEqual(told.slice(before), []);
        });
      }

      it("says of a setting once that it was changed, however often it is", async () => {
        const lines = (): number =>
          told.filter((line) => line.includes("net.ipv4.ip_forward")).length;
        assert.equal(lines(), 1, told.join("\n"));
        await sh("sysctl", "-qw", "net.ipv4.ip_forward=0");
        await stage.ensure();
        assert.equal(lines(), 1);
      });

      it("works with strict settings of others: rp_filter, arp_ignore, arp_announce, proxy_arp", async () => {
        for (const setting of ["rp_filter=1", "arp_ignore=2", "arp_announce=2", "proxy_arp=1"]) {
          for (const device of ["all", "remora0"]) {
            await sh("sysctl", "-qw", `net.ipv4.conf.${device}.${setting}`);
          }
        }
        await stage.pod.sh("ip", "neigh", "flush", "dev", "eth0");
        assert.deepEqual(await stage.blocked(), []);
      });

      it("a pod cannot become the node's router: the bridge takes no advertisements, whatever new interfaces do", async () => {
        await sh("sysctl", "-qw", "net.ipv6.conf.default.accept_ra=2");
        await sh("ip", "link", "del", "remora0");
        await stage.ensure();
        const value = await readFile("/proc/sys/net/ipv6/conf/remora0/accept_ra", "utf8");
        assert.equal(value.trim(), "0");
      });

      it("settings and interfaces in the way that it may not touch are told", async () => {
        await sh("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=8");
        await sh("ip", "link", "add", "cni0", "type", "bridge");
        await sh("ip", "addr", "add", "10.244.0.1/24", "dev", "cni0");
        await stage.ensure();
        const [rival = "", setting = "", ...rest] = stage.network.problems;
        assert.match(
          rival,
          /^interface cni0 has 10\.244\.0\.1\/24.*`ip addr del 10\.244\.0\.1\/24 dev cni0`$/,
        );
        assert.match(setting, /arp_ignore is 8/);
        assert.deepEqual(rest, []);
        await sh("ip", "link", "del", "cni0");
        await sh("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0");
        await stage.ensure();
        assert.deepEqual(stage.network.problems, []);
      });

      it("the uplink's MTU is followed by the bridge and by new pods; those that stand learn it from the kernel", async () => {
        await sh("ip", "link", "set", "up0", "mtu", "1400");
        await stage.client.sh("ip", "link", "set", "eth0", "mtu", "1400");
        await stage.ensure();
        assert.match(await sh("ip", "link", "show", "remora0"), /mtu 1400/);
        const machine = await Machine.start();
        const { pid } = machine;
        const config = { sandboxID: "new", podUID: "new", podKey: "new", pid, hostPorts: [] };
        await stage.network.setUp(config, signal);
        assert.match(await machine.sh("ip", "link", "show", "eth0"), /mtu 1400/);
        assert.deepEqual(await stage.blocked(), []);
        const large = "ping -c1 -W2 -s 1600 192.0.2.2";
        await stage.pod.sh("busybox", ...large.split(" "));
        await stage.network.tearDown("new", signal);
      });
    },
  );
}

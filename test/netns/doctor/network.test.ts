// The pod network of a machine, broken piece by piece; with packets of throw-away pods.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { firewalls, iptablesMix } from "../../../src/agent/doctor/checks/firewall.ts";
import { paths } from "../../../src/agent/doctor/checks/paths.ts";
import { podNetwork } from "../../../src/agent/doctor/checks/pod-network.ts";
import type { Machine } from "../../../src/agent/doctor/machine.ts";
import { SERVICES } from "../../../src/api/resources.ts";
import { startFakeApiServer } from "../../fakes/api-server.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { look } from "../../component/doctor/made-machine.ts";
import { Stage } from "../firewalls/stage.ts";
import { insideOwnNamespace, sh } from "../namespace.ts";
import { mountOwnSysfs, realMachine } from "./real-machine.ts";

const serviceIP = "10.96.0.1";

/** Does something to the machine, looks, and undoes it. */
async function broken(
  commands: readonly string[],
  undo: readonly string[],
  work: () => Promise<void>,
): Promise<void> {
  for (const command of commands) await sh("sh", "-c", command);
  try {
    await work();
  } finally {
    for (const command of undo) await sh("sh", "-c", command);
  }
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("what is wrong with the pod network", { concurrency: false }, () => {
    let stage: Stage;
    const machine = (site = {}): Machine =>
      realMachine({
        pid: process.pid,
        bridge: "remora0",
        dns: { addresses: ["10.96.0.10"], domain: "cluster.local", resolvConf: "" },
        ...site,
      });

    before(async () => {
      await mountOwnSysfs();
      // Otherwise nobody uses iptables here, and there is nothing to come before.
      await sh("iptables", "-P", "FORWARD", "DROP");
      stage = await Stage.start();
    });
    after(async () => {
      await stage.stop();
    });

    it("a network as it should be has no findings", async () => {
      for (const check of [firewalls, iptablesMix, podNetwork]) {
        const said = await look(check, machine());
        assert.deepEqual([check.id, ...said.problems], [check.id], said.text);
      }
    });

    it("firewall-blocks names the rule, with a command that opens the way", async () => {
      const table =
        "nft 'add table inet fw; add chain inet fw forward { type filter hook forward priority 0; policy accept; }; add rule inet fw forward iifname remora0 drop'";
      await broken([table], ["nft delete table inet fw"], async () => {
        const said = await look(firewalls, machine());
        assert.ok(said.problems.includes("firewall-blocks"), said.text);
        assert.match(said.text, /table inet fw.*forward/);
        const remedy = said.remedies.find((one) => one.includes("nft")) ?? "false";
        assert.doesNotMatch(remedy, /\.$/);
      });
    });

    it("accept-missing: the jump into the agent's chain was taken out", async () => {
      const jump = (await sh("iptables", "-S", "FORWARD"))
        .split("\n")
        .find((line) => line.includes("REMORA"));
      assert.ok(jump !== undefined);
      await sh("iptables", ...jump.replace("-A", "-D").split(" "));
      const said = await look(firewalls, machine());
      await stage.ensure();
      assert.deepEqual([...new Set(said.problems)], ["accept-missing"], said.text);
      assert.deepEqual((await look(firewalls, machine())).problems, []);
    });

    it("iptables-mixed", async () => {
      await broken(
        [
          "iptables-nft -A INPUT -s 192.0.2.77 -j DROP",
          "iptables-legacy -A INPUT -s 192.0.2.78 -j DROP",
        ],
        [
          "iptables-nft -D INPUT -s 192.0.2.77 -j DROP",
          "iptables-legacy -D INPUT -s 192.0.2.78 -j DROP",
        ],
        async () => {
          const said = await look(iptablesMix, machine());
          assert.deepEqual(said.problems, ["iptables-mixed"], said.text);
        },
      );
    });

    it("network-overlap: a VPN that has the addresses of Services", async () => {
      await broken(
        [
          "ip link add vpn0 type veth peer name vpn1; ip link set vpn1 up; ip link set vpn0 up; ip addr add 10.96.5.1/24 dev vpn0",
        ],
        ["ip link delete vpn0"],
        async () => {
          const said = await look(podNetwork, machine());
          assert.deepEqual(said.problems, ["network-overlap"], said.text);
          assert.match(
            said.text,
            /Services, 10\.96\.0\.0\/16, overlaps with 10\.96\.5\.0\/24 by vpn0/,
          );
        },
      );
    });

    it("bridge-missing, bridge-mtu and no-default-route", async () => {
      await broken(["ip link set remora0 down"], ["ip link set remora0 up"], async () => {
        assert.deepEqual((await look(podNetwork, machine())).problems, ["bridge-missing"]);
      });
      await broken(["ip link set up0 mtu 1300"], ["ip link set up0 mtu 1500"], async () => {
        assert.deepEqual((await look(podNetwork, machine())).problems, ["bridge-mtu"]);
      });
      await broken(
        ["ip route del default; ip -6 route del default"],
        ["ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8:5::2"],
        async () => {
          assert.deepEqual((await look(podNetwork, machine())).problems, ["no-default-route"]);
        },
      );
      await stage.ensure();
      assert.deepEqual((await look(podNetwork, machine())).problems, []);
    });

    it("a packet on each path: all arrive, and those that do not are named", async () => {
      const api = await startFakeApiServer();
      api.put(SERVICES, {
        metadata: { name: "kubernetes", namespace: "default" },
        spec: { clusterIP: serviceIP, ports: [{ port: 443 }] },
      });
      // Names of the world are asked for beyond the uplink, at the machine outside.
      await stage.client.serve("names", 53);
      const dnat = (chain: string): string =>
        `nft 'add rule ip remora-proxy ${chain} ip daddr ${serviceIP} tcp dport 443 dnat to 192.0.2.1:6443'`;
      await sh(
        "sh",
        "-c",
        `${dnat("prerouting")}; nft 'add chain ip remora-proxy output { type nat hook output priority -101; }'; ${dnat("output")}`,
      );
      await inTemporary(async (directory) => {
        const kubeconfig = join(directory, "proxy.conf");
        await writeFile(
          kubeconfig,
          JSON.stringify({
            "current-context": "c",
            contexts: [{ name: "c", context: { cluster: "k", user: "u" } }],
            clusters: [
              {
                name: "k",
                cluster: {
                  server: api.url,
                  "insecure-skip-tls-verify": api.url.startsWith("https"),
                },
              },
            ],
            users: [{ name: "u", user: {} }],
          }),
        );
        const resolvConf = join(directory, "resolv.conf");
        await writeFile(resolvConf, "nameserver 192.0.2.2\n");
        const at = machine({
          rootDir: directory,
          identities: [{ name: "proxy", kubeconfig }],
          dns: { addresses: ["10.96.0.10"], domain: "cluster.local", resolvConf },
        });
        const links = async (): Promise<readonly string[]> =>
          (await sh("ip", "-o", "link")).split("\n").map((line) => line.split(" ")[1] ?? "");
        const before = await links();
        const fine = await look(paths, at);
        assert.deepEqual(fine.problems, [], fine.text);
        assert.equal(
          fine.text,
          "node to Service, pod to pod, pod to Service, pod to cluster DNS, pod to outside",
        );
        assert.deepEqual(await links(), before, "the throw-away pods are gone");
        const all =
          "nft 'add table inet fw; add chain inet fw forward { type filter hook forward priority 0; policy drop; }; add chain inet fw input { type filter hook input priority 0; policy accept; }; add rule inet fw input iifname remora0 drop; add table bridge fw; add chain bridge fw forward { type filter hook forward priority 0; policy drop; }'";
        await broken(
          [all, "nft flush chain ip remora-proxy output"],
          ["nft delete table inet fw; nft delete table bridge fw"],
          async () => {
            const said = await look(paths, at);
            assert.deepEqual(
              said.problems,
              [
                "path-node-service",
                "path-pod-pod",
                "path-pod-service",
                "path-pod-dns",
                "path-pod-outside",
              ],
              said.text,
            );
          },
        );
      });
      await api.close();
    });
  });
}

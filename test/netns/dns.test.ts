import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { encode } from "dns-packet";

import { askTCP, askUDP } from "../../src/dns/exchange.ts";
import { createNameServer, type NameServer } from "../../src/dns/name-server.ts";
import { parseDnsService } from "../../src/dns/parse.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { createBridgeNetwork } from "../../src/network/bridge.ts";
import type { LocalAddresses, PodNetwork } from "../../src/network/types.ts";
import { fixedClaims } from "../../src/proxy/nftables/layout.ts";
import { connectOutside, insideOwnNamespace, inventory, Machine, sh } from "./namespace.ts";

const { signal } = new AbortController();
const podCIDRs = ["10.244.0.0/24", "fd00:244::/64"];
const addresses = ["10.96.0.10", "fd00:10:96::a"];
const name = "web.default.svc.cluster.local";
const askFile = new URL("ask-dns.ts", import.meta.url).pathname;

async function askFromHere(address: string, transport: "udp" | "tcp"): Promise<boolean> {
  const message = encode({ type: "query", id: 9, questions: [{ name, type: "A" }] });
  const outgoing = { message, id: 9, question: message.subarray(12) };
  const ask = transport === "udp" ? askUDP : askTCP;
  try {
    const reply = await ask({ address, port: 53 }, outgoing, AbortSignal.timeout(1500));
    return reply.includes(Buffer.from([10, 96, 0, 7]));
  } catch {
    return false;
  }
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("cluster DNS on the pod bridge", { concurrency: false }, () => {
    let stateDir = "";
    let pod: Machine;
    let network: PodNetwork & LocalAddresses;
    let server: NameServer;
    let untouched = "";
    let listening = Promise.withResolvers<void>();
    const stop = new AbortController();
    let running: Promise<void>;

    const askFromPod = async (address: string, transport: "udp" | "tcp"): Promise<boolean> =>
      (await pod.sh(process.execPath, askFile, address, name, transport)).trim() === "10.96.0.7";

    before(async () => {
      stateDir = await mkdtemp(join(tmpdir(), "remora-dns-"));
      await connectOutside();
      untouched = await inventory();
      pod = await Machine.start();
      network = createBridgeNetwork({
        stateDir,
        clusterCIDRs: ["10.244.0.0/16", "fd00:244::/48"],
        clock: systemClock,
        logger: silentLogger,
      });
      server = createNameServer({
        settings: {
          domain: "cluster.local",
          addresses,
          port: 53,
          ownNetworks: ["10.96.0.0/16"],
          resolvConf: "",
        },
        clock: systemClock,
        logger: silentLogger,
        random: () => 0.5,
        onListening: () => listening.resolve(),
      });
      const metadata = { namespace: "default", name: "web" };
      const spec = { clusterIP: "10.96.0.7", clusterIPs: ["10.96.0.7"] };
      server.apply({
        full: true,
        services: [parseDnsService({ metadata, spec })],
        slices: [],
        removedServices: [],
        removedSlices: [],
        namespaces: ["default"],
      });
    });

    after(async () => {
      stop.abort();
      await running;
      await Machine.stopAll();
      await rm(stateDir, { recursive: true, force: true });
    });

    it("waits for the address, in whatever order things come", async () => {
      running = server.run(stop.signal);
      await network.setLocalAddresses(addresses, signal);
      assert.equal(await askFromHere("10.96.0.10", "udp"), false);
      await network.ensureNode(podCIDRs, signal);
      await listening.promise;
    });

    it("answers pods and the node, by both transports and families", async () => {
      await network.setUp(
        { sandboxID: "s1", podUID: "u1", podKey: "default/p", pid: pod.pid, hostPorts: [] },
        signal,
      );
      for (const address of addresses) {
        for (const transport of ["udp", "tcp"] as const) {
          const what = `${address} ${transport}`;
          assert.equal(await askFromPod(address, transport), true, `pod ${what}`);
          assert.equal(await askFromHere(address, transport), true, `node ${what}`);
        }
      }
    });

    it("listens on that address and on no other", async () => {
      assert.equal(await askFromPod("10.244.0.1", "udp"), false);
      const sockets = await sh("ss", "-Hlnut", "sport = :53");
      assert.equal(sockets.trim().split("\n").length, 4, sockets);
      assert.doesNotMatch(sockets, /0\.0\.0\.0:53|\[::\]:53|\*:53 /);
    });

    it("the proxy's silence for unused ClusterIPs lets it through", async () => {
      const claims = fixedClaims({
        family: "IPv4",
        local: { kind: "none" },
        nodePortIPs: undefined,
        localhostNodePorts: false,
        serviceCIDRs: ["10.96.0.0/16"],
        mark: 0x4000,
        masqueradeAll: false,
      });
      const rules = claims.chains
        .find(({ name: chain }) => chain === "reject-out")
        ?.rules.filter((rule) => rule.includes("10.96.0.0/16"));
      assert.equal(rules?.length, 1);
      await sh("nft", "add table ip t; add chain ip t rej; add rule ip t rej reject");
      await sh("nft", "add chain ip t o { type filter hook output priority 0; }");
      for (const rule of rules) await sh("nft", `add rule ip t o ${rule}`);
      assert.equal(await askFromHere("10.96.0.10", "udp"), true);
      assert.equal(await askFromHere("10.96.0.11", "tcp"), false);
      await sh("nft", "delete table ip t");
    });

    it("comes back with the bridge that somebody removed", async () => {
      listening = Promise.withResolvers<void>();
      await sh("ip", "link", "del", "remora0");
      assert.equal(await askFromHere("10.96.0.10", "udp"), false);
      await network.ensureNode(podCIDRs, signal);
      for (const address of addresses) {
        for (const transport of ["udp", "tcp"] as const) {
          assert.equal(await askFromHere(address, transport), true, `${address} ${transport}`);
        }
      }
    });

    it("goes with the address, and takes nothing else along", async () => {
      await network.setLocalAddresses([], signal);
      const held = await sh("ip", "-o", "addr", "show", "dev", "remora0");
      assert.doesNotMatch(held, /10\.96\.0\.10|fd00:10:96::a/);
      assert.match(held, /10\.244\.0\.1\/24/);
      await network.setLocalAddresses(["10.96.0.10"], signal);
      await network.tearDown("s1", signal);
      await network.cleanUp(signal);
      assert.equal(await inventory(), untouched);
    });
  });
}

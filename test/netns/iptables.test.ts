// Service rules in real iptables, of both kinds and in both families.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { afterEach, describe, test } from "node:test";

import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { Iptables, IptablesError, probeIptables } from "../../src/netfilter/iptables.ts";
import { KubeletHints } from "../../src/netfilter/kubelet-hints.ts";
import { type Deletion, DeletionWatch } from "../../src/netfilter/monitor.ts";
import { IptablesBackend } from "../../src/proxy/iptables/backend.ts";
import { cleanUpIptables } from "../../src/proxy/iptables/cleanup.ts";
import { canonicalRule, parseSave } from "../../src/proxy/iptables/listing.ts";
import { endpointText, portChain } from "../../src/proxy/iptables/names.ts";
import { type PlannedPort, planPort } from "../../src/proxy/plan.ts";
import type { ServicePort } from "../../src/proxy/types.ts";
import { insideOwnNamespace, sh } from "./namespace.ts";
import { readyEndpoint, servicePort } from "../fakes/service-samples.ts";

const { signal } = new AbortController();
type Family = "IPv4" | "IPv6";
type Variant = "nf_tables" | "legacy";

const programs = {
  "nf_tables IPv4": "iptables-nft",
  "nf_tables IPv6": "ip6tables-nft",
  "legacy IPv4": "iptables-legacy",
  "legacy IPv6": "ip6tables-legacy",
} as const;

function backend(family: Family, clock = systemClock): IptablesBackend {
  return new IptablesBackend({
    context: {
      family,
      local: { kind: "cidrs", cidrs: [family === "IPv4" ? "10.244.0.0/24" : "fd00:244::/64"] },
      nodePortIPs: undefined,
      localhostNodePorts: true,
      serviceCIDRs: [],
      mark: 0x4000,
      masqueradeAll: false,
    },
    logger: silentLogger,
    clock,
    largeThreshold: 30,
  });
}

function address(family: Family, network: number, host: number): string {
  return family === "IPv4" ? `10.${network}.0.${host}` : `fd00:${network}::${host.toString(16)}`;
}

function plan(
  family: Family,
  id: number,
  hosts: readonly number[],
  over: Partial<ServicePort> = {},
): PlannedPort {
  const protocol = over.protocol ?? "tcp";
  return planPort(
    servicePort({
      key: `ns/s${id}:p/${protocol}`,
      service: `ns/s${id}`,
      portName: "p",
      family,
      protocol,
      clusterIP: address(family, 96, id + 1),
      rank: `2026-01-01 ns/s${id}`,
      ...over,
    }),
    hosts.map((host) => readyEndpoint(address(family, 244, host), { local: host % 2 === 0 })),
    { name: "here", zone: "" },
  );
}

/** One of everything. */
function samples(family: Family): PlannedPort[] {
  return [
    plan(family, 0, [1, 2, 3]),
    plan(family, 1, []),
    plan(family, 2, [1, 2], { protocol: "udp", nodePort: 30_053, affinitySeconds: 60 }),
    plan(family, 3, [1], { protocol: "sctp", internalLocal: true }),
    plan(family, 4, [1, 2, 3], {
      nodePort: 30_080,
      externalLocal: true,
      externalIPs: [address(family, 99, 1)],
      loadBalancerIPs: [address(family, 99, 2)],
      sourceRanges: [family === "IPv4" ? "192.0.2.0/24" : "2001:db8::/32"],
    }),
    plan(family, 5, [1], { nodePort: 30_081, externalLocal: true }),
  ];
}

function setAll(of: IptablesBackend, plans: readonly PlannedPort[]): void {
  for (const one of plans) of.set(one.key, one);
}

/** Makes a kind the one that this machine uses, as a kubelet does. */
async function use(variant: Variant): Promise<void> {
  await sh(programs[`${variant} IPv4`], "-t", "mangle", "-N", "KUBE-IPTABLES-HINT");
}

async function save(program: string): Promise<string> {
  const tables = await Promise.all(
    ["mangle", "filter", "nat"].map((table) => sh(`${program}-save`, "-t", table)),
  );
  return tables.join("");
}

/** Rules by chain, in a form that does not depend on who wrote them. */
async function rules(program: string): Promise<Record<string, readonly string[]>> {
  const found: Record<string, readonly string[]> = {};
  for (const table of ["filter", "nat", "mangle"]) {
    const chains = parseSave(await sh(`${program}-save`, "-t", table));
    for (const [name, all] of chains) found[`${table} ${name}`] = all.map(canonicalRule);
  }
  return found;
}

function kubeChains(text: string): string[] {
  return text.split("\n").filter((line) => line.startsWith(":KUBE-"));
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("Service rules in iptables", () => {
    afterEach(async () => {
      await cleanUpIptables(signal);
    });

    for (const variant of ["nf_tables", "legacy"] as const) {
      for (const family of ["IPv4", "IPv6"] as const) {
        const program = programs[`${variant} ${family}`];
        const kind = `${variant}, ${family}`;

        test(`${kind}: a second program that starts finds nothing to do`, async () => {
          await use(variant);
          const first = backend(family);
          setAll(first, samples(family));
          first.setHealthPorts([31_000]);
          const made = await first.sync(signal);
          assert.ok(made.changes > 20);
          assert.equal(made.transactions, 1);
          assert.equal(await first.check(signal), true);

          const second = backend(family);
          setAll(second, samples(family));
          second.setHealthPorts([31_000]);
          const { changes, drift } = await second.sync(signal);
          assert.deepEqual({ changes, drift }, { changes: 0, drift: false });
        });

        test(`${kind}: small changes end in the rules that a fresh start makes`, async () => {
          await use(variant);
          const slow = backend(family);
          const plans = new Map<string, PlannedPort>();
          const put = async (...all: readonly PlannedPort[]): Promise<number> => {
            for (const one of all) {
              plans.set(one.key, one);
              slow.set(one.key, one);
            }
            const { bytes, transactions } = await slow.sync(signal);
            assert.ok(transactions <= 1);
            return bytes;
          };
          const drop = async (key: string): Promise<void> => {
            plans.delete(key);
            slow.set(key, undefined);
            await slow.sync(signal);
          };
          await put(...samples(family));
          assert.equal(await put(...samples(family)), 0, "nothing changed, and nothing is sent");
          const bytes = await put(plan(family, 0, [2, 3, 4]));
          assert.ok(bytes < 2000, `one endpoint costs ${bytes} characters`);
          await put(plan(family, 1, [5]));
          await put(plan(family, 2, [2, 3], { protocol: "udp", nodePort: 30_054 }));
          await put(plan(family, 7, [1], { nodePort: 30_090 }), plan(family, 6, [1, 2]));
          await put(plan(family, 4, []));
          await put(
            plan(
              family,
              8,
              Array.from({ length: 40 }, (_, index) => index + 10),
            ),
          );
          await drop("ns/s3:p/sctp");
          await put(plan(family, 5, [2, 4], { nodePort: 30_081, externalLocal: true }));
          await put(plan(family, 0, [2, 3, 4], { rank: "2027-01-01 ns/s0" }));
          const inSteps = await rules(program);

          await cleanUpIptables(signal);
          await use(variant);
          const fresh = backend(family);
          setAll(fresh, [...plans.values()]);
          await fresh.sync(signal);
          assert.deepEqual(inSteps, await rules(program));
        });

        test(`${kind}: what somebody empties is found by the check and made again`, async () => {
          await use(variant);
          const mended = backend(family);
          setAll(mended, samples(family));
          await mended.sync(signal);
          const before = await rules(program);
          const damages = [
            ["-t", "nat", "-F"],
            ["-F"],
            ["-t", "nat", "-D", "PREROUTING", "1"],
            ["-t", "filter", "-D", "FORWARD", "2"],
            ["-t", "mangle", "-X", "KUBE-PROXY-CANARY"],
          ];
          for (const damage of damages) {
            if (damage.includes("-X")) await sh(program, "-t", "mangle", "-F", "KUBE-PROXY-CANARY");
            await sh(program, ...damage);
            assert.equal(await mended.check(signal), false, damage.join(" "));
            mended.distrust();
            const { changes, drift } = await mended.sync(signal);
            assert.ok(changes > 0 && drift === true, damage.join(" "));
            assert.deepEqual(await rules(program), before, damage.join(" "));
          }
        });

        test(`${kind}: a chain that others still lead to fails once, and goes when all is written anew`, async () => {
          await use(variant);
          const own = backend(family);
          setAll(own, [plan(family, 0, [1]), plan(family, 1, [2])]);
          await own.sync(signal);
          const first = portChain("KUBE-SVC-", "ns/s0:p", "tcp");
          const at = endpointText({ ip: address(family, 244, 2), port: 8080 });
          await sh(
            program,
            "-t",
            "nat",
            "-A",
            first,
            "-j",
            portChain("KUBE-SEP-", "ns/s1:p", "tcp", at),
          );
          own.set("ns/s1:p/tcp", undefined);
          await assert.rejects(own.sync(signal), IptablesError);
          const { drift } = await own.sync(signal);
          assert.equal(drift, true);
          assert.equal((await save(program)).includes("ns/s1"), false);
        });
      }

      test(`${variant}: chains of others stay, ours all go`, async () => {
        await use(variant);
        const foreign = programs[`${variant} IPv4`];
        await sh(foreign, "-t", "nat", "-N", "KUBE-ROUTER-SERVICES");
        await sh(foreign, "-t", "nat", "-A", "PREROUTING", "-j", "KUBE-ROUTER-SERVICES");
        const own = backend("IPv4");
        setAll(own, samples("IPv4"));
        await own.sync(signal);
        const localnet = "/proc/sys/net/ipv4/conf/all/route_localnet";
        assert.equal(readFileSync(localnet, "utf8"), "1\n");

        assert.equal(await cleanUpIptables(signal, { keepKubelet: true }), true);
        const kept = await save(foreign);
        assert.deepEqual(
          new Set(kubeChains(kept).map((line) => line.split(" ")[0])),
          new Set([":KUBE-FIREWALL", ":KUBE-IPTABLES-HINT", ":KUBE-ROUTER-SERVICES"]),
        );
        assert.match(kept, /-A INPUT -j KUBE-FIREWALL/);
        assert.equal(readFileSync(localnet, "utf8"), "0\n", "as it was before");

        await cleanUpIptables(signal);
        assert.equal(kubeChains(await save(foreign)).length, 1);
        await sh(foreign, "-t", "nat", "-F", "PREROUTING");
        await sh(foreign, "-t", "nat", "-X", "KUBE-ROUTER-SERVICES");
      });
    }

    test("the kind that a kubelet's hint is in is used, else the host's default", async () => {
      const fallback = await probeIptables(signal);
      const [other]: Variant[] = fallback?.variant === "legacy" ? ["nf_tables"] : ["legacy"];
      assert.ok(other !== undefined);
      await use(other);
      const hinted = await probeIptables(signal);
      assert.equal(hinted?.variant, other);
      assert.equal(hinted.suffix, other === "legacy" ? "-legacy" : "-nft");
    });

    test("the monitor tells of what others empty, not of what we write ourselves", async () => {
      const stop = new AbortController();
      const watch = new DeletionWatch({
        clock: systemClock,
        logger: silentLogger,
        random: () => 0.5,
      });
      const own = backend("IPv4");
      const heard: Deletion[] = [];
      let all = 0;
      watch.subscribe((deletion) => {
        all += 1;
        if (deletion !== "unwatched" && own.concerns(deletion)) heard.push(deletion);
      });
      const running = watch.run(stop.signal);
      const until = async (done: () => boolean): Promise<void> => {
        for (let tries = 0; !done(); tries += 1) {
          assert.ok(tries < 300, "it takes too long");
          await systemClock.sleep(20, signal);
        }
      };
      try {
        setAll(own, samples("IPv4"));
        await own.sync(signal);
        await sh("iptables-nft", "-t", "raw", "-N", "PROBE");
        await until(() => {
          // The monitor is ready when it tells of something.
          void sh("iptables-nft", "-t", "raw", "-A", "PROBE", "-j", "RETURN").then(() =>
            sh("iptables-nft", "-t", "raw", "-F", "PROBE"),
          );
          return all > 0;
        });
        own.set("ns/s0:p/tcp", plan("IPv4", 0, [7, 8]));
        await own.sync(signal);
        await systemClock.sleep(200, signal);
        assert.deepEqual(heard, []);

        await systemClock.sleep(2000, signal);
        await sh("iptables-nft", "-t", "nat", "-D", "PREROUTING", "1");
        await until(() => heard.length > 0);
        own.distrust();
        const jumps = await own.sync(signal);
        assert.ok(jumps.changes > 0 && jumps.changes < 4, "only the jump");
        heard.length = 0;

        await sh("iptables-nft", "-t", "nat", "-F", "KUBE-SERVICES");
        await until(() => heard.length > 0);
        own.distrust();
        await own.sync(signal);
        assert.equal(await own.check(signal), true);
        assert.match(
          await sh("iptables-nft", "-t", "nat", "-S", "KUBE-SERVICES"),
          /ns\/s0:p cluster IP/,
        );
      } finally {
        stop.abort();
        await running.catch(() => undefined);
      }
    });

    test("legacy: a lock that somebody holds is waited for", async () => {
      await use("legacy");
      const own = backend("IPv4");
      setAll(own, samples("IPv4"));
      const holder = spawn("flock", ["/run/xtables.lock", "sh", "-c", "echo held; sleep 0.4"], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      await once(holder.stdout, "data");
      const started = systemClock.monotonic();
      await own.sync(signal);
      assert.ok(systemClock.monotonic() - started > 150);
      if (holder.exitCode === null) await once(holder, "close");
      assert.equal(await own.check(signal), true);
    });

    test("the hints of a kubelet are made, and again when they are gone", async () => {
      const stop = new AbortController();
      const sleepers: (() => void)[] = [];
      const wake = (): void => sleepers.splice(0).forEach((end) => end());
      const clock = {
        ...systemClock,
        sleep: async (): Promise<void> =>
          new Promise((resolve) => {
            sleepers.push(resolve);
          }),
      };
      const running = new KubeletHints({ clock, logger: silentLogger }).run(stop.signal);
      const v4 = new Iptables("IPv4", (await probeIptables(signal)) ?? assert.fail("no iptables"));
      const there = async (): Promise<boolean> => {
        const firewall = await v4.list("filter", "KUBE-FIREWALL", signal);
        return (
          (await v4.list("mangle", "KUBE-IPTABLES-HINT", signal)) !== undefined &&
          (await v4.list("nat", "KUBE-KUBELET-CANARY", signal)) !== undefined &&
          firewall?.includes("-j DROP") === true &&
          (await v4.list("filter", "INPUT", signal))?.includes("-j KUBE-FIREWALL") === true
        );
      };
      const until = async (): Promise<void> => {
        for (let tries = 0; !(await there()); tries += 1) {
          assert.ok(tries < 100, "they do not come");
          wake();
          await systemClock.sleep(20, signal);
        }
      };
      await until();
      await cleanUpIptables(signal);
      assert.equal(await there(), false);
      await until();
      stop.abort();
      while (true) {
        wake();
        const ended = await Promise.race([
          running.then(() => true),
          systemClock.sleep(20, signal).then(() => false),
        ]);
        if (ended) break;
      }
    });
  });
}

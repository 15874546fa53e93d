// The nftables table of Service rules after long histories, in a real kernel.
import assert from "node:assert/strict";
import { after, test } from "node:test";

import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { applyNft } from "../../src/netfilter/nft.ts";
import { NftBackend } from "../../src/proxy/nftables/backend.ts";
import type { PlannedPort, Verdict } from "../../src/proxy/plan.ts";
import type { Backend } from "../../src/proxy/types.ts";
import { insideOwnNamespace, sh } from "./namespace.ts";

const { signal } = new AbortController();

function backend(family: "IPv4" | "IPv6"): NftBackend {
  return new NftBackend({
    context: {
      family,
      local: { kind: "none" },
      nodePortIPs: undefined,
      localhostNodePorts: false,
      serviceCIDRs: [],
      mark: 0x4000,
      masqueradeAll: false,
    },
    tableName: "table-test",
    logger: silentLogger,
    clock: systemClock,
  });
}

/** mulberry32: the same seed, the same history. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

const verdicts: readonly Verdict[] = [
  "cluster",
  "local",
  "cluster-masqueraded",
  "split",
  "reject",
  "drop",
];

function randomPlan(
  family: "IPv4" | "IPv6",
  id: number,
  random: (below: number) => number,
): PlannedPort {
  const address = (network: number, host: number): string =>
    family === "IPv4" ? `10.${network}.0.${host}` : `fd00:${network}::${host.toString(16)}`;
  const most = random(12) === 0 ? 1100 : random(4) === 0 ? 300 : 4;
  const pod = (number: number): Backend => ({
    ip:
      family === "IPv4"
        ? `10.9.${number >> 8}.${number & 255}`
        : `fd00:9::${(number + 1).toString(16)}`,
    port: 8080,
  });
  const cluster = Array.from({ length: 1 + random(most) }, (_, at) => pod(at * 2 + random(2)));
  const local = cluster.filter((_, at) => at % 7 === 0);
  const any = (): Verdict => verdicts[random(verdicts.length)] ?? "cluster";
  const protocol = (["tcp", "udp", "sctp"] as const)[random(3)] ?? "tcp";
  return {
    key: `ns/s${id}:p/${protocol}`,
    service: `ns/s${id}`,
    protocol,
    clusterIP: address(1, id + 1),
    rank: `2026 ns/s${id}`,
    frontends: [
      { ip: address(1, id + 1), port: 80, verdict: any(), restricted: false },
      // Several want these.
      { ip: address(2, 1 + random(3)), port: 80, verdict: any(), restricted: random(2) === 0 },
      { ip: "", port: 30_000 + random(4), verdict: any(), restricted: false },
    ],
    cluster,
    local,
    serving: cluster,
    hairpin: local,
    affinitySeconds: random(6) === 0 ? 10 + random(2) : 0,
    sourceRanges: [`${address(3, 1)}/${family === "IPv4" ? 32 : 128}`],
  };
}

if (insideOwnNamespace(import.meta.filename)) {
  after(async () => {
    await sh("nft", "flush", "ruleset");
  });

  for (const family of ["IPv4", "IPv6"] as const) {
    test(`a table that followed many changes is the one that is made from nothing (${family})`, async () => {
      const seed = Number(process.env["SEED"] ?? Date.now() % 1_000_000);
      const random = randomFrom(seed);
      const plans = new Map<string, PlannedPort>();
      const table = backend(family);
      for (let turn = 0; turn < 40; turn += 1) {
        for (let change = random(4); change >= 0; change -= 1) {
          const plan = randomPlan(family, random(6), random);
          const old = [...plans.values()].filter(({ service }) => service === plan.service);
          for (const { key } of random(3) === 0 ? old : []) {
            plans.delete(key);
            table.set(key, undefined);
          }
          if (random(5) > 0) {
            plans.set(plan.key, plan);
            table.set(plan.key, plan);
          }
        }
        await table.sync(signal);
        const fresh = backend(family);
        for (const [key, plan] of plans) fresh.set(key, plan);
        assert.deepEqual(table.snapshot(), fresh.snapshot(), `seed ${seed}, turn ${turn}`);
        // What waits for its deletion is the only thing that it may find.
        const found = await fresh.sync(signal);
        const waiting = table.hasGarbage ? Infinity : 0;
        assert.ok(found.changes <= waiting, `seed ${seed}, turn ${turn}: ${found.changes} differ`);
        assert.equal(found.changes > 0 && found.bytes > 0, false, `seed ${seed}, turn ${turn}`);
      }
      await systemClock.sleep(1000, signal);
      await table.sync(signal);
      assert.equal(table.hasGarbage, false);
      const fresh = backend(family);
      for (const [key, plan] of plans) fresh.set(key, plan);
      assert.equal((await fresh.sync(signal)).changes, 0, `seed ${seed}`);
    });
  }

  test("a failure in the middle of many transactions is read back, and nothing of others stays", async () => {
    const table = backend("IPv4");
    await sh("nft", "flush", "ruleset");
    await table.sync(signal);
    const plan = (id: number): PlannedPort => {
      const ip = `10.1.${id >> 8}.${id & 255}`;
      const cluster = [2, 3].map((net) => ({ ip: `10.${net}.${id >> 8}.${id & 255}`, port: 80 }));
      return {
        ...randomPlan("IPv4", 0, randomFrom(1)),
        key: `ns/s${id}:p/tcp`,
        service: `ns/s${id}`,
        protocol: "tcp",
        clusterIP: ip,
        frontends: [{ ip, port: 80, verdict: "cluster", restricted: false }],
        cluster,
        local: [],
        hairpin: [],
        affinitySeconds: 0,
      };
    };
    for (let id = 0; id < 8000; id += 1) table.set(plan(id).key, plan(id));
    // Somebody has put what the second transaction is going to add.
    const theirs = "10.1.31.0 . 80 . 0 : 192.0.2.9 . 9";
    await applyNft(`add element ip table-test ep-c-tcp { ${theirs} }\n`, signal);
    await assert.rejects(table.sync(signal), { failure: "exists" });
    const svc = await sh("nft", "list", "map", "ip", "table-test", "svc");
    assert.ok(svc.includes("10.1.0.0 . tcp") && !svc.includes("10.1.31.0 . tcp"), "one of two");
    await table.sync(signal);
    const fresh = backend("IPv4");
    for (let id = 0; id < 8000; id += 1) fresh.set(plan(id).key, plan(id));
    assert.equal((await fresh.sync(signal)).changes, 0);
  });

  test("the whole text of a table is what nft takes, and what is then found to be right", async () => {
    const random = randomFrom(7);
    const table = backend("IPv4");
    for (let id = 0; id < 6; id += 1) {
      const plan = randomPlan("IPv4", id, random);
      table.set(plan.key, plan);
    }
    await sh("nft", "flush", "ruleset");
    await applyNft(table.render(), signal);
    assert.equal((await table.sync(signal)).changes, 0);
  });
}

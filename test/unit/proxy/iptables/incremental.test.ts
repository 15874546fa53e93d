import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import { systemClock } from "../../../../src/lib/clock.ts";
import { silentLogger } from "../../../../src/lib/log.ts";
import type { RulesContext } from "../../../../src/proxy/backend.ts";
import { IptablesBackend } from "../../../../src/proxy/iptables/backend.ts";
import { canonicalRule } from "../../../../src/proxy/iptables/listing.ts";
import type { PlannedPort } from "../../../../src/proxy/plan.ts";
import { FakeIptables } from "./restore-model.ts";
import { context, endpoint, plan } from "./samples.ts";

const signal = new AbortController().signal;

function backendOn(fake: FakeIptables, over: Partial<RulesContext> = {}): IptablesBackend {
  return new IptablesBackend({
    context: { ...context, ...over },
    logger: silentLogger,
    clock: systemClock,
    largeThreshold: 8,
    host: fake.host(),
  });
}

/** All rules by chain, without what is only for people. */
function rulesOf(fake: FakeIptables): Record<string, readonly string[]> {
  const found: Record<string, readonly string[]> = {};
  for (const [table, chains] of fake.tables) {
    for (const [name, rules] of chains) found[`${table} ${name}`] = rules.map(canonicalRule);
  }
  // The order of jumps depends on who came when.
  return Object.fromEntries(Object.entries(found).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

async function fromScratch(
  plans: ReadonlyMap<string, PlannedPort>,
  over: Partial<RulesContext>,
  healthPorts: readonly number[],
): Promise<Record<string, readonly string[]>> {
  const fake = new FakeIptables();
  const backend = backendOn(fake, over);
  for (const [key, one] of plans) backend.set(key, one);
  backend.setHealthPorts(healthPorts);
  await backend.sync(signal);
  return rulesOf(fake);
}

const id = fc.integer({ min: 0, max: 5 });
const portChange = fc.record({
  kind: fc.constant("port" as const),
  id,
  protocol: fc.constantFrom("tcp" as const, "udp" as const, "sctp" as const),
  nodePort: fc.constantFrom(0, 30_080, 30_081),
  external: fc.subarray(["198.51.100.1", "198.51.100.2"]),
  balancers: fc.subarray(["203.0.113.1", "198.51.100.2"]),
  ranges: fc.subarray(["192.0.2.0/24", "10.0.0.0/8"]),
  internalLocal: fc.boolean(),
  externalLocal: fc.boolean(),
  affinitySeconds: fc.constantFrom(0, 0, 60, 10_800),
  born: fc.integer({ min: 1, max: 3 }),
  ips: fc.uniqueArray(fc.integer({ min: 1, max: 12 }), { maxLength: 6 }),
  terminating: fc.boolean(),
});
const change = fc.oneof(
  { weight: 8, arbitrary: portChange },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("gone" as const), id }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("sync" as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("context" as const),
      masqueradeAll: fc.boolean(),
      localhostNodePorts: fc.boolean(),
      pods: fc.subarray(["10.244.0.0/24", "10.245.0.0/24"]),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("health" as const),
      ports: fc.subarray([31_000, 31_001]),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("refused" as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("damage" as const),
      table: fc.constantFrom("nat", "filter", "mangle"),
    }),
  },
);

function planned(of: typeof portChange extends fc.Arbitrary<infer T> ? T : never): PlannedPort {
  return plan(
    {
      key: `ns/s${of.id}:a/${of.protocol}`,
      service: `ns/s${of.id}`,
      portName: "a",
      protocol: of.protocol,
      clusterIP: `10.96.0.${of.id}`,
      nodePort: of.nodePort,
      externalIPs: of.external,
      loadBalancerIPs: of.balancers,
      sourceRanges: of.ranges,
      internalLocal: of.internalLocal,
      externalLocal: of.externalLocal,
      affinitySeconds: of.affinitySeconds,
      rank: `2026-01-0${of.born} ns/s${of.id}`,
    },
    of.ips.map((last) =>
      endpoint(`10.244.0.${last}`, {
        local: last % 3 === 0,
        ready: !of.terminating,
        terminating: of.terminating,
      }),
    ),
  );
}

describe("rules in iptables", () => {
  test("after any changes are those that the final state gives from scratch", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 30 }), async (changes) => {
        const fake = new FakeIptables();
        const backend = backendOn(fake);
        const plans = new Map<string, PlannedPort>();
        let over: Partial<RulesContext> = {};
        let healthPorts: readonly number[] = [];
        const settle = async (): Promise<void> => {
          // What is refused is tried again.
          for (let tries = 0; ; tries += 1) {
            try {
              await backend.sync(signal);
              return;
            } catch (error) {
              if (tries > 3) throw error;
            }
          }
        };
        for (const one of changes) {
          if (one.kind === "port") {
            const next = planned(one);
            plans.set(next.key, next);
            backend.set(next.key, next);
          } else if (one.kind === "gone") {
            for (const key of plans.keys()) {
              if (!key.startsWith(`ns/s${one.id}:`)) continue;
              plans.delete(key);
              backend.set(key, undefined);
            }
          } else if (one.kind === "sync") {
            await settle();
          } else if (one.kind === "context") {
            const { masqueradeAll, localhostNodePorts, pods } = one;
            const local =
              pods.length === 0
                ? ({ kind: "none" } as const)
                : ({ kind: "cidrs", cidrs: pods } as const);
            over = { masqueradeAll, localhostNodePorts, local };
            backend.setContext({ ...context, ...over });
            for (const [key, plan] of plans) backend.set(key, plan);
          } else if (one.kind === "health") {
            healthPorts = one.ports;
            backend.setHealthPorts(healthPorts);
          } else if (one.kind === "refused") {
            fake.failures.push(new Error("refused"));
          } else {
            for (const rules of fake.tables.get(one.table)?.values() ?? []) rules.length = 0;
            backend.distrust();
          }
        }
        await settle();
        const ours = rulesOf(fake);
        const fresh = await fromScratch(plans, over, healthPorts);
        // Set once, it stays set, and says so.
        if (fake.sysctls.get("net/ipv4/conf/all/route_localnet") === "1\n") {
          fresh["mangle KUBE-PROXY-CANARY"] = [""];
        }
        assert.deepEqual(ours, fresh);
        const { changes: left } = await backend.sync(signal);
        assert.equal(left, 0);
        backend.distrust();
        assert.equal((await backend.sync(signal)).changes, 0, "and a look finds nothing to do");
      }),
      { numRuns: 150 },
    );
  });
});

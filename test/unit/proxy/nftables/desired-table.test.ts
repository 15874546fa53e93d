import assert from "node:assert/strict";
import { describe, it } from "node:test";

import type { TableListing } from "../../../../src/netfilter/read-back.ts";
import { ruleTag } from "../../../../src/proxy/rule-tag.ts";
import { chainSignature } from "../../../../src/proxy/diff.ts";
import { hasDrifted } from "../../../../src/proxy/nftables/drift.ts";
import { DesiredTable } from "../../../../src/proxy/nftables/desired-table.ts";
import { serviceLayout } from "../../../../src/proxy/nftables/layout.ts";
import type { PlannedPort } from "../../../../src/proxy/plan.ts";
import { KernelModel } from "./kernel-model.ts";

const clock = { monotonic: () => 0 };
const layout = serviceLayout({
  family: "IPv4",
  local: { kind: "none" },
  nodePortIPs: undefined,
  localhostNodePorts: false,
  serviceCIDRs: [],
  mark: 0x4000,
  masqueradeAll: false,
});
const nothing = (): TableListing => ({ chains: new Map(), containers: new Map() });

function plan(id: number, change: Partial<PlannedPort> = {}): PlannedPort {
  const ip = `10.1.${id >> 8}.${id & 255}`;
  const cluster = [1, 2].map((which) => ({
    ip: `10.${2 + which}.${id >> 8}.${id & 255}`,
    port: 80,
  }));
  return {
    key: `ns/s${id}:p/tcp`,
    service: `ns/s${id}`,
    protocol: "tcp",
    clusterIP: ip,
    rank: `2026 ns/s${String(id).padStart(5, "0")}`,
    frontends: [{ ip, port: 80, verdict: "cluster", restricted: false }],
    cluster,
    local: [],
    serving: cluster,
    hairpin: [],
    affinitySeconds: 0,
    sourceRanges: [],
    ...change,
  };
}

function claimedBy(ip: string): Pick<PlannedPort, "frontends"> {
  return { frontends: [{ ip, port: 80, verdict: "cluster", restricted: false }] };
}

/** What a read-back of this kernel gives. */
function listingOf(kernel: KernelModel): TableListing {
  const hooks = new Map(layout.fixed.chains.map(({ name, hook }) => [name, hook]));
  return {
    chains: new Map(
      [...kernel.chains].map(([name, rules]) => [
        name,
        { hook: hooks.get(name), tags: rules.map(ruleTag) },
      ]),
    ),
    containers: new Map(
      [...kernel.containers].map(([name, elements]) => [
        name,
        {
          kind:
            name === "cluster-ips" || name === "hairpin" || name.startsWith("aff-") ? "set" : "map",
          elements: new Map(elements),
        },
      ]),
    ),
  };
}

describe("a table with many Services", () => {
  const count = 12_000;

  it("is made in several transactions, each with whole Services", async () => {
    const table = new DesiredTable(layout);
    for (let id = 0; id < count; id += 1) table.set(plan(id).key, plan(id));
    const kernel = new KernelModel();
    let transactions = 0;
    for await (const changes of table.transactions(clock, nothing())) {
      assert.ok(changes.size <= 15_000, `${changes.size} elements`);
      kernel.apply(changes.ops());
      transactions += 1;
      const dispatched = kernel.containers.get("svc")?.size ?? 0;
      assert.equal(kernel.containers.get("ep-c-tcp")?.size, 2 * dispatched);
      assert.equal(kernel.containers.get("cluster-ips")?.size, dispatched);
    }
    assert.ok(transactions >= 3, `${transactions}`);
    assert.equal(kernel.containers.get("svc")?.size, count);
  });

  it("hands an address over in one transaction, however much else changes", async () => {
    const table = new DesiredTable(layout);
    for (let id = 0; id < count; id += 1) table.set(plan(id).key, plan(id));
    const kernel = new KernelModel();
    await kernel.take(table, nothing());
    // The last one's address goes to the first; deletion comes last in order.
    const { clusterIP } = plan(count - 1);
    table.set(plan(count - 1).key, undefined);
    table.set(plan(0).key, plan(0, { clusterIP, ...claimedBy(clusterIP) }));
    for (let id = 1; id < count - 1; id += 1) {
      table.set(plan(id).key, plan(id, { cluster: plan(id + 20_000).cluster }));
    }
    assert.equal(await kernel.take(table), 1);
    assert.equal(kernel.containers.get("svc")?.size, count - 1);
  });

  it("changes a thousand Services without a word about the others", async () => {
    const table = new DesiredTable(layout);
    for (let id = 0; id < count; id += 1) table.set(plan(id).key, plan(id));
    const kernel = new KernelModel();
    await kernel.take(table, nothing());
    for (let id = 0; id < 1000; id += 1) {
      const [first, second] = plan(id + 20_000).cluster;
      assert.ok(first !== undefined && second !== undefined);
      table.set(plan(id).key, plan(id, { cluster: [first, second] }));
    }
    assert.equal(await kernel.take(table), 1);
    assert.equal(kernel.touched, 4000);
  });
});

describe("a table that is read back", () => {
  it("keeps the slots that endpoints have in the kernel", async () => {
    const before = new DesiredTable(layout);
    before.set(plan(1).key, plan(1, { cluster: plan(1).cluster.toReversed() }));
    const kernel = new KernelModel();
    await kernel.take(before, nothing());
    const after = new DesiredTable(layout);
    after.set(plan(1).key, plan(1));
    await kernel.take(after, listingOf(kernel));
    assert.equal(kernel.touched, 0);
  });

  it("mends what others did, and only that", async () => {
    const table = new DesiredTable(layout);
    for (let id = 0; id < 5; id += 1) table.set(plan(id).key, plan(id));
    const kernel = new KernelModel();
    await kernel.take(table, nothing());
    const right = kernel.contents();
    kernel.containers.get("svc")?.delete("10.1.0.1 . tcp . 80");
    kernel.containers.get("svc")?.set("10.1.9.9 . tcp . 80", "goto c2");
    kernel.chains.get("rej")?.push("accept");
    await kernel.take(table, listingOf(kernel));
    assert.equal(kernel.touched, 2);
    assert.deepEqual(kernel.contents(), right);
  });

  it("tells the work of others from its own that was under way", async () => {
    const table = new DesiredTable(layout);
    for (let id = 0; id < 5; id += 1) table.set(plan(id).key, plan(id));
    const kernel = new KernelModel();
    await kernel.take(table, nothing());
    const drifted = async (): Promise<boolean> => {
      const expectation = table.expectation();
      assert.ok(expectation !== undefined);
      return hasDrifted(listingOf(kernel), expectation, clock);
    };
    assert.equal(await drifted(), false);
    // As if half of what changes had reached the kernel.
    table.set(plan(1).key, undefined);
    table.set(plan(7).key, plan(7));
    kernel.containers.get("svc")?.delete("10.1.0.1 . tcp . 80");
    kernel.containers.get("svc")?.set("10.1.0.7 . tcp . 80", "goto c2");
    assert.equal(await drifted(), false);
    kernel.containers.get("svc")?.delete("10.1.0.2 . tcp . 80");
    assert.equal(await drifted(), true);
  });

  it("recognises chains by their hook and the tags of their rules", () => {
    assert.equal(chainSignature(undefined, ["a", "b"]), ";a,b");
  });
});

describe("what nobody uses any more", () => {
  it("stays as it is for a while, and is used again without being made again", async () => {
    const table = new DesiredTable(layout);
    const kernel = new KernelModel();
    table.set(plan(1).key, plan(1));
    await kernel.take(table, nothing());
    const one = plan(1, { cluster: plan(1).cluster.slice(0, 1) });
    table.set(one.key, one);
    await kernel.take(table);
    assert.deepEqual([...table.ledger.unused()], ["chain c2"]);
    assert.ok(kernel.chains.has("c2"));
    table.set(plan(1).key, plan(1));
    await kernel.take(table);
    assert.deepEqual([...table.ledger.unused()], ["chain c1"]);
    kernel.collect(table);
    assert.ok(!kernel.chains.has("c1"));
    assert.equal(table.ledger.hasUnused, false);
  });

  it("forgets clients when it comes back", async () => {
    const table = new DesiredTable(layout);
    const kernel = new KernelModel();
    const sticky = plan(1, { affinitySeconds: 60 });
    table.set(sticky.key, sticky);
    await kernel.take(table, nothing());
    const records = (): Map<string, string>[] =>
      [...kernel.containers].flatMap(([name, set]) => (name.startsWith("aff-") ? [set] : []));
    assert.equal(records().length, 2);
    for (const set of records()) set.set("10.9.9.9", "");
    table.set(sticky.key, plan(1));
    await kernel.take(table);
    table.set(sticky.key, sticky);
    await kernel.take(table);
    assert.deepEqual(
      records().map((set) => set.size),
      [0, 0],
    );
  });

  it("remembers the clients of endpoints that stay when another goes", async () => {
    const table = new DesiredTable(layout);
    const kernel = new KernelModel();
    const sticky = plan(1, { affinitySeconds: 60 });
    table.set(sticky.key, sticky);
    await kernel.take(table, nothing());
    const sizes = (): number[] =>
      [...kernel.containers].flatMap(([name, set]) => (name.startsWith("aff-") ? [set.size] : []));
    for (const [name, set] of kernel.containers) {
      if (name.startsWith("aff-")) set.set("10.9.9.9", "");
    }
    const one = { ...sticky, cluster: sticky.cluster.slice(1) };
    table.set(one.key, one);
    await kernel.take(table);
    assert.deepEqual(sizes(), [1, 1]);
    table.set(sticky.key, sticky);
    await kernel.take(table);
    assert.deepEqual(sizes(), [0, 1]);
  });
});

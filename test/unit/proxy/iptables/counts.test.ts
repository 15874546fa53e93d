import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { systemClock } from "../../../../src/lib/clock.ts";
import { silentLogger } from "../../../../src/lib/log.ts";
import type { ApplyResult } from "../../../../src/proxy/backend.ts";
import { parseCounters } from "../../../../src/proxy/iptables/apply.ts";
import { IptablesBackend } from "../../../../src/proxy/iptables/backend.ts";
import { FakeIptables } from "./restore-model.ts";
import { context, endpoint, plan } from "./samples.ts";

const signal = new AbortController().signal;

/** Rules in chains of ours, by table. */
function inKernel(fake: FakeIptables, table: "filter" | "nat"): number {
  return [...(fake.tables.get(table) ?? [])]
    .filter(([name]) => name.startsWith("KUBE-"))
    .reduce((sum, [, rules]) => sum + rules.length, 0);
}

describe("rules of iptables", () => {
  it("are counted as they are in the kernel, whatever was changed", async () => {
    const fake = new FakeIptables();
    const backend = new IptablesBackend({
      context,
      logger: silentLogger,
      clock: systemClock,
      host: fake.host(),
    });
    const sync = async (): Promise<NonNullable<ApplyResult["rules"]>> => {
      const { rules } = await backend.sync(signal);
      assert.ok(rules !== undefined);
      for (const table of ["filter", "nat"] as const) {
        assert.equal(rules.get(table)?.total, inKernel(fake, table), table);
      }
      return rules;
    };
    const first = await sync();
    assert.equal(first.get("filter")?.written, (first.get("filter")?.total ?? 0) + jumpsOf(fake));
    backend.set("a", plan({ key: "a" }, [endpoint("10.0.0.1"), endpoint("10.0.0.2")]));
    const added = await sync();
    // Its dispatch, and two rules for each endpoint and in its chain, which begins with one for new sources.
    assert.equal((added.get("nat")?.total ?? 0) - (first.get("nat")?.total ?? 0), 8);
    assert.equal(added.get("nat")?.written, 8);
    assert.equal(added.get("filter")?.written, 0);
    backend.set("a", plan({ key: "a" }, []));
    const refused = await sync();
    assert.equal(refused.get("filter")?.written, 1);
    const second = { key: "b", service: "ns/b", clusterIP: "10.96.0.11", affinitySeconds: 60 };
    backend.setContext({ ...context, masqueradeAll: true });
    backend.set("b", plan(second, [endpoint("10.0.0.3")]));
    await sync();
    backend.set("a", undefined);
    backend.distrust();
    const last = await sync();
    backend.set("b", undefined);
    assert.ok(((await sync()).get("nat")?.total ?? 0) < (last.get("nat")?.total ?? 0));
  });

  it("say how many packets met them", () => {
    const text = [
      "-N KUBE-FORWARD",
      '-A KUBE-FORWARD -m conntrack --ctstate INVALID -m comment --comment "a -c 1 2" -c 12 720 -j DROP',
      "-A KUBE-FORWARD -c 3 180",
      "",
    ].join("\n");
    assert.deepEqual(
      parseCounters(text).map(({ packets }) => packets),
      [12, 3],
    );
  });
});

function jumpsOf(fake: FakeIptables): number {
  return [...(fake.tables.get("filter") ?? [])]
    .filter(([name]) => !name.startsWith("KUBE-"))
    .reduce((sum, [, rules]) => sum + rules.filter((rule) => rule.includes("KUBE-")).length, 0);
}

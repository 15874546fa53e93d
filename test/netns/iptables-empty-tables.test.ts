import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { cleanUpIptables } from "../../src/proxy/iptables/cleanup.ts";
import { insideOwnNamespace, sh } from "./namespace.ts";

const { signal } = new AbortController();
const tables = ["filter", "nat", "mangle"];

/** What a proxy of mode iptables leaves when all its rules are taken out one by one. */
async function useAllTables(): Promise<void> {
  for (const program of ["iptables-nft", "ip6tables-nft"]) {
    for (const table of tables) {
      await sh(program, "-t", table, "-N", "KUBE-SERVICES");
      await sh(program, "-t", table, "-A", "OUTPUT", "-j", "KUBE-SERVICES");
    }
  }
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("tables that iptables made for our rules", { concurrency: false }, () => {
    it("go with the last rule", async () => {
      await useAllTables();
      assert.equal(await cleanUpIptables(signal), true);
      assert.equal((await sh("nft", "list", "ruleset")).trim(), "");
      assert.equal(await cleanUpIptables(signal), false);
    });

    it("go when our rules went before, but not chains beside the rules of others", async () => {
      await sh("iptables-nft", "-t", "nat", "-L");
      await sh("iptables-nft", "-A", "INPUT", "-s", "192.0.2.1", "-j", "ACCEPT");
      await sh("iptables-nft", "-A", "FORWARD", "-j", "DROP");
      await sh("iptables-nft", "-D", "FORWARD", "-j", "DROP");
      const before = await sh("nft", "list", "table", "ip", "filter");
      assert.match(before, /chain FORWARD/);
      assert.equal(await cleanUpIptables(signal), false);
      assert.equal((await sh("nft", "list", "tables")).trim(), "table ip filter");
      assert.equal(await sh("nft", "list", "table", "ip", "filter"), before);
      await sh("nft", "delete", "table", "ip", "filter");
    });

    it("stay with whatever else is in them: a policy, a rule, a chain, a set", async () => {
      await useAllTables();
      await sh("iptables-nft", "-P", "FORWARD", "DROP");
      await sh("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "192.0.2.1", "-j", "ACCEPT");
      await sh("iptables-nft", "-t", "mangle", "-N", "MINE");
      await sh("nft", "add set ip6 nat mine { type ipv6_addr; }");
      await cleanUpIptables(signal);
      const left = await sh("nft", "list", "tables");
      assert.deepEqual(left.trim().split("\n").toSorted(), [
        "table ip filter",
        "table ip mangle",
        "table ip nat",
        "table ip6 nat",
      ]);
      const chains = [...(await sh("nft", "list", "ruleset")).matchAll(/chain (\w+)/g)];
      assert.deepEqual(chains.map(([, name = ""]) => name).toSorted(), [
        "FORWARD",
        "MINE",
        "POSTROUTING",
      ]);
    });
  });
}

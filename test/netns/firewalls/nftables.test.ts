import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { insideOwnNamespace, inventory, sh } from "../namespace.ts";
import { obey, Stage, ways } from "./stage.ts";

/** The example of many guides: everything dropped that is not named. */
const strict = `table inet firewall {
  set ports { type inet_service; elements = { 22, 80 }; }
  chain input {
    type filter hook input priority 0; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname "lo" accept
    meta l4proto { icmp, ipv6-icmp } accept
    tcp dport @ports accept
    limit rate 10/minute log prefix "dropped: "
  }
  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state established,related accept
    jump others
  }
  chain others {
    iifname "wg*" accept
    meta nfproto { ipv4, ipv6 } counter reject with icmpx admin-prohibited
  }
}`;

async function load(): Promise<void> {
  await sh("sh", "-c", `echo '${strict}' | nft -f -`);
}

if (insideOwnNamespace(import.meta.filename)) {
  describe("beside a firewall of nftables", { concurrency: false }, () => {
    let stage: Stage;
    let untouched = "";

    before(async () => {
      await load();
      untouched = await inventory();
      stage = await Stage.start();
    });

    after(() => stage.stop());

    it("what it drops is told with the chain, the rule and what to add; after that everything passes", async () => {
      assert.deepEqual(
        await stage.blocked(),
        ways.filter((way) => way !== "node to pod"),
      );
      const { problems } = stage.network;
      assert.deepEqual(
        problems.map((problem) => problem.replace(/ Allow them there: .*/, "")),
        [
          "pods cannot resolve names, pods cannot reach the API server, no kubectl logs: nftables drops the packets in table inet firewall, chain input (its policy is drop).",
          "pods of this node cannot reach each other, pods cannot reach other networks, host ports and node ports cannot be reached from outside, pods of other nodes cannot reach pods of this one: nftables drops the packets in table inet firewall, chain forward (its rule: meta nfproto { ipv4, ipv6 } counter reject with icmpx admin-prohibited).",
        ],
      );
      await obey(problems);
      assert.deepEqual(await stage.blocked(), []);
      await stage.ensure();
      assert.deepEqual(stage.network.problems, []);
    });

    it("`nft flush ruleset` and the firewall loaded anew: ours is back at the next look, and told again", async () => {
      await sh("nft", "flush", "ruleset");
      await load();
      await stage.repair();
      assert.deepEqual(
        await stage.blocked(),
        ways.filter((way) => way !== "node to pod"),
      );
      assert.equal(stage.network.problems.length, 2);
      await sh("nft", "flush", "ruleset");
      await stage.repair();
      assert.deepEqual(await stage.blocked(), []);
      assert.deepEqual(stage.network.problems, []);
    });

    it("chains of its own in iptables' table, which iptables does not show, are found as well", async () => {
      const chain =
        "chain own { type filter hook forward priority 0; policy drop; tcp dport 22 accept; }";
      await sh("sh", "-c", `printf 'table ip filter {\\n${chain}\\n}\\n' | nft -f -`);
      await stage.ensure();
      assert.equal(stage.network.problems.length, 1, stage.network.problems.join("\n"));
      assert.match(stage.network.problems[0] ?? "", /in table ip filter, chain own \(its policy/);
      await obey(stage.network.problems);
      await stage.ensure();
      assert.deepEqual(stage.network.problems, []);
      assert.deepEqual(await stage.blocked(), []);
      await sh("nft", "delete", "chain", "ip", "filter", "own");
    });

    it("is left as it was", async () => {
      await load();
      await stage.network.cleanUp(new AbortController().signal);
      await sh("nft", "delete", "table", "ip", "remora-proxy");
      await sh("nft", "delete", "table", "ip6", "remora-proxy");
      const rules = (text: string): string => text.slice(0, text.indexOf("1: lo"));
      assert.equal(rules(await inventory()), rules(untouched));
    });
  });
}

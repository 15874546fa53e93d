import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { insideOwnNamespace, inventory, sh } from "../namespace.ts";
import { obey, ofTheMachine, Stage } from "./stage.ts";

/** A host firewall as people write it, with the kind of iptables that `suffix` names. */
async function strict(suffix: "-nft" | "-legacy"): Promise<void> {
  for (const [program, icmp] of [
    [`iptables${suffix}`, "icmp"],
    [`ip6tables${suffix}`, "ipv6-icmp"],
  ] as const) {
    await sh(program, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT");
    const known = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".split(" ");
    await sh(program, "-A", "INPUT", ...known);
    await sh(program, "-A", "INPUT", "-p", icmp, "-j", "ACCEPT");
    await sh(program, "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT");
    await sh(program, "-P", "INPUT", "DROP");
    await sh(program, "-P", "FORWARD", "DROP");
  }
}

if (insideOwnNamespace(import.meta.filename)) {
  for (const suffix of ["-nft", "-legacy"] as const) {
    describe(
      `beside a firewall of iptables${suffix}, policies DROP`,
      { concurrency: false },
      () => {
        let stage: Stage;
        let untouched = "";

        before(async () => {
          await strict(suffix);
          untouched = await inventory();
          stage = await Stage.start();
        });

        after(async () => {
          await stage.stop();
          await sh("nft", "flush", "ruleset");
        });

        it("everything of the cluster passes, and what the machine itself answers is told with the remedy", async () => {
          assert.deepEqual(await stage.blocked(), ofTheMachine);
          const { problems } = stage.network;
          assert.equal(problems.length, 2, problems.join("\n"));
          assert.match(
            problems[0] ?? "",
            /^pods cannot reach the API server, no kubectl logs: iptables drops/,
          );
          await obey(problems);
          assert.deepEqual(await stage.blocked(), []);
          await stage.ensure();
          assert.deepEqual(stage.network.problems, []);
        });

        it("a firewall that is loaded anew gets our rules back at the next look", async () => {
          for (const program of [`iptables${suffix}`, `ip6tables${suffix}`]) {
            for (const chain of ["FORWARD", "INPUT"]) await sh(program, "-F", chain);
          }
          await strict(suffix);
          assert.notDeepEqual(await stage.blocked(), ofTheMachine);
          await stage.ensure();
          assert.deepEqual(await stage.blocked(), ofTheMachine);
        });

        it("leaves it as it was", async () => {
          await stage.network.cleanUp(new AbortController().signal);
          await sh("nft", "delete", "table", "ip", "remora-proxy");
          await sh("nft", "delete", "table", "ip6", "remora-proxy");
          const left = await inventory();
          assert.doesNotMatch(left, /REMORA|remora/);
          assert.ok(untouched.length > 0);
        });
      },
    );
  }
}

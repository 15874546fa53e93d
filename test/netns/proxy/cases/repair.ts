import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";

import { sh } from "../../namespace.ts";
import type { Addresses } from "../addresses.ts";
import { addForeignSet } from "../foreign-set.ts";
import type { Subject } from "../packet-case.ts";
import { type World, eventually } from "../world.ts";
import { assertNames } from "./expect.ts";
import { openAll, sayAll } from "./flows.ts";

/** Longer than the proxy takes deletions for its own after it wrote. */
const ownMs = 2500;

/** The rules without what changes by itself, elements that time out and counters. With handles: what was rewritten differs. */
async function lasting(world: World, at: Addresses, handles = false): Promise<string> {
  if (world.mode === "nftables") {
    const ip = at.suffix === "v4" ? "ip" : "ip6";
    const options = handles ? "-sa" : "-s";
    const listing = await sh("nft", options, "list", "table", ip, "remora-proxy");
    return listing.replaceAll(/expires \S+/g, "");
  }
  const saved = await world.rules(at);
  const lines = saved.split("\n").filter((line) => line.includes("KUBE-"));
  return lines.map((line) => line.replace(/\[\d+:\d+\]/, "")).join("\n");
}

/** What others do to the rules, and what fails while they are written. */
export function repairCases({ world, mode, at, packet }: Subject): void {
  const four = at.suffix === "v4";
  const ip = four ? "ip" : "ip6";
  const iptables = four ? "iptables" : "ip6tables";
  type Command = readonly [string, ...string[]];
  const flushes: readonly Command[] =
    mode === "nftables"
      ? [
          ["nft", "delete", "table", ip, "remora-proxy"],
          ["nft", "flush", "ruleset"],
        ]
      : [
          [iptables, "-t", "nat", "-F"],
          [iptables, "-t", "filter", "-F"],
          ["nft", "flush", "ruleset"],
        ];
  for (const flush of flushes) {
    packet(60, `after \`${flush.join(" ")}\` the Services are back within 2 s`, async (stage) => {
      const service = await stage.served({ type: "NodePort", ports: ["t", "e"], targets: ["a"] });
      const empty = await stage.served();
      const { node } = stage.peers;
      const talks = await openAll(stage, service);
      await delay(ownMs);
      stage.atEnd(() => world.topology.restoreNetwork());
      await sh(...flush);
      const back = async (): Promise<boolean> => {
        const [served = ""] = await node.ask("tcp", service.at(), { timeoutMs: 100 });
        const [refused = ""] = await node.ask("tcp", empty.at(), { timeoutMs: 100 });
        return served.startsWith("a ") && refused === "ECONNREFUSED";
      };
      await eventually(back, "the Service answers");
      await world.topology.restoreNetwork();
      await sayAll(talks, "still here");
      assertNames(await stage.peers.client.ask("tcp", service.atNode(), { count: 3 }), "a");
    });
  }

  packet(60, "a single rule or chain that somebody takes away is back", async (stage) => {
    await stage.served({ type: "NodePort", targets: ["a", "b"] });
    await delay(ownMs);
    const whole = await lasting(world, at);
    const damages: Command[] = [];
    if (mode === "nftables") {
      const chains = [...whole.matchAll(/chain (\S+) \{\s+([^\n]*)/g)];
      const postrouting = chains.find(([, , first]) => first?.includes("hook postrouting"));
      const plain = chains.find(
        ([, name, first]) => first?.includes("dnat") === true && name !== undefined,
      );
      for (const found of [postrouting, plain]) {
        assert.ok(found?.[1] !== undefined);
        damages.push(["nft", "flush", "chain", ip, "remora-proxy", found[1]]);
      }
      const listing = await sh("nft", "-a", "list", "table", ip, "remora-proxy");
      const rule = /chain (\S+) \{[^}]*type nat hook prerouting[^}]*?# handle (\d+)\n\s*\}/.exec(
        listing,
      );
      const [, chain, handle] = rule ?? [];
      assert.ok(chain !== undefined && handle !== undefined, listing);
      damages.push(["nft", "delete", "rule", ip, "remora-proxy", chain, "handle", handle]);
    } else {
      damages.push(
        [iptables, "-t", "nat", "-D", "PREROUTING", "1"],
        [iptables, "-t", "nat", "-F", "KUBE-SERVICES"],
        [iptables, "-t", "filter", "-F", "KUBE-FORWARD"],
      );
    }
    for (const damage of damages) {
      await sh(...damage);
      await eventually(async () => (await lasting(world, at)) === whole, damage.join(" "), {
        seconds: 5,
      });
      await delay(ownMs);
    }
  });

  packet(60, "endpoints that come and go are nobody's damage", async (stage) => {
    const name = "remora_proxy_drift_repairs_total";
    const service = await stage.served({ targets: ["a"] });
    const before = await world.metric(name, at);
    const pods = ["a", "b", "c", "remote"] as const;
    for (const count of [4, 3, 4, 3, 1, 4, 0, 3, 4]) {
      service.setTargets(...pods.slice(0, count));
      // Longer than own deletions are remembered, in the middle.
      await delay(count === 1 ? ownMs : 100);
    }
    await stage.settled();
    await delay(1500);
    assert.equal(await world.metric(name, at), before);
  });

  packet(
    61,
    "a foreign table with a set of a type that is not known yet does no harm",
    async (stage) => {
      const table = `foreign-${at.suffix}`;
      await addForeignSet(ip, table);
      stage.atEnd(() => sh("nft", "delete", "table", ip, table));
      const service = await stage.served({ targets: ["a"] });
      const { c } = stage.peers;
      assertNames(await c.ask("tcp", service.at(), { count: 3 }), "a");
      await world.restart();
      service.setTargets("b");
      await stage.settled();
      assertNames(await c.ask("tcp", service.at(), { count: 3 }), "b");
    },
  );

  packet(62, "a write that fails once is repeated; healthz stays 200", async (stage) => {
    const service = await stage.served({ targets: ["a"] });
    const statuses = new Set<number>();
    const asking = new AbortController();
    const health = (async () => {
      while (!asking.signal.aborted) {
        const answer = await fetch("http://127.0.0.1:10256/healthz");
        await answer.arrayBuffer();
        statuses.add(answer.status);
        await delay(20);
      }
    })();
    stage.atEnd(() => world.topology.breakPrograms(0));
    await world.topology.breakPrograms(2);
    service.setTargets("b");
    await stage.settled();
    assertNames(await stage.peers.c.ask("tcp", service.at(), { count: 5 }), "b");
    assert.equal(await world.topology.failuresLeft(), 0, "nothing failed");
    asking.abort();
    await health;
    assert.deepEqual([...statuses], [200]);
    const failures =
      mode === "nftables"
        ? "kubeproxy_sync_proxy_rules_nftables_sync_failures_total"
        : "kubeproxy_sync_proxy_rules_iptables_restore_failures_total";
    const line = new RegExp(`^${failures}\\{.*\\} ([1-9]\\d*)$`, "m");
    assert.match(await world.metrics(), line);
  });

  packet(
    46,
    "connections and affinity survive restarts; a restart changes no rule",
    async (stage) => {
      const service = await stage.served({ type: "NodePort", ports: ["t", "e"], targets: ["a"] });
      const talks = await openAll(stage, service);
      // What is not used any more goes a second after the last change.
      await delay(2000);
      const before = await lasting(world, at, true);
      await world.stop();
      assert.equal(await lasting(world, at, true), before, "rules stay when the proxy ends");
      assertNames(await stage.peers.c.ask("tcp", service.at(), { count: 3 }), "a");
      world.launch();
      await eventually(async () => {
        const answer = await fetch("http://127.0.0.1:10256/healthz").catch(() => undefined);
        if (answer?.status !== 200) return false;
        const { status } = (await answer.json()) as { status: object };
        return Object.keys(status).length === 2;
      }, "both families were written");
      assert.equal(await lasting(world, at, true), before);
      await sayAll(talks, "after the restart");
      await stage.settled();
    },
  );

  packet(
    41,
    "a UDP flow whose endpoint went while the agent was down follows after the start",
    async (stage) => {
      const service = await stage.served({ targets: ["a", "b"] });
      const { c } = stage.peers;
      const localPort = stage.flowPort();
      const [first = ""] = await c.ask("udp", service.at("u"), { localPort });
      const stays = first.startsWith("a ") ? "b" : "a";
      await world.stop();
      service.setTargets(stays);
      const [same = ""] = await c.ask("udp", service.at("u"), { localPort });
      assert.equal(same, first);
      await world.start();
      await eventually(async () => {
        const [answer = ""] = await c.ask("udp", service.at("u"), { localPort, timeoutMs: 150 });
        return answer.startsWith(`${stays} `);
      }, "the flow follows");
    },
  );
}

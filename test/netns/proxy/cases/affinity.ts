import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";

import type { ServiceSpec } from "../../../../src/api/types.gen.ts";
import type { Subject } from "../packet-case.ts";
import { assertNames, names } from "./expect.ts";

function sticky(timeoutSeconds = 600): ServiceSpec {
  return {
    sessionAffinity: "ClientIP",
    sessionAffinityConfig: { clientIP: { timeoutSeconds } },
  };
}

/** The names of the answers, one for each. */
function who(answers: readonly string[]): readonly string[] {
  return answers.map((answer) => answer.split(" ")[0] ?? "");
}

/** Session affinity by client address. */
export function affinityCases({ mode, packet }: Subject): void {
  packet(32, "50 connections of one client go to one endpoint", async (stage) => {
    const service = await stage.served({
      type: "NodePort",
      targets: ["a", "b", "remote"],
      spec: sticky(),
    });
    const { c, client } = stage.peers;
    for (const [peer, to] of [
      [c, service.at()],
      [client, service.atNode()],
    ] as const) {
      assert.equal(names(await peer.ask("tcp", to, { count: 50, parallel: 1 })).length, 1);
    }
    const udp = await c.ask("udp", service.at("u"), { count: 30 });
    assert.equal(names(udp).length, 1);
    // Different clients are spread all the same.
    const many = await client.ask("tcp", service.at(), { from: stage.clients(40) });
    assertNames(many, "a", "b", "remote");
  });

  packet(33, "affinity ends with its time-out", async (stage) => {
    const service = await stage.served({ targets: ["a", "b"], spec: sticky(2) });
    const from = stage.clients(20);
    const { client } = stage.peers;
    const first = who(await client.ask("tcp", service.at(), { from }));
    assert.deepEqual(who(await client.ask("tcp", service.at(), { from })), first);
    await delay(3200);
    assert.notDeepEqual(who(await client.ask("tcp", service.at(), { from })), first);
  });

  packet(34, "a new connection starts the time-out again", async (stage) => {
    const service = await stage.served({ targets: ["a", "b"], spec: sticky(3) });
    const from = stage.clients(20);
    const { client } = stage.peers;
    const first = who(await client.ask("tcp", service.at(), { from }));
    for (let turn = 0; turn < 2; turn += 1) {
      await delay(2000);
      assert.deepEqual(who(await client.ask("tcp", service.at(), { from })), first);
    }
  });

  packet(35, "when its endpoint goes a client is served elsewhere at once", async (stage) => {
    const service = await stage.served({ targets: ["a", "b"], spec: sticky() });
    const from = stage.clients(12);
    const { client } = stage.peers;
    assertNames(await client.ask("tcp", service.at(), { from }), "a", "b");
    service.setTargets("b");
    await stage.settled();
    assertNames(await client.ask("tcp", service.at(), { from }), "b");
    // Nobody remembers the endpoint when it comes back: the clients are those of the other one now.
    service.setTargets("a", "b");
    await stage.settled();
    assertNames(await client.ask("tcp", service.at(), { from }), "b");
  });

  packet(
    35,
    "clients of endpoints that stay are not moved when others come and go",
    async (stage) => {
      const service = await stage.served({ targets: ["a", "b"], spec: sticky() });
      const from = stage.clients(16);
      const { client } = stage.peers;
      const first = who(await client.ask("tcp", service.at(), { from }));
      for (const targets of [
        ["a", "b", "c"],
        ["remote", "a", "b"],
        ["a", "b"],
      ] as const) {
        service.setTargets(...targets);
        await stage.settled();
        assert.deepEqual(who(await client.ask("tcp", service.at(), { from })), first);
      }
      service.setTargets("b");
      await stage.settled();
      const stayed = from.filter((_, index) => first[index] === "b");
      assertNames(await client.ask("tcp", service.at(), { from: stayed }), "b");
      service.setTargets("a", "b");
      await stage.settled();
      assertNames(await client.ask("tcp", service.at(), { from: stayed }), "b");
    },
  );

  packet(36, "the ClusterIP and the node port of one port share affinity", async (stage) => {
    const service = await stage.served({
      type: "LoadBalancer",
      external: true,
      targets: ["a", "b"],
      spec: sticky(),
    });
    const from = stage.clients(20);
    const { client } = stage.peers;
    const first = who(await client.ask("tcp", service.at(), { from }));
    assert.equal(new Set(first).size, 2);
    for (const to of [service.atNode(), service.atExternal(), service.atLoadBalancer()]) {
      assert.deepEqual(who(await client.ask("tcp", to, { from })), first);
    }
  });

  packet(37, "two ports of one Service do not share affinity", async (stage) => {
    const service = await stage.served({
      targets: ["a", "b"],
      ports: ["t", "x"],
      spec: sticky(),
    });
    const from = stage.clients(20);
    const { client } = stage.peers;
    const first = who(await client.ask("tcp", service.at("t"), { from }));
    const second = who(await client.ask("tcp", service.at("x"), { from }));
    assert.notDeepEqual(second, first);
    assert.deepEqual(who(await client.ask("tcp", service.at("t"), { from })), first);
    assert.deepEqual(who(await client.ask("tcp", service.at("x"), { from })), second);
  });

  const limit =
    mode === "nftables"
      ? "300 clients keep their endpoints"
      : "of 300 clients each endpoint keeps the last hundred: more the kernel's list does not hold";
  packet(38, limit, async (stage) => {
    const service = await stage.served({ targets: ["a", "b"], spec: sticky() });
    const from = stage.clients(300);
    const { client } = stage.peers;
    const first = who(await client.ask("tcp", service.at(), { from }));
    assert.equal(new Set(first).size, 2);
    if (mode === "nftables") {
      assert.deepEqual(who(await client.ask("tcp", service.at(), { from })), first);
      return;
    }
    for (const name of ["a", "b"]) {
      const kept = from.filter((_, index) => first[index] === name).slice(-100);
      assertNames(await client.ask("tcp", service.at(), { from: kept }), name === "a" ? "a" : "b");
    }
  });

  packet(32, "externalTrafficPolicy Local: affinity among local endpoints", async (stage) => {
    const service = await stage.served({
      type: "NodePort",
      targets: ["a", "b", "remote"],
      spec: { ...sticky(), externalTrafficPolicy: "Local" },
    });
    const from = stage.clients(20);
    const { client } = stage.peers;
    const first = who(await client.ask("tcp", service.atNode(), { from }));
    assert.deepEqual([...new Set(first)].toSorted(), ["a", "b"]);
    assert.deepEqual(who(await client.ask("tcp", service.atNode(), { from })), first);
  });
}

/** What needs the proxy to end in between. */
export function affinityRestartCases({ world, packet }: Subject): void {
  packet(40, "a restart of the agent keeps who goes where", async (stage) => {
    const service = await stage.served({ targets: ["a", "b"], spec: sticky() });
    const from = stage.clients(20);
    const { client } = stage.peers;
    const first = who(await client.ask("tcp", service.at(), { from }));
    await world.restart();
    assert.deepEqual(who(await client.ask("tcp", service.at(), { from })), first);
  });
}
